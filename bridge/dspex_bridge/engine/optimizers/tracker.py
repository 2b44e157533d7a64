"""What an optimizer tries, watched from outside: candidates by their prompts, their scores, and
what their runs used.

Optimizers call a program and then the metric. A callback of DSPy's marks each prediction with the
program that made it; when the metric scores it, the score is that candidate's: a *candidate* is
the instructions and demonstrations of all predictors, whichever object holds them.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from operator import is_
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.codec import encode
from dspy.utils.callback import BaseCallback

from dspex_bridge.engine.predictors import predictors_of
from dspex_bridge.programs.wire_values import to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dspex_bridge.programs.spec import Predictor, ProgramSpec

__all__ = ["Candidate", "Tracker", "Usage"]

# The attribute by which a prediction knows how it was made; DSPy keeps those that begin with "_"
# apart from its fields.
_MAKING = "_dspex_making"


@dataclass(slots=True)
class Usage:
    """Of the LM calls of one run of a program; `latency_ms` is how long they took, one after the
    other. `cost_usd` is None where a price is not known."""

    tokens: int = 0
    cost_usd: float | None = 0.0
    latency_ms: float = 0.0

    def add(self, tokens: int, cost_usd: float | None, latency_ms: float) -> None:
        self.tokens += tokens
        self.latency_ms += latency_ms
        known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = self.cost_usd + cost_usd if known else None  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class _Making:
    """How a prediction is made: the outermost call of a module, which is the program's."""

    call_id: str
    program: Any
    # What its predictors had then, to be compared by identity.
    parts: Sequence[Any]
    usage: Usage = field(default_factory=Usage)

    @property
    def is_of_the_program(self) -> bool:
        """Whether the program still is what it was. BootstrapFewShot takes an example out of the
        demonstrations, runs, and puts it back before it asks the metric."""
        now = _parts(self.program)
        return len(now) == len(self.parts) and all(map(is_, now, self.parts))


_CURRENT: ContextVar[_Making | None] = ContextVar("making", default=None)


@dataclass(slots=True)
class Candidate:
    """One set of instructions and demonstrations.

    `scores` are by the number of the example in the valset, `train_scores` by that in the trainset,
    `usages` are those of the runs that were scored on the valset.
    """

    number: int
    spec: ProgramSpec
    variant: Any
    predictors: Mapping[str, Predictor]
    scores: dict[int, float] = field(default_factory=dict)
    train_scores: dict[int, float] = field(default_factory=dict)
    usages: dict[int, Usage] = field(default_factory=dict)

    @property
    def program(self) -> ProgramSpec:
        return replace(self.spec, predictors=self.predictors)

    @property
    def score(self) -> float | None:
        """The mean on the valset so far; on the trainset where nothing of that was scored."""
        scores = self.scores or self.train_scores
        return _mean(scores) if scores else None


