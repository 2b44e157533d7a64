"""What is wrong with a server's settings is told at its start, and what to do about it."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

from integration.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 60


def ended(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit status of a server that does not start, and all that it said."""
    server = ServerProcess("--data-dir", str(folder), *arguments, awaited=False)
    try:
        status = server.process.wait(WAIT_S)
    finally:
        server.close()
    return status, "".join(server.output)


def test_an_lm_that_no_bridge_takes_ends_the_start_as_a_bad_setting_does(tmp_path: Path) -> None:
    assert ended(tmp_path, "--lm", "demo/kn") == (
        2,
        "dspex serve: error: lms.main.model: there is no embedded model 'demo/kn'. "
        "Did you mean 'demo/knn'?\n",
    )


def test_a_port_that_is_taken_is_told_with_its_address(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        assert ended(tmp_path, "--port", str(port)) == (
            1,
            f"dspex serve: cannot listen at 127.0.0.1:{port}: Address already in use. "
            "Take another --port\n",
        )
