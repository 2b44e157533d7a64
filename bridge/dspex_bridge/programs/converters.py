"""Values in and out of a program: converted where nothing is lost, else refused with every reason.

Two passes. Pydantic judges a whole side at once and takes what fits exactly, which is the rule.
What it refuses is walked once more, to convert what is safe and to say what is wrong where. Both
use the same functions for constraints, and what the first takes the second would leave as it is.

Conversions, and no others:

    int        a float without fraction; text such as "-12" or "3.0"
    float      an int that a float holds exactly; a number as text
    bool       "true" and "false", in any case
    decimal    an int; a finite float, by its shortest text; a number as text
    date, time, datetime
               ISO 8601 text: "2024-05-01", "10:30", "10:30:00.5", and both joined by "T" or a
               space; a datetime may end in "Z" or "+01:00", a time has no offset
    list, tuple
               one another, and their items by these rules; an embedding: a tensor of one axis
    set        a list or a tuple
    Literal    what converts to one of its values
    a key      its text
    a union    the first member that fits exactly, else the first that converts

A boolean is no number, a number is no str, a str is no bytes. A number as text is in JSON's form.
A field that is left out gets its default, or else None where its type allows that.

Every error has one `type` of a closed list:

    missing    a field without a value            unexpected    a value without a field
    type       neither of the type nor convertible
    literal    none of the values of a Literal
    length     a tuple of another length
    key        a key of a dict that does not fit, or twice the same
    min  max  multiple_of  min_length  max_length  pattern  format  one_of  dimensions  min_items
    max_items  unique
               that constraint, which is looked at once the value and its items are of the type

One place has at most one error, the first of these; `path` is the field, then keys and indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from dspex_protocol.constraints import bounds, describe
from dspex_protocol.errors import InputValidationError, OutputValidationError, SignatureError
from dspex_protocol.signatures import MISSING, STR
from dspex_protocol.types import (
    DSPY_TYPES,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
    allows_none,
    did_you_mean,
    without_none,
)
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic_core import SchemaValidator, core_schema

from . import scalars
from .checks import Check, checks_of
from .scalars import RefusedError
from .signatures import NO_DSPY_TYPES, dspy_class
from .wire_values import NoWireFormError, key_text, render, to_wire

if TYPE_CHECKING:
    from dspex_protocol.errors import ValidationError
    from dspex_protocol.signatures import Field, SignatureSpec
    from pydantic_core import CoreSchema

__all__ = ["ERROR_TYPES", "MAX_ERRORS", "InputConverter", "OutputConverter"]

#: Every `type` that an error can have.
ERROR_TYPES: Final = (
    *("missing", "unexpected", "type", "literal", "length", "key"),
    *("min", "max", "multiple_of", "min_length", "max_length", "pattern", "format", "one_of"),
    *("dimensions", "min_items", "max_items", "unique"),
)

# A list of a million wrong items would otherwise make an answer larger than the request.
MAX_ERRORS = 100

# Lines in the message of an error; its data has them all.
_SHOWN_ERRORS = 5


class InputConverter:
    """What a client sent, as a program takes it. Made once for a program.

    Raises `SignatureError` where a pattern does not compile, a default does not fit its field, or
    a type is one of DSPy's own for which `dspy_types` has no class.
    """

    def __init__(self, spec: SignatureSpec, dspy_types: Mapping[str, type] = NO_DSPY_TYPES) -> None:
        self._side = _Side(spec.inputs, "inputs", InputValidationError, dspy_types)

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every input by name. Raises `InputValidationError` with all errors in `data.errors`."""
        return self._side.convert(values)


