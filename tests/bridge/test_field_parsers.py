"""What is cut out of a stream is what DSPy's adapters parse out of the whole answer."""

from __future__ import annotations

import json
import time
from typing import Any

import dspy
import pytest
from dspex_bridge.engine.field_parsers import (
    ChatParser,
    FieldParser,
    JsonParser,
    Piece,
    XmlParser,
)
from dspy.adapters import Adapter, XMLAdapter
from hypothesis import given, settings
from hypothesis import strategies as st

SIGNATURE = dspy.Signature(
    {
        "question": (str, dspy.InputField()),
        "answer": (str, dspy.OutputField()),
        "other": (str, dspy.OutputField()),
    }
)
FIELDS = {"answer", "other"}

FORMS: dict[str, tuple[type[FieldParser], Adapter]] = {
    "chat": (ChatParser, dspy.ChatAdapter()),
    "json": (JsonParser, dspy.JSONAdapter()),
    "xml": (XmlParser, XMLAdapter()),
}

# Beside others on the machine an example may take its time.
UNTIMED = settings(deadline=None)

form = pytest.mark.parametrize("form", FORMS)
cuts = st.lists(st.integers(1, 12), max_size=200)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
# Text that looks like the markup around it.
tricky = st.lists(
    st.sampled_from(
        [
            "[[ ## ",
            "answer",
            " ## ]]",
            "[[",
            "\n",
            "\r\n",
            " ",
            '"',
            "\\",
            "\\n",
            "{",
            "}",
            ",",
            ":",
            "<",
            ">",
            "</answer>",
            "</",
            "&",
            "&amp;",
            "é",
            "\u2028",
            "🙂",
            "x",
            "\t",
            "\\ud83d",
        ]
    ),
    max_size=25,
).map("".join)
values = texts | tricky


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


def streamed(parser: FieldParser, pieces: list[str]) -> tuple[dict[str, str], list[Piece]]:
    found = [piece for text in pieces for piece in parser.feed(text)]
    found += parser.close()
    joined: dict[str, str] = {}
    for piece in found:
        joined[piece.field] = joined.get(piece.field, "") + piece.text
    return joined, found


def answer(form: str, answer: str, other: str) -> str:
    """An answer as an LM gives it that was told the form."""
    if form == "json":
        return json.dumps({"answer": answer, "other": other}, ensure_ascii=len(answer) % 2 == 0)
    adapter = FORMS[form][1]
    text: str = adapter.format_assistant_message_content(
        SIGNATURE, {"answer": answer, "other": other}
    )
    return text


@form
@UNTIMED
@given(first=values, second=values, sizes=cuts)
def test_the_pieces_joined_are_what_the_adapter_parses(
    form: str, first: str, second: str, sizes: list[int]
) -> None:
    parser, adapter = FORMS[form]
    text = answer(form, first, second)
    try:
        expected: dict[str, Any] = adapter.parse(SIGNATURE, text)
    except dspy.AdapterParseError:
        return  # such an answer is never a result
    joined, _ = streamed(parser(FIELDS), cut(text, sizes))
    if form == "xml" and any(_breaks_xml(value) for value in (first, second)):
        return  # DSPy does not write these characters so that it reads them back
    assert joined == expected | {name: joined[name] for name in joined if not expected[name]}


def _breaks_xml(value: str) -> bool:
    return any(ord(char) < 32 or char in "\x85\u2028\u2029\ufffe\uffff" for char in value)


@form
@UNTIMED
@given(text=values, sizes=cuts)
def test_no_text_makes_a_parser_fail(form: str, text: str, sizes: list[int]) -> None:
    streamed(FORMS[form][0](FIELDS), cut(text, sizes))


@form
@UNTIMED
@given(first=values, second=values, sizes=cuts)
def test_how_the_answer_is_cut_makes_no_difference(
    form: str, first: str, second: str, sizes: list[int]
) -> None:
    parser = FORMS[form][0]
    text = answer(form, first, second)
    whole, _ = streamed(parser(FIELDS), [text])
    pieces, _ = streamed(parser(FIELDS), cut(text, sizes))
    assert pieces == whole


@form
def test_text_comes_before_the_answer_is_whole(form: str) -> None:
    text = answer(form, "a long answer that goes on and on", "z")
    parser = FORMS[form][0](FIELDS)
    half = text[: text.index("goes on")]
    early = "".join(piece.text for piece in parser.feed(half))
    assert early.startswith("a long answer")


@form
def test_each_field_ends_once(form: str) -> None:
    text = answer(form, "one", "two")
    _, pieces = streamed(FORMS[form][0](FIELDS), list(text))
    assert [piece.field for piece in pieces if piece.is_last] == ["answer", "other"]


