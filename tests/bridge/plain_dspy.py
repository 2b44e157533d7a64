"""A process with DSPy and nothing of the bridge, which has changed none of it.

It reads calls of a Predict, a line of JSON each, and answers with all that came of one. The other
side has the form of that, and the engine, from here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import dspy
from dspy._vendor.lm15.serde import request_to_dict
from dspy.adapters import XMLAdapter
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.lm15 import Message, Response, Usage

__all__ = ["Scripted", "outcome"]

ADAPTERS = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": XMLAdapter,
    "baml": BAMLAdapter,
}


class Scripted:
    """An engine that gives one answer after another, the last for ever, and notes what it is
    asked."""

    supports_function_calling = supports_response_schema = True
    supports_reasoning = False
    supported_params = frozenset({"response_format"})

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.asked: list[Any] = []

    def __deepcopy__(self, _memo: Any) -> Scripted:
        return self

    def complete(self, request: Any) -> Response:
        self.asked.append(request_to_dict(request))
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        usage = Usage(input_tokens=1, output_tokens=1)
        message = Message.assistant(text)
        return Response(id=None, model="m", message=message, finish_reason="stop", usage=usage)


def outcome(engine: Scripted, outputs: dict[str, Any] | None, error: Exception | None) -> Any:
    """What was asked, and what came of it, as JSON has it."""
    told = {
        "asked": engine.asked,
        "outputs": None if outputs is None else {key: repr(outputs[key]) for key in outputs},
        "error": None if error is None else type(error).__name__,
    }
    return json.loads(json.dumps(told))


def main() -> None:
    engine = Scripted()
    lm = dspy.LM("demo/x", engine=engine, cache=False)
    for line in sys.stdin:
        call = json.loads(line)
        engine.answers, engine.asked = call["answers"], []
        predict = dspy.Predict(dspy.Signature(call["signature"], call["instructions"]))
        predict.demos = [dspy.Example(**demo) for demo in call["demos"]]
        outputs, failed = None, None
        with dspy.context(lm=lm, adapter=ADAPTERS[call["adapter"]]()):
            try:
                outputs = dict(predict(**call["inputs"]).items())
            except Exception as error:  # noqa: BLE001 - whatever it is
                failed = error
        sys.stdout.write(json.dumps(outcome(engine, outputs, failed)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
