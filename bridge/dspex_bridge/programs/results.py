"""What a run gives back: the outputs of the signature, judged, and those of the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import OutputValidationError

from .converters import OutputConverter
from .wire_values import to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import ProgramSpec

__all__ = ["ResultConverter"]


class ResultConverter:
    """Made once for a program. Raises as OutputConverter does."""

    def __init__(self, spec: ProgramSpec) -> None:
        self._names = {item.name for item in spec.signature.outputs}
        self._extra = spec.extra_outputs
        self._outputs = OutputConverter(spec.signature)

    def convert(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a run as they go on the wire. Raises OutputValidationError."""
        own = {name: value for name, value in prediction.items() if name in self._names}
        extra = {name: to_wire(prediction[name]) for name in self._extra if name in prediction}
        return {**extra, **_sendable(self._outputs.convert(own))}


def _sendable(outputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs, none of which has text that no UTF-8 can hold: an LM's JSON may escape half a
    character (\\ud83d)."""
    errors = [
        {
            "path": [name],
            "type": "type",
            "message": "the text has half a surrogate pair, which is no Unicode",
            "expected": "valid Unicode text",
            "got": ascii(value)[:80],
        }
        for name, value in outputs.items()
        if isinstance(value, str) and not _is_unicode(value)
    ]
    if errors:
        names = ", ".join(str(error["path"][0]) for error in errors)
        raise OutputValidationError(
            f"half a surrogate pair in the outputs: {names}", data={"errors": errors}
        )
    return outputs


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
