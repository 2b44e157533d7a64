from __future__ import annotations

import base64
import datetime
import enum
import json
import math
import pathlib
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # LiteLLM brings it
import numpy as np
import pytest
from dspex_bridge.programs import checks, converters, scalars, wire_values
from dspex_bridge.programs.converters import InputConverter, OutputConverter
from dspex_bridge.programs.offered_types import DSPyType, no_dspy_types
from dspex_bridge.programs.scalars import RefusedError
from dspex_bridge.programs.value_errors import ERROR_TYPES, MAX_ERRORS
from dspex_bridge.programs.wire_values import MAX_GOT_LENGTH, NoWireFormError, render, to_wire
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import (
    InputValidationError,
    OutputValidationError,
    SignatureError,
    ValidationError,
)
from dspex_protocol.signatures import SignatureSpec, signature_from_map
from dspex_protocol.types import Type
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

# A slow machine is no failure.
patient = settings(deadline=None)

VECTORS = json.loads(
    (pathlib.Path(__file__).parents[2] / "protocol" / "vectors" / "validation.json").read_text(
        encoding="utf-8"
    )
)

TAGS: dict[str, Callable[[Any], Any]] = {
    "$bytes": base64.b64decode,
    "$int": int,
    "$float": float,
    "$decimal": Decimal,
    "$date": datetime.date.fromisoformat,
    "$time": datetime.time.fromisoformat,
    "$datetime": datetime.datetime.fromisoformat,
    "$set": lambda items: set(untagged(items)),
    "$tuple": lambda items: tuple(untagged(items)),
    "$pairs": lambda pairs: {untagged(key): untagged(value) for key, value in pairs},
}


def untagged(value: Any) -> Any:
    """A value of a vector: see the head of validation.json."""
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1 and (tag := next(iter(value))) in TAGS:
            return TAGS[tag](value[tag])
        return {key: untagged(item) for key, item in value.items()}
    return value


def typed(value: Any) -> Any:
    """Equal for two values exactly when they and all in them are of the same type and equal."""
    if isinstance(value, list | tuple):
        return (type(value), [typed(item) for item in value])
    if isinstance(value, dict):
        return (dict, [(typed(key), typed(item)) for key, item in value.items()])
    if isinstance(value, set):
        return (set, sorted(repr(typed(item)) for item in value))
    if isinstance(value, datetime.date | datetime.time):
        return (type(value), value.isoformat())  # without the fold of an hour that comes twice
    return (type(value), repr(value))


def signature(side: str, *fields: Mapping[str, Any]) -> SignatureSpec:
    other = [{"name": "other_side", "type": "str"}]
    sides = {"inputs": other, "outputs": other, side: list(fields)}
    return signature_from_map(sides)


def field(type_: Any, name: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def inputs(*fields: Mapping[str, Any]) -> InputConverter:
    return InputConverter(signature("inputs", *fields), no_dspy_types)


def outputs(*fields: Mapping[str, Any]) -> OutputConverter:
    return OutputConverter(signature("outputs", *fields), no_dspy_types)


def refusal(
    converter: InputConverter | OutputConverter, values: Mapping[str, Any]
) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        converter.convert(values)
    return caught.value


def converted_or_refused(
    converter: InputConverter | OutputConverter, values: Mapping[str, Any]
) -> dict[str, Any] | ValidationError:
    try:
        return converter.convert(values)
    except ValidationError as error:
        return error


# The vectors


def _id(case: dict[str, Any]) -> str:
    text = case.get("name") or f"{case['fields'][0]['type']} {json.dumps(case['values'])}"
    return ascii(text)[:80]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=_id)
def test_values_convert_or_are_refused_as_the_vectors_say(case: dict[str, Any]) -> None:
    convert = inputs if case["side"] == "inputs" else outputs
    result = converted_or_refused(convert(*case["fields"]), untagged(case["values"]))
    if "errors" in case:
        assert isinstance(result, ValidationError), result
        found = [
            {key: value for key, value in error.items() if key != "message"}
            for error in result.data["errors"]
        ]
        assert found == case["errors"]
    else:
        assert not isinstance(result, ValidationError), result.data
        assert typed(result) == typed(untagged(case["converted"]))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=_id)
