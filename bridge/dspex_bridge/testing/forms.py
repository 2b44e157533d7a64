"""Output fields in the form that a prompt of DSPy's Chat, JSON or XML adapter asks for."""

from __future__ import annotations

import json
import re
from datetime import date, time
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["asked_for", "in_form"]


def asked_for(instruction: str) -> list[str]:
    """The output fields that a user message asks for; none where it is of no known adapter."""
    found = _find(instruction)
    return [] if found is None else found[1]


def in_form(instruction: str, fields: Mapping[str, Any]) -> str:
    """The answer that gives these fields; those that are not asked for are left out.

    Raises ValueError where a field is missing, has a value that JSON cannot hold, or where the
    message is of no known adapter.
    """
    found = _find(instruction)
    if found is None:
        raise ValueError(
            "fields can be given to prompts of the adapters chat, json and xml, and this is none "
            f"of them: …{instruction[-200:]!r}"
        )
    write, names = found
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(
            f"the prompt asks for {', '.join(names)}; the script gives "
            f"{', '.join(fields) or 'nothing'}, so {', '.join(missing)} is missing"
        )
    return write({name: fields[name] for name in names})


def _find(instruction: str) -> tuple[Callable[[Mapping[str, Any]], str], list[str]] | None:
    for beginning, name, write in _FORMS:
        _, is_there, rest = instruction.rpartition(beginning)
        if is_there:
            return write, name.findall(beginning[-1] + rest)
    return None


def _chat(fields: Mapping[str, Any]) -> str:
    # The form has no word for None: a section that is left out is read as None.
    sections = [
        f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in fields.items() if value is not None
    ]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(dict(fields), ensure_ascii=False, default=_plain)


def _xml(fields: Mapping[str, Any]) -> str:
    return "\n".join(_element(name, value) for name, value in fields.items())


def _element(tag: str, value: Any, attributes: str = "") -> str:
    if isinstance(value, dict):
        inner = "".join(
            _element(key, item)
            if str(key).isidentifier()
            else _element("entry", item, f' key="{escape(str(key))}"')
            for key, item in value.items()
        )
    elif isinstance(value, list | tuple):
        inner = "".join(_element("item", item) for item in value)
    else:
        inner = "" if value is None else escape(_text(value), quote=False)
    return f"<{tag}{attributes}>{inner}</{tag}>"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, date | time | Decimal):
        return _plain(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise ValueError(f"a script cannot give a {type(value).__name__}: give what JSON can hold")


# How each adapter ends its last message, up to the backquote of the first field; how the names of
# the fields stand in the rest of it; how they are answered.
_FORMS: Sequence[tuple[str, re.Pattern[str], Callable[[Mapping[str, Any]], str]]] = (
    (
        "Respond with the corresponding output fields, starting with the field `",
        re.compile(r"`\[\[ ## (?!completed )(\w+) ## \]\]`"),
        _chat,
    ),
    (
        "Respond with a JSON object in the following order of fields: `",
        re.compile(r"(?:^|, then )`(\w+)`"),
        _json,
    ),
    (
        "Respond with the corresponding output fields wrapped in XML tags `",
        re.compile(r"`<(\w+)>`"),
        _xml,
    ),
)