def test_values_that_are_no_strings_come_as_their_text() -> None:
    parser = JsonParser({"a", "b", "c"})
    text = '{"a": [1, "x]}", {"y": 2}], "b": 12.5, "c": true}'
    joined, _ = streamed(parser, list(text))
    assert joined == {"a": '[1, "x]}", {"y": 2}]', "b": "12.5", "c": "true"}


# What begins, what then goes on and on, and the parser that must not look at it again and again.
ENDLESS: dict[str, tuple[type[FieldParser], str, str]] = {
    "chat white space": (ChatParser, "[[ ## answer ## ]]\nx", " "),
    "chat empty lines": (ChatParser, "[[ ## answer ## ]]\nx", "\r\n"),
    "chat indent before any field": (ChatParser, "", " "),
    "chat header name": (ChatParser, "[[ ## answer ## ]]\nx\n[[ ## ", "a"),
    "chat line of a header": (ChatParser, "[[ ## answer ## ]] ", "a"),
    "json list": (JsonParser, '{"answer": [', "1, "),
    "json value's string": (JsonParser, '{"answer": ["', '\\"'),
    "json white space in a value": (JsonParser, '{"answer": 1', " "),
    "json key": (JsonParser, '{"', "a"),
    "json white space before a colon": (JsonParser, '{"answer"', " "),
    "json white space before a value": (JsonParser, '{"answer":', " "),
    "xml tag name": (XmlParser, "<", "a"),
    "xml tags": (XmlParser, "", "<a>"),
    "xml white space": (XmlParser, "<answer>x", " "),
    "xml half markup": (XmlParser, "<answer>", "<&"),
}


def seconds(case: str, length: int, chunk: int) -> float:
    """The processor's time of this thread, which the machine's other work does not lengthen."""
    parser, beginning, unit = ENDLESS[case]
    text = (unit * length)[:length]
    pieces = [text[at : at + chunk] for at in range(0, length, chunk)]
    times = []
    for _ in range(3):
        fresh = parser(FIELDS)
        fresh.feed(beginning)
        start = time.thread_time()
        for piece in pieces:
            fresh.feed(piece)
        fresh.close()
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("case", ENDLESS)
def test_work_grows_with_the_length_of_the_answer_and_not_its_square(case: str) -> None:
    length = 8_000
    ratio = seconds(case, 4 * length, chunk=1) / seconds(case, length, chunk=1)
    assert ratio < 8, f"four times the text is {ratio:.1f} times the work"  # its square: 16


@pytest.mark.parametrize("case", ["chat empty lines", "xml tags"])
def test_work_grows_with_the_length_of_a_single_piece_and_not_its_square(case: str) -> None:
    length = 200_000
    ratio = seconds(case, 4 * length, 4 * length) / seconds(case, length, length)
    assert ratio < 8, f"four times the text is {ratio:.1f} times the work"


def test_what_follows_a_header_in_its_line_comes_before_the_line_ends() -> None:
    parser = ChatParser(FIELDS)
    text = "".join(piece.text for piece in parser.feed("[[ ## answer ## ]] it goes"))
    assert text == "it goes"


@UNTIMED
@given(sizes=cuts)
def test_headers_of_other_names_and_text_beside_headers_are_as_the_adapter_has_them(
    sizes: list[int],
) -> None:
    text = (
        "so\n[[ ## answer ## ]] one  \n two \r\n\r\n[[ ##  ## ]]\n[[ ## answer ##\n"
        "[[ ## a_name_longer_than_that_of_any_field ## ]] none\n[[ ## answer ## ]] twice\n"
        "[[ ## other ## ]]  \n\n three\u2028[[ ## four"
    )
    joined, _ = streamed(ChatParser(FIELDS), cut(text, sizes))
    assert joined == dspy.ChatAdapter().parse(SIGNATURE, text)


@UNTIMED
@given(sizes=cuts)
def test_keys_and_values_of_any_form_are_as_the_adapter_has_them(sizes: list[int]) -> None:
    text = (
        'So: { "k\\"e\\\\y" : [ "\\\\" , 1 ] , '
        '"\\u0061nswer"\n:\n"\\ud83d\\ude00\\n " ,"other" : "" } so'
    )
    joined, pieces = streamed(JsonParser(FIELDS), cut(text, sizes))
    assert joined == dspy.JSONAdapter().parse(SIGNATURE, text)
    assert [piece.field for piece in pieces if piece.is_last] == ["answer", "other"]


def test_a_value_that_is_no_string_comes_before_it_is_whole() -> None:
    assert JsonParser({"a"}).feed('{"a": [1, 2 ') == [Piece("a", "[1, 2", False)]


def test_text_does_not_wait_behind_an_entity_that_is_whole() -> None:
    assert XmlParser({"a"}).feed("<a>x &lt; y") == [Piece("a", "x < y", False)]
