"""Bridges that a fork server forked, beside what test_lifetime says of their ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from integration import lifetime
from integration.pipe import BOUND_S, BRIDGE, Exchange, Forked, Pipe

SERVER = (*BRIDGE, "--fork-server")

# What comes before the server's own start, in its process.
START = "\nfrom dspex_bridge.cli import bridge\nbridge(['--fork-server'])\n"


def server_after(code: str) -> Pipe:
    return Pipe(command=(sys.executable, "-P", "-c", code + START))


def exited(server: Pipe) -> dict[str, int]:
    """The next bridge that ended, as the server tells it."""
    while not server.notifications:
        server.ask("ping")
        if not server.notifications:
            server.notifications.append(server.receive())
    kind, method, params = server.notifications.pop(0)
    assert (kind, method) == (2, "exited")
    return dict(params)


def test_forked_bridges_are_bridges_each_by_itself() -> None:
    options = (*SERVER, "--max-in-flight", "7")
    with Pipe(command=options) as server, Forked(server) as first, Forked(server) as second:
        for number, bridge in enumerate((first, second)):
            hello = bridge.ask("initialize", {"protocol_version": 1})
            assert hello["server"]["pid"] == bridge.pid
            assert hello["limits"]["max_in_flight"] == 7
            bridge.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
            bridge.ask("create", {"signature": "question -> answer", "program": f"p{number}"})
        for number, bridge in enumerate((first, second)):
            assert [p["program"] for p in bridge.ask("list")["programs"]] == [f"p{number}"]
            execute = {"program": f"p{number}", "inputs": {"question": "Where is it?"}}
            assert bridge.ask("execute", execute)["outputs"]["answer"]


def test_the_end_of_one_bridge_is_told_and_is_nothing_to_the_others() -> None:
    with Pipe(command=SERVER) as server, Forked(server) as killed, Forked(server) as left:
        with Forked(server) as shut_down:
            os.kill(killed.pid, signal.SIGKILL)
            assert exited(server) == {"pid": killed.pid, "status": -signal.SIGKILL}
            shut_down.ask("shutdown")
            assert exited(server) == {"pid": shut_down.pid, "status": 0}
        assert left.ask("ping", {"payload": 1}) == {"payload": 1}
        left.socket.close()
        assert exited(server) == {"pid": left.pid, "status": 0}
        with Forked(server) as another:
            assert another.ask("ping", {"payload": 2}) == {"payload": 2}


def test_sockets_are_this_users_and_leave_nothing_behind() -> None:
    with Pipe(command=SERVER) as server:
        with Forked(server) as bridge:
            folder = Path(bridge.path).parent
            assert folder.stat().st_mode & 0o777 == 0o700
            bridge.ask("ping")
            assert list(folder.iterdir()) == [], "who has connected is the only one"
        unconnected = server.ask("fork")
        assert [str(path) for path in folder.iterdir()] == [unconnected["path"]]
        guard = set(lifetime.group(server.process.pid)) - {server.process.pid, unconnected["pid"]}
        server.close_stdin()
        assert server.wait() == 0
        assert lifetime.seconds_until_gone([*guard, unconnected["pid"]], BOUND_S) is not None
        assert not folder.exists()


CONNECT_AS_NOBODY = """
import os, socket, sys
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(sys.argv[1])
assert connection.recv(1) == b"", "the connection is closed"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_users_connection_is_not_taken_where_the_folder_lets_it_in() -> None:
    with Pipe(command=SERVER) as server:
        forked = server.ask("fork")
        Path(forked["path"]).parent.chmod(0o711)
        Path(forked["path"]).chmod(0o777)
        python = os.path.realpath(sys.executable)
        nobody = [python, "-I", "-S", "-c", CONNECT_AS_NOBODY, forked["path"]]
        subprocess.run(nobody, check=True, timeout=BOUND_S)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(forked["path"])  # it still waits for its own
        connection.close()
        assert exited(server) == {"pid": forked["pid"], "status": 0}


def test_a_bridge_that_nobody_connects_to_ends() -> None:
    quick = "from dspex_bridge import fork_server\nfork_server.ACCEPT_WITHIN_S = 0.05"
    with server_after(quick) as server:
        forked = server.ask("fork")
        assert exited(server) == {"pid": forked["pid"], "status": 0}
        assert not Path(forked["path"]).exists()


THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_a_server_with_a_second_thread_does_not_fork() -> None:
    with server_after(THREAD) as server:
        error = server.refusal("fork")
        assert error["code"] == "internal_error"
        assert "has 2 threads" in error["message"]
        assert "without --fork-server" in error["message"]


# Each bridge prints what it has, and serves.
DRAW = """
import json, random, secrets, sys, uuid
import numpy.random
from dspex_bridge import loop

serve = loop.serve

def tell(*arguments):
    from dspy.adapters.types import base_type

    drawn = [random.random(), numpy.random.random(), secrets.token_hex(), str(uuid.uuid4())]
    with open(sys.argv[1], "a") as file:
        print(json.dumps(drawn), file=file)
    print("not on the wire", flush=True)
    serve(*arguments)

loop.serve = tell
"""


