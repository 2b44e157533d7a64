"""Values out of the inputs, by name, description and type; and the defaults."""

import time
from typing import Any

import pytest
from dspex_bridge.engine.embedded.conform import MISSING, conform
from dspex_bridge.engine.embedded.defaults import MAX_PADDING
from dspex_bridge.engine.embedded.extract import LIST_ITEMS, Hint, extract
from dspex_bridge.engine.embedded.source import READ_LIMIT, SENTENCE_LIMIT, Source

REPORT = (
    "The bridge opened on 5 March 2024 at 10:30. It cost 1,250.50 euros and is 320 metres long. "
    "About 85% of the residents like it. Write to office@example.org or see "
    "https://example.org/bridge. The mayor is not worried, but the engineers are busy."
)

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def options(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def text_of(format_name: str) -> dict[str, str]:
    return {"type": "string", "format": format_name}


@pytest.mark.parametrize(
    ("name", "schema", "expected"),
    [
        ("label", options("quiet", "busy"), "busy"),
        ("label", options("quiet", "calm"), "quiet"),
        ("label", options("mayor office", "engineers"), "mayor office"),
        ("label", options("no mayors", "engineers"), "engineers"),
        ("label", options("how to", "engineers"), "engineers"),
        ("label", options(1, 320), 320),
        ("busy", {"type": "boolean"}, True),
        ("is_worried", {"type": "boolean"}, False),
        ("is_haunted", {"type": "boolean"}, False),
        ("cost", NUMBER, 1250.5),
        ("cost", INTEGER, 320),
        ("length_in_metres", INTEGER, 320),
        ("share", SHARE, 0.85),
        ("height", {**INTEGER, "minimum": 1000}, 1000),
        ("height", {**INTEGER, "minimum": 7, "multipleOf": 5, "maximum": 40}, 10),
        ("opened", text_of("date"), "2024-03-05"),
        ("opened", text_of("date-time"), "2024-03-05T00:00:00Z"),
        ("opened", text_of("time"), "10:30:00"),
        ("contact", text_of("email"), "office@example.org"),
        ("contact_email", STRING, "office@example.org"),
        ("link", STRING, "https://example.org/bridge"),
        ("code", {"type": "string", "pattern": "^[A-Z]{3}$"}, "AAA"),
        ("word", {"type": "string", "pattern": "^m[a-z]{4}$"}, "mayor"),
        ("mayor", STRING, "The mayor is not worried, but the engineers are busy."),
        ("mayor", {"type": "string", "maxLength": 10}, "The mayor"),
        ("ghosts", STRING, "The bridge opened on 5 March 2024 at 10:30."),
        ("ghosts", {"anyOf": [STRING, {"type": "null"}]}, None),
        ("numbers", {"type": "array", "items": INTEGER}, [320, 85]),
        ("labels", {"type": "array", "items": options("busy", "calm", "mayor")}, ["busy", "mayor"]),
        ("days", {"type": "array", "items": text_of("date")}, ["2024-03-05"]),
        ("pair", {"type": "array", "prefixItems": [INTEGER, INTEGER]}, [320, 85]),
        ("map", {"type": "object", "additionalProperties": INTEGER}, {}),
        ("nothing", {"type": "null"}, None),
        ("anything", {}, "The bridge opened on 5 March 2024 at 10:30."),
    ],
)
def test_what_is_found_in_a_report(name: str, schema: dict[str, Any], expected: Any) -> None:
    assert extract(Source({"report": REPORT}), schema, Hint(name)) == expected


def test_an_object_is_filled_property_by_property() -> None:
    schema = {
        "type": "object",
        "properties": {
            "day": {**text_of("date"), "description": "when it opened"},
            "cost": NUMBER,
            "ghosts": {"anyOf": [INTEGER, {"type": "null"}], "default": None},
            "title": {"anyOf": [STRING, {"type": "null"}]},
            "size": {"type": "object", "properties": {"metres": INTEGER}, "required": ["metres"]},
        },
        "required": ["day", "cost", "title", "size"],
    }
    assert extract(Source({"report": REPORT}), schema, Hint("facts")) == {
        "day": "2024-03-05",
        "cost": 1250.5,
        "ghosts": 320,
        "title": None,
        "size": {"metres": 320},
    }


def test_the_sentence_that_answers_comes_from_the_longest_field_not_the_question() -> None:
    inputs = {
        "question": "Where, oh where in all the wide world does the very fast grey fox sleep?",
        "context": '["The dog barks.", "The fox sleeps in a den."]',
    }
    assert extract(Source(inputs), STRING, Hint("answer")) == "The fox sleeps in a den."


def test_key_phrases_are_telling_words_best_first() -> None:
    text = "Deep neural networks learn. The networks of deep neural layers are deep, and 42 learn."
    phrases = extract(Source({"text": text}), {"type": "array", "items": STRING}, Hint("keywords"))
    assert phrases[:2] == ["deep neural layers", "Deep neural networks"]
    assert len(phrases) == LIST_ITEMS
    assert "42" not in phrases
    assert len({phrase.casefold() for phrase in phrases}) == len(phrases)


def test_numbers_in_dates_times_versions_and_words_do_not_count() -> None:
    text = "On 2024-01-05 at 10:30 (v2 and 1.2.3, B2B) from 3 to 4/5, -7, and 12/11/2024."
    found = [number.value for number in Source({"text": text}).numbers]
    assert found == [3, 4, -7]


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("due 2024-02-29.", "2024-02-29"),
        ("due 29 February 2024", "2024-02-29"),
        ("due Feb. 29th, 2024", "2024-02-29"),
        ("due 29.2.2024", "2024-02-29"),
        ("due 2023-02-29", "1970-01-01"),
        ("due 3/5/2024, or 5/3/2024", "1970-01-01"),
        ("due", "1970-01-01"),
    ],
)
def test_a_date_is_found_where_it_is_valid_and_not_ambiguous(text: str, date: str) -> None:
    assert extract(Source({"text": text}), text_of("date"), Hint("due")) == date


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-05T10:30:15+02:00", "2024-01-05T10:30:15+02:00"),
        ("2024-01-05 9:30 pm", "2024-01-05T21:30:00Z"),
        ("5 January 2024, 25:99", "2024-01-05T00:00:00Z"),
    ],
)
def test_a_date_time_takes_the_time_behind_its_date(text: str, moment: str) -> None:
    assert extract(Source({"text": text}), text_of("date-time"), Hint("when")) == moment


