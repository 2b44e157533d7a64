"""Signatures: `"question: str, context: list[str] -> answer: str"` or a map, to one frozen value.

    signature = fields "->" fields
    fields    = field ("," field)*
    field     = name [":" type]          a bare name is a str; types as in `types.py`

The map is `{name?, instructions?, inputs: [field], outputs: [field]}` with the field
`{name, type, description?, default?, constraints?}`. Whether a default fits its type and a pattern
compiles is for whoever enforces them to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dspex_protocol.constraints import CONSTRAINTS, check_constraints
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import MAX_TYPE_LENGTH, Parser, parse_type
from dspex_protocol.json_values import MAX_DEFAULT_DEPTH, is_json
from dspex_protocol.refusals import Path, kind_of, refused_at
from dspex_protocol.schema_reader import field_of_schema
from dspex_protocol.schema_writer import schema_of
from dspex_protocol.signature_size import SignatureSize, counts_of
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import MISSING, Missing, Scalar, Type, has_text

__all__ = [
    "MAX_FIELDS",
    "MAX_NAME_LENGTH",
    "MAX_SIGNATURE_LENGTH",
    "MISSING",
    "RESERVED_NAMES",
    "RESERVED_PREFIXES",
    "STR",
    "Field",
    "Missing",
    "SignatureSpec",
    "parse_signature",
    "signature_from_map",
    "signature_from_wire",
]

# Room for a hundred fields with long Literals; a parse stays in the milliseconds.
MAX_SIGNATURE_LENGTH = 10 * MAX_TYPE_LENGTH

# On each side. Every field is a section of the prompt and an attribute of a class.
MAX_FIELDS = 256

MAX_NAME_LENGTH = 128

_CALL = "DSPy's modules take an argument of that name"
_CLASS = "DSPy's signature class has an attribute of that name"
_MODEL = "Pydantic's models have an attribute of that name"

#: Names that no field may have, and why.
RESERVED_NAMES: Final[dict[str, str]] = {
    **dict.fromkeys(("lm", "config", "demos", "self", "instance"), _CALL),
    **dict.fromkeys(("new_signature", "completions"), _CALL),
    **dict.fromkeys(("augmented", "base"), "DSPy's examples take an argument of that name"),
    **dict.fromkeys(
        ("signature", "instructions", "fields", "input_fields", "output_fields"), _CLASS
    ),
    **dict.fromkeys(("with_instructions", "append_instructions", "with_updated_fields"), _CLASS),
    **dict.fromkeys(("append", "prepend", "insert", "delete", "equals", "mro", "register"), _CLASS),
    **dict.fromkeys(("dump_state", "load_state"), _CLASS),
    **dict.fromkeys(("model_config", "model_fields", "model_computed_fields"), _MODEL),
    **dict.fromkeys(("model_extra", "model_fields_set", "model_construct", "model_copy"), _MODEL),
    **dict.fromkeys(("model_dump", "model_dump_json", "model_json_schema"), _MODEL),
    **dict.fromkeys(("model_parametrized_name", "model_post_init", "model_rebuild"), _MODEL),
    **dict.fromkeys(("model_validate", "model_validate_json", "model_validate_strings"), _MODEL),
    **dict.fromkeys(("construct", "copy", "dict", "from_orm", "json", "schema"), _MODEL),
    **dict.fromkeys(("parse_file", "parse_obj", "parse_raw", "schema_json", "validate"), _MODEL),
    **dict.fromkeys(("update_forward_refs",), _MODEL),
}

#: Beginnings that no field's name may have, and why.
RESERVED_PREFIXES: Final[dict[str, str]] = {
    "_": "Pydantic keeps a leading '_' to itself",
    "dspy_": "DSPy's examples hide what starts with 'dspy_'",
}

STR: Final = Scalar("str")

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNATURE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*")
_SIGNATURE_KEYS = ("name", "instructions", "inputs", "outputs")
_FIELD_KEYS = ("name", "type", "description", "default", "constraints")


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output. `default` is a wire value, not yet converted to the type."""

    name: str
    type: Type = STR
    description: str | None = None
    default: Any = MISSING
    constraints: Mapping[str, Any] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """The wire form."""
        written = str(self.type) if has_text(self.type) else schema_of(self.type)
        result: dict[str, Any] = {"name": self.name, "type": written}
        if self.description is not None:
            result["description"] = self.description
        if self.default is not MISSING:
            result["default"] = self.default
        if self.constraints:
            result["constraints"] = dict(self.constraints)
        return result


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    """A whole signature. Inputs and outputs have distinct names and neither side is empty."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    name: str | None = None
    instructions: str | None = None

    def to_map(self) -> dict[str, Any]:
        """The wire form, from which `signature_from_map` makes an equal spec."""
        result: dict[str, Any] = {}
        if self.name is not None:
            result["name"] = self.name
        if self.instructions is not None:
            result["instructions"] = self.instructions
        result["inputs"] = [item.to_map() for item in self.inputs]
        result["outputs"] = [item.to_map() for item in self.outputs]
        return result

    def to_string(self) -> str:
        """Names and types alone: `question: str -> answer: str`."""
        sides = (", ".join(f"{f.name}: {f.type}" for f in s) for s in (self.inputs, self.outputs))
        return " -> ".join(sides)


def signature_from_wire(value: object, size: SignatureSize | None = None) -> SignatureSpec:
    """The signature in a request: a string or a map. `size` is what has been counted of others in
    the same request, which are bounded together with this one. Raises `SignatureError`."""
    if isinstance(value, str):
        return parse_signature(value, size)
    return signature_from_map(value, size)


def parse_signature(
    text: str, size: SignatureSize | None = None, *, names: Mapping[str, Type] | None = None
) -> SignatureSpec:
    """The signature in a string, which may name the types of `names` beside the grammar's own;
    `size` as of `signature_from_wire`.

    Raises `SignatureError` with `data.position`, the offset in characters of what is wrong.
    """
    if not isinstance(text, str):
        raise SignatureError(f"a signature is a string or a map, not {type(text).__name__}")
    if len(text) > MAX_SIGNATURE_LENGTH:
        raise SignatureError(
            f"a signature has at most {MAX_SIGNATURE_LENGTH} characters, this one has {len(text)}",
            data={"position": MAX_SIGNATURE_LENGTH},
        )
    parser, size = Parser(text, names or {}), size or SignatureSize()
    seen: dict[str, str] = {}
    inputs = _parse_side(parser, "input", seen, size)
    if parser.token.kind == "end":
        raise parser.error("a signature needs '->' between its inputs and its outputs")
    parser.expect("->", "',' or '->'")
    outputs = _parse_side(parser, "output", seen, size)
    if parser.token.kind == "->":
        raise parser.error("a signature has one '->', this is the second")
    parser.expect("end", "',' or the end of the signature")
    return SignatureSpec(inputs=inputs, outputs=outputs)


def signature_from_map(value: object, size: SignatureSize | None = None) -> SignatureSpec:
    """The signature in a map; `size` as of `signature_from_wire`.

    Raises `SignatureError` with `data.path`, where in the map it is wrong, and `data.position`
    where it is in the text of a type.
    """
    if not isinstance(value, Mapping):
        raise SignatureError(f"a signature is a string or a map, not {kind_of(value)}")
    _check_keys(value, _SIGNATURE_KEYS, ("inputs", "outputs"), [])
    name = value.get("name")
    if name is not None and not (
        isinstance(name, str) and _SIGNATURE_NAME.fullmatch(name) and len(name) <= MAX_NAME_LENGTH
    ):
        raise refused_at(
            ["name"],
            f"a signature's name is letters, digits, '_' and '.', at most {MAX_NAME_LENGTH}",
        )
    instructions = value.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise refused_at(["instructions"], f"expected a string, got {kind_of(instructions)}")
    seen: dict[str, str] = {}
    size = size or SignatureSize()
    return SignatureSpec(
        name=name,
        instructions=instructions,
        inputs=_side_from_list(value["inputs"], "input", seen, size),
        outputs=_side_from_list(value["outputs"], "output", seen, size),
    )


def _parse_side(
    parser: Parser, side: str, seen: dict[str, str], size: SignatureSize
) -> tuple[Field, ...]:
    if parser.token.kind in ("->", "end"):
        raise parser.error(f"a signature needs at least one {side}")
    fields = [_parse_field(parser, side, seen, size)]
    while parser.accept(","):
        if len(fields) == MAX_FIELDS:
            raise parser.error(f"a signature has at most {MAX_FIELDS} {side}s")
        fields.append(_parse_field(parser, side, seen, size))
    return tuple(fields)


def _parse_field(parser: Parser, side: str, seen: dict[str, str], size: SignatureSize) -> Field:
    token = parser.expect("name", f"the name of an {side}")
    if (wrong := _wrong_name(token.text, side, seen)) is not None:
        raise parser.error(wrong, token.position)
    seen[token.text] = side
    type_ = parser.type() if parser.accept(":") else STR
    if (wrong := size.add(**counts_of(type_))) is not None:
        raise parser.error(wrong, token.position)
    return Field(token.text, type_)


def _side_from_list(
    value: object, side: str, seen: dict[str, str], size: SignatureSize
) -> tuple[Field, ...]:
    path: Path = [f"{side}s"]
    if not isinstance(value, list):
        raise refused_at(path, f"expected a list of fields, got {kind_of(value)}")
    if not value:
        raise refused_at(path, f"a signature needs at least one {side}")
    if len(value) > MAX_FIELDS:
        raise refused_at(
            path, f"a signature has at most {MAX_FIELDS} {side}s, this one has {len(value)}"
        )
    return tuple(
        _field_from_map(item, side, seen, [*path, i], size) for i, item in enumerate(value)
    )


def _field_from_map(
    value: object, side: str, seen: dict[str, str], path: Path, size: SignatureSize
) -> Field:
    if not isinstance(value, Mapping):
        raise refused_at(path, f"a field is a map with name and type, not {kind_of(value)}")
    _check_keys(value, _FIELD_KEYS, ("name", "type"), path)
    name = value["name"]
    if not isinstance(name, str):
        raise refused_at([*path, "name"], f"expected a string, got {kind_of(name)}")
    if (wrong := _wrong_name(name, side, seen)) is not None:
        raise refused_at([*path, "name"], wrong)
    seen[name] = side
    description = value.get("description")
    if description is not None and not isinstance(description, str):
        raise refused_at([*path, "description"], f"expected a string, got {kind_of(description)}")
    constraints = value.get("constraints")
    if constraints is None:
        constraints = {}
    if not isinstance(constraints, Mapping):
        raise refused_at([*path, "constraints"], f"expected a map, got {kind_of(constraints)}")
    default = value.get("default", MISSING)
    if isinstance(value["type"], Mapping):
        schema = field_of_schema(value["type"], [*path, "type"], size)
        type_ = schema.type
        if (twice := next((c for c in constraints if c in schema.constraints), None)) is not None:
            raise refused_at(
                [*path, "constraints"], f"{twice} stands here and in the type's JSON Schema"
            )
        constraints = {**schema.constraints, **constraints}
        description = schema.description if description is None else description
        default = schema.default if default is MISSING else default
    else:
        type_ = _type_from_text(value["type"], [*path, "type"])
        size.check([*path, "type"], **counts_of(type_))
    if isinstance(choices := constraints.get("one_of"), list):
        size.check([*path, "constraints"], values=len(choices))
    if "pattern" in (value.get("constraints") or {}):
        size.check([*path, "constraints"], patterns=1)
    try:
        check_constraints(type_, constraints)
    except SignatureError as error:
        raise refused_at([*path, "constraints"], error.message) from None
    if default is not MISSING and not is_json(default):
        raise refused_at(
            [*path, "default"],
            "a default holds what JSON holds (a date as ISO text, no bytes), "
            f"nested at most {MAX_DEFAULT_DEPTH} deep",
        )
    # In one order, whatever map of whatever language they came in: errors are the same then.
    ordered = {key: constraints[key] for key in CONSTRAINTS if key in constraints}
    return Field(name, type_, description, default, ordered)


def _type_from_text(value: object, path: Path) -> Type:
    if not isinstance(value, str):
        raise refused_at(
            path,
            f"a type is a string such as 'list[str]' or a JSON Schema map, not {kind_of(value)}",
        )
    try:
        return parse_type(value)
    except SignatureError as error:
        raise refused_at(path, error.message, error.data) from None


def _wrong_name(name: str, side: str, seen: Mapping[str, str]) -> str | None:
    """Why a field cannot have this name, None where it can."""
    if len(name) > MAX_NAME_LENGTH:
        return f"a field's name has at most {MAX_NAME_LENGTH} characters, this one has {len(name)}"
    if _FIELD_NAME.fullmatch(name) is None:
        return f"{name!r} is no field name; use ASCII letters, digits and '_', a letter first"
    reason, instead = RESERVED_NAMES.get(name), f"'{name}_{side}'"
    for prefix, why in RESERVED_PREFIXES.items():
        if name.startswith(prefix):
            reason, instead = why, repr(name.removeprefix(prefix).strip("_") or side)
    if reason is not None:
        return f"the field name {name!r} is reserved ({reason}); choose another, such as {instead}"
    if name in seen:
        both = f"twice among the {side}s" if seen[name] == side else "as an input and as an output"
        return f"the field {name!r} stands {both}; names are distinct over both sides"
    return None


def _check_keys(
    value: Mapping[Any, Any],
    known: tuple[str, ...],
    required: tuple[str, ...],
    path: Path,
) -> None:
    what = "field" if path else "signature"
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known) if isinstance(key, str) else ""
            raise refused_at(
                [*path, str(key)],
                f"unknown key {key!r} in a {what}{hint}; the keys are {', '.join(known)}",
            )
    for key in required:
        if key not in value:
            raise refused_at(path, f"a {what} needs {key!r}")