def test_bridges_of_one_server_have_nothing_random_in_common(tmp_path: Path) -> None:
    import json

    drawn = tmp_path / "drawn"
    command = (sys.executable, "-P", "-c", DRAW + START, str(drawn))
    with Pipe(command=command) as server:
        for _ in range(2):
            with Forked(server) as bridge:
                bridge.ask("ping")
    first, second = (json.loads(line) for line in drawn.read_text().splitlines())
    assert [one for one, other in zip(first, second, strict=True) if one == other] == []


def test_a_server_without_dspy_forks_bridges_that_say_so(tmp_path: Path) -> None:
    (tmp_path / "dspy.py").write_text("raise RuntimeError('no DSPy of this kind')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Pipe(command=SERVER, env={"PYTHONPATH": path}) as server, Forked(server) as bridge:
        assert bridge.refusal("list")["code"] == "unavailable"
        (ready,) = [message for message in bridge.notifications if message[1] == "ready"]
        assert "no DSPy of this kind" in ready[2]["error"]["message"]


def test_a_bridge_that_ends_takes_what_is_written_until_its_answers_have_been_read() -> None:
    with Pipe(command=SERVER) as server, Forked(server) as bridge:
        bridge.ask("shutdown")
        with pytest.raises(EOFError):
            bridge.receive()
        # By which a client that has read less would lose the rest.
        bridge.request("ping")
        bridge.socket.close()
        assert exited(server) == {"pid": bridge.pid, "status": 0}


def test_a_bridge_that_ends_waits_for_no_reader_for_ever() -> None:
    with Pipe(command=SERVER) as server, Forked(server) as bridge:
        bridge.ask("shutdown")
        assert exited(server) == {"pid": bridge.pid, "status": 0}


def test_sigterm_ends_every_bridge_and_with_the_last_one_the_server() -> None:
    with Pipe(command=SERVER) as server, Forked(server) as bridge:
        bridge.ask("list")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        with pytest.raises((EOFError, BrokenPipeError, ConnectionResetError)):
            bridge.ask("ping")


HELD = """
from dspex_bridge import fork_server
become = fork_server._ForkServer._become_a_bridge
def held(self, *arguments):
    open({gate!r}).close()
    become(self, *arguments)
fork_server._ForkServer._become_a_bridge = held
"""


def test_sigterm_ends_a_bridge_that_was_forked_in_that_moment(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    held = server_after(HELD.format(gate=str(gate)))
    with held as server, socket.socket(socket.AF_UNIX) as client:
        forked = server.ask("fork")
        server.process.send_signal(signal.SIGTERM)
        # The other process is no bridge yet when it has been passed on. Those forked until then:
        # nobody comes for them.
        while (answer := server.response(server.request("fork")))[2] is None:
            gate.open("w").close()
        assert answer[2]["code"] == "shutting_down"
        gate.open("w").close()
        # One that has missed it would serve this client for as long as it stays.
        with suppress(OSError):
            client.connect(forked["path"])
        assert server.wait() == 0
        assert not Path(f"/proc/{forked['pid']}").exists()


def test_a_server_whose_folder_was_cleaned_away_forks_all_the_same() -> None:
    with Pipe(command=SERVER) as server:
        with Forked(server) as bridge:
            bridge.ask("ping")
        folder = Path(server.ask("fork")["path"]).parent
        shutil.rmtree(folder)
        with Forked(server) as bridge:
            bridge.ask("ping")
        assert folder.stat().st_mode & 0o777 == 0o700


def private_kb(bridge: Exchange, pid: int) -> int:
    """What a bridge has to itself after some work."""
    bridge.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
    bridge.ask("create", {"signature": "question -> answer", "program": "p"})
    for _ in range(20):
        bridge.ask("execute", {"program": "p", "inputs": {"question": "Where is it?"}})
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def test_a_forked_bridge_has_a_third_of_the_memory_of_one_that_was_started_at_most() -> None:
    with Pipe() as started, Pipe(command=SERVER) as server, Forked(server) as forked:
        alone = private_kb(started, started.process.pid)
        assert private_kb(forked, forked.pid) < alone / 3


def test_a_server_refuses_what_is_a_bridges() -> None:
    with Pipe(command=SERVER) as server:
        error = server.refusal("execute", {"program": "p", "inputs": {}})
        assert error["code"] == "method_not_found"
        assert error["message"] == (
            "a fork server has no method 'execute'. Valid: fork, ping. "
            "The others are those of the bridges that it forks."
        )
        error = server.refusal("fork", {"number": 2})
        assert error["code"] == "invalid_params"
        assert "unknown parameter 'number'" in error["message"]
        server.send_bytes(b"\0\0\0\1\xc1")
        assert server.response(None)[2]["code"] == "parse_error"
        assert server.ask("ping", {"payload": 1}) == {"payload": 1}
