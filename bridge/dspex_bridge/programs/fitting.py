"""Whether the values of one type can be values of another: for the links of a pipeline.

`any` fits everything, and everything fits `any`: what comes is judged when it comes. Otherwise a
type fits where each of its values is one of the other type, or converts to one as `int` does to
`float`; constraints are not looked at. What only may fit (a `str` that might be a number, or a
member of a Literal) does not.
"""

from __future__ import annotations

from dspex_protocol.types import (
    Code,
    Constrained,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    LiteralValue,
    Null,
    Object,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
)

__all__ = ["fits"]

# Each scalar and those that its values convert to.
_WIDER: dict[str, frozenset[str]] = {
    "int": frozenset({"float", "decimal"}),
    "float": frozenset({"decimal"}),
    "token_count": frozenset({"int", "float", "decimal"}),
    "probability": frozenset({"confidence_score", "float", "decimal"}),
    "confidence_score": frozenset({"probability", "float", "decimal"}),
}

_ANY = Scalar("any")
_STR = Scalar("str")
_FLOAT = Scalar("float")
_LITERAL_TYPES: dict[type, str] = {str: "str", int: "int", bool: "bool"}


def fits(source: Type, target: Type) -> bool:
    """Whether what has the type `source` can be given where `target` is wanted."""
    source, target = _plain(source), _plain(target)
    if source == target or _ANY in (source, target):
        return True
    if isinstance(source, Union):
        return all(fits(member, target) for member in source.members)
    if isinstance(source, Literal):
        return all(_value_fits(value, target) for value in source.values)
    if isinstance(target, Union):
        return any(fits(source, member) for member in target.members)
    if isinstance(source, Scalar) and isinstance(target, Scalar):
        return target.name in _WIDER.get(source.name, ())
    if isinstance(source, SetOf) and isinstance(target, SetOf):
        return fits(source.item, target.item)
    if isinstance(source, DictOf) and isinstance(target, DictOf):
        return source.key == target.key and fits(source.value, target.value)
    if isinstance(source, Object):
        return target == DictOf(_STR, _ANY)
    if isinstance(source, Code):
        return target == Scalar("code")
    return _sequence_fits(source, target)


def _plain(type_: Type) -> Type:
    """The type without what makes no difference here."""
    if isinstance(type_, Constrained):
        return _plain(type_.type)
    if type_ == Scalar("reasoning_chain"):
        return ListOf(_STR)
    return type_


def _sequence_fits(source: Type, target: Type) -> bool:
    if isinstance(source, TupleOf) and isinstance(target, TupleOf):
        return len(source.items) == len(target.items) and all(map(fits, source.items, target.items))
    item = _item(target)
    if item is None or (isinstance(target, Embedding) and target.dimensions is not None):
        return False  # no list of any length is one of a certain length
    if isinstance(source, TupleOf):
        return all(fits(each, item) for each in source.items)
    own = _item(source)
    return own is not None and fits(own, item)


def _item(type_: Type) -> Type | None:
    """The type of the items of a sequence of any length."""
    if isinstance(type_, ListOf):
        return type_.item
    return _FLOAT if isinstance(type_, Embedding) else None


def _value_fits(value: LiteralValue, target: Type) -> bool:
    if isinstance(target, Literal):
        return any(type(value) is type(other) and value == other for other in target.values)
    if isinstance(target, Union):
        return any(_value_fits(value, member) for member in target.members)
    if value is None:
        return isinstance(target, Null)
    return fits(Scalar(_LITERAL_TYPES[type(value)]), target)
