"""Types to their converters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_protocol.constraints import bounds
from dspex_protocol.signatures import STR
from dspex_protocol.types import (
    DSPY_TYPES,
    Code,
    Constrained,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Object,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
    without_none,
)
from pydantic_core import core_schema

from . import scalars
from .checks import checks_of
from .container_nodes import DictNode, EmbeddingNode, ListNode, ObjectNode, SetNode, TupleNode
from .nodes import LiteralNode, Node, PythonNode, ScalarNode, UnionNode
from .offered_types import offered_dspy_types

if TYPE_CHECKING:
    from collections.abc import Callable

    from .offered_types import DSPyType, DSPyTypes

__all__ = ["node_of"]

_STR = core_schema.str_schema(strict=True)
_INT = core_schema.int_schema(strict=True)
# Pydantic's strict float takes an int, of any size.
_FLOAT = core_schema.is_instance_schema(float)

_SCALARS: dict[str, Callable[[Scalar], Node]] = {
    "str": lambda type_: ScalarNode(type_, _STR, scalars.to_str),
    "int": lambda type_: ScalarNode(type_, _INT, scalars.to_int),
    "token_count": lambda type_: ScalarNode(type_, _INT, scalars.to_int),
    "float": lambda type_: ScalarNode(type_, _FLOAT, scalars.to_float),
    "probability": lambda type_: ScalarNode(type_, _FLOAT, scalars.to_float),
    "confidence_score": lambda type_: ScalarNode(type_, _FLOAT, scalars.to_float),
    "bool": lambda type_: ScalarNode(type_, core_schema.bool_schema(strict=True), scalars.to_bool),
    "bytes": lambda type_: ScalarNode(
        type_, core_schema.bytes_schema(strict=True), scalars.to_bytes
    ),
    "decimal": lambda type_: ScalarNode(type_, None, scalars.to_decimal),
    "tensor": lambda type_: ScalarNode(type_, None, scalars.to_tensor),
    "date": lambda type_: PythonNode(type_, None, scalars.to_date),
    "time": lambda type_: PythonNode(type_, None, scalars.to_time),
    "datetime": lambda type_: PythonNode(type_, None, scalars.to_datetime),
    "any": lambda type_: PythonNode(type_, core_schema.any_schema(), lambda value: value),
    "reasoning_chain": lambda type_: ListNode(type_, node_of(STR)),
}


def node_of(type_: Type, dspy_types: DSPyTypes = offered_dspy_types) -> Node:
    """The converter of a type. Raises `SignatureError` where a pattern does not compile, a default
    does not fit, or a type is one of DSPy's own that the engine does not have."""
    match type_:
        case Code():
            return _DSPyNode(type_, dspy_types(type_))
        case Scalar(name) if name in DSPY_TYPES:
            return _DSPyNode(type_, dspy_types(type_))
        case Scalar(name):
            node = _SCALARS[name](type_)
            limits = zip(("min", "max"), bounds(type_), strict=True)
            own = {name: limit for name, limit in limits if limit is not None}
            node.constrain(str(type_), checks_of(type_, own))
            return node
        case Embedding(dimensions):
            embedding = EmbeddingNode(type_, node_of(Scalar("float"), dspy_types))
            own = {} if dimensions is None else {"dimensions": dimensions}
            embedding.constrain(str(type_), checks_of(type_, own))
            return embedding
        case ListOf(item):
            return ListNode(type_, node_of(item, dspy_types))
        case SetOf(item):
            return SetNode(type_, node_of(item, dspy_types))
        case TupleOf(items):
            return TupleNode(type_, [node_of(item, dspy_types) for item in items])
        case DictOf(key, value):
            return DictNode(type_, node_of(key, dspy_types), node_of(value, dspy_types))
        case Constrained(inner):
            node = node_of(inner, dspy_types)
            node.constrain(str(type_), checks_of(inner, type_.constraints))
            return node
        case Object(properties, additional):
            nodes = {item.name: node_of(item.type, dspy_types) for item in properties}
            others = None if additional is None else node_of(additional, dspy_types)
            return ObjectNode(type_, nodes, others)
        case Literal():
            return LiteralNode(type_)
        case Union():
            return UnionNode(type_, [node_of(m, dspy_types) for m in without_none(type_)])
    raise AssertionError(f"a type without a converter: {type_!r}")


class _DSPyNode(PythonNode):
    def __init__(self, type_: Type, dspy_type: DSPyType) -> None:
        def convert(value: Any) -> Any:
            if isinstance(value, dspy_type.class_):
                return value
            return dspy_type.read(value)

        super().__init__(type_, core_schema.is_instance_schema(dspy_type.class_), convert)
