"""The client's tools and metrics, as the runs of one request ask for them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host
    from dspex_bridge.programs.spec import ProgramSpec

__all__ = ["CallClient"]


class CallClient:
    """The way from a run of a program to the code of the client that sent the request."""

    def __init__(self, host: Host, call: Call, program: str) -> None:
        self._host = host
        self._call = call
        self._program = program

    @property
    def request_id(self) -> int:
        return self._call.request.id

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """The tool's answer. Raises the error that the client answered with."""
        params = {
            "program": self._program,
            "request": self._call.request.id,
            "tool": name,
            "args": arguments,
            "meta": self._call.meta,
        }
        return await self._host.callbacks.request("call_tool", params)

    async def run_job(
        self,
        spec: ProgramSpec,
        inputs: dict[str, Any],
        lm: dict[str, Any],
        handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]],
        adapter: str,
    ) -> dict[str, Any]:
        """The outputs of a module that runs in a job, in their wire form."""
        from dspex_bridge.jobs.modules import run_in_job

        return await run_in_job(
            self._host.jobs,
            self._host.log,
            {"lm": lm, "adapter": adapter, "inputs": inputs},
            spec=spec,
            handlers=handlers,
            request=self.request_id,
        )

    async def call_metric(
        self,
        name: str,
        example: Mapping[str, Any],
        prediction: Mapping[str, Any],
        trace: list[Any] | None,
    ) -> Any:
        """The metric's answer. Raises the error that the client answered with."""
        params = {
            "request": self._call.request.id,
            "metric": name,
            "example": dict(example),
            "prediction": dict(prediction),
            **({} if trace is None else {"trace": trace}),
            "meta": self._call.meta,
        }
        return await self._host.callbacks.request("call_metric", params)
