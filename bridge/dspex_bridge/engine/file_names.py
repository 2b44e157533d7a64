"""Names of files in messages: DSPy's own form of a request, which the embedded models, recordings
and replays have, has no place for them and would be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["without_file_names"]


def without_file_names(messages: Any) -> Any:
    """The messages of a chat without the names of the files in them."""
    return [_message(message) for message in messages] if messages else messages


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_part(part) for part in content]}


def _part(part: Any) -> Any:
    if not isinstance(part, dict) or not isinstance(part.get("file"), dict):
        return part
    named = part["file"]
    return {**part, "file": {key: named[key] for key in named if key != "filename"}}
