"""Converters of types that hold others: lists, sets, tuples, dicts and objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import SignatureError
from dspex_protocol.signatures import MISSING, STR
from dspex_protocol.spelling import did_you_mean
from pydantic_core import SchemaValidator, core_schema

from .nodes import REFUSED, Node
from .value_errors import MAX_ERRORS, Errors
from .wire_values import key_text, to_wire

if TYPE_CHECKING:
    from dspex_protocol.types import DictOf, Object, Type
    from pydantic_core import CoreSchema

    from .checks import Check

__all__ = ["DictNode", "EmbeddingNode", "ListNode", "ObjectNode", "SetNode", "TupleNode"]


class ListNode(Node):
    def __init__(self, type_: Type, item: Node, checks: tuple[Check, ...] = ()) -> None:
        super().__init__(type_)
        self._item = item
        self.plain = item.plain
        self.checks = checks
        # Failing fast because only the walk's errors are shown.
        self.shape = core_schema.list_schema(item.schema, strict=True, fail_fast=True)

    def walk(self, value: Any, errors: Errors) -> Any:
        if not isinstance(value, list | tuple):
            return errors.add("type", self.expected, value)
        return _walk_items(value, self._item, errors)

    def to_wire(self, value: Any) -> Any:
        return [self._item.to_wire(item) for item in value]


class EmbeddingNode(ListNode):
    def walk(self, value: Any, errors: Errors) -> Any:
        if len(getattr(value, "shape", ())) == 1 and hasattr(value, "tolist"):
            value = value.tolist()
        return super().walk(value, errors)


class SetNode(Node):
    plain = False

    def __init__(self, type_: Type, item: Node) -> None:
        super().__init__(type_)
        self._item = item
        self.shape = core_schema.set_schema(item.schema, strict=True, fail_fast=True)

    def walk(self, value: Any, errors: Errors) -> Any:
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


class TupleNode(Node):
    plain = False

    def __init__(self, type_: Type, items: list[Node]) -> None:
        super().__init__(type_)
        self._items = items
        self.shape = core_schema.tuple_schema([i.schema for i in items], strict=True)

    def walk(self, value: Any, errors: Errors) -> Any:
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


class DictNode(Node):
    def __init__(self, type_: DictOf, key: Node, value: Node) -> None:
        super().__init__(type_)
        self._key = key
        self._value = value
        self.plain = type_.key == STR and value.plain
        # By lists, which fail fast: Pydantic's dicts gather an error for every entry.
        self._keys = SchemaValidator(_fast_list(key))
        self._values = SchemaValidator(_fast_list(value))
        self.shape = core_schema.no_info_plain_validator_function(self._exactly)

    def walk(self, value: Any, errors: Errors) -> Any:
        if not isinstance(value, Mapping):
            return errors.add("type", self.expected, value)
        result = {}
        before = len(errors.found)
        errors.path.append("")
        for key, item in value.items():
            errors.path[-1] = key if isinstance(key, str | int) else str(key)
            converted = self._key.convert_or_refuse(key)
            if converted is REFUSED:
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


class ObjectNode(Node):
    """A map with known keys. A property that is left out is its default, else stays left out."""

    def __init__(self, type_: Object, nodes: Mapping[str, Node], additional: Node | None) -> None:
        super().__init__(type_)
        self._nodes = dict(nodes)
        self._additional = additional
        self._required = {item.name for item in type_.properties if item.required}
        self._defaults: dict[str, Any] = {}
        for item in type_.properties:
            if item.default is not MISSING:
                self._defaults[item.name] = self._checked_default(item.name, item.default)
        others = [] if additional is None else [additional]
        self.plain = all(node.plain for node in (*self._nodes.values(), *others))
        fields = {
            name: core_schema.typed_dict_field(
                node.schema, required=name in self._required or name in self._defaults
            )
            for name, node in self._nodes.items()
        }
        self._known = SchemaValidator(core_schema.typed_dict_schema(fields, strict=True))
        # By a list, which fails fast: see DictNode.
        self._others = None if additional is None else SchemaValidator(_fast_list(additional))
        self.shape = core_schema.no_info_plain_validator_function(self._exactly)

    def walk(self, value: Any, errors: Errors) -> Any:
        if not isinstance(value, Mapping):
            return errors.add("type", self.expected, value)
        result = {}
        errors.path.append("")
        for name, node in self._nodes.items():
            errors.path[-1] = name
            if name in value:
                result[name] = node.convert(value[name], errors)
            elif name in self._defaults:
                result[name] = deepcopy(self._defaults[name])
            elif name in self._required:
                errors.add("missing", node.expected, MISSING)
        for key in value:
            if key in self._nodes:
                continue
            errors.path[-1] = key if isinstance(key, str | int) else str(key)
            if not isinstance(key, str):
                errors.add("key", "str", key)
            elif self._additional is None:
                hint = did_you_mean(key, self._nodes).removeprefix(", ")
                errors.add("unexpected", "no property of this name", value[key], hint)
            else:
                result[key] = self._additional.convert(value[key], errors)
        errors.path.pop()
        return result

    def to_wire(self, value: Any) -> Any:
        return {key: self._node_of(key).to_wire(item) for key, item in value.items()}

    def _node_of(self, key: str) -> Node:
        node = self._nodes.get(key, self._additional)
        if node is None:
            raise AssertionError(f"a property that was not converted: {key!r}")
        return node

    def _exactly(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError
        others = [key for key in value if key not in self._nodes]
        if others and (self._others is None or not all(isinstance(key, str) for key in others)):
            raise ValueError
        known = self._known.validate_python({k: value[k] for k in self._nodes if k in value})
        if self._others is not None:
            items = self._others.validate_python([value[key] for key in others])
            known |= zip(others, items, strict=True)
        return known

    def _checked_default(self, name: str, default: Any) -> Any:
        errors = Errors(MAX_ERRORS)
        converted = self._nodes[name].convert(deepcopy(default), errors)
        if errors.found:
            raise SignatureError(
                f"the default of {name!r} does not fit: {errors.found[0]['message']}"
            )
        return converted


def _walk_items(items: Collection[Any], node: Node, errors: Errors) -> list[Any]:
    result = []
    errors.path.append(0)
    for i, item in enumerate(items):
        errors.path[-1] = i
        result.append(node.convert(item, errors))
    errors.path.pop()
    return result


def _fast_list(node: Node) -> CoreSchema:
    return core_schema.list_schema(node.schema, fail_fast=True)