LEAF = {"type": "string", "format": "uuid"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "exclusiveMinimum": 3},
        {"type": "number", "maximum": -2.5},
        {"type": "integer", "exclusiveMaximum": -7, "multipleOf": 3},
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "string", "minLength": 50, "maxLength": 60},
        {"type": "string", "pattern": "^[0-9]{5}$"},
        {"type": "array", "items": INTEGER, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {**INTEGER, "maximum": 0}, "minItems": 4, "uniqueItems": True},
        {"type": "array", "items": STRING, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": options("a", "b", "c"), "minItems": 2, "uniqueItems": True},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "prefixItems": [LEAF, INTEGER], "minItems": 2, "maxItems": 2},
        {"type": "object", "minProperties": 2, "additionalProperties": INTEGER},
        {"type": "object", "minProperties": 1, "propertyNames": options("x", "y")},
        {"type": "object", "required": ["undeclared"]},
        {"oneOf": [{"type": "object", "required": ["k"], "properties": {"k": {"const": 1}}}, LEAF]},
        {"anyOf": [{"enum": []}, INTEGER]},
        {"type": "integer", "minimum": 3, "default": 7},
        {"type": "integer", "minimum": 3, "default": 1},
        *(text_of(name) for name in ("duration", "uuid", "ipv4", "uri", "email", "made-up")),
    ],
)
@pytest.mark.parametrize("text", ["", "a b c", REPORT])
def test_the_value_satisfies_its_schema(schema: dict[str, Any], text: str) -> None:
    value = extract(Source({"text": text}), schema, Hint("value"))
    assert conform(value, schema) is not MISSING
    assert conform(value, schema) == value


