"""The bridge's side of a module that runs in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_bridge.programs import bundles

from .output import hear_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.messages import Notification

    from dspex_bridge.logs import Log
    from dspex_bridge.programs.spec import ProgramSpec

    from .pool import Jobs

__all__ = ["run_in_job"]


async def run_in_job(
    jobs: Jobs,
    log: Log,
    params: Mapping[str, Any],
    *,
    spec: ProgramSpec,
    handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]],
    request: int,
) -> dict[str, Any]:
    """The outputs of one run, in their wire form; `params` are `{inputs, lm, adapter}` of the job.
    What it logs is logged as `request`'s."""

    def hear(told: Notification) -> None:
        if told.method == "log":
            hear_log(log, told, request)

    outputs: dict[str, Any] = await jobs.run(
        "module", {"state": bundles.dump(spec), **params}, handlers=handlers, listener=hear
    )
    return outputs
