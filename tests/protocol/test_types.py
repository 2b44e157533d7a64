from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol import grammar, types
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import MAX_TYPE_DEPTH, MAX_TYPE_LENGTH, parse_type
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import (
    TYPE_NAMES,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Null,
    Scalar,
    TupleOf,
    Type,
    Union,
    allows_none,
    without_none,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "types.json").read_text(encoding="utf-8")
)

# Canonical texts, made by the grammar rather than by the code under test.
quoted = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'))
literal_values = st.one_of(
    quoted.map(lambda text: f'"{text}"'),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(["True", "False", "None"]),
)
literals = st.lists(literal_values, min_size=1, max_size=4, unique=True).map(
    lambda values: f"Literal[{', '.join(values)}]"
)
names = st.sampled_from(sorted(types.SCALARS | types.DSPY_TYPES))
keys = st.sampled_from(["str", "int", "float", "bool", "date", "time", "datetime", "decimal"])
leaves = names | literals | st.integers(1, 65_536).map(lambda n: f"embedding[{n}]")


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(inner, min_size=2, max_size=3, unique=True)
    return st.one_of(
        inner.map(lambda t: "list" if t == "any" else f"list[{t}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda ts: f"tuple[{', '.join(ts)}]"),
        st.tuples(keys, inner).map(
            lambda kv: "dict" if kv == ("str", "any") else f"dict[{kv[0]}, {kv[1]}]"
        ),
        # Brackets around a union, so that two of them never become one.
        members.map(lambda ts: f"tuple[{' | '.join(ts)}]"),
        inner.map(lambda t: f"tuple[{t} | None]"),
    )


canonical_texts = st.recursive(leaves, _containers, max_leaves=8)


def refusal(text: str) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        parse_type(text)
    return caught.value


def parsed_or_refused(text: str) -> Type | SignatureError:
    try:
        return parse_type(text)
    except SignatureError as error:
        return error


def check_any(text: str) -> None:
    result = parsed_or_refused(text)
    if isinstance(result, SignatureError):
        assert 0 <= result.data["position"] <= len(text)
    else:
        assert parse_type(str(result)) == result


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: ascii(case["text"])[:60])
def test_a_valid_text_has_its_canonical_form(case: dict[str, Any]) -> None:
    assert str(parse_type(case["text"])) == case["canonical"]


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: ascii(case["text"])[:60])
def test_a_canonical_form_parses_to_an_equal_type(case: dict[str, Any]) -> None:
    parsed = parse_type(case["text"])
    again = parse_type(case["canonical"])
    assert again == parsed
    assert hash(again) == hash(parsed)


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: ascii(case["text"])[:60])
def test_an_invalid_text_is_refused_at_its_position(case: dict[str, Any]) -> None:
    assert refusal(case["text"]).data == {"position": case["position"]}


def test_the_vectors_have_every_name_of_the_grammar() -> None:
    texts = " ".join(case["text"] for case in VECTORS["valid"])
    assert [name for name in TYPE_NAMES if name not in texts] == []


@patient
@given(canonical_texts)
def test_a_canonical_text_comes_back_as_it_is(text: str) -> None:
    assert str(parse_type(text)) == text


@patient
@given(canonical_texts, st.sampled_from([" ", "\t", "\n", "\r\n", "   "]))
def test_space_between_tokens_means_nothing(text: str, space: str) -> None:
    spaced = text
    if '"' not in text:
        for token in "[],|":
            spaced = spaced.replace(token, f"{space}{token}{space}")
    assert parse_type(f"{space}{spaced}{space}") == parse_type(text)


@patient
@given(canonical_texts, canonical_texts)
def test_types_are_equal_exactly_when_their_texts_are(one: str, other: str) -> None:
    assert (parse_type(one) == parse_type(other)) == (one == other)


@patient
@given(st.text())
@example("Literal['\ud800']")
@example("list[" * 5000)
@example("|".join(["str"] * 2500))
def test_any_text_is_a_type_or_a_signature_error_with_a_position(text: str) -> None:
    check_any(text)


TOKENS = [*TYPE_NAMES, *'[],|-:"', "->", "...", " ", "'a'", '"\\x41"', "0", "768", "x", "é"]


@patient
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
@example('Literal["a]')
def test_any_row_of_tokens_is_a_type_or_a_signature_error(text: str) -> None:
    check_any(text)


@patient
@given(canonical_texts, st.data())
def test_a_type_cut_short_is_never_accepted_as_another_one_silently(
    text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text) - 1))
    result = parsed_or_refused(text[:cut])
    if isinstance(result, SignatureError):
        assert result.data["position"] <= cut
    else:
        assert str(result).replace(" ", "") == text[:cut].replace(" ", "")


