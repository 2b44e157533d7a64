"""Adapters by name: DSPy's own, which also say how their answers are cut into fields."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import dspy
from dspy.adapters import Adapter, XMLAdapter
from dspy.utils.exceptions import AdapterParseError

from .field_parsers import ChatParser, JsonParser, XmlParser
from .streaming import PARSER_SETTING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .field_parsers import FieldParser

__all__ = ["ADAPTERS", "Adapter"]


class _JSON(dspy.JSONAdapter):  # type: ignore[misc]  # dspy ships no types
    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, *rest: Any, **more: Any) -> Any:
        with _cut_by(JsonParser, signature):
            return await super().acall(lm, lm_kwargs, signature, *rest, **more)


class _WithFallback:
    """One more call, in JSON, where an answer cannot be read: as DSPy's Chat and XML adapters do.
    Theirs, however, never does once a chunk was sent, and the protocol has attempts for that."""

    parser: ClassVar[type[FieldParser]]

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, *rest: Any, **more: Any) -> Any:
        try:
            with _cut_by(self.parser, signature):
                return await Adapter.acall(self, lm, lm_kwargs, signature, *rest, **more)
        except AdapterParseError:
            return await _JSON().acall(lm, lm_kwargs, signature, *rest, **more)


class _Chat(_WithFallback, dspy.ChatAdapter):  # type: ignore[misc]
    parser = ChatParser


class _XML(_WithFallback, XMLAdapter):  # type: ignore[misc]
    parser = XmlParser


def _cut_by(
    parser: Callable[[set[str]], FieldParser], signature: Any
) -> AbstractContextManager[Any]:
    """Tells the stream of a run, where there is one, the form of the answers to come."""
    context: AbstractContextManager[Any] = dspy.context(
        **{PARSER_SETTING: partial(parser, set(signature.output_fields))}
    )
    return context


ADAPTERS: dict[str, Callable[[], Adapter]] = {"chat": _Chat, "json": _JSON, "xml": _XML}
