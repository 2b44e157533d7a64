"""What these tests share: each of the three adapters, and a program asked through the real DSPy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy
import pytest
from dspex_bridge.engine.embedded import KnnEngine
from dspy.lm15 import Request, Response

ADAPTERS: dict[str, Callable[[], dspy.Adapter]] = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
}


class WatchedEngine(KnnEngine):
    """The engine, and what it was asked and answered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.responses: list[Response] = []

    def complete(self, request: Request) -> Response:
        self.requests.append(request)
        response = super().complete(request)
        self.responses.append(response)
        return response


Ask = Callable[..., dspy.Prediction]


@pytest.fixture(params=list(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> str:
    """The name of an adapter: the test runs once with each."""
    name: str = request.param
    return name


@pytest.fixture
def ask() -> Ask:
    """Runs a program once and returns its prediction.

    Fails unless that took exactly one call of the LM: a second one is the adapter's second try.
    """

    def run(
        signature: Any,
        adapter: str,
        inputs: Mapping[str, Any],
        demos: Sequence[dspy.Example] = (),
        module: Callable[[Any], Any] = dspy.Predict,
    ) -> dspy.Prediction:
        engine = WatchedEngine()
        program = module(signature)
        for predictor in program.predictors():
            predictor.demos = list(demos)
        lm = dspy.LM("demo/knn", engine=engine, cache=False)
        with dspy.context(lm=lm, adapter=ADAPTERS[adapter](), disable_history=True):
            prediction = program(**inputs)
        answers = [response.text for response in engine.responses]
        assert len(answers) == 1, f"the first answer could not be parsed: {answers[0]}"
        return prediction

    return run
