"""Runs of one program for one request: what execute, batch and evaluate share."""

from __future__ import annotations

import time
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.metering import Meter
    from dspex_bridge.engine.runs import Run
    from dspex_bridge.host import Host
    from dspex_bridge.programs.registry import Program
    from dspex_bridge.streams import ChunkStream

__all__ = ["ProgramRuns", "spent"]


class ProgramRuns:
    """A program with the LM, the adapter and the config that a request runs it with.

    `meter` counts the LM calls of all its runs, those that fail and those still going included.
    """

    def __init__(self, host: Host, call: Call, params: Mapping[str, Any]) -> None:
        """Finds the program and the LM: in the order of the requests. Raises NotFoundError, and
        what an inline program's map raises."""
        programs, which = host.require_programs(), params["program"]
        self.program = programs.get(which) if isinstance(which, str) else programs.inline(which)
        self.engine = host.require_engine()
        self.meter = self.engine.meter()
        spec, lm = self.program.spec, params.get("lm")
        self.lm = self.engine.lm(spec.lm if lm is None else lm)
        self._adapter = params.get("adapter") or spec.adapter
        self._config = {**spec.config, **(params.get("config") or {})}
        self._call_tool = partial(_ask_tool, host, call, self.program)

    def prepare(
        self,
        inputs: Mapping[str, Any],
        *,
        is_recorded: bool = False,
        chunks: ChunkStream | None = None,
        fields: Collection[str] = (),
    ) -> Run:
        """A run, ready to start. Raises InputValidationError: before any LM is called."""
        return self.engine.run(
            self.program.module,
            self.program.inputs.convert(inputs),
            lm=self.lm,
            adapter=self._adapter,
            config=self._config,
            call_tool=self._call_tool,
            whole=self.meter,
            is_recorded=is_recorded,
            chunks=chunks,
            fields=fields,
        )

    async def outputs(self, run: Run) -> dict[str, Any]:
        """Runs it. The outputs converted and judged, those of the module included."""
        program = self.program
        program.executions += 1
        try:
            return program.converted(await run.prediction())
        except BaseException:
            program.errors += 1
            raise

    def answer(self, run: Run, outputs: dict[str, Any], since: float) -> dict[str, Any]:
        """The result of an execute that began at `since`, in time.monotonic()."""
        return {
            "outputs": outputs,
            "program": self.program.id,
            "lm": run.lm.name,
            **spent(run.meter),
            "duration_ms": round((time.monotonic() - since) * 1000, 3),
            "cached": run.meter.is_cached,
        }


def spent(meter: Meter) -> dict[str, Any]:
    """What was used and paid, in a result or the data of an error."""
    return {"usage": meter.usage(), "cost_usd": meter.cost_usd}


async def _ask_tool(
    host: Host, call: Call, program: Program, tool: str, arguments: dict[str, Any]
) -> Any:
    params = {
        "program": program.id,
        "request": call.request.id,
        "tool": tool,
        "args": arguments,
        "meta": call.meta,
    }
    return await host.callbacks.request("call_tool", params)
