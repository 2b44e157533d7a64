"""What happened inside a run: its steps, the prompts of its LM calls and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_protocol.codec import sendable

from dspex_bridge.programs.wire_values import NoWireFormError, to_wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    import dspy

__all__ = ["RECORDER_SETTING", "Recorder"]

# The key in DSPy's settings under which a run's recorder travels.
RECORDER_SETTING = "dspex_recorder"


class Recorder:
    """Keeps what `include` asks for of one run, in the form of the wire."""

    def __init__(self) -> None:
        self._trace: list[dict[str, Any]] = []
        self._prompts: list[list[dict[str, Any]]] = []
        self._completions: list[list[str]] = []

    def add_call(self, entry: dict[str, Any]) -> None:
        """An LM call, as DSPy's history tells it; those that the cache answered, too."""
        messages = entry["messages"] or [{"role": "user", "content": entry["prompt"]}]
        self._prompts.append([_sent(message) for message in messages])
        self._completions.append([_text(output) for output in entry["outputs"]])

    def add_trace(self, module: dspy.Module, trace: Iterable[tuple[Any, Any, Any]]) -> None:
        """The steps of a run that is done, as DSPy traced them."""
        names = {id(predictor): name for name, predictor in module.named_predictors()}
        for predictor, inputs, prediction in trace:
            step = {
                "predictor": names.get(id(predictor), ""),
                "inputs": _values(inputs),
                "outputs": _values(prediction),
            }
            self._trace.append(step)

    def told(self, include: Iterable[str]) -> dict[str, Any]:
        """The keys that `include` adds to a result."""
        known = {"trace": self._trace, "prompt": self._prompts, "completions": self._completions}
        return {key: known[key] for key in include}


def _values(values: Any) -> dict[str, Any]:
    return {name: _sendable(value) for name, value in dict(values.items()).items()}


def _sent(message: Any) -> dict[str, Any]:
    return {key: _sendable(message[key]) for key in ("role", "content") if key in message}


def _text(output: Any) -> str:
    text = output.get("text") if isinstance(output, dict) else output
    return str(_sendable(text if isinstance(text, str) else ""))


def _sendable(value: Any) -> Any:
    """The value as it goes on the wire, or where it has no form there, in words."""
    try:
        return _unicode(to_wire(value))
    except NoWireFormError:
        return _unicode(str(value))


def _unicode(value: Any) -> Any:
    """An LM's JSON may escape half a surrogate pair."""
    if isinstance(value, str):
        return sendable(value)
    if isinstance(value, list):
        return [_unicode(item) for item in value]
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return value
