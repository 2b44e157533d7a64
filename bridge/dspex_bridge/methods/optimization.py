"""One optimize: its job, the bridge's answers to it, what the client is told meanwhile."""

from __future__ import annotations

import time

from dspex_protocol.errors import InternalError

from .evaluate import metric_error
from .program_runs import spent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from dspex_protocol.messages import Notification

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.metrics import Metric
    from dspex_bridge.host import Host
    from dspex_bridge.jobs.checkpoint import Checkpoint
    from dspex_bridge.programs.registry import Program

    from .program_runs import ProgramRuns

__all__ = ["Optimization"]

# Below executes: an optimizer takes what they leave of the processors.
_NICE = 10

# A run that can be repeated is worth more than a new draw.
_DEFAULT_SEED = 0

# The phase before the job's own process tells anything.
_START = "start"

# The client is told at least so often that work goes on.
_TELL_EVERY_S = 1.0


class Optimization:
    """Made by the handler; `run` is what it returns."""

    def __init__(
        self,
        host: Host,
        call: Call,
        runs: ProgramRuns,
        *,
        metric: Metric | None,
        optimizer: dict[str, Any],
        teacher: Program | None,
        members: Sequence[Program],
        promised: str,
    ) -> None:
        """`members` are an ensemble's others; `promised` is the id of the program that comes of
        it."""
        self._host = host
        self._call = call
        self._runs = runs
        self._metric = metric
        self._optimizer = optimizer
        self._teacher = teacher
        self._members = members
        self._promised = promised
        self._context = runs.outside()
        self._checkpoint: Checkpoint | None = None
        self._told: dict[str, Any] = {"phase": _START, "step": 0, "total": None, "message": ""}
        self._compiling_since: float | None = None

    async def run(self) -> dict[str, Any]:
        import asyncio

        job = self._job()
        if self._call.params.get("checkpoint") is not None:
            self._checkpoint = self._open_checkpoint(self._call.params["checkpoint"], job)
        telling = asyncio.create_task(self._keep_telling())
        try:
            result = await self._result(job)
        finally:
            telling.cancel()
            # Told with an error too: it was paid for.
            self._call.spent = spent(self._runs.meter)
            if self._checkpoint is not None:
                await self._checkpoint.close()
        return self._answer(result, job)

    def _job(self) -> dict[str, Any]:
        """What makes the run the same: with it the same program comes of the same answers."""
        params, engine = self._call.params, self._runs.engine
        return {
            "state": self._host.require_programs().state(self._runs.program),
            "optimizer": self._optimizer,
            "trainset": params.get("trainset") or [],
            # As DSPy's own optimizers do where there is none.
            "valset": params.get("valset") or params.get("trainset") or [],
            "has_metric": self._metric is not None,
            "lms": engine.describe_lms(self._runs.lm),
            "lm": self._runs.lm.name,
            "adapter": engine.adapter_name(self._runs.adapter),
            "seed": _DEFAULT_SEED if params.get("seed") is None else params["seed"],
            "teacher": None
            if self._teacher is None
            else self._host.require_programs().state(self._teacher),
            "programs": [self._host.require_programs().state(one) for one in self._members],
        }

    async def _result(self, job: dict[str, Any]) -> dict[str, Any]:
        params = self._call.params
        result: dict[str, Any] = await self._host.jobs.run(
            "optimize",
            {
                **job,
                "on_stop": params.get("on_stop") or "discard",
                "tells_candidates": bool(params.get("include")),
            },
            handlers={
                "lm": self._journaled("lm", self._lm),
                "metric": self._journaled("metric", self._score),
                "embed": self._journaled("embed", self._embed),
                "call_tool": self._call_tool,
                "call_metric": self._journaled("call_metric", self._call_metric),
            },
            listener=self._hear,
            started=self._started,
            nice=_NICE,
        )
        return result

    def _answer(self, result: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
        programs, base = self._host.require_programs(), self._runs.program
        lineage = {
            "base_program": base.id,
            "base_revision": base.revision,
            "optimizer": self._optimizer,
            "seed": job["seed"],
            "score": result["score"],
            "base_score": result["base_score"],
        }
        state = {**result.pop("state"), "lineage": lineage}
        program = programs.derive(state, self._promised, base)
        return {
            "program": program.id,
            "base_program": base.id,
            "state": programs.state(program),
            **result,
            **self._call.spent,
            "duration_ms": round(self._call.elapsed_ms, 3),
            "checkpoint": None if self._checkpoint is None else self._checkpoint.told(),
        }

    def _started(self, stop: Any) -> None:
        """The job runs. Where the client wants the best so far, it is asked for that first."""
        if self._call.params.get("on_stop") == "best":
            self._call.stop = stop

    # What the job asks

    def _journaled(self, method: str, handler: Any) -> Any:
        checkpoint = self._checkpoint
        if checkpoint is None:
            return handler

        async def answer(params: dict[str, Any]) -> Any:
            return await checkpoint.answer(method, params, handler)

        return answer

    async def _lm(self, params: dict[str, Any]) -> dict[str, Any]:
        engine = self._runs.engine
        named = params["lm"] == self._runs.lm.name
        lm = self._runs.lm if named else engine.lm(params["lm"])
        with self._context.context(trace=None):
            answer: dict[str, Any] = await engine.answer_lm(lm, params)
        return answer

    async def _score(self, params: dict[str, Any]) -> dict[str, Any]:
        if self._metric is None:
            raise InternalError("the job asked for a metric, and there is none")
        example = params["example"]
        try:
            self._metric.check(example)
            score = await self._context.score(self._metric, example, params["prediction"])
        except Exception as error:
            known = self._host.dispatcher.to_wire_error(error, self._call.request)
            if known.code == "budget_exceeded":
                raise known from error
            raise metric_error("the metric failed", known, example) from error
        return {"score": score.value, "feedback": score.feedback}

    async def _embed(self, params: dict[str, Any]) -> list[list[float]]:
        vectors: list[list[float]] = await self._runs.engine.embed(
            params["embedder"], params["texts"]
        )
        return vectors

    async def _call_tool(self, params: dict[str, Any]) -> Any:
        return await self._runs.client.call_tool(params["tool"], params["args"])

    async def _call_metric(self, params: dict[str, Any]) -> Any:
        """The reward of a module that has one."""
        return await self._runs.client.call_metric(**params)

    # What the client is told

    def _hear(self, told: Notification) -> None:
        from dspex_bridge.jobs.output import hear_log

        if told.method == "log":
            hear_log(self._host.log, told, self._call.request.id)
        elif told.method == "state":
            self._told = told.params
            self._tell()

    async def _keep_telling(self) -> None:
        import asyncio

        self._tell()
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            # That it starts is told once: until its process is there nothing goes on.
            if self._told["phase"] != _START:
                self._tell()

    def _tell(self) -> None:
        meter, request = self._runs.meter, self._call.request
        progress = {
            "id": request.id,
            **self._told,
            "lm_calls": meter.calls,
            "total_tokens": meter.total_tokens,
            "cost_usd": meter.cost_usd,
            **self._eta(),
        }
        self._host.connection.send_notification("progress", progress, about=request)
        self._host.flush()
        self._told.pop("candidate", None)  # once is enough

    def _eta(self) -> dict[str, int]:
        """How long it takes yet, by what its candidates took so far, where their number is
        known."""
        if self._told["phase"] != "compile":
            return {}
        now = time.monotonic()
        if self._compiling_since is None:
            self._compiling_since = now
        step, total = self._told["step"], self._told["total"]
        if total is None or not 0 < step <= total:
            return {}
        each = (now - self._compiling_since) / step
        return {"eta_ms": round(each * (total - step) * 1000)}

    def _open_checkpoint(self, name: str, job: dict[str, Any]) -> Checkpoint:
        from dspex_bridge.jobs.checkpoint import Checkpoint

        run = {
            "program": job["state"],
            "optimizer": self._optimizer,
            "trainset": job["trainset"],
            "valset": job["valset"],
            "metric": self._call.params.get("metric"),
            "seed": job["seed"],
            "lms": {key: lm["model"] for key, lm in job["lms"].items()},
            "lm": job["lm"],
            "adapter": job["adapter"],
            "teacher": job["teacher"],
            "programs": job["programs"],
        }
        return Checkpoint(self._host.state_dir, name, run)
