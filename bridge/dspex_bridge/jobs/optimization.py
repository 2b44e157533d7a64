"""What an optimizer works with in its worker: LMs, a metric, scores, progress, a way to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import dspy
from dspex_protocol.errors import DSPexError, MetricError

from dspex_bridge.engine.adapters import ADAPTERS
from dspex_bridge.engine.metrics import METRIC_SETTING
from dspex_bridge.engine.modules import build_module
from dspex_bridge.engine.optimizers.compilers import DEFAULT_THREADS
from dspex_bridge.engine.optimizers.tracker import Candidate, Tracker
from dspex_bridge.engine.remote import RemoteEmbedder, RemoteLM
from dspex_bridge.engine.tools import TOOL_SETTING
from dspex_bridge.metric_shape import NO_METRIC
from dspex_bridge.programs import bundles
from dspex_bridge.programs.results import ResultConverter
from dspex_bridge.programs.spec import Demo
from dspex_bridge.programs.wire_values import to_wire

from .comparison import changes, comparison
from .examples import to_examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_protocol.messages import Request

    from dspex_bridge.programs.spec import ProgramSpec

    from .link import Link

__all__ = ["Optimization"]

# A metric that fails on more examples than this is no metric.
_MAX_METRIC_ERRORS = 10

# So many failures of LMs in a row, with no answer between them, and there is nothing to optimize.
_MAX_LM_ERRORS = 20

# Progress within a candidate is told no more often than this.
_TELL_EVERY_S = 0.25


class Optimization:
    """One run. `trainset` and `valset` are DSPy's examples; `spec` is the program's."""

    def __init__(self, request: Request, link: Link) -> None:
        self.params: dict[str, Any] = request.params
        self.spec = bundles.load(self.params["state"])
        self._read_examples(self.spec)
        self.has_metric: bool = self.params["has_metric"]
        self.lms = {name: RemoteLM(told, self._ask) for name, told in self.params["lms"].items()}
        self.tracker = Tracker(self.spec, self.trainset, self.valset, self._changed)
        self.phase = "baseline"
        self.planned: int | None = None
        self._request = request
        self._link = link
        self._lock = threading.Lock()
        self._metric_errors: list[DSPexError] = []
        self._has_scored = False
        self._lm_errors = 0
        self._telling = threading.Lock()
        self._best_score: float | None = None
        self._told: set[int] = set()
        self._told_step = 0
        self._told_at = 0.0
        dspy.configure(
            **self._settings(self.spec),
            callbacks=[self.tracker],
            disable_history=True,
            allow_tool_async_sync_conversion=True,
            **{TOOL_SETTING: self._call_tool, METRIC_SETTING: self._call_metric},
        )
        self.student = self.build(self.spec)
        # The first candidate, and the best as long as there is no other one.
        self.base = self.tracker.of(self.student)
        link.on_stop(self._answer_best)

    @contextmanager
    def using(self, spec: ProgramSpec, variant: Any) -> Iterator[None]:
        """From here on candidates are of `spec`, apart from those of other variants; within it they
        run with its LM, config and adapter."""
        self._read_examples(spec)
        self.tracker.turn_to(spec, variant, self.trainset, self.valset)
        with dspy.context(**self._settings(spec)):
            yield

    def _read_examples(self, spec: ProgramSpec) -> None:
        self.trainset = to_examples(spec, self.params["trainset"])
        self.valset = to_examples(spec, self.params["valset"])
        self._outputs = ResultConverter(spec)

    def _settings(self, spec: ProgramSpec) -> dict[str, Any]:
        lm = self.lms[spec.lm or self.params["lm"]]
        return {
            "lm": lm.copy(**spec.config) if spec.config else lm,
            "adapter": ADAPTERS[spec.adapter or self.params["adapter"]](),
        }

    # What modules are made with

    def build(self, spec: ProgramSpec) -> dspy.Module:
        return build_module(spec, self)

    def lm(self, which: str | None) -> RemoteLM:
        """An LM by name, or the request's."""
        return self.lms[which or self.params["lm"]]

    def embedder(self, name: str | None) -> RemoteEmbedder:
        return RemoteEmbedder(name, self._link.request)

    def labelled_demos(self) -> tuple[Demo, ...]:
        """The trainset as demonstrations."""
        return tuple(
            Demo(inputs=dict(item.inputs().items()), outputs=dict(item.labels().items()))
            for item in self.trainset
        )

    # Scores

    def evaluate(self, program: dspy.Module, count: int | None = None) -> Candidate:
        """Scores a program on the first `count` examples of the valset, or on all, where there is
        a metric. What it has been given already is not paid for again, what fails counts 0."""
        candidate = self.tracker.of(program)
        if not self.has_metric:
            return candidate
        wanted = range(len(self.valset) if count is None else count)
        missing = [self.valset[index] for index in wanted if index not in candidate.scores]
        if missing:
            own = self.params["optimizer"].get("params") or {}
            dspy.Evaluate(
                devset=missing,
                metric=self.metric,
                num_threads=own.get("num_threads") or DEFAULT_THREADS,
                display_progress=False,
                max_errors=len(missing) + 1,
            )(program)
        self.tracker.failed(candidate, wanted)
        return candidate

    def metric(
        self,
        example: dspy.Example,
        prediction: Any,
        trace: Any = None,  # noqa: ARG002 - DSPy passes it; what it holds has no form on the wire
        pred_name: str | None = None,
        pred_trace: Any = None,  # noqa: ARG002 - as above
    ) -> Any:
        """DSPy's form of the metric, GEPA's included. The bridge knows what it is."""
        answer = self._score(example, prediction)
        score, feedback = answer["score"], answer.get("feedback")
        if pred_name is None:
            self.tracker.scored(example, prediction, float(score))
        if self.params["optimizer"]["name"] == "gepa":
            return dspy.Prediction(score=score, feedback=feedback or f"The score is {score}.")
        return score

    def _score(self, example: dspy.Example, prediction: Any) -> dict[str, Any]:
        """What `evaluate` would say: an output that is not of its type scores 0."""
        try:
            outputs = self._outputs.convert(dict(prediction.items()))
        except DSPexError as error:
            return {"score": 0.0, "feedback": error.message}
        asked = {"inputs": _wire(example.inputs()), "outputs": _wire(example.labels())}
        try:
            answer: dict[str, Any] = self._link.request(
                "metric", {"example": asked, "prediction": outputs}
            ).result()
        except DSPexError as error:
            self._metric_failed(error)
            return {"score": 0.0}
        self._has_scored = True
        return answer

    def _metric_failed(self, error: DSPexError) -> None:
        if error.code == "budget_exceeded":  # a judge's
            self._spent(error)
            return
        with self._lock:
            self._metric_errors.append(error)
            is_too_many = len(self._metric_errors) > _MAX_METRIC_ERRORS
        cause = error.data.get("cause", {}).get("code")
        if cause in NO_METRIC:
            self._end(error)
        elif is_too_many:
            told = f"the metric failed more than {_MAX_METRIC_ERRORS} times; the last time: "
            self._end(MetricError(told + error.message, data=error.data))

    # The bridge

    def _ask(self, method: str, params: dict[str, Any]) -> Future[Any]:
        """Calls an LM. The answer is looked at before the optimizer sees it, which would take a
        spent budget or a refused key for a bad example."""
        usage = self.tracker.usage
        counted: Future[Any] = Future()

        def count(answer: Future[Any]) -> None:
            error = answer.exception()
            self._lm_answered(error)
            if error is not None:
                counted.set_exception(error)
                return
            told = answer.result()
            if usage is not None:
                usage.add(told["total_tokens"], told["cost_usd"], told["duration_ms"])
            counted.set_result(told)

        self._link.request(method, params).add_done_callback(count)
        return counted

    def _lm_answered(self, error: BaseException | None) -> None:
        with self._lock:
            self._lm_errors = self._lm_errors + 1 if error is not None else 0
            is_hopeless = self._lm_errors >= _MAX_LM_ERRORS
        if not isinstance(error, DSPexError):
            return
        if error.code == "budget_exceeded":
            self._spent(error)
        elif is_hopeless:
            self._end(error)

    def _spent(self, error: DSPexError) -> None:
        if self.params["on_stop"] == "best":
            self._answer_best("budget")
        else:
            self._end(error)

    async def _call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        asked = self._link.request("call_tool", {"tool": tool, "args": arguments})
        return await asyncio.wrap_future(asked)

    async def _call_metric(
        self, name: str, example: Any, prediction: Any, trace: list[Any] | None
    ) -> Any:
        params = {
            "name": name,
            "example": to_wire(dict(example)),
            "prediction": to_wire(dict(prediction)),
            "trace": trace,
        }
        return await asyncio.wrap_future(self._link.request("call_metric", params))

    def _end(self, error: DSPexError) -> NoReturn:
        """Ends the process with an error, whatever its threads do."""
        self._link.fail(self._request, error)
        self._link.end()

    def _answer_best(self, reason: str) -> None:
        """Ends the process with the best program so far, whatever its threads do."""
        best = self.tracker.best() or self.base
        try:
            result = self.result(best)
        except MetricError as error:
            self._end(error)
        self._link.answer(self._request, result | {"stopped": reason})
        self._link.end()

    def result(
        self, candidate: Candidate, variables: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer of the job; `variables` is what a search over those adds. Raises MetricError
        where the metric has failed each time: nothing is known of any program then."""
        if self._metric_errors and not self._has_scored:
            last = self._metric_errors[-1]
            raise MetricError(
                f"the metric failed each time that it was asked; the last time: {last.message}",
                data=last.data,
            )
        base, results = self._results(self.base), self._results(candidate)
        return {
            "state": bundles.dump(candidate.program),
            "score": candidate.score,
            "base_score": self.base.score,
            "comparison": comparison(base, results) if base and results else None,
            "changes": changes(self.base.program, candidate.program),
            "trials": [
                {
                    "trial": item.number,
                    "score": item.score,
                    "examples": len(item.scores or item.train_scores),
                    **({} if item.variant is None else {"values": item.variant}),
                }
                for item in self.tracker.candidates
            ],
            "best_trial": candidate.number,
            "metric_calls": self.tracker.metric_calls,
            "metric_errors": [error.to_wire() for error in self._metric_errors],
            # Of a search that was stopped what is known of its best.
            "variables": variables
            or (None if candidate.variant is None else {"values": candidate.variant}),
            "stopped": None,
        }

    def _results(self, candidate: Candidate) -> list[float] | None:
        """A candidate's scores on the valset, where it has been given all of it."""
        known = candidate.scores
        count = len(self.valset)
        return [known[index] for index in range(count)] if len(known) == count else None

    # Progress

    def _changed(self, candidate: Candidate) -> None:
        # One after the other, so that what is told is never behind what was told before.
        with self._telling:
            best, step = self.tracker.best_score, self.tracker.tried
            is_better = best is not None and (self._best_score is None or best > self._best_score)
            if is_better:
                # One that is scored anew, and worse, takes nothing back.
                self._best_score = best
            is_new = candidate.number not in self._told
            is_due = is_new or is_better or step != self._told_step
            self._told.add(candidate.number)
            self._told_step = step
            if is_due or time.monotonic() - self._told_at > _TELL_EVERY_S:
                self.tell(f"candidate {candidate.number}", candidate, in_full=is_new)

    def tell(
        self, message: str, candidate: Candidate | None = None, *, in_full: bool = False
    ) -> None:
        """Sends progress; `in_full` with the candidate's prompts where the client wants them."""
        self._told_at = time.monotonic()
        progress: dict[str, Any] = {
            "phase": self.phase,
            "step": (step := self.tracker.tried),
            "total": None if self.planned is None else max(self.planned, step),
            "message": message,
            "metric_calls": self.tracker.metric_calls,
            # Between candidates, too, so that the last word is never that none is known.
            "best_score": self._best_score,
        }
        if candidate is not None:
            progress["score"] = candidate.score
            if in_full and self.params["tells_candidates"]:
                progress["candidate"] = _told(candidate)
        self._link.notify("state", progress)


def _told(candidate: Candidate) -> dict[str, Any]:
    told: dict[str, Any] = {
        "trial": candidate.number,
        "predictors": {
            name: {
                "instructions": predictor.instructions,
                "demos": [
                    {"inputs": to_wire(demo.inputs), "outputs": to_wire(demo.outputs)}
                    for demo in predictor.demos
                ],
            }
            for name, predictor in candidate.predictors.items()
        },
    }
    return told if candidate.variant is None else {**told, "values": candidate.variant}


def _wire(values: Any) -> Any:
    return to_wire(dict(values.items()))