def test_a_stated_default_is_used_where_nothing_is_found() -> None:
    assert extract(Source({"text": "none"}), {**INTEGER, "default": 7}, Hint("n")) == 7
    assert extract(Source({"text": "9 now"}), {**INTEGER, "default": 7}, Hint("n")) == 9


def test_a_type_that_contains_itself_ends() -> None:
    reference = {"$ref": "#/$defs/Node"}
    node = {
        "type": "object",
        "properties": {
            "value": INTEGER,
            "next": {"anyOf": [reference, INTEGER]},
            "others": {"type": "array", "items": reference},
        },
        "required": ["value", "next", "others"],
    }
    schema = {"$defs": {"Node": node}, **reference}
    value = extract(Source({"text": "42"}), schema, Hint("tree"))
    assert value == {"value": 42, "next": 42, "others": []}
    assert extract(Source({}), schema, Hint("tree")) == {"value": 0, "next": 0, "others": []}


def bomb(levels: int) -> dict[str, Any]:
    """Ten parts a level, each of the next level's type."""
    definitions: dict[str, Any] = {f"L{levels}": INTEGER}
    for level in range(levels):
        parts = {f"p{n}": {"$ref": f"#/$defs/L{level + 1}"} for n in range(10)}
        definitions[f"L{level}"] = {
            "type": "object",
            "properties": parts,
            "required": list(parts),
        }
    return {"$defs": definitions, "$ref": "#/$defs/L0"}


def padded(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 10**9}
    for _level in range(levels):
        schema = {"type": "array", "items": schema, "minItems": 10**9}
    return schema


@pytest.mark.parametrize("schema", [bomb(12), padded(1), padded(4)])
def test_a_schema_that_asks_for_an_enormous_value_gets_a_small_one(schema: dict[str, Any]) -> None:
    start = time.process_time()
    value = extract(Source({"text": "7 words"}), schema, Hint("value"))
    assert len(repr(value)) < 20 * MAX_PADDING
    assert time.process_time() - start < 5


def test_text_beyond_the_limit_is_not_read() -> None:
    source = Source({"text": "a " * (READ_LIMIT // 2) + "41"})
    assert source.numbers == []
    assert len(source.text) == READ_LIMIT


def test_a_text_without_full_stops_is_cut() -> None:
    answer = extract(Source({"text": "word " * 1000}), STRING, Hint("answer"))
    assert SENTENCE_LIMIT - 5 < len(answer) <= SENTENCE_LIMIT
    assert answer.endswith("word")


SIZE = 20_000


@pytest.mark.parametrize(
    "unit",
    [
        *("a", " ", "\n", "1", "1,111", ".", "-", "a@", "a.b", "5 ", "not ", "jan 1 ", "'", "a'"),
        *("http://", "10:10", "1-1-", "@a-a.", "{", "[", "a b. ", "\u3042", "2024-01-01 "),
    ],
)
def test_no_text_makes_extraction_slow(unit: str) -> None:
    """Under a second here; whatever grows with the square would take minutes."""
    inputs = {"text": unit * (SIZE // len(unit)), "question": unit * (SIZE // len(unit))}
    everything = {
        "type": "object",
        "properties": {
            "words": {"type": "array", "items": STRING},
            "text": STRING,
            "not": {"type": "boolean"},
            "number": NUMBER,
            "label": options("a", "b"),
            "code": {"type": "string", "pattern": "^(a+)+$"},
            **{name: text_of(name) for name in ("date-time", "email", "uri", "uuid", "ipv4")},
        },
    }
    start = time.process_time()
    extract(Source(inputs), everything, Hint("everything"))
    assert time.process_time() - start < 5