def test_a_value_has_the_same_fate_beside_one_that_has_to_be_converted(
    case: dict[str, Any],
) -> None:
    """What Pydantic takes as it is, the walk leaves as it is."""
    convert = inputs if case["side"] == "inputs" else outputs
    converter = convert(*case["fields"], field("int", "walked"))
    alone = converted_or_refused(converter, {**untagged(case["values"]), "walked": 1})
    beside = converted_or_refused(converter, {**untagged(case["values"]), "walked": "1"})
    if isinstance(alone, ValidationError):
        assert isinstance(beside, ValidationError)
        assert alone.data == beside.data
    else:
        assert not isinstance(beside, ValidationError)
        assert typed(alone) == typed(beside)


def test_the_vectors_have_every_error_type() -> None:
    used = {error["type"] for case in VECTORS["cases"] for error in case.get("errors", [])}
    assert used == set(ERROR_TYPES)


# Any type and any value


type_texts = st.recursive(
    st.sampled_from(
        [
            *("str", "int", "float", "bool", "any", "decimal", "date", "time", "datetime", "bytes"),
            *("probability", "token_count", "reasoning_chain", "embedding", "embedding[2]"),
            *('Literal["a", 1, True, None]', 'Literal["1"]'),
        ]
    ),
    lambda inner: st.one_of(
        inner.map("list[{}]".format),
        st.lists(inner, min_size=1, max_size=2).map(lambda ts: f"tuple[{', '.join(ts)}]"),
        st.tuples(st.sampled_from(["str", "int", "bool", "date"]), inner).map(
            lambda kv: f"dict[{kv[0]}, {kv[1]}]"
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda ts: " | ".join([*ts, "None"])),
        st.sampled_from(["set[int]", "set[str | int]", "set[date]", "set[tuple[int, str]]"]),
    ),
    max_leaves=5,
)
texts = st.text(max_size=3) | st.sampled_from(
    ["a", "1", "-2", "3.0", "1.5", "true", "2024-05-01", "10:30", "2024-05-01T10:30:00Z"]
)
wire_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([0.0, 1.0, 1.5, -0.5, math.nan, math.inf]),
    st.floats(),
    texts,
    st.binary(max_size=3),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.datetimes(timezones=st.just(datetime.UTC)),
)
wire = st.recursive(
    wire_leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
python = st.recursive(
    wire_leaves | st.dates() | st.times() | st.datetimes(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(st.integers() | st.text(max_size=2) | st.dates(), max_size=3),
        st.dictionaries(texts | st.integers() | st.booleans() | st.dates(), inner, max_size=3),
    ),
    max_leaves=8,
)


def check_errors(error: ValidationError, name: str) -> None:
    assert 0 < len(error.data["errors"]) <= MAX_ERRORS
    for item in error.data["errors"]:
        assert set(item) == {"path", "type", "message", "expected", "got"}
        assert item["type"] in ERROR_TYPES
        assert item["path"][0] == name
        assert all(type(part) in (str, int) for part in item["path"])
        assert len(item["got"]) <= MAX_GOT_LENGTH
    assert decode(encode(error.data)) == error.data


@patient
@given(type_texts, wire)
def test_any_input_converts_to_what_would_be_taken_as_it_is_or_is_refused(
    text: str, value: Any
) -> None:
    converter = inputs(field(text))
    result = converted_or_refused(converter, {"x": value})
    if isinstance(result, ValidationError):
        assert isinstance(result, InputValidationError)
        check_errors(result, "x")
    else:
        assert typed(converter.convert(result)) == typed(result)


@patient
@given(type_texts, wire)
def test_any_input_has_the_same_fate_beside_one_that_has_to_be_converted(
    text: str, value: Any
) -> None:
    converter = inputs(field(text), field("int", "walked"))
    alone = converted_or_refused(converter, {"x": value, "walked": 1})
    beside = converted_or_refused(converter, {"x": value, "walked": "1"})
    if isinstance(alone, ValidationError) or isinstance(beside, ValidationError):
        assert isinstance(alone, ValidationError)
        assert isinstance(beside, ValidationError)
        assert alone.data == beside.data
    else:
        assert typed(alone) == typed(beside)


@patient
@given(type_texts, python)
def test_any_output_that_converts_can_be_written_and_read_by_its_own_type(
    text: str, value: Any
) -> None:
    result = converted_or_refused(outputs(field(text)), {"x": value})
    if isinstance(result, ValidationError):
        assert isinstance(result, OutputValidationError)
        check_errors(result, "x")
        return
    received = decode(encode(result))
    read = inputs(field(text)).convert(received)
    assert typed(outputs(field(text)).convert(read)) == typed(result)


@patient
@given(st.datetimes(), st.dates(), st.times())
def test_dates_and_times_survive_the_wire(
    moment: datetime.datetime, day: datetime.date, time: datetime.time
) -> None:
    fields = [field("datetime", "moment"), field("date", "day"), field("time", "time")]
    values = {"moment": moment, "day": day, "time": time}
    written = outputs(*fields).convert(values)
    assert {type(value) for value in written.values()} == {str}
    assert inputs(*fields).convert(written) == values


@patient
@given(st.integers())
def test_an_integer_becomes_a_float_only_where_nothing_is_lost(value: int) -> None:
    result = converted_or_refused(inputs(field("float")), {"x": value})
    try:
        holds = int(float(value)) == value
    except OverflowError:
        holds = False
    assert isinstance(result, ValidationError) is not holds


# Errors


def test_the_message_of_one_error_is_one_line() -> None:
    error = refusal(inputs(field("int", "count", constraints={"min": 1})), {"count": 0})
    assert str(error) == "1 error in the inputs: count: expected int (min 1), got 0"
    assert error.code == "input_validation"
    assert error.data == {
        "errors": [
            {
                "path": ["count"],
                "type": "min",
                "message": "expected int (min 1), got 0",
                "expected": "int (min 1)",
                "got": "0",
            }
        ]
    }


def test_the_message_of_many_errors_is_one_line_with_the_first_five() -> None:
    values = {"x": [1.5, "a", None, True, "1", [], {}], "question": "?"}
    error = refusal(outputs(field("list[int]"), field("str", "questions")), values)
    assert str(error) == (
        "8 errors in the outputs: "
        "x[0]: expected int, got 1.5: it has a fraction; "
        'x[1]: expected int, got "a"; '
        "x[2]: expected int, got null; "
        "x[3]: expected int, got true: a boolean is no number; "
        "x[5]: expected int, got []; "
        "and 3 more"
    )
    assert error.code == "output_validation"
    assert [item["message"] for item in error.data["errors"][6:]] == [
        "expected str, got nothing",
        "there is no output of this name (did you mean 'questions'?)",
    ]


def test_a_path_in_a_message_reads_as_python_writes_it() -> None:
    error = refusal(inputs(field("dict[str, list[int]]")), {"x": {"a b": [1, "y"]}})
    assert str(error) == "1 error in the inputs: x['a b'][1]: expected int, got \"y\""


def test_no_name_or_value_breaks_the_line_of_a_message() -> None:
    values = {"x": {"a\nb": "c\nd"}, "e\nf": 1, "\u2028": 2}
    error = refusal(inputs(field("dict[str, int]")), values)
    assert len(error.data["errors"]) == 3
    assert len(str(error).splitlines()) == 1


def test_errors_are_cut_where_nobody_reads_on() -> None:
    error = refusal(inputs(field("list[int]")), {"x": ["a"] * 500_000})
    assert len(error.data["errors"]) == MAX_ERRORS
    assert error.data["truncated"] is True
    assert str(error).endswith(f"; and more than {MAX_ERRORS - 5} more")
    assert "truncated" not in refusal(inputs(field("list[int]")), {"x": ["a"] * MAX_ERRORS}).data


def test_values_without_a_field_are_cut_as_well() -> None:
    error = refusal(inputs(field("str")), {"x": "", **{f"y{i}": 0 for i in range(200_000)}})
    assert len(error.data["errors"]) == MAX_ERRORS


def test_the_walk_of_a_dict_gathers_no_more_errors_than_it_shows() -> None:
    error = refusal(inputs(field("dict[str, int]")), {"x": {str(i): "a" for i in range(200_000)}})
    assert len(error.data["errors"]) == MAX_ERRORS


@pytest.mark.timeout(20)
def test_nested_unions_cost_no_more_than_their_depth() -> None:
    text = "int"
    value: Any = "x"
    for _ in range(30):
        text, value = f"list[{text} | bool]", [value]
    error = refusal(inputs(field(text)), {"x": value})
    assert error.data["errors"][0]["type"] == "type"


# Defaults and patterns: judged when the signature is made


@pytest.mark.parametrize("make", [inputs, outputs])
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (field("int", default="x"), 'the default does not fit: expected int, got "x"'),
        (field("int", default=None), "the default does not fit: expected int, got null"),
        (
            field("int", default=5, constraints={"max": 4}),
            "the default does not fit: expected int (max 4), got 5",
        ),
        (field("str", constraints={"pattern": "("}), "the pattern does not compile: "),
        (field("str", constraints={"pattern": "(?=a)b"}), "the pattern does not compile: "),
        (
            field({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "the pattern does not compile: ",
        ),
        (
            field({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            "the default of 'a' does not fit: expected int, got \"x\"",
        ),
        (field("image"), "the type 'image' is not supported by this version"),
        (field("list[tool_calls]"), "the type 'tool_calls' is not supported by this version"),
    ],
)
def test_a_field_that_cannot_work_is_a_signature_error(
    make: Callable[..., Any], made: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(SignatureError) as caught:
        make(field("str", "ok"), made)
    side = "inputs" if make is inputs else "outputs"
    assert str(caught.value).startswith(f"{side}[1] (x): {reason}")
    assert caught.value.data == {"path": [side, 1]}


@pytest.mark.parametrize("walked", [1, "1"])
def test_calls_share_no_default(walked: Any) -> None:
    converter = inputs(field("list[int]", default=[1]), field("int", "walked"))
    converter.convert({"walked": walked})["x"].append(2)
    assert converter.convert({"walked": walked})["x"] == [1]


def test_a_pattern_takes_linear_time() -> None:
    converter = inputs(field("str", constraints={"pattern": "^(a+)+$"}))
    assert refusal(converter, {"x": "a" * 50_000 + "b"}).data["errors"][0]["type"] == "pattern"


def test_a_decimal_of_any_exponent_is_judged_at_once() -> None:
    converter = inputs(field("decimal", constraints={"multiple_of": 7, "min": 0}))
    for value in (Decimal("1e999999"), "1e399", Decimal("1e-999999")):
        assert refusal(converter, {"x": value}).data["errors"][0]["type"] == "multiple_of"


# Values that DSPy and NumPy make


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(BaseModel):
    x: int
    when: datetime.date


def test_models_enum_members_and_the_like_become_plain_values() -> None:
    value = {
        Colour.RED: Point(x=1, when=datetime.date(2024, 5, 1)),
        2: (Colour.RED, Level.HIGH, frozenset({"b", "a"})),
        "id": uuid.UUID(int=1),
        "path": pathlib.PurePosixPath("a/b"),
        "number": np.float32(0.5),
        "naive": datetime.datetime(2024, 5, 1),
    }
    plain = {
        "red": {"x": 1, "when": "2024-05-01"},
        "2": ["red", 3, ["a", "b"]],
        "id": "00000000-0000-0000-0000-000000000001",
        "path": "a/b",
        "number": 0.5,
        "naive": "2024-05-01T00:00:00",
    }
    assert typed(outputs(field("any")).convert({"x": value})) == typed({"x": plain})
    assert typed(outputs(field("dict")).convert({"x": value})) == typed({"x": plain})


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("str", Colour.RED, "red"),
        ("int", Level.HIGH, 3),
        ("int", np.int64(3), 3),
        ("float", np.float32(0.5), 0.5),
        ('Literal["red"]', Colour.RED, "red"),
        (
            "dict[str, any]",
            Point(x=1, when=datetime.date(2024, 5, 1)),
            {"x": 1, "when": "2024-05-01"},
        ),
        ("embedding", np.array([0.5, 1.0]), [0.5, 1.0]),
        ("list[float]", {0.5}, [0.5]),
    ],
)
def test_an_output_of_a_declared_type_becomes_plain_before_it_is_judged(
    text: str, value: Any, written: Any
) -> None:
    assert typed(outputs(field(text)).convert({"x": value})) == typed({"x": written})


def test_an_array_stays_a_tensor() -> None:
    array = np.zeros((2, 3), dtype=np.float32)
    assert inputs(field("tensor")).convert({"x": array})["x"] is array
    assert outputs(field("tensor")).convert({"x": array})["x"] is array
    assert outputs(field("any")).convert({"x": array})["x"] is array


def test_an_array_of_one_axis_is_an_embedding() -> None:
    assert inputs(field("embedding[2]")).convert({"x": np.array([1, 2])}) == {"x": [1.0, 2.0]}
    error = refusal(inputs(field("embedding")), {"x": np.zeros((2, 3))})
    assert error.data["errors"][0]["got"] == "tensor[2, 3]"


def test_what_has_no_form_on_the_wire_is_an_output_error() -> None:
    error = refusal(outputs(field("any"), field("int", "y")), {"x": {"a": object()}, "y": 1})
    assert error.data["errors"] == [
        {
            "path": ["x"],
            "type": "type",
            "message": 'expected any, got {"a": object}: a object has no form on the wire',
            "expected": "any",
            "got": '{"a": object}',
        }
    ]
    walked = refusal(outputs(field("any"), field("int", "y")), {"x": object(), "y": "1"})
    assert [item["path"] for item in walked.data["errors"]] == [["x"]]


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    error = refusal(outputs(field("any")), {"x": endless})
    assert "nested more than" in error.data["errors"][0]["message"]


def test_keys_that_become_the_same_text_are_refused() -> None:
    with pytest.raises(NoWireFormError, match="the same text"):
        to_wire({1: "a", "1": "b"})
    with pytest.raises(NoWireFormError, match="cannot be the key"):
        to_wire({(1, 2): "a"})
    with pytest.raises(NoWireFormError, match=r"^nil cannot be the key of a map"):
        to_wire({None: "a"})


def test_sets_have_one_order() -> None:
    assert to_wire({"b", "a", "c"}) == ["a", "b", "c"]
    assert to_wire({10, 9}) == [9, 10]
    assert to_wire({"a", 1, datetime.date(2024, 5, 1)}) == ["2024-05-01", 1, "a"]


# DSPy's own types: a table given by the engine


class Picture(BaseModel):
    url: str


def pictures(type_: Type) -> DSPyType:
    def read(value: Any) -> Picture:
        if isinstance(value, dict):
            return Picture(**value)
        raise RefusedError("a picture has a url")

    assert str(type_) == "image"
    return DSPyType(Picture, read)


def test_an_engine_may_have_classes_for_the_types_of_dspy() -> None:
    spec = signature_from_map(
        {"inputs": [field("image | None")], "outputs": [field("list[image]", "y")]}
    )
    converter = InputConverter(spec, pictures)
    assert converter.convert({"x": {"url": "u"}}) == {"x": Picture(url="u")}
    assert converter.convert({"x": Picture(url="u")}) == {"x": Picture(url="u")}
    assert converter.convert({}) == {"x": None}
    error = refusal(converter, {"x": 5})
    assert error.data["errors"][0]["message"] == (
        "expected image | None, got 5: a picture has a url"
    )
    plain = InputConverter(signature("inputs", field("image")), pictures)
    error = refusal(plain, {"x": 5})
    assert error.data["errors"][0]["message"] == "expected image, got 5: a picture has a url"
    outputs_ = OutputConverter(spec, pictures)
    assert outputs_.convert({"y": [Picture(url="u")]}) == {"y": [{"url": "u"}]}


# A value in an error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.0, "1.0"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ('a"\n', '"a\\"\\n"'),
        ("é", '"é"'),
        (b"abc", "bytes[3]"),
        ([1, [2], {"a": None}], '[1, [2], {"a": null}]'),
        (Decimal("1.10"), "1.10"),
        (datetime.date(2024, 5, 1), '"2024-05-01"'),
        (10**1000, "an integer of 3322 bits"),
        (np.zeros((2, 3)), "tensor[2, 3]"),
        (object(), "object"),
    ],
)
def test_a_value_is_shown_as_json_where_it_has_such_a_form(value: Any, text: str) -> None:
    assert render(value) == text


