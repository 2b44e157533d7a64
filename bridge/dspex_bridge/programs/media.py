"""Images, audio and files as clients send them, made into what a provider takes.

Nothing is fetched. Every form is brought to text: an address as it is, anything else as a data URI
of Base64. The kind of bare bytes is told from how they begin.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from dspex_protocol.errors import DSPexError

from .scalars import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAX_MEDIA_BYTES", "Audio", "audio", "file", "image", "no_files"]

# No frame that is read by default is longer, and providers take not much more.
MAX_MEDIA_BYTES = 16 * 1024 * 1024

# A path or an address of more characters is neither: it is text in the wrong place.
_MAX_REFERENCE_CHARS = 8192

_ADDRESS_SCHEMES = ("http", "https", "gs")
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,\"]*)*)(;base64)?,", re.ASCII)
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_OCTETS = "application/octet-stream"

# How files begin, and what they are then. Of those that begin alike, a later place decides.
_MAGIC: tuple[tuple[bytes, int, bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, b"", "image/png"),
    (b"\xff\xd8\xff", 0, b"", "image/jpeg"),
    (b"GIF87a", 0, b"", "image/gif"),
    (b"GIF89a", 0, b"", "image/gif"),
    (b"RIFF", 8, b"WEBP", "image/webp"),
    (b"BM", 6, b"\0\0\0\0", "image/bmp"),
    (b"II*\0", 0, b"", "image/tiff"),
    (b"MM\0*", 0, b"", "image/tiff"),
    (b"", 4, b"ftypheic", "image/heic"),
    (b"", 4, b"ftypheix", "image/heic"),
    (b"", 4, b"ftypmif1", "image/heif"),
    (b"", 4, b"ftypavif", "image/avif"),
    (b"RIFF", 8, b"WAVE", "audio/wav"),
    (b"ID3", 0, b"", "audio/mpeg"),
    (b"\xff\xfb", 0, b"", "audio/mpeg"),
    (b"\xff\xf3", 0, b"", "audio/mpeg"),
    (b"\xff\xf2", 0, b"", "audio/mpeg"),
    (b"fLaC", 0, b"", "audio/flac"),
    (b"OggS", 0, b"", "audio/ogg"),
    (b"", 4, b"ftypM4A", "audio/m4a"),
    (b"\x1aE\xdf\xa3", 0, b"", "audio/webm"),
    (b"FORM", 8, b"AIFF", "audio/aiff"),
    (b"%PDF-", 0, b"", "application/pdf"),
    (b"PK\x03\x04", 0, b"", "application/zip"),
)

_IMAGE = "an image is an address, a data URI, bytes or a path"

# What providers call them.
_AUDIO_FORMATS = {"mpeg": "mp3", "mpeg3": "mp3", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a"}


class Audio(NamedTuple):
    """Base64 and the name of its format, as providers take them."""

    data: str
    format: str


def no_files(path: str) -> bytes:
    """For what an LM wrote: it names no file."""
    raise RefusedError(f"{path[:80]!r} is neither an address nor a data URI")


def image(value: Any, read_file: Callable[[str], bytes]) -> str:
    """An address or a data URI.

    `read_file` gives the bytes at a path, or raises DSPexError. Raises `RefusedError`.
    """
    value = _only(value, "url") if isinstance(value, dict) else value
    if isinstance(value, str) and _is_address(value):
        return value
    kind, content = _content(value, read_file, _IMAGE)
    _check_kind(kind, "image/")
    return _data_uri(kind, content)


def audio(value: Any, read_file: Callable[[str], bytes]) -> Audio:
    """Raises `RefusedError`."""
    if isinstance(value, dict):
        if set(value) != {"data", "audio_format"} or not all(
            isinstance(item, str) for item in value.values()
        ):
            raise RefusedError("a map of audio has data (Base64) and audio_format")
        _decoded(value["data"])
        return Audio(value["data"], _audio_format(value["audio_format"]))
    if isinstance(value, str) and _is_address(value):
        raise RefusedError("audio is not fetched from an address: send its bytes")
    kind, content = _content(value, read_file, "audio is a data URI, bytes or a path")
    _check_kind(kind, "audio/")
    return Audio(base64.b64encode(content).decode(), _audio_format(kind.partition("/")[2]))


def file(value: Any, read_file: Callable[[str], bytes]) -> dict[str, str]:
    """A map with `file_data`, `file_id` and `filename`, as far as they are known. Raises
    `RefusedError`."""
    if isinstance(value, dict):
        return _file_map(value)
    if isinstance(value, str) and _is_address(value):
        raise RefusedError("a file is not fetched from an address: send its bytes")
    kind, content = _content(value, read_file, "a file is a data URI, bytes or a path")
    _check_not_empty(content)
    made = {"file_data": _data_uri(kind, content)}
    if isinstance(value, str) and not value.startswith("data:"):
        made["filename"] = value.rpartition("/")[2]
    return made


def _file_map(value: Mapping[str, Any]) -> dict[str, str]:
    known = ("file_data", "file_id", "filename")
    given = {key: item for key, item in value.items() if item is not None}
    if (
        not given
        or not set(given) <= set(known)
        or not all(isinstance(item, str) for item in given.values())
        or ("file_data" in given) is ("file_id" in given)
        or given.get("file_id") == ""
    ):
        raise RefusedError("a map of a file has file_data or file_id, and may have filename")
    if "file_data" in given:
        if given["file_data"].startswith("data:"):
            kind, content = _from_data_uri(given["file_data"])
        else:
            content = _decoded(given["file_data"])
            kind = _kind_of(content)
        _check_not_empty(content)
        given["file_data"] = _data_uri(kind, content)
    return given


def _content(value: Any, read_file: Callable[[str], bytes], expected: str) -> tuple[str, bytes]:
    """The media type and the bytes."""
    if isinstance(value, bytes):
        _check_size(len(value))
        return _kind_of(value), value
    if not isinstance(value, str):
        raise RefusedError(expected)
    if value.startswith("data:"):
        return _from_data_uri(value)
    if not value or len(value) > _MAX_REFERENCE_CHARS or _HAS_SCHEME.match(value):
        raise RefusedError(expected)
    try:
        content = read_file(value)
    except DSPexError as error:
        raise RefusedError(error.message) from None
    return _kind_of(content), content


def _from_data_uri(text: str) -> tuple[str, bytes]:
    head = _DATA_URI.match(text)
    if head is None:
        raise RefusedError("a data URI is 'data:', a media type, ';base64,' and Base64")
    body = text[head.end() :]
    content = _decoded(body) if head[3] else unquote_to_bytes(body)
    _check_size(len(content))
    return (head[1] or _kind_of(content)).lower(), content


def _decoded(text: str) -> bytes:
    _check_size(len(text) * 3 // 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("its Base64 is not valid") from None


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _is_address(text: str) -> bool:
    if len(text) > _MAX_REFERENCE_CHARS or any(c.isspace() or not c.isprintable() for c in text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in _ADDRESS_SCHEMES and bool(parts.netloc)


def _check_size(size: int) -> None:
    if size > MAX_MEDIA_BYTES:
        raise RefusedError(f"it has more than {MAX_MEDIA_BYTES} bytes")


def _check_not_empty(content: bytes) -> None:
    """No provider takes one, and DSPy cannot write it down."""
    if not content:
        raise RefusedError("the file is empty")


def _kind_of(content: bytes) -> str:
    for begin, place, more, kind in _MAGIC:
        if content.startswith(begin) and content.startswith(more, place):
            return kind
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _OCTETS
    return _OCTETS if "\0" in text or not text else "text/plain"


def _check_kind(kind: str, wanted: str) -> None:
    if not kind.startswith(wanted):
        told = "its bytes are of no known kind" if kind == _OCTETS else f"it is {kind}"
        raise RefusedError(f"{told}, not {wanted}…")


def _audio_format(name: str) -> str:
    plain = name.lower().removeprefix("x-")
    if not re.fullmatch(r"[a-z0-9.+-]{1,40}", plain):
        raise RefusedError("the format of audio is a name such as 'wav'")
    return _AUDIO_FORMATS.get(plain, plain)


def _only(value: Mapping[str, Any], key: str) -> Any:
    if set(value) != {key} or not isinstance(value[key], str | bytes):
        raise RefusedError(f"a map has the key {key} alone")
    return value[key]
