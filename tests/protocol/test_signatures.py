from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol import constraints, signatures
from dspex_protocol.constraints import CONSTRAINTS, check_constraints, constraints_of, describe
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import parse_type
from dspex_protocol.signatures import (
    MAX_FIELDS,
    MAX_NAME_LENGTH,
    MAX_SIGNATURE_LENGTH,
    MISSING,
    RESERVED_NAMES,
    Field,
    SignatureSpec,
    parse_signature,
    signature_from_map,
    signature_from_wire,
)
from dspex_protocol.types import SCALARS, Scalar
from hypothesis import given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "signatures.json").read_text(
        encoding="utf-8"
    )
)
Q: dict[str, Any] = {"name": "q", "type": "str"}
A: dict[str, Any] = {"name": "a", "type": "str"}

field_names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in RESERVED_NAMES and not name.startswith("dspy_")
)
type_texts = st.sampled_from(
    ["str", "list[str]", 'Literal["->", "a, b", 1]', "dict[str, int] | None", "embedding[3]", "any"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def maps(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(field_names, min_size=2, max_size=6, unique=True))
    fields = []
    for name in names:
        field: dict[str, Any] = {"name": name, "type": draw(type_texts)}
        if draw(st.booleans()):
            field["description"] = draw(st.text())
        if draw(st.booleans()):
            field["default"] = draw(json_values.filter(_finite))
        if field["type"] == "str" and draw(st.booleans()):
            field["constraints"] = {"min_length": draw(st.integers(0, 5)), "pattern": "a"}
        fields.append(field)
    split = draw(st.integers(1, len(names) - 1))
    result: dict[str, Any] = {"inputs": fields[:split], "outputs": fields[split:]}
    if draw(st.booleans()):
        result["name"] = "Shop.Answer"
    if draw(st.booleans()):
        result["instructions"] = draw(st.text())
    return result


def _finite(value: Any) -> bool:
    return "Infinity" not in json.dumps(value) and "NaN" not in json.dumps(value)


def refusal(value: Any) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        signature_from_wire(value)
    return caught.value


def made_or_refused(value: Any) -> SignatureSpec | SignatureError:
    try:
        return signature_from_wire(value)
    except SignatureError as error:
        return error


def check_any(text: str) -> None:
    result = made_or_refused(text)
    if isinstance(result, SignatureError):
        assert 0 <= result.data["position"] <= len(text)
    else:
        assert parse_signature(result.to_string()) == result


def outputs(**changes: Any) -> dict[str, Any]:
    return {"inputs": [Q], "outputs": [{**A, **changes}]}


@pytest.mark.parametrize("case", VECTORS["valid_strings"], ids=lambda case: case["text"])
def test_a_string_means_its_map(case: dict[str, Any]) -> None:
    spec = parse_signature(case["text"])
    assert spec.to_map() == case["map"]
    assert signature_from_map(case["map"]) == spec


@pytest.mark.parametrize("case", VECTORS["invalid_strings"], ids=lambda case: ascii(case["text"]))
def test_an_invalid_string_is_refused_at_its_position(case: dict[str, Any]) -> None:
    assert refusal(case["text"]).data == {"position": case["position"]}


@pytest.mark.parametrize("case", VECTORS["valid_maps"], ids=lambda case: str(case["map"])[:60])
def test_a_map_comes_back_as_it_is_written(case: dict[str, Any]) -> None:
    spec = signature_from_map(case["map"])
    assert spec.to_map() == case.get("written", case["map"])
    assert signature_from_map(spec.to_map()) == spec


@pytest.mark.parametrize("case", VECTORS["invalid_maps"], ids=lambda case: case["name"])
def test_an_invalid_map_is_refused_at_its_path(case: dict[str, Any]) -> None:
    assert refusal(case["map"]).data.get("path", []) == case["path"]


@patient
@given(maps())
def test_any_signature_survives_its_wire_form(value: dict[str, Any]) -> None:
    spec = signature_from_map(value)
    assert spec.to_map() == value
    assert signature_from_map(json.loads(json.dumps(spec.to_map()))) == spec


@patient
@given(maps())
def test_any_signature_survives_its_string_but_for_what_a_string_cannot_say(
    value: dict[str, Any],
) -> None:
    spec = signature_from_map(value)
    again = parse_signature(spec.to_string())
    assert [(f.name, f.type) for f in again.inputs] == [(f.name, f.type) for f in spec.inputs]
    assert [(f.name, f.type) for f in again.outputs] == [(f.name, f.type) for f in spec.outputs]


@patient
@given(st.text())
def test_any_text_is_a_signature_or_a_signature_error_with_a_position(text: str) -> None:
    check_any(text)


TOKENS = ["q", "a", "lm", "_x", "->", ",", ":", "str", "list", "[", "]", "|", "None", '"', "-", " "]


@patient
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_any_row_of_tokens_is_a_signature_or_a_signature_error(text: str) -> None:
    check_any(text)


@patient
@given(json_values)
def test_any_value_is_a_signature_or_a_signature_error(value: Any) -> None:
    with pytest.raises(SignatureError):
        signature_from_wire(value)


@patient
@given(maps(), json_values, st.data())
def test_a_map_with_anything_in_one_place_is_a_signature_or_a_signature_error(
    value: dict[str, Any], replacement: Any, data: st.DataObject
) -> None:
    target: Any = value
    while True:
        key = data.draw(
            st.sampled_from(range(len(target)) if isinstance(target, list) else sorted(target))
        )
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = replacement
    result = made_or_refused(value)
    if isinstance(result, SignatureError):
        assert isinstance(result.data["path"], list)
    else:
        assert signature_from_map(result.to_map()) == result


def test_a_bare_name_is_a_str() -> None:
    assert parse_signature("q -> a") == SignatureSpec((Field("q"),), (Field("a"),))
    assert Field("q").type == Scalar("str")


def test_a_field_tells_a_missing_default_from_null() -> None:
    assert signature_from_map(outputs()).outputs[0].default is MISSING
    assert signature_from_map(outputs(default=None)).outputs[0].default is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("q", "a signature needs '->' between its inputs and its outputs (at character 1)"),
        ("q -> a -> b", "a signature has one '->', this is the second (at character 7)"),
        ("-> a", "a signature needs at least one input (at character 0)"),
        ("q ->", "a signature needs at least one output (at character 4)"),
        (
            "q -> q",
            "the field 'q' stands as an input and as an output; names are distinct over both sides"
            " (at character 5)",
        ),
        (
            "q, q -> a",
            "the field 'q' stands twice among the inputs; names are distinct over both sides"
            " (at character 3)",
        ),
        (
            "q -> config",
            "the field name 'config' is reserved (DSPy's modules take an argument of that name);"
            " choose another, such as 'config_output' (at character 5)",
        ),
        (
            "_q -> a",
            "the field name '_q' is reserved (Pydantic keeps a leading '_' to itself);"
            " choose another, such as 'q' (at character 0)",
        ),
        ("q a -> b", "expected ',' or '->', found 'a' (at character 2)"),
        (
            {"inputs": [Q], "outputs": [A], "instruction": ""},
            "instruction: unknown key 'instruction' in a signature, did you mean 'instructions'?;"
            " the keys are name, instructions, inputs, outputs",
        ),
        (
            outputs(desc="x"),
            "outputs[0].desc: unknown key 'desc' in a field, did you mean 'description'?;"
            " the keys are name, type, description, default, constraints",
        ),
        (
            outputs(type="int", constraints={"minimum": 3}),
            "outputs[0].constraints: unknown constraint 'minimum', did you mean 'min'?;"
            " the constraints are " + ", ".join(CONSTRAINTS),
        ),
        (
            outputs(constraints={"min": 3}),
            "outputs[0].constraints: 'min' does not apply to the type str, which takes"
            " min_length, max_length, pattern, format, one_of",
        ),
        (
            outputs(type="bool", constraints={"min": 3}),
            "outputs[0].constraints: 'min' does not apply to the type bool, which takes"
            " no constraint",
        ),
        (
            outputs(type="int", constraints={"min": 3, "max": 1}),
            "outputs[0].constraints: min (3) is above max (1), so nothing fits",
        ),
        (
            outputs(type="int", constraints={"min": "3"}),
            "outputs[0].constraints: min of int has to be an integer",
        ),
        (
            outputs(type={"type": "objekt"}),
            "outputs[0].type.type: 'objekt' is no type of JSON Schema, did you mean 'object'?; "
            "they are null, boolean, integer, number, string, array, object",
        ),
        (
            outputs(type=5),
            "outputs[0].type: a type is a string such as 'list[str]' or a JSON Schema map, "
            "not an integer",
        ),
        (5, "a signature is a string or a map, not an integer"),
    ],
)
def test_an_error_says_where_and_what_to_write(value: Any, message: str) -> None:
    assert str(refusal(value)) == message


