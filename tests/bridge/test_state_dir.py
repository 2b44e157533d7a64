"""Paths that clients give: inside one folder, whatever is tried."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from dspex_bridge.state_dir import MAX_FILE_BYTES, StateDir
from dspex_protocol.errors import InvalidParamsError, NotFoundError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.json").write_text("secret")
    return folder


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def test_what_is_written_is_read_again_also_in_a_folder_that_was_not_there(inside: Path) -> None:
    state = StateDir(str(inside))
    state.write("a/b/c.json", b"one")
    assert state.read("a/b/c.json") == b"one"
    state.write("a/b/c.json", b"two")
    assert (inside / "a" / "b" / "c.json").read_bytes() == b"two"
    assert [path.name for path in (inside / "a" / "b").iterdir()] == ["c.json"]
    assert state.resolve("a/b/c.json") == str(inside / "a" / "b" / "c.json")
    assert state.resolve("a/new.json") == str(inside / "a" / "new.json")


def test_only_the_owner_may_read_what_was_written(inside: Path) -> None:
    StateDir(str(inside)).write("folder/file.json", b"{}")
    assert (inside / "folder" / "file.json").stat().st_mode & 0o777 == 0o600
    assert (inside / "folder").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "../outside/secret.json", "/etc/passwd", "a/../../outside/secret.json"),
        *("a//b", "a/", "./a", "a/.", "a\0b", "x" * 1025),
    ],
)
def test_a_path_that_is_not_relative_and_plain_is_refused(inside: Path, path: str) -> None:
    state = StateDir(str(inside))
    (inside / "a").mkdir()
    for use in (state.read, state.resolve, lambda path: state.write(path, b"")):
        with pytest.raises(InvalidParamsError) as refusal:
            use(path)
        assert refusal.value.data == {"param": "path"}
    assert list(inside.rglob("*")) == [inside / "a"]


def test_no_link_is_followed_wherever_in_the_path_it_stands(inside: Path, outside: Path) -> None:
    state = StateDir(str(inside))
    (inside / "folder").symlink_to(outside)
    (inside / "file.json").symlink_to(outside / "secret.json")
    for path in ("folder/secret.json", "file.json"):
        for use in (state.read, state.resolve):
            with pytest.raises(InvalidParamsError, match=r"link|plain file"):
                use(path)
    with pytest.raises(InvalidParamsError, match="link"):
        state.write("folder/secret.json", b"overwritten")
    # A link in the place of the file is replaced, not written through.
    state.write("file.json", b"mine")
    assert (outside / "secret.json").read_text() == "secret"
    assert not (inside / "file.json").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["secret.json"]


def test_a_path_never_leads_out_while_somebody_swaps_its_folder_for_a_link(
    inside: Path, outside: Path
) -> None:
    """Looking first and opening then would lose this race within some thousand rounds."""
    state = StateDir(str(inside))
    (inside / "real").mkdir()
    (inside / "real" / "secret.json").write_text("ours")
    (inside / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        at = inside / "at"
        while not done.is_set():
            for name in ("real", "link"):
                (inside / name).rename(at)
                at.rename(inside / name)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(state.read("at/secret.json"))
            except (InvalidParamsError, NotFoundError):
                continue
    finally:
        done.set()
        swapper.join()
    assert seen <= {b"ours"}


def test_a_file_that_is_too_long_is_refused_in_both_directions(inside: Path) -> None:
    state = StateDir(str(inside))
    (inside / "exact").write_bytes(b"x" * 10)
    assert state.read("exact", max_bytes=10) == b"x" * 10
    with pytest.raises(InvalidParamsError, match="longer than 9 bytes"):
        state.read("exact", max_bytes=9)
    with pytest.raises(InvalidParamsError, match=f"longer than {MAX_FILE_BYTES} bytes"):
        state.write("long", bytes(MAX_FILE_BYTES + 1))
    assert not (inside / "long").exists()


def test_what_is_no_plain_file_is_refused_at_once(inside: Path) -> None:
    state = StateDir(str(inside))
    (inside / "folder").mkdir()
    os.mkfifo(inside / "pipe")
    for path in ("folder", "pipe"):
        for use in (state.read, state.resolve):
            with pytest.raises(InvalidParamsError, match="plain file"):
                use(path)
    with pytest.raises(InvalidParamsError, match="path: 'folder' cannot be used"):
        state.write("folder", b"")
    assert sorted(path.name for path in inside.iterdir()) == ["folder", "pipe"]


def test_a_file_that_is_not_there_is_not_found(inside: Path) -> None:
    state = StateDir(str(inside))
    for path in ("none.json", "none/none.json"):
        with pytest.raises(NotFoundError) as refusal:
            state.read(path)
        assert refusal.value.data == {"kind": "file", "name": path}


def test_without_a_folder_every_path_is_refused_with_what_to_do() -> None:
    state = StateDir()
    for use in (state.read, state.resolve, lambda path: state.write(path, b"")):
        with pytest.raises(InvalidParamsError, match="--state-dir"):
            use("a.json")
