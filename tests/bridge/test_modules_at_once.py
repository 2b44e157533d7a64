"""Our modules and pipelines as optimizers use them: copied, called without a loop, traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import dspy
import numpy
import pytest
from dspex_bridge.engine.metrics import METRIC_SETTING
from dspex_bridge.engine.modules import build_module
from dspex_bridge.engine.predictors import predictors_of
from dspex_bridge.programs import bundles
from dspex_bridge.programs.creation import program_spec
from dspex_protocol.errors import LMError

from integration.openai_server import Answer, OpenAIServer, Request, failure, well_formed

PIPELINE = {
    "inputs": [{"name": "question", "type": "str"}],
    "steps": [
        {"name": "draft", "signature": "question -> text: str"},
        {"name": "doubts", "signature": "question -> points: list[str]"},
        {
            "name": "final",
            "signature": "text, points: list[str] -> answer",
            "module": "chain_of_thought",
        },
    ],
    "outputs": ["final.answer"],
}
FIELDS = {"text": "t", "points": ["p"], "reasoning": "r", "answer": "a"}


class Resources:
    """Embeds a text as the numbers of its letters a, b and c."""

    def lm(self, which: str | None) -> Any:
        raise AssertionError(which)

    def embedder(self, name: str | None) -> Any:
        assert name is None

        def embed(texts: Sequence[str]) -> Any:
            return numpy.array([[text.count(letter) for letter in "abc"] for text in texts])

        return dspy.Embedder(embed, caching=False)


def build(**params: Any) -> Any:
    return build_module(program_spec(params), Resources())


class Server(OpenAIServer):
    """Answers with FIELDS, or as `answer` says."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Answer] = lambda request: well_formed(request, FIELDS)
        super().__init__(self._answered)

    def _answered(self, request: Request) -> Answer:
        return self.answer(request)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server:
        yield server


def context(server: Server, **settings: Any) -> AbstractContextManager[Any]:
    lm = dspy.LM("openai/x", api_base=server.url, api_key=server.api_key, cache=False)
    made: AbstractContextManager[Any] = dspy.context(
        lm=lm.copy(num_retries=0), **{"trace": [], **settings}
    )
    return made


def test_a_pipeline_is_one_module_with_the_predictors_of_its_steps(server: Server) -> None:
    pipeline = build(**PIPELINE)
    assert [name for name, _ in pipeline.named_predictors()] == ["draft", "doubts", "final.predict"]
    with context(server):
        assert pipeline(question="?").answer == "a"
        trace = dspy.settings.trace
    assert [entry[0] for entry in trace] == pipeline.predictors()


def test_a_copy_of_a_pipeline_has_predictors_of_its_own(server: Server) -> None:
    pipeline = build(**PIPELINE)
    copy = pipeline.reset_copy()
    assert not set(map(id, copy.predictors())) & set(map(id, pipeline.predictors()))
    copy.final.predict.demos = [dspy.Example(text="x", points=["y"], answer="z")]
    assert pipeline.final.predict.demos == []
    with context(server):
        assert copy(question="?").answer == "a"


def test_an_optimizer_optimizes_all_steps_together(server: Server) -> None:
    pipeline = build(**PIPELINE)
    trainset = [dspy.Example(question=f"?{n}", answer="a").with_inputs("question") for n in "123"]
    optimizer = dspy.BootstrapFewShot(
        metric=lambda example, prediction, _trace=None: example.answer == prediction.answer,
        max_bootstrapped_demos=2,
        max_labeled_demos=0,
    )
    with context(server):
        optimized = optimizer.compile(pipeline, trainset=trainset)
    found = predictors_of(optimized)
    assert list(found) == ["draft", "doubts", "final.predict"]
    assert all(len(predictor.demos) == 2 for predictor in found.values())
    assert found["draft"].demos[0].inputs == {"question": "?1"}
    assert found["draft"].demos[0].outputs == {"text": "t"}
    assert found["final.predict"].demos[0].inputs == {"text": "t", "points": ["p"]}
    assert found["final.predict"].demos[0].outputs == {"reasoning": "r", "answer": "a"}
    assert found["final.predict"].demos[0].flags == {"augmented": True}
    # And what it made is a state, from which the same program is made again.
    spec = program_spec(PIPELINE)
    state = bundles.dump(replace(spec, predictors=found))
    again = build_module(bundles.load(state), Resources())
    assert predictors_of(again) == found


