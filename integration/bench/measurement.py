"""What a measurement is, and how it is made: contestants take turns, and ratios are of rounds."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .workshop import Workshop

__all__ = [
    "Comparison",
    "Contestant",
    "Measurement",
    "NotMeasuredError",
    "Result",
    "Told",
    "measure",
]

#: One round: what it cost, in the measurement's unit, for each piece of work. Less is better.
Contestant = Callable[[], float]


class NotMeasuredError(Exception):
    """What a measurement needs was left out of the run: what that is, and how to bring it."""


@dataclass(frozen=True)
class Comparison:
    """One contestant beside another of the same rounds, or by itself where `over` is None.

    A cost is `of / over`, and is good where it is low. A rate is the other way round, `over / of`,
    and is good where it is high: `bound` is the target, the most of a cost and the least of a rate.
    Figures of one contestant alone depend on the machine, and are held to no baseline.
    """

    name: str
    of: str
    over: str | None = None
    is_rate: bool = False
    bound: float | None = None
    unit: str = ""
    #: From the measurement's unit to that of a figure by itself.
    scale: float = 1.0

    def value(self, rounds: Mapping[str, list[float]]) -> float | None:
        """The median over the rounds; None where a contestant did not take part."""
        if self.of not in rounds or (self.over is not None and self.over not in rounds):
            return None
        costs = rounds[self.of]
        if self.over is not None:
            costs = [own / other for own, other in zip(costs, rounds[self.over], strict=True)]
        return self.scale * statistics.median(1 / cost if self.is_rate else cost for cost in costs)

    def is_met(self, value: float) -> bool:
        if self.bound is None:
            return True
        return value >= self.bound if self.is_rate else value <= self.bound


@dataclass(frozen=True)
class Measurement:
    """`open` starts the contestants, which the stack ends; each does one round when it is called.
    It raises NotMeasuredError where what it needs was left out. `unit` is what their costs are in.
    `note` says what is compared, and what each does not do."""

    name: str
    title: str
    unit: str
    open: Callable[[Workshop, ExitStack], Mapping[str, Contestant]]
    comparisons: tuple[Comparison, ...]
    note: str = ""
    #: For what takes long: a share of the rounds that were asked for.
    rounds_share: float = 1.0


@dataclass(frozen=True)
class Told:
    """A comparison that was made."""

    comparison: Comparison
    value: float

    @property
    def is_met(self) -> bool:
        return self.comparison.is_met(self.value)


@dataclass(frozen=True)
class Result:
    """The costs of every round, by contestant, and what they come to. `left_out` says why there
    are none."""

    measurement: Measurement
    rounds: Mapping[str, list[float]]
    seconds: float = 0.0
    left_out: str = ""
    told: tuple[Told, ...] = field(init=False)

    def __post_init__(self) -> None:
        values = [(each, each.value(self.rounds)) for each in self.measurement.comparisons]
        told = tuple(Told(each, value) for each, value in values if value is not None)
        object.__setattr__(self, "told", told)

    def ratios(self) -> dict[str, float]:
        """Those that can be held to a baseline."""
        return {
            each.comparison.name: each.value
            for each in self.told
            if each.comparison.over is not None
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.measurement.name,
            "title": self.measurement.title,
            "unit": self.measurement.unit,
            "note": self.measurement.note,
            "seconds": round(self.seconds, 1),
            "left_out": self.left_out,
            "rounds": self.rounds,
            "medians": {name: statistics.median(costs) for name, costs in self.rounds.items()},
            "comparisons": [
                {
                    "name": each.comparison.name,
                    "of": each.comparison.of,
                    "over": each.comparison.over,
                    "is_rate": each.comparison.is_rate,
                    "value": each.value,
                    "bound": each.comparison.bound,
                    "unit": each.comparison.unit,
                    "is_met": each.is_met,
                }
                for each in self.told
            ],
        }


def measure(
    measurement: Measurement, workshop: Workshop, rounds: int, rng: random.Random
) -> Result:
    """All contestants of a round run right after one another, in an order that changes, so that
    what else the machine does meets all of them. A first round is not counted."""
    began = time.monotonic()
    costs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        try:
            contestants = dict(measurement.open(workshop, stack))
        except NotMeasuredError as why:
            return Result(measurement, {}, left_out=str(why))
        names = list(contestants)
        for name in names:
            contestants[name]()
        for _ in range(max(1, round(rounds * measurement.rounds_share))):
            rng.shuffle(names)
            for name in names:
                costs.setdefault(name, []).append(contestants[name]())
    return Result(
        measurement, {name: costs[name] for name in contestants}, time.monotonic() - began
    )