class OutputConverter:
    """What a program gave, as the codec writes it. Made once for a program; raises as above."""

    def __init__(self, spec: SignatureSpec, dspy_types: Mapping[str, type] = NO_DSPY_TYPES) -> None:
        self._side = _Side(spec.outputs, "outputs", OutputValidationError, dspy_types)

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every output by name. Raises `OutputValidationError` with all errors in `data.errors`."""
        return self._side.convert_to_wire(values)


_REFUSED: Final = object()


class _TooManyErrors(Exception):
    """Ends a walk that has found as many errors as it may."""


class _Errors:
    """The errors of one walk, and the path to where it is."""

    __slots__ = ("found", "limit", "path", "truncated")

    def __init__(self, limit: int) -> None:
        self.found: list[dict[str, Any]] = []
        self.path: list[str | int] = []
        self.limit = limit
        self.truncated = False

    def add(self, kind: str, expected: str, value: Any, reason: str = "") -> None:
        if len(self.found) == self.limit:
            self.truncated = True
            raise _TooManyErrors
        got = "nothing" if value is MISSING else render(value)
        message = f"expected {expected}, got {got}" + (f": {reason}" if reason else "")
        error = {"path": list(self.path), "type": kind, "message": message}
        self.found.append({**error, "expected": expected, "got": got})


class _Node:
    """The converter of one type. A subclass gives its `shape` and its `walk`."""

    #: What Pydantic takes as exactly of this type, without `checks`.
    shape: CoreSchema
    #: Whether what fits exactly is already in the form of the wire.
    plain: bool = True
    checks: tuple[Check, ...] = ()

    def __init__(self, type_: Type) -> None:
        #: The canonical type, with its constraints, as errors name it.
        self.expected = str(type_)

    def constrain(self, expected: str, checks: tuple[Check, ...]) -> None:
        """Add the constraints of a field to those that the type has by itself."""
        self.expected = expected
        self.checks += checks

    @property
    def schema(self) -> CoreSchema:
        """What Pydantic takes as exactly of this type, `checks` included."""
        if not self.checks:
            return self.shape
        return core_schema.no_info_after_validator_function(self._checked, self.shape)

    def convert(self, value: Any, errors: _Errors) -> Any:
        """The value of this type; of no meaning where errors were added."""
        before = len(errors.found)
        result = self.walk(value, errors)
        if self.checks and len(errors.found) == before:
            check = self.failed(result)
            if check is not None:
                errors.add(check.name, self.expected, value)
        return result

    def convert_or_refuse(self, value: Any) -> Any:
        """The value of this type, or `_REFUSED`."""
        try:
            return self.convert(value, _Errors(limit=0))
        except _TooManyErrors:
            return _REFUSED

    def walk(self, value: Any, errors: _Errors) -> Any:
        raise NotImplementedError

    def to_wire(self, value: Any) -> Any:
        """The form of the wire of a value that fits exactly."""
        return value

    def failed(self, value: Any) -> Check | None:
        """The first constraint that a value of this type does not fulfil."""
        return next((check for check in self.checks if not check.test(value)), None)

    def _checked(self, value: Any) -> Any:
        if self.failed(value) is not None:
            raise ValueError  # only that it does not fit: the walk says why
        return value


class _ScalarNode(_Node):
    def __init__(
        self,
        type_: Type,
        shape: CoreSchema | None,
        convert: Callable[[Any], Any],
        checks: tuple[Check, ...] = (),
    ) -> None:
        super().__init__(type_)
        self._convert = convert
        self.shape = shape or core_schema.no_info_plain_validator_function(self._exactly)
        self.checks = checks

    def walk(self, value: Any, errors: _Errors) -> Any:
        try:
            return self._convert(value)
        except RefusedError as reason:
            return errors.add("type", self.expected, value, str(reason))

    def _exactly(self, value: Any) -> Any:
        if self._convert(value) is not value:
            raise ValueError
        return value


class _ObjectNode(_ScalarNode):
    """Dates, times, DSPy's own types and `any`: what is an object here may be none on the wire."""

    plain = False

    def to_wire(self, value: Any) -> Any:
        return to_wire(value)


class _LiteralNode(_Node):
    def __init__(self, type_: Literal) -> None:
        super().__init__(type_)
        self._values = {(type(value), value): value for value in type_.values}
        self.shape = core_schema.no_info_plain_validator_function(self._exactly)

    def walk(self, value: Any, errors: _Errors) -> Any:
        try:
            return self._exactly(value)
        except ValueError:
            pass  # not one of them as it is
        for kind, candidate in self._values:
            try:
                if _LITERAL_CONVERSIONS[kind](value) == candidate:
                    return candidate
            except RefusedError:
                continue
        return errors.add("literal", self.expected, value)

    def _exactly(self, value: Any) -> Any:
        try:
            return self._values[type(value), value]
        except (KeyError, TypeError):
            raise ValueError from None


_LITERAL_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    bool: scalars.to_bool,
    int: scalars.to_int,
    str: scalars.to_str,
    type(None): scalars.to_none,
}


class _ListNode(_Node):
    def __init__(self, type_: Type, item: _Node, checks: tuple[Check, ...] = ()) -> None:
        super().__init__(type_)
        self._item = item
        self.plain = item.plain
        self.checks = checks
        # Failing fast because only the walk's errors are shown.
        self.shape = core_schema.list_schema(item.schema, strict=True, fail_fast=True)

    def walk(self, value: Any, errors: _Errors) -> Any:
        if not isinstance(value, list | tuple):
            return errors.add("type", self.expected, value)
        return _walk_items(value, self._item, errors)

    def to_wire(self, value: Any) -> Any:
        return [self._item.to_wire(item) for item in value]


