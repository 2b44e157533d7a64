from __future__ import annotations

import base64
from typing import Any

import pytest
from dspex_bridge.programs import media, turns
from dspex_bridge.programs.media import MAX_MEDIA_BYTES, audio, file, image, no_files
from dspex_bridge.programs.scalars import RefusedError
from dspex_bridge.programs.turns import code, history, tool_calls
from dspex_protocol.errors import NotFoundError
from hypothesis import example, given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(4)


def uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def files(path: str) -> bytes:
    if path == "a/b.png":
        return PNG
    raise NotFoundError(f"there is no file {path!r}")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"BM\x36\0\0\0\0\0\0\0\x36", "image/bmp"),
        (b"II*\0....", "image/tiff"),
        (b"MM\0*....", "image/tiff"),
        (b"\0\0\0\x1cftypheic", "image/heic"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
    ],
)
def test_the_kind_of_an_image_is_told_from_its_bytes(content: bytes, kind: str) -> None:
    assert image(content, no_files) == uri(kind, content)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"RIFF....WAVEfmt ", "wav"),
        (b"ID3\x04", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"\0\0\0\x20ftypM4A ", "m4a"),
        (b"\x1aE\xdf\xa3", "webm"),
    ],
)
def test_the_format_of_audio_is_told_from_its_bytes(content: bytes, name: str) -> None:
    assert audio(content, no_files) == (base64.b64encode(content).decode(), name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        ("Grüße".encode(), "text/plain"),
        (b"\0\1\2", "application/octet-stream"),
        (b"\xff\xfe\xfd", "application/octet-stream"),
    ],
)
def test_any_bytes_are_a_file(content: bytes, kind: str) -> None:
    assert file(content, no_files) == {"file_data": uri(kind, content)}


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("https://example.com/a.png?b=c", "https://example.com/a.png?b=c"),
        ("gs://bucket/a.png", "gs://bucket/a.png"),
        ({"url": "http://example.com/a"}, "http://example.com/a"),
        (uri("image/png", PNG), uri("image/png", PNG)),
        ("data:image/svg+xml,%3Csvg/%3E", uri("image/svg+xml", b"<svg/>")),
        ("data:;base64," + base64.b64encode(PNG).decode(), uri("image/png", PNG)),
        ("a/b.png", uri("image/png", PNG)),
    ],
)
def test_the_forms_of_an_image(value: Any, made: str) -> None:
    assert image(value, files) == made


