"""What best_of_n and refine want of an attempt: a metric, and the value that is good enough."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import dspy
from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.engine.metrics import Metric, make_metric
from dspex_bridge.params import one_of
from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.creation import checked, program_spec
from dspex_bridge.programs.results import ResultConverter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .kinds import Parts

__all__ = ["Reward", "make_reward"]


class Reward(NamedTuple):
    """`description` is the metric in words, for the LM that advises."""

    metric: Metric
    threshold: float
    description: str


def make_reward(parts: Parts) -> Reward:
    """The reward that the options describe. Raises InvalidParamsError, and for a judge what making
    a program raises."""
    shape = parts.options["metric"]
    if shape.get("name") is not None:
        raise InvalidParamsError(
            f"options: metric: {shape['name']} compares with the outputs of an example, and a run "
            "has none to compare with: use {callback} or {judge, field}",
            data={"param": "options.metric"},
        )
    return Reward(
        metric=make_metric(shape, list(parts.signature.output_fields), partial(_judge, parts)),
        threshold=parts.options["threshold"],
        description=f"The metric {json.dumps(shape, default=str)}",
    )


def _judge(
    parts: Parts, create: Mapping[str, Any], field: str
) -> Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]:
    """A judge's runs: with its own LM, or that of the program that it judges."""
    from .build import build_module  # which needs this

    spec = checked(program_spec(create))
    one_of(*spec.output_types)(field, "options: metric.field")
    names = sorted(item.name for item in spec.signature.inputs)
    if names != ["example", "prediction"]:
        raise InvalidParamsError(
            "options: metric.judge: its inputs must be 'example' and 'prediction', both maps "
            f"(dict), got: {', '.join(names)}",
            data={"param": "options.metric.judge"},
        )
    module = build_module(spec, parts.resources)
    inputs, results = InputConverter(spec.signature), ResultConverter(spec)
    own_lm = None if spec.lm is None else parts.needed().lm

    async def ask(given: dict[str, Any]) -> Mapping[str, Any]:
        # By name at each run, because configure may replace it.
        lm = dspy.settings.lm if own_lm is None else own_lm(spec.lm)
        with dspy.context(lm=lm):
            prediction = await module.acall(**inputs.convert(given))
        return results.convert(dict(prediction.items()))

    return ask
