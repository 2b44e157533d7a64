"""Nothing stays behind, whatever the bridge was doing when its client went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration import lifetime

# Far above what is measured (a few milliseconds) and far below "it stayed".
GONE_S = 5.0

SCRIPT = Path(lifetime.__file__)


FORKED = pytest.mark.parametrize("forked", [(), ("forked",)], ids=["started", "forked"])


@contextmanager
def client_with_bridge(
    state: str, forked: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The client, and the leaders of all groups: the fork server and its spare where there is one,
    the bridge."""
    client = subprocess.Popen(
        [sys.executable, str(SCRIPT), "client", state, *forked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    leaders = []
    try:
        assert client.stdout is not None
        leaders = [int(pid) for pid in client.stdout.readline().split()]
        assert len(leaders) == (3 if forked else 1)
        yield client, leaders
    finally:
        client.kill()
        client.wait()
        assert client.stdout is not None
        client.stdout.close()
        assert client.stdin is not None
        client.stdin.close()
        for leader in leaders:
            if lifetime.group(leader):
                os.killpg(leader, signal.SIGKILL)


def alive(leaders: list[int]) -> dict[int, str]:
    return {pid: name for leader in leaders for pid, name in lifetime.group(leader).items()}


@FORKED
@pytest.mark.parametrize("state", lifetime.STATES)
def test_no_process_outlives_a_client_that_was_killed(state: str, forked: Sequence[str]) -> None:
    with client_with_bridge(state, forked) as (client, leaders):
        for leader in leaders:
            left = lifetime.group(leader)
            assert leader in left
            assert len(left) > 1, "the guard is there"
        if state == "grandchild":
            assert "sleep" in left.values()
        left = alive(leaders)
        client.kill()
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, alive(leaders)
    assert alive(leaders) == {}


@FORKED
@pytest.mark.parametrize("state", ["idle", "gil", "grandchild"])
def test_no_process_outlives_a_bridge_that_was_killed(state: str, forked: Sequence[str]) -> None:
    with client_with_bridge(state, forked) as (_client, leaders):
        bridge = leaders[-1]
        left = lifetime.group(bridge)
        assert bridge in left
        assert ("sleep" in left.values()) == (state in ("grandchild", "gil"))
        os.kill(bridge, signal.SIGKILL)
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, lifetime.group(bridge)
        # It is nothing to the fork server, and to the one that waits.
        assert all(leader in lifetime.group(leader) for leader in leaders[:-1])


@pytest.mark.parametrize("state", lifetime.STATES)
def test_no_bridge_outlives_its_fork_server(state: str) -> None:
    with client_with_bridge(state, ["forked"]) as (_client, leaders):
        left = alive(leaders)
        os.kill(leaders[0], signal.SIGKILL)
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, alive(leaders)


def test_no_process_outlives_a_spare_that_was_killed() -> None:
    with client_with_bridge("idle", ["forked"]) as (_client, leaders):
        server, spare, bridge = leaders
        left = lifetime.group(spare)
        os.kill(spare, signal.SIGKILL)
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, lifetime.group(spare)
        assert all(leader in lifetime.group(leader) for leader in (server, bridge))


SHARED_GROUP = """
import os, signal, subprocess, sys
bridge = subprocess.Popen(
    [sys.executable, "-m", "dspex_bridge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
bridge.stdin.write(bytes.fromhex("00000008940001a470696e6780"))
bridge.stdin.flush()
assert len(bridge.stdout.read(8)) == 8
from integration import lifetime
left = lifetime.group(bridge.pid)
assert bridge.pid in left, "the bridge leads a group of its own"
assert os.getpgid(bridge.pid) != os.getpgrp()
os.kill(bridge.pid, signal.SIGKILL)
assert lifetime.seconds_until_gone(list(left), 5.0) is not None
print("alive")
"""


def test_a_client_that_shares_its_process_group_survives_its_bridge() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARED_GROUP],
        cwd=SCRIPT.parent.parent,
        stdout=subprocess.PIPE,
        start_new_session=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


@FORKED
def test_the_end_of_a_connection_ends_a_bridge_whose_lock_is_held(forked: Sequence[str]) -> None:
    with client_with_bridge("gil", forked) as (client, leaders):
        left = lifetime.group(leaders[-1])
        # The client closes its end and lives on.
        assert client.stdin is not None
        client.stdin.close()
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None
        assert client.poll() is None
        assert all(leader in lifetime.group(leader) for leader in leaders[:-1])


# A shell with job control makes each pipeline a process group, led by its first command.
PIPELINE = """
set -m
"$0" -P -m dspex_bridge < "$1" | { cat > "$2"; echo bystander; }
"""


def test_the_others_of_a_shells_pipeline_survive_the_bridge(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes.fromhex("00000008940001a470696e6780"))
    done = subprocess.run(
        ["bash", "-c", PIPELINE, sys.executable, str(tmp_path / "in"), str(tmp_path / "out")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert "bystander" in done.stdout
    assert len((tmp_path / "out").read_bytes()) > 4
