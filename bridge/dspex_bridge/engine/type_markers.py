"""DSPy's marks around images, files and the like in a prompt, made unguessable.

DSPy writes such values into the text of a message between two marks and cuts them out again before
it is sent. The marks are the same everywhere: a text that holds them, an input or what a tool
found, would become a part of the message, an address that a provider then opens. With marks of
this process's own, text stays text.
"""

from __future__ import annotations

from secrets import token_hex

from dspy.adapters import _legacy_type_markers
from dspy.adapters.types import base_type

__all__ = ["make_unguessable"]


def make_unguessable() -> None:
    """Changes the marks for this process: before the first prompt is made."""
    secret = token_hex(16)
    for module in (base_type, _legacy_type_markers):
        module.CUSTOM_TYPE_START_IDENTIFIER = f"<<{secret}-START>>"
        module.CUSTOM_TYPE_END_IDENTIFIER = f"<<{secret}-END>>"
