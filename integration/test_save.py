"""save and load by path: files in the folder of --state-dir, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.pipe import Pipe

PROGRAM = {
    "program": "qa",
    "signature": "question -> answer",
    "demos": [{"inputs": {"question": "Where is Łódź?"}, "outputs": {"answer": "Polska"}}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def pipe(folder: Path) -> Any:
    with Pipe("--state-dir", str(folder)) as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", PROGRAM)
        yield pipe


def test_a_saved_program_is_the_same_in_another_bridge(pipe: Pipe, folder: Path) -> None:
    told = pipe.ask("save", {"program": "qa", "path": "programs/qa.json"})
    path = folder / "programs" / "qa.json"
    assert told == {"path": "programs/qa.json", "bytes": path.stat().st_size}
    state = pipe.ask("dump", {"program": "qa"})["state"]
    assert json.loads(path.read_text()) == state
    with Pipe("--state-dir", str(folder)) as other:
        other.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        load = other.request("load", {"path": "programs/qa.json", "program": "copy"})
        # In its turn: what comes behind finds the program.
        inputs = {"question": "Where is Łódź?"}
        execute = other.request("execute", {"program": "copy", "inputs": inputs})
        assert other.response(load)[3]["revision"] == 1
        assert other.response(execute)[3]["outputs"] == {"answer": "Polska"}
        assert other.ask("dump", {"program": "copy"})["state"] == state


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(
    pipe: Pipe, folder: Path
) -> None:
    for _ in range(2):
        pipe.ask("save", {"program": "qa", "path": "qa.json"})
    assert [path.name for path in folder.iterdir()] == ["qa.json"]


@pytest.mark.parametrize("path", ["../qa.json", "/qa.json", "out/qa.json", ""])
def test_a_path_that_leads_out_is_refused(pipe: Pipe, folder: Path, path: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "qa.json").write_text("{}")
    (folder / "out").symlink_to(outside)
    for method, params in (("save", {"program": "qa"}), ("load", {})):
        error = pipe.refusal(method, {**params, "path": path})
        assert (error["code"], error["data"]) == ("invalid_params", {"param": "path"})
    assert (outside / "qa.json").read_text() == "{}"
    assert not (folder.parent / "qa.json").exists()


def test_without_a_state_dir_there_are_no_paths() -> None:
    with Pipe() as pipe:
        pipe.ask("create", PROGRAM)
        for method, params in (("save", {"program": "qa"}), ("load", {})):
            error = pipe.refusal(method, {**params, "path": "qa.json"})
            assert error["code"] == "invalid_params"
            assert "--state-dir" in error["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"[]", "has no map in it"),
        (b"\xff", "no JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": "\\ud800"}', "no JSON of a state"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON of a state"),
        (b"{}", "format_version"),
        (b'{"format_version": 99}', "newer"),
        (
            b'{"format_version": 1, "signature": {}, "module": "os.system"}',
            "os.system",
        ),
    ],
)
def test_a_file_is_checked_as_a_state_from_the_wire_is(
    pipe: Pipe, folder: Path, content: bytes, message: str
) -> None:
    (folder / "bad.json").write_bytes(content)
    error = pipe.refusal("load", {"path": "bad.json"})
    assert error["code"] == "invalid_params"
    assert message in error["message"]
    pipe.ask("ping")


def test_what_is_not_there_is_not_found_and_state_and_path_exclude_each_other(pipe: Pipe) -> None:
    error = pipe.refusal("load", {"path": "none.json"})
    assert (error["code"], error["data"]["kind"]) == ("not_found", "file")
    assert pipe.refusal("save", {"program": "none", "path": "a.json"})["code"] == "not_found"
    for params in ({}, {"state": {}, "path": "a.json"}):
        error = pipe.refusal("load", params)
        assert (error["code"], error["data"]) == ("invalid_params", {"param": "state"})


def test_a_folder_that_is_none_is_told_at_the_start(folder: Path) -> None:
    with Pipe("--state-dir", str(folder / "none")) as pipe:
        assert pipe.wait() == 2
        assert "cannot be used: No such file or directory" in pipe.stderr_after_exit()