class _EmbeddingNode(_ListNode):
    def walk(self, value: Any, errors: _Errors) -> Any:
        if len(getattr(value, "shape", ())) == 1 and hasattr(value, "tolist"):
            value = value.tolist()
        return super().walk(value, errors)


class _SetNode(_Node):
    plain = False

    def __init__(self, type_: Type, item: _Node) -> None:
        super().__init__(type_)
        self._item = item
        self.shape = core_schema.set_schema(item.schema, strict=True, fail_fast=True)

    def walk(self, value: Any, errors: _Errors) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            return errors.add("type", self.expected, value)
        before = len(errors.found)
        converted = _walk_items(value, self._item, errors)
        if len(errors.found) > before:
            return None
        try:
            return set(converted)
        except TypeError:  # only where an item is `any`
            return errors.add("type", self.expected, value, "a set holds no lists and no maps")

    def to_wire(self, value: Any) -> Any:
        return to_wire(value)


class _TupleNode(_Node):
    plain = False

    def __init__(self, type_: Type, items: list[_Node]) -> None:
        super().__init__(type_)
        self._items = items
        self.shape = core_schema.tuple_schema([i.schema for i in items], strict=True)

    def walk(self, value: Any, errors: _Errors) -> Any:
        if not isinstance(value, list | tuple):
            return errors.add("type", self.expected, value)
        if len(value) != len(self._items):
            return errors.add("length", self.expected, value, f"its length is {len(value)}")
        result = []
        errors.path.append(0)
        for i, (node, item) in enumerate(zip(self._items, value, strict=True)):
            errors.path[-1] = i
            result.append(node.convert(item, errors))
        errors.path.pop()
        return tuple(result)

    def to_wire(self, value: Any) -> Any:
        return [node.to_wire(item) for node, item in zip(self._items, value, strict=True)]


