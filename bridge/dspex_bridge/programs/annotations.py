"""The Python annotation of a type, as DSPy's signatures take it."""

from __future__ import annotations

import datetime
import typing
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from dspex_protocol.schema_writer import schema_of
from dspex_protocol.types import (
    DSPY_TYPES,
    Code,
    Constrained,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Null,
    Object,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
)
from pydantic import WithJsonSchema

from .object_models import object_model
from .offered_types import offered_dspy_types

if TYPE_CHECKING:
    from .offered_types import DSPyTypes

__all__ = ["annotation"]

# Generic aliases made at run time are no types to a type checker.
_list_form: Any = list
_set_form: Any = set
_tuple_form: Any = tuple
_dict_form: Any = dict
_literal_form: Any = typing.Literal
_union_form: Any = typing.Union
_annotated_form: Any = Annotated

_SCALARS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "any": Any,
    "date": datetime.date,
    "time": datetime.time,
    "datetime": datetime.datetime,
    "decimal": Decimal,
    "probability": float,
    "confidence_score": float,
    "token_count": int,
    "reasoning_chain": list[str],
    "tensor": Any,
}


def annotation(type_: Type, dspy_types: DSPyTypes = offered_dspy_types) -> Any:
    """The Python annotation of a type, as `dspy.Signature({name: (annotation, field)})` takes it.

    It carries no constraints: DSPy shall hand over what the LM said, and the output's converter
    judges it. SignatureError for one of DSPy's own types that `dspy_types` does not have.
    """
    match type_:
        case Code():
            return dspy_types(type_).class_
        case Scalar(name) if name in DSPY_TYPES:
            return dspy_types(type_).class_
        case Scalar(name):
            return _SCALARS[name]
        case Constrained(inner):
            # What Pydantic tells the LM of it; it enforces none of that.
            return _annotated_form[annotation(inner, dspy_types), WithJsonSchema(schema_of(type_))]
        case Object(properties):
            return object_model(
                type_, {item.name: annotation(item.type, dspy_types) for item in properties}
            )
        case Embedding():
            return list[float]
        case ListOf(item):
            return _list_form[annotation(item, dspy_types)]
        case SetOf(item):
            return _set_form[annotation(item, dspy_types)]
        case TupleOf(items):
            return _tuple_form[tuple(annotation(item, dspy_types) for item in items)]
        case DictOf(key, value):
            return _dict_form[annotation(key, dspy_types), annotation(value, dspy_types)]
        case Literal(values):
            return _literal_form[values]
        case Union(members):
            return _union_form[tuple(annotation(member, dspy_types) for member in members)]
        case Null():
            return type(None)
    raise AssertionError(f"a type without an annotation: {type_!r}")
