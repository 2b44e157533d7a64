"""Runs of one program for one request: what execute, batch and evaluate share."""

from __future__ import annotations

import time

from dspex_bridge.limits import limits_of

from .call_client import CallClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.lms import LM
    from dspex_bridge.engine.metering import Meter
    from dspex_bridge.engine.runs import Run
    from dspex_bridge.host import Host
    from dspex_bridge.programs.registry import Program
    from dspex_bridge.streams import ChunkStream

__all__ = ["ProgramRuns", "output_names", "spent"]


class ProgramRuns:
    """A program with the LM, the adapter and the config that a request runs it with.

    `meter` counts the LM calls of all its runs, those that fail and those still going included.
    """

    def __init__(
        self,
        host: Host,
        call: Call,
        program: Program,
        *,
        lm: LM,
        adapter: str | None = None,
        config: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`adapter` and `config` go before the program's own."""
        self.engine = host.require_engine()
        self.program = program
        self.lm = lm
        self.meter = meter or self.engine.meter()
        self._host = host
        self._call = call
        self.adapter = adapter or program.spec.adapter
        self._config = {**program.spec.config, **(config or {})}
        self.client = CallClient(host, call, program.id)

    @classmethod
    def of_request(cls, host: Host, call: Call, params: Mapping[str, Any]) -> ProgramRuns:
        """Finds the program and the LM: in the order of the requests. Raises NotFoundError, and
        what an inline program's map raises."""
        programs, which, lm = host.require_programs(), params["program"], params.get("lm")
        program = programs.get(which) if isinstance(which, str) else programs.inline(which)
        engine = host.require_engine()
        found = engine.lm(program.spec.lm if lm is None else lm)
        limits = [*limits_of("call", params), *program.limits]
        found.require_price(limits)
        return cls(
            host,
            call,
            program,
            lm=found,
            adapter=params.get("adapter"),
            config=params.get("config"),
            meter=engine.meter(limits),
        )

    def judging(self, program: Program) -> ProgramRuns:
        """Runs of a program that judges these: with its own LM, else with theirs, and paid for
        together."""
        own = program.spec.lm
        lm = self.lm if own is None else self.engine.lm(own)
        return ProgramRuns(self._host, self._call, program, lm=lm, meter=self.meter)

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
            adapter=self.adapter,
            config=self._config,
            client=self.client,
            whole=self.meter,
            is_recorded=is_recorded,
            chunks=chunks,
            fields=fields,
        )

    def outside(self) -> Run:
        """The settings of these runs for what belongs to none of them: the calls of a job."""
        return self.engine.run(
            self.program.module,
            {},
            lm=self.lm,
            adapter=self.adapter,
            config={},
            client=self.client,
            whole=self.meter,
        )

    async def outputs(self, run: Run) -> dict[str, Any]:
        """Runs it. The outputs converted and judged, those of the module included."""
        program = self.program
        program.executions += 1
        try:
            with self._traced(run):
                return program.converted(await run.prediction())
        except BaseException:
            program.errors += 1
            raise

    def _traced(self, run: Run) -> AbstractContextManager[None]:
        from contextlib import nullcontext

        tracing, program = self.engine.tracing, self.program
        if tracing is None:
            return nullcontext()
        return tracing.execution(program.id, program.spec.module, run.meter, self._call.meta)

    def answer(self, run: Run, outputs: dict[str, Any], since: float) -> dict[str, Any]:
        """The result of an execute that began at `since`, in time.monotonic()."""
        return {
            "outputs": outputs,
            "program": self.program.id,
            "lm": run.meter.answered_by or run.lm.name,
            **spent(run.meter),
            "duration_ms": round((time.monotonic() - since) * 1000, 3),
            "cached": run.meter.is_cached,
        }


def output_names(program: Program) -> list[str]:
    """Those of the signature, and those of the module."""
    return [*(item.name for item in program.spec.signature.outputs), *program.spec.extra_outputs]


def spent(meter: Meter) -> dict[str, Any]:
    """What was used and paid, in a result or the data of an error."""
    return {"usage": meter.usage(), "cost_usd": meter.cost_usd}
