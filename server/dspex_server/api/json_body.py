"""JSON of a client's, read strictly: what is taken can be kept, sent on and answered."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from dspex_protocol.errors import InvalidParamsError

__all__ = ["parsed"]

# Half a surrogate pair can only come by such an escape.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(data: bytes | str) -> Any:
    """Raises InvalidParamsError, and RecursionError for what is nested too deep."""
    if not data:
        raise InvalidParamsError("the body is empty: a map is expected, as JSON")
    try:
        # `json` itself would guess other encodings, and take surrogates as they are.
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except ValueError as error:
        raise InvalidParamsError(f"the body is no JSON: {error}") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):x}"
            raise InvalidParamsError(
                f"the body has a text with half a surrogate pair ({half}), which is no Unicode: "
                "repair it first"
            ) from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    """What would be read as infinite could be written in no answer."""
    value = float(text)
    if math.isinf(value):
        raise InvalidParamsError(f"the body has a number that is too large: {text[:40]}")
    return value
