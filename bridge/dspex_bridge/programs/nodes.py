"""Converters of types: each takes what fits exactly, converts what is safe, and says why not.

`shape` is for Pydantic, which judges a whole side at once; `walk` is for what it refuses. What the
first takes the second leaves as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dspex_protocol.types import Literal, Type, allows_none
from pydantic_core import SchemaValidator, core_schema

from . import scalars
from .scalars import RefusedError
from .value_errors import Errors, TooManyErrors
from .wire_values import to_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import CoreSchema

    from .checks import Check

__all__ = ["REFUSED", "LiteralNode", "Node", "PythonNode", "ScalarNode", "UnionNode"]

#: What `convert_or_refuse` gives for a value that does not fit; None is a value.
REFUSED: Final = object()


class Node:
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

    def convert(self, value: Any, errors: Errors) -> Any:
        """The value of this type; of no meaning where errors were added."""
        before = len(errors.found)
        result = self.walk(value, errors)
        if self.checks and len(errors.found) == before:
            check = self.failed(result)
            if check is not None:
                errors.add(check.name, self.expected, value)
        return result

    def convert_or_refuse(self, value: Any) -> Any:
        """The value of this type, or `REFUSED`."""
        try:
            return self.convert(value, Errors(limit=0))
        except TooManyErrors:
            return REFUSED

    def walk(self, value: Any, errors: Errors) -> Any:
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


class ScalarNode(Node):
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

    def walk(self, value: Any, errors: Errors) -> Any:
        try:
            return self._convert(value)
        except RefusedError as reason:
            return errors.add("type", self.expected, value, str(reason))

    def _exactly(self, value: Any) -> Any:
        if self._convert(value) is not value:
            raise ValueError
        return value


class PythonNode(ScalarNode):
    """Dates, times, DSPy's own types and `any`: what is an object here may be none on the wire."""

    plain = False

    def to_wire(self, value: Any) -> Any:
        return to_wire(value)


class LiteralNode(Node):
    def __init__(self, type_: Literal) -> None:
        super().__init__(type_)
        self._values = {(type(value), value): value for value in type_.values}
        self.shape = core_schema.no_info_plain_validator_function(self._exactly)

    def walk(self, value: Any, errors: Errors) -> Any:
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


class UnionNode(Node):
    """`members` are those other than None."""

    def __init__(self, type_: Type, members: list[Node]) -> None:
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

    def walk(self, value: Any, errors: Errors) -> Any:
        if value is None and self._none:
            return None
        if len(self._members) == 1:
            return self._members[0].convert(value, errors)
        if self._exact_member(value) is not None:
            return value
        for member in self._members:
            converted = member.convert_or_refuse(value)
            if converted is not REFUSED:
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

    def _exact_member(self, value: Any) -> Node | None:
        for member, validator in zip(self._members, self._validators, strict=True):
            if validator.isinstance_python(value):
                return member
        return None
