"""best_of_n and refine: attempts until one is good enough by a metric.

They do what DSPy's modules of these names do, which only block. Two things differ: failures are
counted for each run and not for the life of the module, and where every attempt failed the last
error is raised where DSPy gives None.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import dspy
import orjson
from dspex_protocol.errors import BudgetExceededError
from dspy.predict.refine import OfferFeedback, inspect_modules, recursive_mask

from dspex_bridge.programs.wire_values import to_wire

from .calls import AT_ONCE, ON_LOOP, result_of
from .rollouts import Rollout, add_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .calls import Mode
    from .rewards import Reward

__all__ = ["HINT", "BestOfN", "Refine"]

# DSPy's own name for the input that carries advice to the next attempt.
HINT = "hint_"

# What DSPy's modules of these names set.
_TEMPERATURE = 1.0


class _Attempt(NamedTuple):
    score: float
    feedback: str | None
    prediction: dspy.Prediction
    trace: list[Any]


class BestOfN(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """At most `attempts` runs of `module`; the first that reaches the threshold, else the best."""

    def __init__(
        self, module: dspy.Module, attempts: int, reward: Reward, fail_count: int | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.attempts = attempts
        # A function, because a judge's program must not become a part of this one.
        self._reward: Callable[[], Reward] = lambda: reward
        self.fail_count = attempts if fail_count is None else fail_count

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return result_of(self._best(AT_ONCE, inputs))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        return await self._best(ON_LOOP, inputs)

    async def _best(self, mode: Mode, inputs: dict[str, Any]) -> dspy.Prediction:
        best: _Attempt | None = None
        failures: list[Exception] = []
        advice: Mapping[str, str] = {}
        for index in range(self.attempts):
            rollout = Rollout(self.module, index, _TEMPERATURE)
            try:
                attempt = await self._attempt(mode, rollout, inputs, advice)
                if best is None or attempt.score > best.score:
                    best = attempt
                if attempt.score >= self._reward().threshold:
                    break
                if index < self.attempts - 1:
                    advice = await self._advise(mode, rollout, inputs, attempt)
            except BudgetExceededError:
                raise
            except Exception as error:
                failures.append(error)
                if len(failures) > self.fail_count:
                    raise
        if best is None:
            raise failures[-1]
        add_trace(best.trace)
        return best.prediction

    async def _attempt(
        self,
        mode: Mode,
        rollout: Rollout,
        inputs: dict[str, Any],
        advice: Mapping[str, str],  # noqa: ARG002 - of Refine
    ) -> _Attempt:
        return await self._judged(mode, rollout, inputs, {})

    async def _advise(
        self,
        mode: Mode,  # noqa: ARG002 - of Refine
        rollout: Rollout,  # noqa: ARG002
        inputs: dict[str, Any],  # noqa: ARG002
        attempt: _Attempt,  # noqa: ARG002
    ) -> Mapping[str, str]:
        return {}

    async def _judged(
        self, mode: Mode, rollout: Rollout, inputs: dict[str, Any], hint: dict[str, str]
    ) -> _Attempt:
        with dspy.context(trace=[]):
            prediction = await mode.call(rollout.module, **inputs, **hint)
            trace = rollout.trace()
            # A run has no outputs to compare with.
            example = {"inputs": to_wire(inputs), "outputs": {}}
            score = await mode.wait(
                self._reward().metric(example, to_wire(dict(prediction.items())))
            )
        return _Attempt(score.value, score.feedback, prediction, trace)


class Refine(BestOfN):
    """The same, and after each attempt that is not good enough the LM advises the next one."""

    async def _attempt(
        self,
        mode: Mode,
        rollout: Rollout,
        inputs: dict[str, Any],
        advice: Mapping[str, str],
    ) -> _Attempt:
        if not advice:
            return await self._judged(mode, rollout, inputs, {})
        # The modules that are refined have one predictor each.
        ((name, predictor),) = rollout.module.named_predictors()
        predictor.signature = predictor.signature.append(
            HINT, dspy.InputField(desc="A hint to the module from an earlier run")
        )
        return await self._judged(mode, rollout, inputs, {HINT: advice.get(name, "N/A")})

    async def _advise(
        self, mode: Mode, rollout: Rollout, inputs: dict[str, Any], attempt: _Attempt
    ) -> Mapping[str, str]:
        reward = self._reward()
        names = {id(predictor): name for name, predictor in self.module.named_predictors()}
        told = {
            "program_code": inspect.getsource(type(self.module)),
            "modules_defn": inspect_modules(rollout.module),
            "program_inputs": inputs,
            "program_trajectory": [
                {"module_name": names[id(predictor)], "inputs": given, "outputs": dict(made)}
                for predictor, given, made in attempt.trace
            ],
            "program_outputs": dict(attempt.prediction.items()),
            "reward_code": reward.description
            + ("" if attempt.feedback is None else f"\nWhat it says: {attempt.feedback}"),
            "target_threshold": reward.threshold,
            "reward_value": attempt.score,
            "module_names": list(names.values()),
        }
        with dspy.context(trace=[]):
            answer = await mode.call(
                dspy.Predict(OfferFeedback),
                **{name: _text(value) for name, value in told.items()},
            )
        advice: dict[str, str] = answer.advice
        return advice


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(recursive_mask(value), option=orjson.OPT_INDENT_2).decode()
