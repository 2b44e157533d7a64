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

In a pipeline `module`, `instructions` and `demos` are a step's: its name and a dot stand before
them. A variable that `depends_on` another one counts only where that one counts and has one of the
values `in`.
"""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError
from dspex_protocol.spelling import suggestion

from .catalog import ADAPTERS, MODULES
from .params import integer, name, one_of, text
from .shapes import CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .params import Check

__all__ = [
    "MAX_VARIABLES",
    "TARGETS",
    "active",
    "check_variables",
    "choices",
    "defaults",
    "grid",
    "in_order",
    "is_numeric",
]

# The kinds that each target takes, and its values. Those of config.NAME are CONFIG's, those of
# inputs.NAME of the input's type.
TARGETS: dict[str, tuple[tuple[str, ...], Check]] = {
    "module": (("module", "categorical"), one_of(*MODULES)),
    "lm": (("lm", "categorical"), name),
    "adapter": (("adapter", "categorical"), one_of(*ADAPTERS)),
    "instructions": (("text", "categorical"), text),
    "demos.k": (("int", "categorical"), integer(0)),
    "demos.seed": (("int", "categorical"), integer()),
}

# More than any number of trials could tell apart.
MAX_VARIABLES = 100

_NUMERIC = ("float", "int")

# What belongs to a whole program; the others are a module's, in a pipeline a step's.
_OF_PROGRAM = ("lm", "adapter")
_OF_PROGRAM_BY_NAME = ("config.", "inputs.")

# Of a number in a grid: as many values from low to high.
_GRID_POINTS = 5


def check_variables(variables: Mapping[str, Any], where: str, steps: tuple[str, ...] = ()) -> None:
    """Raises InvalidParamsError for what the shape cannot tell. `steps` are those of a
    pipeline."""
    if len(variables) > MAX_VARIABLES:
        raise _invalid(where, f"there are {len(variables)}, and at most {MAX_VARIABLES} may be")
    targets: dict[str, str] = {}
    for key, variable in variables.items():
        place, target = f"{where}.{key}", variable["applies_to"]
        _check_values(variable, place)
        _check_target(variable, place, steps)
        if target in targets:
            raise _invalid(f"{place}.applies_to", f"{targets[target]!r} goes there already")
        targets[target] = key
    for key in variables:
        _check_condition(variables, key, f"{where}.{key}.depends_on")


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
    other = parent["variable"]
    return active(variables, values, other) and values.get(other) in parent["in"]


def in_order(variables: Mapping[str, Any]) -> list[str]:
    """The names of variables, those that others depend on before these."""

    def depth(key: str) -> int:
        parent = variables[key].get("depends_on")
        return 0 if parent is None else depth(parent["variable"]) + 1

    return sorted(variables, key=depth)


def is_numeric(variable: Mapping[str, Any]) -> bool:
    """Whether its values are those from low to high; those of others are choices."""
    return variable["kind"] in _NUMERIC


def choices(variable: Mapping[str, Any]) -> list[Any]:
    """The values that a variable which is not numeric may have."""
    given: list[Any] | None = variable.get("choices")
    return list(ADAPTERS) if given is None else given


def grid(variables: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All values that a grid has, of the variables that count; of a number a few from low to
    high."""
    order = in_order(variables)

    def rest(index: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if index == len(order):
            yield values
        elif active(variables, values, key := order[index]):
            for value in _grid_values(variables[key]):
                yield from rest(index + 1, {**values, key: value})
        else:
            yield from rest(index + 1, values)

    return rest(0, {})


def _grid_values(variable: Mapping[str, Any]) -> list[Any]:
    if not is_numeric(variable):
        return choices(variable)
    low, high = variable["low"], variable["high"]
    parts = [index / (_GRID_POINTS - 1) for index in range(1, _GRID_POINTS - 1)]
    if variable.get("log"):
        between = [low * (high / low) ** part for part in parts]
    else:
        between = [low + (high - low) * part for part in parts]
    # The ends as they are: what is calculated may lie beyond them by a rounding.
    if variable["kind"] == "int":
        return sorted({int(low), *(round(value) for value in between), int(high)})
    return [float(low), *between, float(high)]


def _check_values(variable: Mapping[str, Any], place: str) -> None:
    kind, given = variable["kind"], variable.get("choices")
    low, high = variable.get("low"), variable.get("high")
    if is_numeric(variable):
        if given is not None:
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
        allowed = choices(variable) if kind == "adapter" else given
        if not allowed or len(allowed) != len({repr(item) for item in allowed}):
            raise _invalid(place, f"the kind {kind} needs choices, each one once")
    default = variable.get("default")
    if default is not None and not _may_be(variable, default):
        raise _invalid(f"{place}.default", "it is not among the values that the variable may have")


def _may_be(variable: Mapping[str, Any], value: Any) -> bool:
    if not is_numeric(variable):
        # True is not 1 here.
        return any(type(item) is type(value) and item == value for item in choices(variable))
    types = (int,) if variable["kind"] == "int" else (int, float)
    return type(value) in types and bool(variable["low"] <= value <= variable["high"])


def _check_target(variable: Mapping[str, Any], place: str, steps: tuple[str, ...]) -> None:
    target: str = variable["applies_to"]
    if steps and not _is_of_program(target):
        step, _, target = target.partition(".")
        if step not in steps or _is_of_program(target):
            raise _invalid(
                f"{place}.applies_to",
                "in a pipeline it is lm, adapter, config.NAME, inputs.NAME, or begins with a step "
                f"({', '.join(steps)}) and a dot",
            )
    values = _ends(variable) if is_numeric(variable) else choices(variable)
    if target.startswith("config."):
        for value in values:
            CONFIG({target.removeprefix("config."): value}, place)
    elif target in TARGETS:
        kinds, check = TARGETS[target]
        if variable["kind"] not in kinds:
            raise _invalid(place, f"for {target} the kind is {' or '.join(kinds)}")
        for value in values:
            check(value, f"{place}.{'low' if is_numeric(variable) else 'choices'}")
    elif not target.startswith("inputs."):
        valid = ("config.NAME", *TARGETS, "inputs.NAME")
        raise _invalid(f"{place}.applies_to", f"{target!r} is no target. Valid: {', '.join(valid)}")


def _is_of_program(target: str) -> bool:
    return target in _OF_PROGRAM or target.startswith(_OF_PROGRAM_BY_NAME)


def _ends(variable: Mapping[str, Any]) -> list[float]:
    number = int if variable["kind"] == "int" else float
    return [number(variable["low"]), number(variable["high"])]


def _check_condition(variables: Mapping[str, Any], key: str, place: str) -> None:
    """That a variable depends on one that there is, on values that this may have, and not on
    itself."""
    seen = [key]
    while (parent := variables[seen[-1]].get("depends_on")) is not None:
        other = parent["variable"]
        if other not in variables:
            raise _invalid(place, f"there is no variable {other!r}.{suggestion(other, variables)}")
        if other in seen:
            raise _invalid(place, f"{' -> '.join([*seen, other])} is a circle")
        if not parent["in"] or not all(_may_be(variables[other], item) for item in parent["in"]):
            raise _invalid(place, f"'in' has values of {other!r}, one or more")
        seen.append(other)


def _invalid(place: str, reason: str) -> InvalidParamsError:
    return InvalidParamsError(f"{place}: {reason}.", data={"param": place.rpartition(": ")[2]})
