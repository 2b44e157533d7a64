"""States as the bytes of a JSON file."""

from __future__ import annotations

from dspex_protocol.codec import EncodeError, decode, encode
from dspex_protocol.errors import InvalidParamsError, ParseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["parse_state", "write_state"]


def write_state(state: dict[str, Any]) -> bytes:
    """The file of a state, for people to read and to keep under version control."""
    import json

    text = json.dumps(state, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return f"{text}\n".encode()


def parse_state(data: bytes, path: str) -> dict[str, Any]:
    """The state in a file, which is no more than one that could have come by the wire.

    Raises InvalidParamsError; whether the map is a state, `load` sees.
    """
    import json

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        state = json.loads(data.decode(), parse_constant=refuse)
        # The wire's own rules: depth, whole characters, numbers of a bounded size.
        state = decode(encode(state))
    except (ValueError, RecursionError, EncodeError, ParseError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidParamsError(
            f"load: the file {path!r} is no JSON of a state: {reason}", data={"param": "path"}
        ) from error
    if not isinstance(state, dict):
        raise InvalidParamsError(
            f"load: the file {path!r} has no map in it", data={"param": "path"}
        )
    return state