class _DictNode(_Node):
    def __init__(self, type_: DictOf, key: _Node, value: _Node) -> None:
        super().__init__(type_)
        self._key = key
        self._value = value
        self.plain = type_.key == STR and value.plain
        # By lists, which fail fast: Pydantic's dicts gather an error for every entry.
        self._keys = SchemaValidator(_fast_list(key))
        self._values = SchemaValidator(_fast_list(value))
        self.shape = core_schema.no_info_plain_validator_function(self._exactly)

    def walk(self, value: Any, errors: _Errors) -> Any:
        if not isinstance(value, Mapping):
            return errors.add("type", self.expected, value)
        result = {}
        before = len(errors.found)
        errors.path.append("")
        for key, item in value.items():
            errors.path[-1] = key if isinstance(key, str | int) else str(key)
            converted = self._key.convert_or_refuse(key)
            if converted is _REFUSED:
                errors.add("key", self._key.expected, key)
            else:
                result[converted] = self._value.convert(item, errors)
        errors.path.pop()
        if len(errors.found) == before and len(result) < len(value):
            errors.add("key", self.expected, value, "two of its keys are the same")
        return result

    def to_wire(self, value: Any) -> Any:
        return {key_text(key): self._value.to_wire(item) for key, item in value.items()}

    def _exactly(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError
        keys = self._keys.validate_python(list(value))
        return dict(zip(keys, self._values.validate_python(list(value.values())), strict=True))


class _UnionNode(_Node):
    """`members` are those other than None."""

    def __init__(self, type_: Type, members: list[_Node]) -> None:
        super().__init__(type_)
        self._members = members
        self._none = allows_none(type_)
        self._validators = [SchemaValidator(member.schema) for member in members]
        self.plain = all(member.plain for member in members)
        shape = members[0].schema
        if len(members) > 1:
            choices: list[CoreSchema | tuple[CoreSchema, str]] = [m.schema for m in members]
            shape = core_schema.union_schema(choices, mode="left_to_right")
        self.shape = core_schema.nullable_schema(shape) if self._none else shape

    def walk(self, value: Any, errors: _Errors) -> Any:
        if value is None and self._none:
            return None
        if len(self._members) == 1:
            return self._members[0].convert(value, errors)
        if self._exact_member(value) is not None:
            return value
        for member in self._members:
            converted = member.convert_or_refuse(value)
            if converted is not _REFUSED:
                return converted
        return errors.add("type", self.expected, value)

    def to_wire(self, value: Any) -> Any:
        member = None if value is None else self._exact_member(value)
        return value if member is None else member.to_wire(value)

    def constrain(self, expected: str, checks: tuple[Check, ...]) -> None:
        super().constrain(expected, checks)
        if len(self._members) == 1:
            self._members[0].expected = expected

    def failed(self, value: Any) -> Check | None:
        return None if value is None else super().failed(value)

    def _exact_member(self, value: Any) -> _Node | None:
        for member, validator in zip(self._members, self._validators, strict=True):
            if validator.isinstance_python(value):
                return member
        return None


def _walk_items(items: Collection[Any], node: _Node, errors: _Errors) -> list[Any]:
    result = []
    errors.path.append(0)
    for i, item in enumerate(items):
        errors.path[-1] = i
        result.append(node.convert(item, errors))
    errors.path.pop()
    return result


def _fast_list(node: _Node) -> CoreSchema:
    return core_schema.list_schema(node.schema, fail_fast=True)


# Types to nodes

_STR = core_schema.str_schema(strict=True)
_INT = core_schema.int_schema(strict=True)
# Pydantic's strict float takes an int, of any size.
_FLOAT = core_schema.is_instance_schema(float)

_SCALARS: dict[str, Callable[[Scalar], _Node]] = {
    "str": lambda type_: _ScalarNode(type_, _STR, scalars.to_str),
    "int": lambda type_: _ScalarNode(type_, _INT, scalars.to_int),
    "token_count": lambda type_: _ScalarNode(type_, _INT, scalars.to_int),
    "float": lambda type_: _ScalarNode(type_, _FLOAT, scalars.to_float),
    "probability": lambda type_: _ScalarNode(type_, _FLOAT, scalars.to_float),
    "confidence_score": lambda type_: _ScalarNode(type_, _FLOAT, scalars.to_float),
    "bool": lambda type_: _ScalarNode(type_, core_schema.bool_schema(strict=True), scalars.to_bool),
    "bytes": lambda type_: _ScalarNode(
        type_, core_schema.bytes_schema(strict=True), scalars.to_bytes
    ),
    "decimal": lambda type_: _ScalarNode(type_, None, scalars.to_decimal),
    "tensor": lambda type_: _ScalarNode(type_, None, scalars.to_tensor),
    "date": lambda type_: _ObjectNode(type_, None, scalars.to_date),
    "time": lambda type_: _ObjectNode(type_, None, scalars.to_time),
    "datetime": lambda type_: _ObjectNode(type_, None, scalars.to_datetime),
    "any": lambda type_: _ObjectNode(type_, core_schema.any_schema(), lambda value: value),
    "reasoning_chain": lambda type_: _ListNode(type_, _node(STR, NO_DSPY_TYPES)),
}


def _node(type_: Type, dspy_types: Mapping[str, type]) -> _Node:
    match type_:
        case Scalar(name) if name in DSPY_TYPES:
            return _dspy_node(type_, dspy_class(name, dspy_types))
        case Scalar(name):
            node = _SCALARS[name](type_)
            limits = zip(("min", "max"), bounds(type_), strict=True)
            own = {name: limit for name, limit in limits if limit is not None}
            node.constrain(str(type_), checks_of(type_, own))
            return node
        case Embedding(dimensions):
            embedding = _EmbeddingNode(type_, _node(Scalar("float"), dspy_types))
            own = {} if dimensions is None else {"dimensions": dimensions}
            embedding.constrain(str(type_), checks_of(type_, own))
            return embedding
        case ListOf(item):
            return _ListNode(type_, _node(item, dspy_types))
        case SetOf(item):
            return _SetNode(type_, _node(item, dspy_types))
        case TupleOf(items):
            return _TupleNode(type_, [_node(item, dspy_types) for item in items])
        case DictOf(key, value):
            return _DictNode(type_, _node(key, dspy_types), _node(value, dspy_types))
        case Literal():
            return _LiteralNode(type_)
        case Union():
            return _UnionNode(type_, [_node(m, dspy_types) for m in without_none(type_)])
    raise AssertionError(f"a type without a converter: {type_!r}")


def _dspy_node(type_: Type, class_: type) -> _Node:
    adapter = TypeAdapter[Any](class_)

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except (ValueError, TypeError):
            raise RefusedError(f"DSPy's {class_.__name__} does not take it") from None

    return _ObjectNode(type_, core_schema.is_instance_schema(class_), convert)


# One side of a signature


class _Side:
    def __init__(
        self,
        fields: tuple[Field, ...],
        name: str,
        error: type[ValidationError],
        dspy_types: Mapping[str, type],
    ) -> None:
        self._name = name
        self._error = error
        self._nodes: dict[str, _Node] = {}
        self._defaults: dict[str, Any] = {}
        for i, field in enumerate(fields):
            try:
                self._add(field, dspy_types)
            except SignatureError as reason:
                raise SignatureError(
                    f"{name}[{i}] ({field.name}): {reason.message}", data={"path": [name, i]}
                ) from None
        self._exact = SchemaValidator(
            core_schema.typed_dict_schema(
                {
                    name: core_schema.typed_dict_field(self._field_schema(name, node))
                    for name, node in self._nodes.items()
                },
                extra_behavior="forbid",
            )
        )
        self._written = [(name, node) for name, node in self._nodes.items() if not node.plain]

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # Pydantic gathers an error of 240 bytes for every value too many, maybe for millions.
        if len(values) <= len(self._nodes):
            try:
                exact: dict[str, Any] = self._exact.validate_python(values)
            except PydanticError:
                pass  # the walk converts, and says what is wrong
            else:
                return exact
        return self._walk(values)

    def convert_to_wire(self, values: Mapping[str, Any]) -> dict[str, Any]:
        errors = _Errors(MAX_ERRORS)
        try:
            result: dict[str, Any] = self._exact.validate_python(values)
        except PydanticError:
            plain = {name: self._to_wire(to_wire, name, values[name], errors) for name in values}
            self._raise(errors)
            result = self._walk(plain)
        for name, node in self._written:
            result[name] = self._to_wire(node.to_wire, name, result[name], errors)
        self._raise(errors)
        return result

    def _add(self, field: Field, dspy_types: Mapping[str, type]) -> None:
        node = _node(field.type, dspy_types)
        expected = describe(field.type, field.constraints)
        node.constrain(expected, checks_of(field.type, field.constraints))
        self._nodes[field.name] = node
        if field.default is not MISSING:
            errors = _Errors(MAX_ERRORS)
            self._defaults[field.name] = node.convert(deepcopy(field.default), errors)
            if errors.found:
                raise SignatureError(f"the default does not fit: {errors.found[0]['message']}")
        elif allows_none(field.type):
            self._defaults[field.name] = None

    def _field_schema(self, name: str, node: _Node) -> CoreSchema:
        if name not in self._defaults:
            return node.schema
        # Pydantic copies a default that is not hashable, so that no two calls share one.
        return core_schema.with_default_schema(node.schema, default=self._defaults[name])

    def _walk(self, values: Mapping[str, Any]) -> dict[str, Any]:
        errors = _Errors(MAX_ERRORS)
        result: dict[str, Any] = {}
        try:
            for name, node in self._nodes.items():
                errors.path = [name]
                if name in values:
                    result[name] = node.convert(values[name], errors)
                elif name in self._defaults:
                    result[name] = deepcopy(self._defaults[name])
                else:
                    errors.add("missing", node.expected, MISSING)
            for name in values:
                if name not in self._nodes:
                    errors.path = [name]
                    hint = did_you_mean(name, self._nodes).removeprefix(", ")
                    errors.add("unexpected", self._expected(name), values[name], hint)
        except _TooManyErrors:
            pass  # those found so far are reported
        self._raise(errors)
        return result

    def _to_wire(
        self, convert: Callable[[Any], Any], name: str, value: Any, errors: _Errors
    ) -> Any:
        try:
            return convert(value)
        except NoWireFormError as reason:
            errors.path = [name]
            return errors.add("type", self._expected(name), value, str(reason))

    def _expected(self, name: str) -> str:
        node = self._nodes.get(name)
        return f"no {self._name[:-1]} of this name" if node is None else node.expected

    def _raise(self, errors: _Errors) -> None:
        found = errors.found
        if not found:
            return
        count = "1 error" if len(found) == 1 else f"{len(found)} errors"
        lines = [f"{_place(error['path'])}: {error['message']}" for error in found[:_SHOWN_ERRORS]]
        if len(found) > _SHOWN_ERRORS:
            lines.append(f"and {'more than ' * errors.truncated}{len(found) - _SHOWN_ERRORS} more")
        shown = lines[0] if len(lines) == 1 else "\n  ".join(["", *lines])
        message = f"{count} in the {self._name}:{' ' * (len(lines) == 1)}{shown}"
        data: dict[str, Any] = {"errors": found}
        if errors.truncated:
            data["truncated"] = True
        raise self._error(message, data=data)


def _place(path: list[str | int]) -> str:
    return str(path[0]) + "".join(f"[{part!r}]" for part in path[1:])
