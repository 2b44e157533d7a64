"""A program as a function that an LM can call: the tool definitions of OpenAI and Anthropic.

OpenAI's strict mode takes a part of JSON Schema: closed objects with every property required, and
few keywords. What may be left out is nullable there, and whoever runs the call leaves a null of an
input that takes none out again; what a keyword would have said stands in the description. Inputs
that cannot be told so (a dict, `any`, a tuple) make the whole function one that is not strict.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from dspex_protocol.schema_writer import TIME_PATTERN

from .signatures import input_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.signatures import SignatureSpec

__all__ = ["function_schemas"]

# Both providers': letters, digits, "_" and "-".
_MAX_NAME_CHARS = 64
_NO_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")

# OpenAI's limits in strict mode.
_MAX_STRICT_DEPTH = 10
_MAX_STRICT_ENUM_VALUES = 1_000
_STRICT_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_STRICT_KEYWORDS = frozenset(
    {"type", "enum", "description", "title", "pattern", "minimum", "maximum", "multipleOf"}
    | {"minItems", "maxItems"}
)
_WORDS = {
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "format": "in the format {}",
    "contentMediaType": "of the media type {}",
    "uniqueItems": "no item twice",
    "default": "default: {}",
}


class _NotStrictError(Exception):
    """Strict mode cannot say it."""


def function_schemas(spec: SignatureSpec, name: str) -> dict[str, Any]:
    """`{openai, openai_chat, anthropic}`: what goes into `tools` of OpenAI's Responses API, of its
    Chat Completions, and of Anthropic's Messages. `name` is for a signature that has none."""
    plain = {key: value for key, value in input_schema(spec).items() if key in _OF_PARAMETERS}
    called = _NO_NAME_CHARACTER.sub("_", spec.name or name)[:_MAX_NAME_CHARS]
    described = {"name": called, "description": spec.instructions or _told(spec)}
    try:
        parameters = _strict(plain, _Limits())
    except _NotStrictError:
        openai = {**described, "parameters": plain, "strict": False}
    else:
        openai = {**described, "parameters": parameters, "strict": True}
    return {
        "openai": {"type": "function", **openai},
        "openai_chat": {"type": "function", "function": openai},
        "anthropic": {**described, "input_schema": plain},
    }


_OF_PARAMETERS = ("type", "properties", "required", "additionalProperties")


def _told(spec: SignatureSpec) -> str:
    inputs, outputs = (", ".join(f.name for f in side) for side in (spec.inputs, spec.outputs))
    return f"Given {inputs}, gives {outputs}."


class _Limits:
    """What is left of the limits on a whole schema."""

    def __init__(self) -> None:
        self.depth = _MAX_STRICT_DEPTH
        self.enum_values = _MAX_STRICT_ENUM_VALUES


def _strict(schema: Mapping[str, Any], limits: _Limits) -> dict[str, Any]:
    if "anyOf" in schema:
        members = [_strict(member, limits) for member in schema["anyOf"]]
        return _described({"anyOf": members}, schema, ())
    kind = schema.get("type")
    if kind is None and "enum" not in schema:
        raise _NotStrictError  # any value
    limits.enum_values -= len(schema.get("enum", ()))
    if limits.enum_values < 0:
        raise _NotStrictError
    if kind == "object":
        return _object(schema, limits)
    said = dict(schema)
    if said.pop("allOf", None) is not None:
        said.setdefault("pattern", TIME_PATTERN)
    kept = {key: value for key, value in said.items() if key in _STRICT_KEYWORDS}
    if said.get("format") in _STRICT_FORMATS:
        kept["format"] = said.pop("format")
    if kind == "array":
        if "prefixItems" in schema or "items" not in schema:
            raise _NotStrictError
        kept["items"] = _strict(schema["items"], limits)
    return _described(kept, schema, said)


def _object(schema: Mapping[str, Any], limits: _Limits) -> dict[str, Any]:
    if "properties" not in schema or schema.get("additionalProperties", False) is not False:
        raise _NotStrictError
    limits.depth -= 1
    if limits.depth < 0:
        raise _NotStrictError
    properties = {
        name: _strict(item, limits)
        if name in schema["required"]
        else _nullable(_strict(item, limits))
        for name, item in schema["properties"].items()
    }
    limits.depth += 1
    made = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return _described(made, schema, ())


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    description = {key: schema.pop(key) for key in ("description",) if key in schema}
    members = schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
    if {"type": "null"} not in members:
        members = [*members, {"type": "null"}]
    return {"anyOf": members, **description}


def _described(
    made: dict[str, Any], schema: Mapping[str, Any], said: Mapping[str, Any] | tuple[()]
) -> dict[str, Any]:
    """With a description that says what strict mode has no keyword for."""
    dropped = {
        key: schema[key] for key in _WORDS if key in schema and (key in said or key == "default")
    }
    words = [_WORDS[key].format(_value_text(value)) for key, value in dropped.items()]
    description = schema.get("description", "")
    if words:
        description = f"{description} ({'; '.join(words)})".strip()
    made.pop("description", None)
    return {**made, "description": description} if description else made


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
