"""Streams the fields of a run while its LM answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from .field_parsers import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dspex_bridge.streams import ChunkStream

    from .field_parsers import FieldParser

__all__ = ["NATIVE_SETTING", "PARSER_SETTING", "STREAM_SETTING", "FieldStream"]

# Keys in DSPy's settings: the stream of the run, and the parser of the form that the adapter in
# charge asked for.
STREAM_SETTING = "dspex_stream"
PARSER_SETTING = "dspex_parser"
# And the field, if there is one, whose text is the model's own reasoning where the model has that.
NATIVE_SETTING = "dspex_native_field"


class FieldStream:
    """What the LM's raw text goes into, DSPy's `send_stream`; puts its fields into `chunks`.

    `fields` names those that are wanted, each with the names under which its chunks go.
    """

    def __init__(self, chunks: ChunkStream, fields: Collection[str]) -> None:
        self._chunks = chunks
        self._fields = {field: _Field([field]) for field in fields}
        self._parser: FieldParser | None = None
        self._native_field: str | None = None

    def begin_call(self) -> None:
        """An LM call begins: the first one, or a retry, or a fallback to another form."""
        make: Callable[[], FieldParser] | None = dspy.settings.get(PARSER_SETTING)
        self._parser = None if make is None else make()
        self._native_field = dspy.settings.get(NATIVE_SETTING)
        self._begin_attempt()

    async def send(self, chunk: Any) -> None:
        """What DSPy itself streams into."""
        delta = chunk.choices[0].delta
        self.put_thought(getattr(delta, "reasoning_content", None))
        self.put_text(delta.content)

    def put_text(self, text: str | None) -> None:
        """The next piece of the answer."""
        if text and self._parser is not None:
            self._put(self._parser.feed(text))

    def put_thought(self, text: str | None) -> None:
        """The next piece of the model's own reasoning."""
        if text and self._native_field is not None:
            self._put([Piece(self._native_field, text, False)])

    def part(self, fields: Mapping[str, Collection[str]]) -> FieldStream:
        """The stream of a step, whose LM calls may go beside those of others. `fields` says under
        which names its own fields are known here; those are from now on the step's to stream."""
        step = FieldStream(self._chunks, ())
        for field, names in fields.items():
            wanted = [name for name in names if name in self._fields]
            if wanted:
                step._fields[field] = _Field(wanted)
        for name in step._names():
            del self._fields[name]
        return step

    def finish(self, outputs: Mapping[str, Any]) -> None:
        """The run is done."""
        self.settle(outputs)
        self._chunks.finish()

    def settle(self, outputs: Mapping[str, Any]) -> None:
        """No LM is called any more for these fields. The chunks of the last attempt joined are the
        value of a str field: where a cached answer streamed nothing, or DSPy's parser mended what
        ours took as it came, one more attempt says it right."""
        if self._parser is not None:
            self._put(self._parser.close())
        texts = {
            name: value
            for name, value in outputs.items()
            if name in self._fields and isinstance(value, str)
        }
        if any("".join(self._fields[name].texts) != text for name, text in texts.items()):
            self._begin_attempt()
            for name, text in texts.items():
                self._send(self._fields[name], text, is_last=True)
        else:
            for name in sorted(self._fields):
                if self._fields[name].is_open:
                    self._send(self._fields[name], "", is_last=True)

    def _begin_attempt(self) -> None:
        self._chunks.begin_attempt(self._names())
        for field in self._fields.values():
            field.texts, field.is_open = [], False

    def _names(self) -> list[str]:
        return [name for field in self._fields.values() for name in field.names]

    def _put(self, pieces: list[Piece]) -> None:
        for name, text, is_last in pieces:
            field = self._fields.get(name)
            if field is not None:
                field.texts.append(text)
                field.is_open = not is_last
                self._send(field, text, is_last=is_last)

    def _send(self, field: _Field, text: str, *, is_last: bool) -> None:
        for name in field.names:
            self._chunks.put(name, text, done=is_last)


class _Field:
    """One that is streamed: the names under which its chunks go, and their texts so far."""

    __slots__ = ("is_open", "names", "texts")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.texts: list[str] = []
        self.is_open = False
