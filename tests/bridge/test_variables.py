"""Variables: which are refused, what a grid has, and what programs they make."""

from __future__ import annotations

from typing import Any

import pytest
from dspex_bridge.programs.creation import program_spec
from dspex_bridge.programs.spec import Demo, Predictor, ProgramSpec
from dspex_bridge.programs.variants import variant
from dspex_bridge.variables import MAX_VARIABLES, active, check_variables, defaults, grid, in_order
from dspex_protocol.errors import InvalidParamsError

NUMBER = {"kind": "float", "low": 0, "high": 1, "applies_to": "config.temperature"}
MODULE = {"kind": "module", "choices": ["predict", "chain_of_thought"], "applies_to": "module"}
DEMOS = {"kind": "int", "low": 0, "high": 4, "applies_to": "demos.k"}


def on(name: str, *values: Any) -> dict[str, Any]:
    return {"depends_on": {"variable": name, "in": list(values)}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"a": {**NUMBER, "choices": [1]}}, "a number has low and high"),
    ({"a": {**NUMBER, "high": 0}}, "low below high"),
    ({"a": {**NUMBER, "low": None}}, "needs low and high"),
    ({"a": {**NUMBER, "log": True}}, "low is above 0"),
    ({"a": {**NUMBER, "low": -1}}, "temperature"),
    ({"a": {**NUMBER, "default": 2}}, "not among the values"),
    ({"a": {**NUMBER, "default": "x"}}, "not among the values"),
    ({"a": {**NUMBER, "applies_to": "config.temprature"}}, "temperature"),
    ({"a": {**NUMBER, "applies_to": "nothing"}}, "Valid: config.NAME, module, lm"),
    ({"a": {**DEMOS, "low": 0.5}}, "whole numbers"),
    ({"a": {**DEMOS, "low": -1}}, "a.low must be an integer of at least 0"),
    ({"a": {**DEMOS, "default": 1.5}}, "not among the values"),
    ({"a": {**DEMOS, "kind": "float"}}, "for demos.k the kind is int or categorical"),
    ({"a": {**MODULE, "low": 1}}, "has choices, and no low"),
    ({"a": {**MODULE, "choices": []}}, "needs choices"),
    ({"a": {**MODULE, "choices": ["predict", "predict"]}}, "each one once"),
    ({"a": {**MODULE, "choices": ["predikt"]}}, "Did you mean 'predict'?"),
    ({"a": {**MODULE, "default": "react"}}, "not among the values"),
    ({"a": MODULE, "b": MODULE}, "'a' goes there already"),
    ({"a": {**NUMBER, **on("b", 1)}}, "there is no variable 'b'"),
    ({"a": {**NUMBER, **on("modul", "predict")}, "module": MODULE}, "Did you mean 'module'?"),
    ({"a": {**NUMBER, **on("a", 1)}}, "a -> a is a circle"),
    ({"a": {**NUMBER, **on("b", "predict")}, "b": {**MODULE, **on("a", 1)}}, "circle"),
    ({"a": {**NUMBER, **on("b")}, "b": MODULE}, "'in' has values of 'b'"),
    ({"a": {**NUMBER, **on("b", "react")}, "b": MODULE}, "'in' has values of 'b'"),
    ({str(i): NUMBER for i in range(MAX_VARIABLES + 1)}, "at most 100"),
]


