"""DSPy's own types, as the engine offers them to the rest, which does not import DSPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dspex_protocol.errors import SignatureError

if TYPE_CHECKING:
    from typing import NoReturn

    from dspex_protocol.types import Type

__all__ = [
    "DSPyType",
    "DSPyTypes",
    "no_dspy_types",
    "offer_dspy_types",
    "offered_dspy_types",
]


class DSPyType(NamedTuple):
    """`read` makes an instance of what came over the wire, or raises `RefusedError` with why."""

    class_: type
    read: Callable[[Any], Any]


#: Gives a `Scalar` of `DSPY_TYPES` or a `Code` what stands for it.
DSPyTypes = Callable[["Type"], DSPyType]


def no_dspy_types(type_: Type) -> NoReturn:
    """Of an engine that offers none of them."""
    raise SignatureError(f"the type '{type_}' is not supported by this version")


_offered: list[DSPyTypes] = [no_dspy_types]


def offer_dspy_types(types: DSPyTypes) -> None:
    """Called once, by the engine when it is imported."""
    _offered[:] = [types]


def offered_dspy_types(type_: Type) -> DSPyType:
    """What the engine offers for a type of DSPy's. Raises SignatureError where there is none."""
    return _offered[0](type_)
