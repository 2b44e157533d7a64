"""Bridges that a fork server forked, beside what test_lifetime says of their ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from integration import lifetime
from integration.pipe import BOUND_S, BRIDGE, Connected, Exchange, Forked, Pipe

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


def spare_of(server: Pipe, *known: int) -> int:
    server.ask("ping")  # until it has imported DSPy it has none
    return lifetime.spare_of(server.process.pid, *known)


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


QUICK = "from dspex_bridge import forked\nforked.ACCEPT_WITHIN_S = 0.05"


def test_a_bridge_that_nobody_connects_to_ends() -> None:
    with server_after(QUICK) as server:
        forked = server.ask("fork")
        assert exited(server) == {"pid": forked["pid"], "status": 0}
        assert not Path(forked["path"]).exists()


def test_a_spare_waits_for_as_long_as_it_takes() -> None:
    with server_after(QUICK) as server:
        spare = spare_of(server)
        assert lifetime.seconds_until_gone([spare], 0.5) is None
        assert server.ask("fork")["pid"] == spare


def test_a_bridge_is_forked_before_it_is_asked_for() -> None:
    with Pipe(command=SERVER) as server:
        first = spare_of(server)
        with Forked(server) as bridge:
            assert bridge.pid == first
            bridge.ask("list")
            second = spare_of(server, first)
            before = time.monotonic()
            with Forked(server) as another:
                assert another.pid == second
                # It is young: it was not there for anybody until now.
                uptime_ms = another.ask("stats")["uptime_ms"]
                assert uptime_ms <= (time.monotonic() - before) * 1000


def test_a_spare_that_was_killed_is_replaced_and_not_told() -> None:
    with Pipe(command=SERVER) as server:
        spare = spare_of(server)
        os.kill(spare, signal.SIGKILL)
        assert lifetime.seconds_until_gone([spare], BOUND_S) is not None
        with Forked(server) as bridge:
            assert bridge.pid != spare
            assert bridge.ask("ping", {"payload": 1}) == {"payload": 1}
        assert exited(server) == {"pid": bridge.pid, "status": 0}
        with Forked(server) as another:
            assert another.ask("ping", {"payload": 2}) == {"payload": 2}


def test_bridges_that_are_asked_for_at_once_are_several() -> None:
    with Pipe(command=SERVER) as server, ExitStack() as stack:
        ids = [server.request("fork") for _ in range(4)]
        answers = [server.response(request_id)[3] for request_id in ids]
        for answer in answers:
            bridge = stack.enter_context(Connected(answer))
            assert bridge.ask("initialize", {"protocol_version": 1})["server"]["pid"] == bridge.pid
        assert len({answer["pid"] for answer in answers}) == 4


@pytest.mark.parametrize("end", ["SIGTERM", "end of stdin"])
def test_a_spare_ends_with_its_server(end: str) -> None:
    with Pipe(command=SERVER) as server:
        spare = spare_of(server)
        left = [*lifetime.group(server.process.pid), *lifetime.group(spare)]
        if end == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
        else:
            server.close_stdin()
        assert server.wait() == 0
        assert lifetime.seconds_until_gone(left, BOUND_S) is not None
        with pytest.raises(EOFError):
            server.receive()  # nobody has had it: nothing is told of its end


# Its first two forks fail, and say so.
FORK_FAILS = """
import errno, os, sys
from dspex_bridge import fork_server
run = fork_server._ForkServer.run
def failing(self):
    fork, failures = os.fork, [1, 2]
    def fails_at_first():
        if failures:
            print("failure", failures[-1], file=sys.stderr, flush=True)
            raise BlockingIOError(errno.EAGAIN, f"failure {failures.pop()}")
        return fork()
    os.fork = fails_at_first
    run(self)
fork_server._ForkServer.run = failing
"""


def test_a_fork_that_failed_is_told_with_the_next_request_and_tried_again() -> None:
    with server_after(FORK_FAILS) as server:
        server.ask("ping")
        assert server.process.stderr is not None
        assert server.process.stderr.readline() == b"failure 2\n", "it was not asked for"
        error = server.refusal("fork")
        assert (error["code"], error["retryable"]) == ("internal_error", True)
        assert "failure 1" in error["message"]
        with Forked(server) as bridge:
            bridge.ask("ping")
            assert list(Path(bridge.path).parent.iterdir()) == [], "of no failure either"


def test_a_guard_without_pidfds_watches_the_connection_it_was_sent() -> None:
    with server_after("import os\ndel os.pidfd_open") as server, Forked(server) as bridge:
        bridge.ask("ping")
        left = lifetime.group(bridge.pid)
        assert len(left) > 1
        os.kill(bridge.pid, signal.SIGSTOP)
        bridge.socket.close()
        assert lifetime.seconds_until_gone(list(left), BOUND_S) is not None
        assert server.ask("ping", {"payload": 1}) == {"payload": 1}


THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_a_server_with_a_second_thread_does_not_fork() -> None:
    with server_after(THREAD) as server:
        error = server.refusal("fork")
        assert (error["code"], error["retryable"]) == ("internal_error", False)
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
forget = fork_server._ForkServer._forget
def held(self):
    open({gate!r}).close()
    forget(self)
fork_server._ForkServer._forget = held
"""


def test_sigterm_ends_a_bridge_that_was_forked_in_that_moment(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    held = server_after(HELD.format(gate=str(gate)))
    with held as server, socket.socket(socket.AF_UNIX) as client:
        forked = server.ask("fork")
        server.process.send_signal(signal.SIGTERM)
        # The other process is no bridge yet when it has been passed on. Those forked until then,
        # and ahead, wait there, too; nobody comes for them.
        while (answer := server.response(server.request("fork")))[2] is None:
            continue
        assert answer[2]["code"] == "shutting_down"
        opened = os.open(gate, os.O_RDWR)  # for all, now and later
        # One that has missed it would serve this client for as long as it stays.
        with suppress(OSError):
            client.connect(forked["path"])
        assert server.wait() == 0
        os.close(opened)
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
