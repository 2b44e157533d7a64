"""A Predict in the bridge's engine asks for what plain DSPy asks for, byte for byte, and makes the
same of the answers. Plain DSPy is in a process of its own, where nothing has changed it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspex_bridge.engine import Engine
from dspex_bridge.engine.lm import LM
from dspex_bridge.logs import Log
from dspex_bridge.redaction import Redactor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PLAIN = Path(__file__).with_name("plain_dspy.py")

_spec = importlib.util.spec_from_file_location("plain_dspy", PLAIN)
assert _spec is not None
assert _spec.loader is not None
plain_dspy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain_dspy)

words = st.text(max_size=12).filter(lambda text: text.isascii() or text.isprintable())
VALUES: dict[str, Any] = {
    "str": words,
    "int": st.integers(-9, 9),
    "float": st.floats(-9, 9),
    "bool": st.booleans(),
    "list[str]": st.lists(words, max_size=3),
    "dict[str, int]": st.dictionaries(words, st.integers(0, 9), max_size=2),
    "Optional[int]": st.none() | st.integers(0, 9),
    "Literal['yes', 'no']": st.sampled_from(["yes", "no"]),
    "list[dict[str, float]]": st.lists(
        st.dictionaries(words, st.floats(0, 9), max_size=2), max_size=2
    ),
}


@st.composite
def calls(draw: st.DrawFn, adapter: str) -> dict[str, Any]:
    kinds = st.sampled_from(["str", "str", *VALUES])
    inputs = {name: draw(kinds) for name in draw(names("question", "context", "n"))}
    outputs = {name: draw(kinds) for name in draw(names("answer", "why", "score"))}
    fields = {**inputs, **outputs}

    def values(chosen: dict[str, str]) -> dict[str, Any]:
        return {name: draw(VALUES[kind]) for name, kind in chosen.items()}

    def demo() -> dict[str, Any]:
        left_out = draw(st.sets(st.sampled_from(sorted(fields)), max_size=1))
        return values({name: fields[name] for name in fields if name not in left_out})

    answers = [answer(adapter, values(outputs)), draw(words) or "?"]
    return {
        "adapter": adapter,
        "signature": f"{listed(inputs)} -> {listed(outputs)}",
        "instructions": draw(words) or "Answer.",
        "demos": [demo() for _ in range(draw(st.integers(0, 3)))],
        "inputs": values(inputs),
        "answers": draw(st.permutations(answers)) if draw(st.booleans()) else answers[:1],
    }


def names(*possible: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(possible), min_size=1, unique=True)


def listed(fields: dict[str, str]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in fields.items())


def answer(adapter: str, outputs: dict[str, Any]) -> str:
    """What an LM that does as it is told answers."""
    if adapter in ("json", "baml"):
        return json.dumps(outputs)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in outputs.items()
    }
    if adapter == "xml":
        return "".join(f"<{name}>\n{text}\n</{name}>\n" for name, text in texts.items())
    told = "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in texts.items())
    return f"{told}[[ ## completed ## ]]"


class AsyncScripted:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def complete(self, request: Any) -> Any:
        return self._engine.complete(request)


class InBridge:
    """The same calls, each made twice: the second time finds what was kept of the first."""

    def __init__(self) -> None:
        self._engine = Engine(Log(Redactor()), Redactor())
        self._scripted = plain_dspy.Scripted()
        engines = {"engine": self._scripted, "async_engine": AsyncScripted(self._scripted)}
        self._lm = LM("main", "demo/x", retries=0, cache=False, **engines)

    def outcomes(self, call: dict[str, Any]) -> list[Any]:
        predict = dspy.Predict(dspy.Signature(call["signature"], call["instructions"]))
        predict.demos = [dspy.Example(**demo) for demo in call["demos"]]
        return [self._outcome(predict, call) for _ in range(2)]

    def _outcome(self, predict: dspy.Predict, call: dict[str, Any]) -> Any:
        client: Any = SimpleNamespace(request_id=1, call_tool=None, call_metric=None, run_job=None)
        run = self._engine.run(
            predict,
            call["inputs"],
            lm=self._lm,
            adapter=call["adapter"],
            config={},
            client=client,
        )
        self._scripted.answers, self._scripted.asked = list(call["answers"]), []
        outputs, failed = None, None
        try:
            outputs = asyncio.run(run.prediction())
        except Exception as error:  # noqa: BLE001 - whatever it is
            failed = error
        return plain_dspy.outcome(self._scripted, outputs, failed)


@pytest.fixture(scope="module")
def in_bridge() -> InBridge:
    return InBridge()


@pytest.fixture(scope="module")
def plain() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(PLAIN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def asked_plain(plain: subprocess.Popen[str], call: dict[str, Any]) -> Any:
    assert plain.stdin is not None
    assert plain.stdout is not None
    plain.stdin.write(json.dumps(call) + "\n")
    plain.stdin.flush()
    return json.loads(plain.stdout.readline())


@pytest.mark.parametrize("adapter", plain_dspy.ADAPTERS)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_predict_is_dspy_s(
    adapter: str, plain: subprocess.Popen[str], in_bridge: InBridge, data: st.DataObject
) -> None:
    call = data.draw(calls(adapter))
    expected = asked_plain(plain, call)
    assert expected["asked"]
    assert in_bridge.outcomes(call) == [expected, expected]