def test_a_type_in_a_map_tells_its_place_and_its_position() -> None:
    error = refusal(outputs(type="list[strr]"))
    assert error.data == {"path": ["outputs", 0, "type"], "position": 5}
    assert str(error).startswith("outputs[0].type: unknown type 'strr', did you mean 'str'?")


@pytest.mark.parametrize("name", [*RESERVED_NAMES, "_private", "__class__", "dspy_uuid"])
@pytest.mark.parametrize("text", ["{} -> a", "q -> {}"])
def test_a_reserved_name_is_refused_on_both_sides(name: str, text: str) -> None:
    assert "is reserved" in str(refusal(text.format(name)))


@pytest.mark.parametrize("name", ["x" * MAX_NAME_LENGTH, "class", "None", "prediction", "X1_"])
def test_other_names_are_taken(name: str) -> None:
    assert parse_signature(f"{name} -> a").inputs[0].name == name


@pytest.mark.parametrize(
    "name",
    ["", "1a", "a-b", "a b", "é", "a.b", "x" * (MAX_NAME_LENGTH + 1), "a\n", "\N{KELVIN SIGN}"],
)
def test_what_is_no_identifier_is_refused(name: str) -> None:
    assert refusal(outputs(name=name)).data["path"] == ["outputs", 0, "name"]


