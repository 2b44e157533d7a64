"""Variables: parameters of a program that the optimizer `variables` may choose.

A map `{name: {kind, low?, high?, log?, choices?, default?, applies_to, depends_on?}}`. `applies_to`
says where a value goes:

    config.NAME      a parameter of the LM calls (`config.temperature`)
    module           the module class
    lm, adapter      by name
    instructions     the signature's
    demos.k          how many demonstrations the program has: of its own, or of the trainset
    demos.seed       which ones: the seed of the draw
    inputs.NAME      the default of an input

In a pipeline `module`, `instructions`, `demos` and `inputs` are a step's: its name and a dot stand
before them. A variable that `depends_on` another
one counts only where that one counts and has one of the values `in`.
"""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError

from .catalog import ADAPTERS, MODULES
from .params import one_of, suggest
from .shapes import CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["TARGETS", "active", "check_variables", "defaults"]

# What each target takes; None: the kinds that CONFIG and the input's type judge.
TARGETS: dict[str, tuple[str, ...]] = {
    "module": ("module", "categorical"),
    "lm": ("lm", "categorical"),
    "adapter": ("adapter", "categorical"),
    "instructions": ("text", "categorical"),
    "demos.k": ("int", "categorical"),
    "demos.seed": ("int", "categorical"),
}

_NUMERIC = ("float", "int")

# What belongs to a whole program; the others are a module's, in a pipeline a step's.
_OF_PROGRAM = ("lm", "adapter")


def check_variables(variables: Mapping[str, Any], where: str, steps: tuple[str, ...] = ()) -> None:
    """Raises InvalidParamsError for what the shape cannot tell. `steps` are those of a
    pipeline."""
    for key, variable in variables.items():
        place = f"{where}.{key}"
        _check_values(variable, place)
        _check_target(variable, place, steps)
        parent = variable.get("depends_on")
        if parent is not None and parent["variable"] not in variables:
            raise _invalid(
                f"{place}.depends_on",
                f"there is no variable {parent['variable']!r}"
                f".{suggest(parent['variable'], variables)}",
            )
    for key in variables:
        _check_acyclic(variables, key, where)


def defaults(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a program has before any search: those with a default."""
    return {
        key: item["default"] for key, item in variables.items() if item.get("default") is not None
    }


def active(variables: Mapping[str, Any], values: Mapping[str, Any], key: str) -> bool:
    """Whether a variable counts, given the values of the others."""
    parent = variables[key].get("depends_on")
    if parent is None:
        return True
    name = parent["variable"]
    return active(variables, values, name) and values.get(name) in parent["in"]


def _check_values(variable: Mapping[str, Any], place: str) -> None:
    kind, choices = variable["kind"], variable.get("choices")
    low, high = variable.get("low"), variable.get("high")
    if kind in _NUMERIC:
        if choices is not None:
            raise _invalid(
                place, "a number has low and high, and no choices: categorical has those"
            )
        if low is None or high is None or low >= high:
            raise _invalid(place, f"the kind {kind} needs low and high, low below high")
        if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
            raise _invalid(place, "the bounds of an int are whole numbers")
        if variable.get("log") and low <= 0:
            raise _invalid(place, "on a logarithmic scale low is above 0")
    else:
        if low is not None or high is not None or variable.get("log") is not None:
            raise _invalid(place, f"the kind {kind} has choices, and no low, high or log")
        if kind == "adapter" and choices is None:
            return
        if not choices or len(choices) != len({repr(item) for item in choices}):
            raise _invalid(place, f"the kind {kind} needs choices, each one once")
    default = variable.get("default")
    if default is None:
        return
    fits = low <= default <= high if kind in _NUMERIC else default in (choices or ())
    if not fits:
        raise _invalid(f"{place}.default", "it is not among the values that the variable may have")


def _check_target(variable: Mapping[str, Any], place: str, steps: tuple[str, ...]) -> None:
    target: str = variable["applies_to"]
    if steps and target not in _OF_PROGRAM and not target.startswith("config."):
        step, _, target = target.partition(".")
        if step not in steps or target in _OF_PROGRAM or target.startswith("config."):
            raise _invalid(
                f"{place}.applies_to",
                "in a pipeline it is lm, adapter, config.NAME, or begins with a step "
                f"({', '.join(steps)}) and a dot",
            )
    choices = variable.get("choices") or ()
    if target.startswith("config."):
        for value in choices:
            CONFIG({target.removeprefix("config."): value}, place)
        if not choices:
            CONFIG({target.removeprefix("config."): _number(variable)}, place)
    elif target in TARGETS:
        if variable["kind"] not in TARGETS[target]:
            raise _invalid(place, f"for {target} the kind is {' or '.join(TARGETS[target])}")
        known = {"module": MODULES, "adapter": ADAPTERS}.get(target)
        for value in choices:
            if known is not None:
                one_of(*known)(value, f"{place}.choices")
    elif not target.startswith("inputs."):
        valid = ("config.NAME", *TARGETS, "inputs.NAME")
        raise _invalid(f"{place}.applies_to", f"{target!r} is no target. Valid: {', '.join(valid)}")


def _number(variable: Mapping[str, Any]) -> float:
    low = variable["low"]
    return int(low) if variable["kind"] == "int" else float(low)


def _check_acyclic(variables: Mapping[str, Any], key: str, where: str) -> None:
    seen = [key]
    while (parent := variables[seen[-1]].get("depends_on")) is not None:
        if parent["variable"] in seen:
            raise _invalid(f"{where}.{key}.depends_on", f"{' -> '.join(seen)} is a circle")
        seen.append(parent["variable"])


def _invalid(place: str, reason: str) -> InvalidParamsError:
    return InvalidParamsError(f"{place}: {reason}.", data={"param": place.rpartition(": ")[2]})
