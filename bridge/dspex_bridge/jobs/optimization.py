"""What an optimizer works with in its worker: LMs, a metric, scores, progress, a way to stop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError, MetricError

from dspex_bridge.engine.adapters import ADAPTERS
from dspex_bridge.engine.metrics import METRIC_SETTING
from dspex_bridge.engine.modules import build_module
from dspex_bridge.engine.optimizers.compilers import DEFAULT_THREADS
from dspex_bridge.engine.optimizers.tracker import Candidate, Tracker
from dspex_bridge.engine.remote import RemoteEmbedder, RemoteLM
from dspex_bridge.engine.tools import TOOL_SETTING
from dspex_bridge.programs import bundles
from dspex_bridge.programs.wire_values import to_wire

from .comparison import changes, comparison
from .examples import to_examples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

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
        self.trainset = to_examples(self.spec, self.params["trainset"])
        self.valset = to_examples(self.spec, self.params["valset"])
        self.has_metric: bool = self.params["has_metric"]
        self.lms = {name: RemoteLM(told, self._ask) for name, told in self.params["lms"].items()}
        self.tracker = Tracker(self.spec, self.trainset, self.valset, self._changed)
        self.phase = "baseline"
        self.planned: int | None = None
        self.cost_usd: float | None = 0.0
        self.tokens = 0
        self._base_results: list[float] | None = None
        self._request = request
        self._link = link
        self._lock = threading.Lock()
        self._metric_errors = 0
        self._lm_errors = 0
        self._told_score: float | None = None
        self._told_at = 0.0
        dspy.configure(
            **self._settings(self.spec),
            callbacks=[self.tracker],
            disable_history=True,
            allow_tool_async_sync_conversion=True,
            **{TOOL_SETTING: self._call_tool, METRIC_SETTING: self._call_metric},
        )
        link.on_stop(self._answer_best)

    @contextmanager
    def using(self, spec: ProgramSpec, variant: Any) -> Iterator[None]:
        """Within it candidates are of `spec`, apart from those of other variants, and run with its
        LM, config and adapter."""
        self.tracker.spec, self.tracker.variant = spec, variant
        with dspy.context(**self._settings(spec)):
            yield

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

    # Scores

    def evaluate_base(self, program: dspy.Module) -> None:
        """Scores the program as it came."""
        if self.has_metric:
            self._base_results = self.evaluate(program, len(self.valset))

    def evaluate(self, program: dspy.Module, count: int) -> list[float]:
        """The scores of the first `count` examples of the valset, 0 for those that failed. What
        the program has been given already is not paid for again."""
        known = self.tracker.of(program).scores
        missing = [item for index, item in enumerate(self.valset[:count]) if index not in known]
        if missing:
            own = self.params["optimizer"].get("params") or {}
            dspy.Evaluate(
                devset=missing,
                metric=self.metric,
                num_threads=own.get("num_threads") or DEFAULT_THREADS,
                display_progress=False,
                max_errors=len(missing) + 1,
            )(program)
        scores = self.tracker.of(program).scores
        return [scores.get(index, 0.0) for index in range(count)]

    def metric(
        self,
        example: dspy.Example,
        prediction: Any,
        trace: Any = None,  # noqa: ARG002 - DSPy passes it; what it holds has no form on the wire
        pred_name: str | None = None,
        pred_trace: Any = None,  # noqa: ARG002 - as above
    ) -> Any:
        """DSPy's form of the metric, GEPA's included. The bridge knows what it is."""
        params = {
            "example": {"inputs": _wire(example.inputs()), "outputs": _wire(example.labels())},
            "prediction": _wire(prediction),
        }
        try:
            answer = self._ask("metric", params).result()
        except DSPexError as error:
            self._metric_failed(error)
            answer = {"score": 0.0}
        score, feedback = answer["score"], answer.get("feedback")
        if pred_name is None:
            self.tracker.scored(example, prediction, float(score))
        if self.params["optimizer"]["name"] == "gepa":
            return dspy.Prediction(score=score, feedback=feedback or f"The score is {score}.")
        return score

    def _metric_failed(self, error: DSPexError) -> None:
        with self._lock:
            self._metric_errors += 1
            is_too_many = self._metric_errors > _MAX_METRIC_ERRORS
        if is_too_many:
            told = f"the metric failed on more than {_MAX_METRIC_ERRORS} examples; the last time: "
            self._end(MetricError(told + error.message, data=error.data))

    # The bridge

    def _ask(self, method: str, params: dict[str, Any]) -> Future[Any]:
        answer = self._link.request(method, params)
        if method == "lm":
            answer.add_done_callback(self._count)
        return answer

    def _count(self, answer: Future[Any]) -> None:
        """Looks at the answer of an LM call before the optimizer does, which would take a spent
        budget or a refused key for a bad example."""
        error = None if answer.cancelled() else answer.exception()
        with self._lock:
            self._lm_errors = self._lm_errors + 1 if error is not None else 0
            if error is None and not answer.cancelled():
                told = answer.result()
                self.tokens += told["total_tokens"]
                if told["cost_usd"] is None or self.cost_usd is None:
                    self.cost_usd = None
                else:
                    self.cost_usd += told["cost_usd"]
            is_hopeless = self._lm_errors >= _MAX_LM_ERRORS
        if not isinstance(error, DSPexError):
            return
        if error.code == "budget_exceeded" and self.params["on_stop"] == "best":
            self._answer_best("budget")
        elif error.code == "budget_exceeded" or is_hopeless:
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

    def _end(self, error: DSPexError) -> None:
        """Ends the process with an error, whatever its threads do."""
        self._link.fail(self._request, error)
        os._exit(0)

    def _answer_best(self, reason: str) -> None:
        """Ends the process with the best program so far, whatever its threads do."""
        best = self.tracker.best() or self.tracker.base
        self._link.answer(self._request, self.result(best, None) | {"stopped": reason})
        os._exit(0)

    def result(self, candidate: Candidate, results: list[float] | None) -> dict[str, Any]:
        """The answer of the job; `results` are the candidate's scores on the whole valset, where
        they are known."""
        base = self._base_results
        return {
            "state": bundles.dump(candidate.program),
            "score": candidate.score if results is None else _mean(results),
            "base_score": None if base is None else _mean(base),
            "results": results,
            "base_results": base,
            **({} if base is None or results is None else comparison(base, results)),
            "changes": changes(self.tracker.base.program, candidate.program),
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
            "metric_errors": self._metric_errors,
            "stopped": None,
        }

    # Progress

    def _changed(self, candidate: Candidate, is_new: bool) -> None:
        best = self.tracker.best()
        score = None if best is None else best.score
        is_due = is_new or score != self._told_score
        self._told_score = score
        if is_due or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self.tell(f"candidate {candidate.number}", candidate, in_full=is_due)

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
        }
        if candidate is not None:
            progress |= {"score": candidate.score, "best_score": self._told_score}
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


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