@patient
@given(python)
def test_no_value_is_shown_at_length(value: Any) -> None:
    assert len(render(value)) <= MAX_GOT_LENGTH


def test_a_large_value_is_read_no_further_than_it_is_shown() -> None:
    assert render("x" * 10_000_000) == '"' + "x" * (MAX_GOT_LENGTH - 2) + "…"
    assert render(range(0).__class__) == "type"
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert render(deep) == "[" * (MAX_GOT_LENGTH - 1) + "…"


# JSON Schema, against another reader of it

SCHEMAS = [
    case["schema"]
    for case in json.loads(
        (pathlib.Path(__file__).parents[2] / "protocol" / "vectors" / "schemas.json").read_text()
    )["valid"]
    # What a format, a number as text or a default is, JSON Schema leaves open.
    if not any(word in json.dumps(case["schema"]) for word in ("format", "eE", "default", "0-9"))
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, -1.0])
    | st.sampled_from(["a", "b", "x", "cat", "dog", "abcdef", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "name", "kind", "lives", "at", "lat", "n", "x", "class"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=1000)
@given(st.sampled_from(SCHEMAS), json_values)
def test_what_json_schema_takes_is_taken_and_what_is_taken_it_takes(
    schema: dict[str, Any], value: Any
) -> None:
    other = jsonschema.Draft202012Validator(schema)
    result = converted_or_refused(inputs(field(schema)), {"x": value})
    if other.is_valid(value):
        assert not isinstance(result, ValidationError), result.data
    if not isinstance(result, ValidationError):
        assert other.is_valid(json.loads(json.dumps(to_wire(result["x"]))))


# Constraints


@patient
@given(st.integers(-1000, 1000), st.sampled_from([0.1, 0.25, 0.01, 3.0]))
def test_a_float_computed_as_a_multiple_is_one(count: int, step: float) -> None:
    assert inputs(field("float", constraints={"multiple_of": step})).convert({"x": count * step})


@patient
@given(
    st.lists(
        wire_leaves.filter(lambda item: not isinstance(item, float) or not math.isnan(item)),
        max_size=4,
    )
)
def test_a_unique_list_is_one_without_two_equal_items(items: list[Any]) -> None:
    converter = inputs(field("list", constraints={"unique": True}))
    result = converted_or_refused(converter, {"x": items})
    pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :]]
    twice = any(a == b and isinstance(a, bool) == isinstance(b, bool) for a, b in pairs)
    assert isinstance(result, ValidationError) is twice


@pytest.mark.parametrize("module", [converters, checks, scalars, wire_values])
def test_everything_public_is_listed(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_a_multiple_of_far_beyond_its_step_is_one() -> None:
    signature = signature_from_map(
        {
            "inputs": [{"name": "x", "type": "float", "constraints": {"multiple_of": 0.1}}],
            "outputs": [{"name": "a", "type": "str"}],
        }
    )
    assert InputConverter(signature).convert({"x": 1e308}) == {"x": 1e308}
