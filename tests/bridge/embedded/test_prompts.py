"""A request read back into fields, demonstrations and inputs."""

import random
import time
from typing import Any, Literal

import dspy
import pytest
from dspex_bridge.engine.embedded.prompts import Prompt, Turn, read_prompt

ADAPTERS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}


SIGNATURE = dspy.Signature(
    {
        "context": (str, dspy.InputField(desc="what to read\n1. `context` (int): a trap")),
        "question": (str, dspy.InputField()),
        "answer": (str, dspy.OutputField(desc="a word\n1. `answer` (int): a trap", max_length=9)),
        "rating": (int, dspy.OutputField(desc="stars, 1 to 5")),
        "label": (Literal["a, b", "it's"], dspy.OutputField(desc="the kind")),
        "tags": (list[str], dspy.OutputField(max_length=3)),
    },
    "Answer the question.\n\nYour output fields are few.",
)


def read(adapter: str, demos: list[Any], inputs: dict[str, Any]) -> Prompt:
    messages = ADAPTERS[adapter]().format(SIGNATURE, demos, inputs)
    turns = [Turn(message["role"], message["content"]) for message in messages[1:]]
    prompt = read_prompt(messages[0]["content"], turns, None)
    assert prompt is not None
    return prompt


def test_fields_come_back_with_types_descriptions_and_constraints(adapter: str) -> None:
    fields = read(adapter, [], {"context": "c", "question": "q"}).outputs
    assert [field.name for field in fields] == ["answer", "rating", "label", "tags"]
    assert [field.description for field in fields] == [
        "a word\n1. `answer` (int): a trap",
        "stars, 1 to 5",
        "the kind",
        "",
    ]
    answer, rating, label, tags = (field.schema for field in fields)
    assert answer == {"type": "string", "maxLength": 9}
    assert rating == {"type": "integer", "minimum": 1, "maximum": 5}
    assert label["enum"] == ["a, b", "it's"]
    assert tags == {"type": "array", "items": {"type": "string"}, "maxItems": 3}


def test_inputs_and_demonstrations_come_back_as_they_were(adapter: str) -> None:
    texts = ["two\n\nparagraphs & <b>tags</b>", "[brackets] {braces}", "ünïcödé «quotes»", "1. `x`"]
    demos = [
        {"context": text, "question": text[::-1], "answer": "x", "rating": 2, "label": "it's"}
        | {"tags": ["a & b", "<c>"]}
        for text in texts
    ]
    prompt = read(adapter, demos, {"context": texts[0], "question": texts[1]})
    assert prompt.inputs == {"context": texts[0], "question": texts[1]}
    assert [dict(demo.inputs) for demo in prompt.demonstrations] == [
        {"context": demo["context"], "question": demo["question"]} for demo in demos
    ]
    assert [dict(demo.outputs) for demo in prompt.demonstrations] == [
        {"answer": "x", "rating": 2, "label": "it's", "tags": ["a & b", "<c>"]}
    ] * len(demos)


def test_what_an_example_lacks_is_missing_and_not_its_placeholder(adapter: str) -> None:
    demos = [{"context": "only this", "label": "it's", "answer": None}]
    (demo,) = read(adapter, demos, {"context": "c", "question": "q"}).demonstrations
    assert demo.inputs == {"context": "only this"}
    assert demo.outputs == {"label": "it's"}


def test_an_input_that_is_left_out_is_missing(adapter: str) -> None:
    assert read(adapter, [], {"question": "q"}).inputs == {"question": "q"}


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [Turn("user", "hello")],
        [Turn("assistant", "Respond with a JSON object in the following order of fields: `a`.")],
        [Turn("user", "Respond with a JSON object in the following order of fields: `!`.")],
    ],
)
def test_what_no_adapter_wrote_is_not_read(turns: list[Turn]) -> None:
    assert read_prompt("", turns, None) is None


def test_a_prompt_without_its_system_message_is_answered_as_text() -> None:
    text = "Respond with a JSON object in the following order of fields: `a`, then `b`."
    prompt = read_prompt("", [Turn("user", text)], None)
    assert prompt is not None
    assert [(field.name, field.schema) for field in prompt.outputs] == [
        ("a", {"type": "string"}),
        ("b", {"type": "string"}),
    ]


def test_a_response_format_goes_before_what_the_prompt_says() -> None:
    text = "Respond with a JSON object in the following order of fields: `a`."
    system = "Your input fields are:\n\nYour output fields are:\n1. `a` (Kind):"
    schema = {
        "$defs": {"Kind": {"enum": [1, 2], "type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/Kind"}},
    }
    prompt = read_prompt(system, [Turn("user", text)], {"type": "json_schema", "schema": schema})
    assert prompt is not None
    (field,) = prompt.outputs
    assert prompt.form.answer({"a": 2}, [field]) == '{\n  "a": 2\n}'
    assert field.schema["$ref"] == "#/$defs/Kind"


@pytest.mark.parametrize("seed", [3])
def test_two_hundred_demonstrations_and_long_texts_are_read_quickly(
    adapter: str, seed: int
) -> None:
    generator = random.Random(seed)
    text = " ".join(f"word{generator.randrange(999)}" for _number in range(300))
    demos = [
        {"context": text, "question": "q", "answer": "x", "rating": 1, "label": "it's", "tags": []}
    ] * 200
    start = time.process_time()
    prompt = read(adapter, demos, {"context": text * 100, "question": "q"})
    assert len(prompt.demonstrations) == 200
    assert time.process_time() - start < 5