def test_a_step_that_fails_is_named_there_too(server: Server) -> None:
    server.answer = lambda _request: failure(401)
    with context(server), pytest.raises(LMError, match="step 'draft': the LM failed"):
        build(**PIPELINE)(question="?")


REWARDED = {"N": 3, "metric": {"callback": "m"}, "threshold": 1}


async def one_for_the_second(
    _name: str, _example: Any, prediction: Mapping[str, Any], _trace: Any
) -> float:
    return float(prediction["answer"] == "answer 1")


def numbered(request: Request) -> Answer:
    said = {**FIELDS, "answer": f"answer {request.number}", "rationale": "q"}
    return well_formed(request, said)


def test_best_of_n_runs_without_a_loop_and_traces_its_own_predictor(server: Server) -> None:
    server.answer = numbered
    program = build(signature="q -> answer", module="best_of_n", options=REWARDED)
    with context(server, **{METRIC_SETTING: one_for_the_second}):
        assert program(q="?").answer == "answer 1"
        ((predictor, inputs, _),) = dspy.settings.trace
    assert predictor is program.module
    assert inputs == {"q": "?"}
    assert len(server.requests) == 2
    assert not any("rollout_id" in request.body for request in server.requests)


def test_multi_chain_comparison_runs_without_a_loop(server: Server) -> None:
    server.answer = numbered
    program = build(signature="q -> answer", module="multi_chain_comparison", options={"M": 2})
    with context(server):
        prediction = program(q="?")
        trace = dspy.settings.trace
    assert (prediction.answer, prediction.rationale) == ("answer 2", "q")
    attempt, compare = program.attempt.predict, program.compare.predict
    assert [entry[0] for entry in trace] == [attempt, attempt, compare]


def test_knn_runs_without_a_loop_and_sees_demonstrations_that_were_replaced(server: Server) -> None:
    demos = [
        {"inputs": {"q": letter * 3}, "outputs": {"answer": f"is {letter}"}} for letter in "abc"
    ]
    program = build(signature="q -> answer", module="knn", options={"k": 1}, demos=demos)
    with context(server):
        program(q="bb")
        program.module.demos = [
            dspy.Example(q=letter, answer=f"was {letter}").with_inputs("q") for letter in "bc"
        ]
        program(q="cc")
    first, second = ("\n".join(text for _, text in r.turns) for r in server.requests)
    assert "is b" in first
    assert "is a" not in first
    assert "was c" in second
    assert "was b" not in second


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("best_of_n", REWARDED),
        ("refine", REWARDED),
        ("multi_chain_comparison", {"M": 2}),
        ("knn", {"k": 1}),
    ],
)
def test_an_input_may_have_any_name_that_is_not_reserved(
    module: str, options: dict[str, Any], server: Server
) -> None:
    """Ours, too, are handed on as named arguments."""
    names = ("callee", "mode", "module", "inputs", "args", "kwargs", "lm_kwargs", "name", "n")
    server.answer = lambda request: well_formed(
        request,
        {**FIELDS, "answer": "answer 1", "rationale": "q", "discussion": "d", "advice": {}},
    )
    demos = [{"inputs": dict.fromkeys(names, "a"), "outputs": {}} for _ in range(2)]
    signature = f"{', '.join(names)} -> answer"
    program = build(signature=signature, module=module, options=options, demos=demos)
    with context(server, **{METRIC_SETTING: one_for_the_second}):
        assert program(**dict.fromkeys(names, "x")).answer == "answer 1"
