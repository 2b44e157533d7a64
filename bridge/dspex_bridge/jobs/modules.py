"""The bridge's side of a module that runs in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_bridge.programs import bundles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.messages import Notification

    from dspex_bridge.logs import Log
    from dspex_bridge.programs.spec import ProgramSpec

    from .pool import Jobs

__all__ = ["run_in_job"]


async def run_in_job(
    spec: ProgramSpec,
    inputs: dict[str, Any],
    lm: dict[str, Any],
    handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]],
    *,
    jobs: Jobs,
    log: Log,
    request: int,
    adapter: str,
) -> dict[str, Any]:
    """The outputs of one run, in their wire form. What it logs is logged as `request`'s."""

    def hear(notification: Notification) -> None:
        if notification.method == "log":
            log.write(**notification.params, request=request)

    params = {
        "state": bundles.dump(spec),
        "inputs": inputs,
        "lm": lm,
        "adapter": adapter,
        "log_level": log.level,
    }
    outputs: dict[str, Any] = await jobs.run("module", params, handlers=handlers, listener=hear)
    return outputs
