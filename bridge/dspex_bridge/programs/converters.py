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

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from dspex_protocol.constraints import describe
from dspex_protocol.errors import InputValidationError, OutputValidationError, SignatureError
from dspex_protocol.signatures import MISSING
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import allows_none
from pydantic import ValidationError as PydanticError
from pydantic_core import SchemaValidator, core_schema

from .checks import checks_of
from .offered_types import offered_dspy_types
from .type_nodes import node_of
from .value_errors import MAX_ERRORS, Errors, TooManyErrors, summary
from .wire_values import NoWireFormError, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_protocol.errors import ValidationError
    from dspex_protocol.signatures import Field, SignatureSpec
    from pydantic_core import CoreSchema

    from .nodes import Node
    from .offered_types import DSPyTypes

__all__ = ["InputConverter", "OutputConverter"]


class InputConverter:
    """What a client sent, as a program takes it. Made once for a program.

    Raises `SignatureError` where a pattern does not compile, a default does not fit its field, or
    a type is one of DSPy's own that `dspy_types` does not have.
    """

    def __init__(self, spec: SignatureSpec, dspy_types: DSPyTypes = offered_dspy_types) -> None:
        self._side = _Side(spec.inputs, "inputs", InputValidationError, dspy_types)

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every input by name. Raises `InputValidationError` with all errors in `data.errors`."""
        return self._side.convert(values)


class OutputConverter:
    """What a program gave, as the codec writes it. Made once for a program; raises as above."""

    def __init__(self, spec: SignatureSpec, dspy_types: DSPyTypes = offered_dspy_types) -> None:
        self._side = _Side(spec.outputs, "outputs", OutputValidationError, dspy_types)

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every output by name. Raises `OutputValidationError` with all errors in `data.errors`."""
        return self._side.convert_to_wire(values)


class _Side:
    def __init__(
        self,
        fields: tuple[Field, ...],
        name: str,
        error: type[ValidationError],
        dspy_types: DSPyTypes,
    ) -> None:
        self._name = name
        self._error = error
        self._nodes: dict[str, Node] = {}
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
        errors = Errors(MAX_ERRORS)
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

    def _add(self, field: Field, dspy_types: DSPyTypes) -> None:
        node = node_of(field.type, dspy_types)
        expected = describe(field.type, field.constraints)
        node.constrain(expected, checks_of(field.type, field.constraints))
        self._nodes[field.name] = node
        if field.default is not MISSING:
            errors = Errors(MAX_ERRORS)
            self._defaults[field.name] = node.convert(deepcopy(field.default), errors)
            if errors.found:
                raise SignatureError(f"the default does not fit: {errors.found[0]['message']}")
        elif allows_none(field.type):
            self._defaults[field.name] = None

    def _field_schema(self, name: str, node: Node) -> CoreSchema:
        if name not in self._defaults:
            return node.schema
        # Pydantic copies a default that is not hashable, so that no two calls share one.
        return core_schema.with_default_schema(node.schema, default=self._defaults[name])

    def _walk(self, values: Mapping[str, Any]) -> dict[str, Any]:
        errors = Errors(MAX_ERRORS)
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
        except TooManyErrors:
            pass  # those found so far are reported
        self._raise(errors)
        return result

    def _to_wire(self, convert: Callable[[Any], Any], name: str, value: Any, errors: Errors) -> Any:
        try:
            return convert(value)
        except NoWireFormError as reason:
            errors.path = [name]
            return errors.add("type", self._expected(name), value, str(reason))

    def _expected(self, name: str) -> str:
        node = self._nodes.get(name)
        return f"no {self._name[:-1]} of this name" if node is None else node.expected

    def _raise(self, errors: Errors) -> None:
        found = errors.found
        if not found:
            return
        data: dict[str, Any] = {"errors": found}
        if errors.truncated:
            data["truncated"] = True
        raise self._error(summary(errors, self._name), data=data)
