"""erlport in the benchmark, by a stand-in of its repository: we have none of its code here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from integration.bench import baseline
from integration.bench.__main__ import main
from integration.bench.measurement import Result
from integration.bench.measurements.erlport import ERLPORT
from integration.bench.peers import erlport

_ERL = """
-module(python).
-export([start_link/1, call/4]).

start_link(Options) ->
    [Modules] = proplists:get_value(python_path, Options),
    Path = filename:join(code:priv_dir(erlport), "python3") ++ ":" ++ Modules,
    {ok, open_port({spawn_executable, proplists:get_value(python, Options)},
        [{args, ["-m", "erlport.cli"]}, {env, [{"PYTHONPATH", Path}]}, {packet, 4}, binary,
        exit_status])}.

call(Port, bench_echo, echo, [Bytes]) ->
    true = port_command(Port, Bytes),
    receive
        {Port, {data, Answer}} -> Answer;
        {Port, {exit_status, Status}} -> error({port_closed, Status})
    end.
"""

_CLI = """
import struct, sys
from bench_echo import echo
import erlport.erlang

while head := sys.stdin.buffer.read(4):
    answer = echo(sys.stdin.buffer.read(*struct.unpack(">I", head)))
    sys.stdout.buffer.write(struct.pack(">I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    for name, text in {
        "src/python.erl": _ERL,
        "priv/python3/erlport/erlang.py": "from inspect import getargspec\n",
        "priv/python2/erlport/__init__.py": "",
        "priv/python2/erlport/cli.py": _CLI,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _run(tmp_path: Path, *arguments: str) -> int:
    quick = ["erlport", "--quick", "--no-peers", "--rounds", "1"]
    return main([*quick, "--output", str(tmp_path / "run"), *arguments])


def test_a_checkout_is_compiled_elsewhere_and_measured_beside_the_client(
    checkout: Path, tmp_path: Path
) -> None:
    before = sorted(checkout.rglob("*"))
    assert _run(tmp_path, "--erlport", str(checkout)) == 0
    assert sorted(checkout.rglob("*")) == before
    (told,) = json.loads((tmp_path / "run" / "bench.json").read_text())["measurements"]
    assert set(told["rounds"]) == {"floor", "bridge", "client", "erlport"}
    assert all(costs[0] > 0 for costs in told["rounds"].values())
    assert "times as fast as erlport" in [each["name"] for each in told["comparisons"]]


def test_an_answer_that_is_not_what_was_sent_ends_the_measurement(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = checkout / "priv" / "python2" / "erlport" / "cli.py"
    # The first answer, as it starts, is right.
    cli.write_text(_CLI + "    echo = lambda _asked: b'-'\n")
    assert _run(tmp_path, "--erlport", str(checkout)) == 1
    assert "MatchError" in capsys.readouterr().err


def test_without_a_checkout_report_and_page_say_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "--check") == 0
    said = capsys.readouterr().out
    assert f"  not measured: {erlport.ERLPORT_NEEDED}" in said
    assert "left out of the run, and so not checked: erlport" in said
    assert (
        f"Not measured: {erlport.ERLPORT_NEEDED}" in (tmp_path / "run" / "index.html").read_text()
    )


def test_a_measurement_that_was_left_out_has_lost_nothing() -> None:
    before = {"erlport": {"times as fast as erlport": 3.0}}
    assert baseline.losses([Result(ERLPORT, {}, left_out="no checkout")], before) == []
    assert len(baseline.losses([Result(ERLPORT, {})], before)) == 1


def test_a_folder_that_is_no_checkout_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(tmp_path, "--erlport", str(tmp_path))
    assert ended.value.code == 2
    assert "git clone" in (said := capsys.readouterr().err)
    assert f"{tmp_path} is no checkout" in said


def test_sources_that_do_not_compile_end_the_run_with_what_the_compiler_said(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "src" / "python.erl").write_text("-module(python).\nnot Erlang\n")
    with pytest.raises(SystemExit, match=r"(?s)erlport does not compile:.*syntax error"):
        _run(tmp_path, "--erlport", str(checkout))


def test_python_has_getargspec_again_with_the_four_that_erlport_takes_apart() -> None:
    asked = "import inspect; print(inspect.getargspec(lambda a, *b, c=1, **d: 0))"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={"PYTHONPATH": str(Path(erlport.__file__).with_name("erlport_python"))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(['a'], 'b', 'd', None)\n"