def test_lengths_have_limits() -> None:
    fits = "q -> a" + " " * (MAX_SIGNATURE_LENGTH - 6)
    assert parse_signature(fits)
    assert refusal(fits + " ").data == {"position": MAX_SIGNATURE_LENGTH}
    names = [f"f{i}" for i in range(MAX_FIELDS)]
    assert parse_signature(", ".join(names) + " -> a")
    assert f"at most {MAX_FIELDS} inputs" in str(refusal(", ".join([*names, "q"]) + " -> a"))
    fields = [{"name": name, "type": "str"} for name in names]
    assert signature_from_map({"inputs": fields, "outputs": [A]})
    too_many = refusal({"inputs": [*fields, Q], "outputs": [A]})
    assert too_many.data == {"path": ["inputs"]}


@pytest.mark.parametrize("default", [b"x", float("nan"), float("inf"), {1: 2}, {"a": [b"x"]}, {1}])
def test_a_default_is_what_json_can_say(default: Any) -> None:
    assert refusal(outputs(type="any", default=default)).data["path"] == ["outputs", 0, "default"]


def test_a_default_that_nests_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert refusal(outputs(type="any", default=endless)).data["path"] == ["outputs", 0, "default"]


def test_every_constraint_applies_to_some_type() -> None:
    samples = [*SCALARS, "list", "set[int]", "dict", "embedding"]
    applied = {name for text in samples for name in constraints_of(parse_type(text))}
    assert applied == set(CONSTRAINTS)


def test_a_union_takes_what_all_its_members_take() -> None:
    assert constraints_of(parse_type("int | None")) == ("min", "max", "multiple_of", "one_of")
    assert constraints_of(parse_type("str | int")) == ("one_of",)
    assert constraints_of(parse_type("str | bool")) == ()


def test_numbers_of_any_size_are_compared_as_they_are() -> None:
    huge = 10**400
    check_constraints(Scalar("int"), {"min": -huge, "max": huge})
    with pytest.raises(SignatureError, match="above max"):
        check_constraints(Scalar("int"), {"min": huge + 1, "max": huge})
    with pytest.raises(SignatureError, match="a finite number"):
        check_constraints(Scalar("decimal"), {"min": "1e999999"})


def test_a_description_of_a_type_names_its_constraints() -> None:
    assert describe(Scalar("int"), {"min": 0, "max": 9}) == "int (min 0, max 9)"
    assert describe(Scalar("str"), {"one_of": ["a", "b"]}) == 'str (one_of ["a", "b"])'
    assert describe(parse_type("list"), {"unique": True}) == "list (unique true)"
    assert describe(Scalar("int"), {}) == "int"


@pytest.mark.parametrize("module", [signatures, constraints])
def test_everything_public_is_listed(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("case", VECTORS["contradictions"], ids=str)
def test_constraints_that_nothing_meets_are_refused(case: dict[str, Any]) -> None:
    fields = [{"name": "x", **case}]
    error = refusal({"inputs": fields, "outputs": [{"name": "y", "type": "str"}]})
    assert error.data["path"] == ["inputs", 0, "constraints"]
    assert "so nothing fits" in str(error)


def test_constraints_have_one_order_whatever_order_they_came_in() -> None:
    def constraints(**given: int) -> list[str]:
        field = {"name": "n", "type": "int", "constraints": given}
        signature = signature_from_map(
            {"inputs": [field], "outputs": [{"name": "a", "type": "str"}]}
        )
        return list(signature.inputs[0].constraints)

    assert constraints(max=10, multiple_of=2, min=0) == ["min", "max", "multiple_of"]
    assert constraints(min=0, multiple_of=2, max=10) == ["min", "max", "multiple_of"]