@pytest.mark.parametrize(
    ("read", "value", "reason"),
    [
        (image, "data:text/plain;base64,YQ==", "it is text/plain, not image/…"),
        (image, "data:image/png;base64,@@", "its Base64 is not valid"),
        (image, "data:image/png;base64", "a data URI is"),
        (image, b"hello", "it is text/plain, not image/…"),
        (image, b"\0\1", "its bytes are of no known kind, not image/…"),
        (image, "no.png", "there is no file 'no.png'"),
        (image, "ftp://example.com/a.png", "an image is"),
        (image, "file:///etc/passwd", "an image is"),
        (image, "https://", "an image is"),
        (image, "https://a b", "an image is"),
        (image, "", "an image is"),
        (image, 5, "an image is"),
        (image, None, "an image is"),
        (image, {"url": "https://a.b/c", "download": True}, "a map has the key url alone"),
        (image, {"url": 5}, "a map has the key url alone"),
        (audio, "https://example.com/a.wav", "audio is not fetched"),
        (audio, {"data": "@", "audio_format": "wav"}, "its Base64 is not valid"),
        (audio, {"data": "YQ==", "audio_format": "../x"}, "a name such as 'wav'"),
        (audio, {"data": "YQ=="}, "has data (Base64) and audio_format"),
        (audio, PNG, "it is image/png, not audio/…"),
        (file, "https://example.com/a.pdf", "a file is not fetched"),
        (file, {}, "a map of a file has"),
        (file, {"filename": "a"}, "a map of a file has"),
        (file, {"file_data": 5}, "a map of a file has"),
        (file, {"file_id": "f", "path": "/etc/passwd"}, "a map of a file has"),
        (file, {"file_data": "@@"}, "its Base64 is not valid"),
        (file, {"file_data": "YQ==", "file_id": "f"}, "a map of a file has"),
        (file, {"file_id": ""}, "a map of a file has"),
        (file, b"", "the file is empty"),
        (file, "data:;base64,", "the file is empty"),
        (file, {"file_data": ""}, "the file is empty"),
    ],
)
def test_what_is_no_media_is_refused_and_says_why(read: Any, value: Any, reason: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        read(value, files)
    assert reason in str(refusal.value)


def test_base64_alone_is_sent_as_the_data_uri_that_providers_take() -> None:
    assert file({"file_data": "JVBERi0="}, files) == {"file_data": uri("application/pdf", b"%PDF-")}


def test_media_have_a_bound() -> None:
    most = PNG + bytes(MAX_MEDIA_BYTES - len(PNG))
    assert image(most, no_files).startswith("data:image/png;base64,")
    more = most + b"\0"
    for value in (more, uri("image/png", more), "data:image/png," + "\0" * (MAX_MEDIA_BYTES + 1)):
        with pytest.raises(RefusedError, match="more than"):
            image(value, no_files)


def test_without_files_no_path_is_opened() -> None:
    for read in (image, audio, file):
        with pytest.raises(RefusedError, match=r"'a/b.png' is neither an address nor a data URI"):
            read("a/b.png", no_files)


anything = st.one_of(
    st.text(),
    st.binary(max_size=20),
    st.integers(),
    st.text(max_size=5).map("data:{}".format),
    st.binary(max_size=9).map(lambda content: uri("image/png", content)),
    st.dictionaries(st.sampled_from(["url", "data", "file_data", "audio_format", "x"]), st.text()),
)


@patient
@given(st.sampled_from([image, audio, file]), anything)
@example(image, "data:" + "a" * 100_000)
@example(image, "data:image/png" + ";a=b" * 50_000)
@example(image, "https://[")
def test_any_value_is_media_or_is_refused(read: Any, value: Any) -> None:
    try:
        made = read(value, no_files)
    except RefusedError:
        return
    assert read(media._file_map(made) if read is file else as_sent(made), no_files) == made


def as_sent(made: Any) -> Any:
    """What was made, in the form in which it is sent."""
    return f"data:audio/{made.format};base64,{made.data}" if isinstance(made, media.Audio) else made


# Histories, code and tool calls


def test_a_history_is_a_list_of_maps() -> None:
    said = [{"q": "a"}, {"q": "b", "n": 1}]
    assert history(said) == history({"messages": said}) == said
    for value in ("x", [1], {"messages": said, "more": 1}, {"messages": "x"}, None):
        with pytest.raises(RefusedError, match="a history is a list of maps"):
            history(value)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("x = 1", "x = 1"),
        ("  x\n", "  x\n"),
        ("```python\nx = 1\n```", "x = 1"),
        ("\n```\nx = 1\ny = 2\n```\n", "x = 1\ny = 2"),
        ("```x = 1```", "x = 1"),
        ("see ```x```", "see ```x```"),
        ({"code": "x"}, "x"),
        ("`````", "`````"),
        ("``````", ""),
        ("", ""),
    ],
)
def test_code_is_text_without_the_fence_around_it(value: Any, made: str) -> None:
    assert code(value) == made


def test_long_code_is_read_in_linear_time() -> None:
    # DSPy's own pattern takes minutes for this.
    assert len(code("```" * 1_000_000 + "x")) == 3_000_001
    assert len(code("```" * 1_000_000)) == 3_000_000 - 6


@pytest.mark.parametrize("value", [5, None, ["x"], {"code": 5}, {"code": "x", "language": "c"}])
def test_what_is_no_code_is_refused(value: Any) -> None:
    with pytest.raises(RefusedError, match="code is text"):
        code(value)


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "f", "args": {"x": 1}, "id": "7"}],
        {"tool_calls": [{"name": "f", "arguments": '{"x": 1}', "call_id": "7"}]},
        [{"id": "7", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
    ],
)
def test_the_forms_of_tool_calls(value: Any) -> None:
    assert tool_calls(value) == [{"name": "f", "args": {"x": 1}, "id": "7"}]


@pytest.mark.parametrize(
    "value",
    [
        *("x", 5, [5], [{}], [{"name": "f", "args": []}], [{"name": "f", "args": "[1"}]),
        *([{"name": "", "args": {}}], [{"function": "f"}], [{"name": "f", "args": "[" * 100_000}]),
        [{"name": "f", "args": {}, "id": 5}],
    ],
)
def test_what_are_no_tool_calls_is_refused(value: Any) -> None:
    with pytest.raises(RefusedError):
        tool_calls(value)


@pytest.mark.parametrize("module", [media, turns])
def test_everything_public_is_listed(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