class Tracker(BaseCallback):  # type: ignore[misc]  # dspy ships no types
    """Every candidate that was scored. `changed(candidate)` is called after each score, from
    whichever thread it came."""

    def __init__(
        self,
        spec: ProgramSpec,
        trainset: Sequence[dspy.Example],
        valset: Sequence[dspy.Example],
        changed: Callable[[Candidate], None],
    ) -> None:
        self.turn_to(spec, None, trainset, valset)
        self._changed = changed
        self._candidates: dict[bytes, Candidate] = {}
        self._lock = threading.Lock()
        self.metric_calls = 0

    def turn_to(
        self,
        spec: ProgramSpec,
        variant: Any,
        trainset: Sequence[dspy.Example],
        valset: Sequence[dspy.Example],
    ) -> None:
        """From here on `spec` is tried. `variant` is what makes a candidate of it beside its
        prompts: the values of variables, the trials of which run one after another."""
        self.spec, self.variant = spec, variant
        self._train, self._val = _places(trainset), _places(valset)
        self._val_size = len(valset)

    @property
    def usage(self) -> Usage | None:
        """Where LM calls of this thread are counted; None outside a program."""
        making = _CURRENT.get()
        return None if making is None else making.usage

    # DSPy's callbacks

    def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:  # noqa: ARG002
        if _CURRENT.get() is None:
            _CURRENT.set(_Making(call_id, instance, _parts(instance)))

    def on_module_end(
        self,
        call_id: str,
        outputs: Any,
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        making = _CURRENT.get()
        if making is None or making.call_id != call_id:
            return
        _CURRENT.set(None)
        # GEPA and SIMBA have programs give their trace beside the prediction.
        prediction = outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(prediction, dspy.Prediction):
            setattr(prediction, _MAKING, making)

    # The metric's side

    def scored(self, example: Any, prediction: Any, score: float) -> None:
        """Counts a score for the candidate that made `prediction`, if that is one."""
        with self._lock:
            self.metric_calls += 1
        making: _Making | None = getattr(prediction, _MAKING, None)
        if making is None or not making.is_of_the_program:
            return
        candidate = self._candidate(predictors_of(making.program))
        key = _key(example)
        with self._lock:
            for index in self._val.get(key, ()):
                candidate.scores[index] = score
                candidate.usages[index] = making.usage
            for index in self._train.get(key, ()):
                candidate.train_scores[index] = score
        self._changed(candidate)

    def failed(self, candidate: Candidate, wanted: Iterable[int]) -> None:
        """Counts 0 for those of the `wanted` examples of the valset that have no score."""
        with self._lock:
            for index in wanted:
                candidate.scores.setdefault(index, 0.0)

    @property
    def candidates(self) -> list[Candidate]:
        return list(self._candidates.values())

    def best(self) -> Candidate | None:
        """The candidate with the best mean so far: on the valset, or on the trainset where the
        optimizer scores its candidates only there. One that was scored on less than half of what
        another one was does not count: luck would win."""
        with self._lock:
            by_val = [(dict(item.scores), item) for item in self._candidates.values()]
            by_train = [(dict(item.train_scores), item) for item in self._candidates.values()]
        told = [pair for pair in by_val if pair[0]]
        if len(told) < 2:
            told = [pair for pair in by_train if pair[0]] or told
        if not told:
            return None
        enough = max(len(scores) for scores, _ in told) / 2
        return max(
            (pair for pair in told if len(pair[0]) >= enough),
            key=lambda pair: (_mean(pair[0]), len(pair[0]), -pair[1].number),
        )[1]

    @property
    def best_score(self) -> float | None:
        """The best mean on the whole valset; one that was scored on a part of it does not count,
        as its mean goes up and down with every example. None where there is none yet."""
        with self._lock:
            whole = [
                _mean(item.scores)
                for item in self._candidates.values()
                if len(item.scores) == self._val_size
            ]
        return max(whole, default=None)

    @property
    def tried(self) -> int:
        """How many candidates, beside the program as it came, have been scored on half the valset
        or more."""
        enough = self._val_size / 2
        return sum(len(item.scores) >= enough for item in self.candidates[1:])

    def of(self, program: dspy.Module) -> Candidate:
        """The candidate that a program is, with the scores that it has so far."""
        return self._candidate(predictors_of(program))

    def _candidate(self, predictors: Mapping[str, Predictor]) -> Candidate:
        key = encode([self.variant, _fingerprint(predictors)])
        with self._lock:
            known = self._candidates.get(key)
            if known is not None:
                return known
            made = self._candidates[key] = Candidate(
                len(self._candidates), self.spec, self.variant, predictors
            )
            return made


def _parts(program: Any) -> list[Any]:
    """What makes its prompts."""
    return [
        part
        for _name, predictor in program.named_predictors()
        for part in (predictor.signature, *predictor.demos)
    ]


def _fingerprint(predictors: Mapping[str, Predictor]) -> bytes:
    told = [
        [
            name,
            predictor.instructions,
            [[to_wire(demo.inputs), to_wire(demo.outputs)] for demo in predictor.demos],
        ]
        for name, predictor in predictors.items()
    ]
    return encode(told)


def _places(examples: Sequence[dspy.Example]) -> dict[bytes, list[int]]:
    """Where each example is: one that is there twice has one score in two places."""
    places: dict[bytes, list[int]] = {}
    for index, example in enumerate(examples):
        places.setdefault(_key(example), []).append(index)
    return places


def _key(example: Any) -> bytes:
    return encode(to_wire(dict(example.items())))


def _mean(scores: Mapping[int, float]) -> float:
    return sum(scores.values()) / len(scores)
