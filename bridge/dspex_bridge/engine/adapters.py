"""Adapters by name: DSPy's own, which also say how their answers are cut into fields."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import dspy
from dspy.adapters import Adapter, XMLAdapter
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.adapters.two_step_adapter import TwoStepAdapter, adapter_message_call
from dspy.utils.exceptions import AdapterParseError

from .field_parsers import ChatParser, JsonParser, XmlParser
from .memos import KeptPrompts
from .streaming import NATIVE_SETTING, PARSER_SETTING, STREAM_SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .field_parsers import FieldParser

__all__ = ["ADAPTERS", "Adapter", "adapter_name"]


class _AsJSON:
    """Answers that are one JSON object."""

    wire_name: ClassVar[str]
    use_native_function_calling: bool

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        adapter: Any = self
        if (
            self.use_native_function_calling
            and adapter._get_tool_call_output_field_name(signature) is not None
            and adapter._get_tool_call_input_field_name(signature) is None
        ):
            # DSPy would refuse to call the LM: there are no tools that it could call natively.
            adapter = type(self)(use_native_function_calling=False)  # type: ignore[call-arg]
        with _named(self.wire_name), _cut_by(JsonParser, signature):
            return await dspy.JSONAdapter.acall(adapter, lm, lm_kwargs, signature, demos, inputs)


class _JSON(_AsJSON, KeptPrompts, dspy.JSONAdapter):  # type: ignore[misc]  # dspy ships no types
    wire_name = "json"


class _BAML(_AsJSON, KeptPrompts, BAMLAdapter):  # type: ignore[misc]
    """Answers as those of JSON; it describes nested types in fewer words."""

    wire_name = "baml"


class _WithFallback:
    """One more call, in JSON, where an answer cannot be read: as DSPy's Chat and XML adapters do.
    Theirs, however, never does once a chunk was sent, and the protocol has attempts for that."""

    wire_name: ClassVar[str]
    parser: ClassVar[type[FieldParser]]

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, *rest: Any, **more: Any) -> Any:
        try:
            with _cut_by(self.parser, signature):
                return await Adapter.acall(self, lm, lm_kwargs, signature, *rest, **more)
        except AdapterParseError:
            with _named(self.wire_name):
                return await _JSON().acall(lm, lm_kwargs, signature, *rest, **more)


class _Chat(_WithFallback, KeptPrompts, dspy.ChatAdapter):  # type: ignore[misc]
    wire_name = "chat"
    parser = ChatParser


class _XML(_WithFallback, KeptPrompts, XMLAdapter):  # type: ignore[misc]
    wire_name = "xml"
    parser = XmlParser


class _TwoStep(TwoStepAdapter):  # type: ignore[misc]
    """The LM answers in words of its own, and is asked again to put them into the fields.

    Both calls go to the LM of the run. Only the second one's text is of fields, so it alone is
    streamed. DSPy's own adapter of that name gives no thought to histories and media, nor to an
    output that is named as the text between the two calls.
    """

    wire_name = "two_step"

    def __init__(self) -> None:
        Adapter.__init__(self)

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        return Adapter.format(self, signature, demos, inputs)

    def format_system_message(self, signature: Any) -> Any:
        return self.format_task_description(signature)

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        messages = self.format(signature, demos, inputs)
        with _cut_by(None, signature), adapter_message_call(lm, messages):
            answers = await lm.acall(messages=messages, **lm_kwargs)
        name, extraction = _extraction(signature)
        with _named(self.wire_name):
            texts = [self._text(answer, signature) for answer in answers]
            read = [await _Chat().acall(lm, {}, extraction, [], {name: text}) for text in texts]
        return [first for first, *_ in read]

    def _text(self, answer: Any, signature: Any) -> str:
        text: str | None = answer.get("text") if isinstance(answer, dict) else answer
        if not text:
            raise AdapterParseError(
                adapter_name=type(self).__name__,
                signature=signature,
                lm_response=str(answer),
                message="The LM returned an empty or null response.",
            )
        return text


@contextmanager
def _named(name: str) -> Iterator[None]:
    """An answer that cannot be read is told of the adapter that was asked for."""
    try:
        yield
    except AdapterParseError as error:
        error.adapter_name = name
        raise


def _extraction(signature: Any) -> tuple[str, Any]:
    """The signature of the second call, and the name of its input."""
    name = "text"
    while name in signature.output_fields:
        name += "_"
    outputs = {key: (field.annotation, field) for key, field in signature.output_fields.items()}
    listed = ", ".join(f"`{key}`" for key in outputs)
    instructions = (
        f"The text answers a question. Take the fields {listed} from it, word for word where they "
        "are text, and add nothing of your own."
    )
    return name, dspy.Signature({name: (str, dspy.InputField()), **outputs}, instructions)


def _cut_by(
    parser: Callable[[set[str]], FieldParser] | None, signature: Any
) -> AbstractContextManager[Any]:
    """Tells the stream of a run, where there is one, the form of the answers to come: None for a
    text without fields."""
    if dspy.settings.get(STREAM_SETTING) is None:
        return nullcontext()
    make = None if parser is None else partial(parser, set(signature.output_fields))
    fields = signature.output_fields.items()
    native = next((name for name, field in fields if field.annotation is dspy.Reasoning), None)
    settings = {PARSER_SETTING: make, NATIVE_SETTING: native}
    context: AbstractContextManager[Any] = dspy.context(**settings)
    return context


ADAPTERS: dict[str, Callable[[], Adapter]] = {
    made.wire_name: made for made in (_Chat, _JSON, _XML, _BAML, _TwoStep)
}


def adapter_name(adapter: Adapter) -> str:
    """The name of one that was made here."""
    name: str = adapter.wire_name
    return name
