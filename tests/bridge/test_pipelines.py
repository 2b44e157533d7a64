"""Pipelines as data: how their links are found, and what is refused with both ends named."""

from __future__ import annotations

from typing import Any

import pytest
from dspex_bridge.methods import METHODS
from dspex_bridge.programs import bundles
from dspex_bridge.programs.creation import program_spec
from dspex_protocol.errors import SignatureError

QUESTION = {"name": "question", "type": "str"}


def step(name: str, signature: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "signature": signature, **more}


def links(steps: list[dict[str, Any]], *inputs: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Where the inputs of each step come from."""
    last = steps[-1]["name"]
    outputs = steps[-1]["signature"].rpartition("-> ")[2].partition(":")[0]
    params = {"inputs": list(inputs), "steps": steps, "outputs": [f"{last}.{outputs}"]}
    METHODS["create"].check(params, "create")
    spec = program_spec(params)
    assert spec.pipeline is not None
    return {one.name: dict(one.sources) for one in spec.pipeline.steps}


def refusal(steps: list[dict[str, Any]], *inputs: dict[str, Any]) -> SignatureError:
    with pytest.raises(SignatureError) as refused:
        links(steps, *inputs)
    return refused.value


def test_an_input_comes_from_the_latest_earlier_step_with_an_output_of_its_name() -> None:
    found = links(
        [
            step("first", "question -> text"),
            step("second", "text -> better"),
            step("third", "question, better -> text2"),
            step("again", "question -> better"),
            step("last", "text, better, question -> answer"),
        ],
        QUESTION,
    )
    assert found == {
        "first": {"question": "question"},
        "second": {"text": "first.text"},
        "third": {"question": "question", "better": "second.better"},
        "again": {"question": "question"},
        "last": {"text": "first.text", "better": "again.better", "question": "question"},
    }


def test_a_step_goes_before_the_inputs_of_the_program() -> None:
    text = {"name": "text", "type": "str"}
    found = links([step("a", "text -> note"), step("b", "note -> done")], text)
    assert found["b"] == {"note": "a.note"}
    note = {"name": "note", "type": "str"}
    found = links([step("a", "text -> note"), step("b", "note -> done")], text, note)
    assert found["b"] == {"note": "a.note"}


def test_from_goes_before_names() -> None:
    found = links(
        [
            step("a", "question -> text"),
            step("b", "question -> text"),
            step("c", "one, two, text -> answer", **{"from": {"one": "a.text", "two": "question"}}),
        ],
        QUESTION,
    )
    assert found["c"] == {"one": "a.text", "two": "question", "text": "b.text"}


def test_what_a_module_makes_is_linked_by_from_only() -> None:
    think = step("think", "question -> idea", module="chain_of_thought")
    error = refusal([think, step("b", "reasoning -> answer")], QUESTION)
    assert error.data["input"] == "reasoning"
    given = {"from": {"why": "think.reasoning"}}
    found = links([think, step("b", "why -> answer", **given)], QUESTION)
    assert found["b"] == {"why": "think.reasoning"}


def test_an_input_with_a_default_may_stay_open() -> None:
    signature = {
        "inputs": [QUESTION, {"name": "limit", "type": "int", "default": 3}],
        "outputs": [{"name": "answer", "type": "str"}],
    }
    params = {
        "inputs": [QUESTION],
        "steps": [{"name": "a", "signature": signature}],
        "outputs": ["a.answer"],
    }
    spec = program_spec(params)
    assert spec.pipeline is not None
    assert spec.pipeline.steps[0].sources == {"question": "question"}


def test_an_open_input_is_refused_with_its_step_and_a_suggestion() -> None:
    error = refusal([step("a", "question -> text"), step("b", "texd -> answer")], QUESTION)
    assert "input 'texd' of step 'b' is open" in str(error)
    assert "a.text" in str(error)
    assert error.data == {"path": ["steps", 1], "input": "texd"}


def test_a_link_of_another_type_is_refused_with_both_ends() -> None:
    error = refusal(
        [step("a", "question -> text"), step("b", "text: int -> answer")],
        QUESTION,
    )
    assert "'text' of step 'b' is of the type 'int'" in str(error)
    assert "comes from 'a.text', which is of the type 'str'" in str(error)
    assert error.data == {"path": ["steps", 1], "input": "text", "source": "a.text"}


@pytest.mark.parametrize(
    "source", ["a.texd", "b.answer", "c.text", "a", "questoin", "a.text.more", ".text", "a.", ""]
)
def test_a_link_to_what_is_not_there_is_refused(source: str) -> None:
    """Also to the step itself and to a later one: there are no circles."""
    steps = [
        step("a", "question -> text"),
        step("b", "given -> answer", **{"from": {"given": source}}),
        step("c", "question -> text"),
    ]
    error = refusal(steps, QUESTION)
    assert f"'given' of step 'b' is to come from '{source}'" in str(error)
    assert "there are question, a.text" in str(error)
    assert error.data["source"] == source


def test_the_signatures_of_all_steps_and_tools_are_bounded_together() -> None:
    wide = {"name": "q", "type": f"tuple[{', '.join(['int'] * 200)}]"}
    signature = f"q: {wide['type']} -> a"
    tool = {"name": "look", "description": "d", "parameters": [wide]}
    steps = [step(f"s{index}", signature, tools=[tool]) for index in range(4)]
    assert len(links(steps, wide)) == 4
    steps.append(step("one_more", signature))
    assert "at most 2000 types" in str(refusal(steps, wide))


def test_a_pipeline_has_at_most_as_many_outputs_as_a_signature() -> None:
    params = {"inputs": [{"name": "q", "type": "str"}], "steps": [step("a", "q -> b")]}
    with pytest.raises(SignatureError, match="at most 256 outputs, this one has 300"):
        program_spec({**params, "outputs": ["a.b"] * 300})


def test_from_names_inputs_of_the_step() -> None:
    given = {"from": {"questoin": "question"}}
    error = refusal([step("a", "question -> text", **given)], QUESTION)
    assert "step 'a' has no input 'questoin', did you mean 'question'?" in str(error)


@pytest.mark.parametrize("name", ["a.b", "_a", "1a", "a b", "class", "é"])
def test_a_step_has_the_name_of_an_attribute(name: str) -> None:
    assert "is no name of a step" in str(refusal([step(name, "question -> text")], QUESTION))


def test_no_two_steps_have_one_name() -> None:
    steps = [step("a", "question -> text"), step("a", "question -> answer")]
    assert "two steps 'a'" in str(refusal(steps, QUESTION))


def test_a_pipeline_has_steps_and_outputs() -> None:
    for steps, outputs in (([], ["a.text"]), ([step("a", "question -> text")], [])):
        with pytest.raises(SignatureError, match="at least one"):
            program_spec({"inputs": [QUESTION], "steps": steps, "outputs": outputs})


@pytest.mark.parametrize("output", ["text", "a.texd", "b.text", "question", "a.text.x", ""])
def test_an_output_is_a_field_of_a_step(output: str) -> None:
    steps = [step("a", "question -> text")]
    with pytest.raises(SignatureError, match=r"outputs\[0\]: there is no"):
        program_spec({"inputs": [QUESTION], "steps": steps, "outputs": [output]})


def test_outputs_are_known_by_their_last_part_which_are_distinct() -> None:
    steps = [step("a", "question -> text: int"), step("b", "text -> answer, text2")]
    steps[1]["signature"] = "text: int -> answer, sure: bool"
    spec = program_spec(
        {"inputs": [QUESTION], "steps": steps, "outputs": ["b.sure", "a.text", "b.answer"]}
    )
    assert spec.signature.to_string() == "question: str -> sure: bool, text: int, answer: str"
    for outputs in (["b.sure", "b.sure"], ["b.sure", "a.text", "a.text"]):
        with pytest.raises(SignatureError, match="twice among the outputs"):
            program_spec({"inputs": [QUESTION], "steps": steps, "outputs": outputs})


def test_a_pipeline_is_the_same_after_dump_and_load() -> None:
    params = {
        "inputs": [QUESTION],
        "steps": [
            step("a", "question -> text", demos=[{"inputs": {"question": "?"}, "outputs": {}}]),
            step(
                "b",
                "given -> answer: float",
                module="react",
                options={"max_iters": 3},
                tools=[{"name": "look", "description": "Looks.", "parameters": []}],
                **{"from": {"given": "a.text"}},
            ),
        ],
        "outputs": ["b.answer", "b.trajectory"],
        "lm": "main",
        "config": {"temperature": 0.5},
    }
    spec = program_spec(params)
    state = bundles.dump(spec)
    assert state["format_version"] == 1
    assert bundles.load(state) == spec
    assert bundles.dump(bundles.load(state)) == state