@pytest.mark.parametrize(("variables", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_variable_that_cannot_be_is_refused(variables: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParamsError) as refused:
        check_variables(variables, "create: variables")
    assert words in str(refused.value)
    assert refused.value.data["param"].startswith(("variables", "temprature"))


@pytest.mark.parametrize("target", ["module", "nobody.module", "one.lm", "one.config.seed"])
def test_in_a_pipeline_a_module_is_a_steps(target: str) -> None:
    with pytest.raises(InvalidParamsError, match=r"begins with a step \(one, two\)"):
        check_variables({"a": {**MODULE, "applies_to": target}}, "variables", ("one", "two"))
    check_variables({"a": {**MODULE, "applies_to": "one.module"}}, "variables", ("one", "two"))


CONDITIONAL = {"t": {**NUMBER, **on("m", "predict")}, "m": MODULE, "k": {**DEMOS, **on("t", 0.5)}}


def test_a_variable_counts_where_the_one_counts_that_it_depends_on() -> None:
    assert in_order(CONDITIONAL) == ["m", "t", "k"]
    assert active(CONDITIONAL, {"m": "predict", "t": 0.5}, "k")
    assert not active(CONDITIONAL, {"m": "predict", "t": 0.25}, "k")
    assert not active(CONDITIONAL, {"m": "chain_of_thought", "t": 0.5}, "k")


def test_a_grid_has_every_combination_once_of_what_counts() -> None:
    values = list(grid(CONDITIONAL))
    assert len(values) == len({repr(item) for item in values})
    plain = [item for item in values if item["m"] == "predict"]
    assert values.count({"m": "chain_of_thought"}) == 1
    assert [item["t"] for item in plain if "k" not in item] == [0.0, 0.25, 0.75, 1.0]
    assert [item["k"] for item in plain if item["t"] == 0.5] == [0, 1, 2, 3, 4]


def test_a_logarithmic_grid_has_its_ends_as_they_are() -> None:
    variable = {**NUMBER, "low": 0.001, "high": 0.1, "log": True}
    found = [item["a"] for item in grid({"a": variable})]
    assert (found[0], found[-1]) == (0.001, 0.1)
    assert found[2] == pytest.approx(0.01)


def test_the_defaults_are_of_those_that_have_one() -> None:
    assert defaults({"a": {**NUMBER, "default": 0}, "b": MODULE}) == {"a": 0}


# Programs


def spec(**params: Any) -> ProgramSpec:
    return program_spec({"signature": "q -> a", **params})


POOL = [Demo({"q": str(i)}, {"a": str(i)}) for i in range(6)]


def of(base: ProgramSpec, target: str, value: Any, pool: list[Demo] | None = None) -> ProgramSpec:
    variables = {"v": {"kind": "categorical", "choices": [value], "applies_to": target}}
    return variant(base, variables, {"v": value}, pool or [])


def test_values_go_where_they_apply() -> None:
    base = spec(config={"top_p": 1.0})
    assert of(base, "config.temperature", 0.5).config == {"top_p": 1.0, "temperature": 0.5}
    assert of(base, "lm", "other").lm == "other"
    assert of(base, "adapter", "json").adapter == "json"
    assert of(base, "module", "chain_of_thought").module == "chain_of_thought"
    assert of(base, "instructions", "Do.").signature.instructions == "Do."
    assert of(base, "inputs.q", "x").signature.inputs[0].default == "x"
    assert of(base, "demos.k", 2, POOL).demos == tuple(POOL[:2])
    assert of(base, "lm", "other").variables["v"]["default"] == "other"


def test_a_seed_draws_the_same_demonstrations_again_and_another_one_others() -> None:
    first = of(spec(), "demos.seed", 1, POOL).demos
    assert first == of(spec(), "demos.seed", 1, POOL).demos
    assert sorted(demo.inputs["q"] for demo in first) == list("012345")
    assert first != of(spec(), "demos.seed", 2, POOL).demos


def test_demonstrations_of_the_program_go_before_those_of_the_trainset() -> None:
    own = spec(demos=[{"inputs": {"q": "own"}, "outputs": {"a": "own"}}])
    assert [demo.inputs["q"] for demo in of(own, "demos.k", 3, POOL).demos] == ["own"]


def test_what_an_optimizer_wrote_is_replaced_only_by_what_is_told() -> None:
    state = Predictor("Optimized.", (Demo({"q": "x"}, {"a": "y", "reasoning": "z"}),))
    base = spec(module="chain_of_thought")
    base = ProgramSpec(base.signature, "chain_of_thought", predictors={"predict": state})
    assert of(base, "config.seed", 1).predictors == {"predict": state}
    told = of(base, "instructions", "Told.")
    assert (told.signature.instructions, told.demos) == ("Told.", state.demos)
    assert told.predictors == {}, "they would go before the signature"
    other = of(base, "module", "predict")
    assert other.signature.instructions == "Optimized."
    assert [dict(demo.outputs) for demo in other.demos] == [{"a": "y"}], "it has no reasoning"


def test_a_value_of_a_variable_that_does_not_count_goes_nowhere() -> None:
    made = variant(spec(), CONDITIONAL, {"m": "chain_of_thought", "t": 0.5})
    assert made.config == {}
    assert "default" not in made.variables["t"]


PIPELINE = {
    "inputs": [{"name": "q", "type": "str"}],
    "steps": [
        {"name": "one", "signature": "q -> a", "demos": [{"inputs": {"q": "1"}, "outputs": {}}]},
        {"name": "two", "signature": "a -> b"},
    ],
    "outputs": ["two.b"],
}


def test_values_of_a_step_change_that_step_alone() -> None:
    states = {"one": Predictor("First.", ()), "two.predict": Predictor("Second.", ())}
    base = program_spec(PIPELINE)
    base = ProgramSpec(base.signature, base.module, pipeline=base.pipeline, predictors=states)
    made = of(base, "one.module", "chain_of_thought")
    assert made.pipeline is not None
    first, second = made.pipeline.steps
    assert (first.program.module, second.program.module) == ("chain_of_thought", "predict")
    assert first.program.signature.instructions == "First."
    assert made.predictors == {"two.predict": states["two.predict"]}
    made = of(base, "two.instructions", "Told.")
    assert made.pipeline is not None
    assert made.predictors["one"] == states["one"]
    assert made.pipeline.steps[1].program.signature.instructions == "Told."
    assert of(base, "inputs.q", "x").signature.inputs[0].default == "x"
    fewer = of(program_spec(PIPELINE), "one.demos.k", 0)
    assert fewer.pipeline is not None
    assert fewer.pipeline.steps[0].program.demos == ()