def test_trees_have_the_nodes_that_the_text_says() -> None:
    assert parse_type("dict[str, list[int | None]] | None") == Union(
        (DictOf(Scalar("str"), ListOf(Union((Scalar("int"), Null())))), Null())
    )
    assert parse_type('tuple[embedding, embedding[3], Literal["a", 1]]') == TupleOf(
        (Embedding(), Embedding(3), Literal(("a", 1)))
    )


def test_literals_keep_booleans_and_integers_apart() -> None:
    assert Literal((1,)) != Literal((True,))
    assert Literal((0,)) != Literal((False,))
    assert parse_type("Literal[1] | Literal[True]") == Union((Literal((1,)), Literal((True,))))


def test_nodes_are_frozen() -> None:
    with pytest.raises(AttributeError):
        parse_type("str").name = "int"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("str", False),
        ("str | None", True),
        ("any", False),
        ('Literal["a", None]', True),
        ('Literal["a", None] | int', True),
        ("list[str | None]", False),
    ],
)
def test_a_type_allows_none_where_it_says_so(text: str, expected: bool) -> None:
    assert allows_none(parse_type(text)) is expected


def test_a_union_without_none_is_its_other_members() -> None:
    assert without_none(parse_type("str | int | None")) == (Scalar("str"), Scalar("int"))
    assert without_none(parse_type("str")) == (Scalar("str"),)


def test_an_unknown_name_gets_a_suggestion_and_the_list_of_names() -> None:
    assert str(refusal("list[strng]")) == (
        "unknown type 'strng', did you mean 'string'?; the types are "
        + ", ".join(TYPE_NAMES)
        + " (at character 5)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("List[str]", "unknown type 'List', did you mean 'list'?"),
        ("Int", "unknown type 'Int', did you mean 'int'?"),
        ("zzz", "unknown type 'zzz'; the types are"),
        ("list[str", "expected ']' to close list, found the end of the text (at character 8)"),
        ("None", "None stands only beside another type, as in 'str | None'"),
        ("set", "set needs brackets, as in set[str]"),
        ("Literal", 'Literal needs brackets, as in Literal["a", "b"]'),
        ("str[3]", "str takes nothing in brackets"),
        ("list[str, int]", "list takes no more than this; expected ']'"),
        ("set[list[str]]", "a set cannot hold list[str]; use list[list[str]]"),
        ("dict[list, str]", "list cannot be the key of a dict; use str"),
        ("tuple[int, ...]", "a tuple has a fixed length; use list[int]"),
        ("embedding[0]", "an embedding has 1 to 65536 dimensions"),
        ("Literal[true]", "found 'true', did you mean 'True'?"),
        ('Literal["\\q"]', "unknown escape"),
        ("str; import os", "unexpected character ';' (at character 3)"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_write(text: str, message: str) -> None:
    assert message in str(refusal(text))


def test_nesting_has_a_limit() -> None:
    assert parse_type("list[" * MAX_TYPE_DEPTH + "str" + "]" * MAX_TYPE_DEPTH)
    deeper = "list[" * (MAX_TYPE_DEPTH + 1) + "str" + "]" * (MAX_TYPE_DEPTH + 1)
    assert f"nests at most {MAX_TYPE_DEPTH} brackets" in str(refusal(deeper))


def test_a_lone_surrogate_is_refused_where_it_stands() -> None:
    assert refusal("Literal['a\ud800']").data == {"position": 10}


def test_length_has_a_limit() -> None:
    fits = "Literal[" + "1, " * 3000 + "1]"
    assert len(fits) <= MAX_TYPE_LENGTH
    assert str(parse_type(fits)) == "Literal[1]"
    longest = "str" + " " * (MAX_TYPE_LENGTH - 3)
    assert parse_type(longest) == Scalar("str")
    assert refusal(longest + " ").data == {"position": MAX_TYPE_LENGTH}


@pytest.mark.parametrize("value", [None, 5, b"str", ["str"], {"type": "string"}])
def test_what_is_no_text_is_refused(value: Any) -> None:
    assert "a type is a string" in str(refusal(value))


def test_a_suggestion_ignores_case_and_needs_some_likeness() -> None:
    assert did_you_mean("Question", ["question", "context"]) == ", did you mean 'question'?"
    assert did_you_mean("xyz", ["question", "context"]) == ""


def test_everything_public_is_listed() -> None:
    for module in (types, grammar):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
