"""Nothing stays behind, whatever the bridge was doing when its client went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration import lifetime

# Far above what is measured (a few milliseconds) and far below "it stayed".
GONE_S = 5.0

SCRIPT = Path(lifetime.__file__)


@contextmanager
def client_with_bridge(state: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    client = subprocess.Popen(
        [sys.executable, str(SCRIPT), "client", state], stdout=subprocess.PIPE, text=True
    )
    bridge = None
    try:
        assert client.stdout is not None
        bridge = int(client.stdout.readline())
        yield client, bridge
    finally:
        client.kill()
        client.wait()
        assert client.stdout is not None
        client.stdout.close()
        if bridge is not None and lifetime.group(bridge):
            os.killpg(bridge, signal.SIGKILL)


@pytest.mark.parametrize("state", lifetime.STATES)
def test_no_process_outlives_a_client_that_was_killed(state: str) -> None:
    with client_with_bridge(state) as (client, bridge):
        left = lifetime.group(bridge)
        assert bridge in left
        assert "dspex-guard" in left.values()
        if state == "grandchild":
            assert "sleep" in left.values()
        client.kill()
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, lifetime.group(bridge)
    assert lifetime.group(bridge) == {}


@pytest.mark.parametrize("state", ["idle", "gil", "grandchild"])
def test_no_process_outlives_a_bridge_that_was_killed(state: str) -> None:
    with client_with_bridge(state) as (_client, bridge):
        left = lifetime.group(bridge)
        os.kill(bridge, signal.SIGKILL)
        assert lifetime.seconds_until_gone(list(left), GONE_S) is not None, lifetime.group(bridge)
