"""`dspex serve` as a process of a test's own, and what a client needs to speak to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
from websockets.asyncio.client import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

__all__ = ["ServerProcess", "Start", "write_lms"]

#: Of `ServerProcess`'s arguments.
Start: TypeAlias = "Callable[..., ServerProcess]"

_COMMAND = ("-P", "-c", "from dspex_bridge.cli import main; main()")

# From the start of the process to its first answer, on a machine under load.
_START_S = 60.0
_REQUEST_S = 60.0
_POLL_S = 0.05


def write_lms(folder: Path, lms: Mapping[str, Mapping[str, Any]]) -> Path:
    """The file for --lms."""
    lines = []
    for name, lm in lms.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in lm.items()]
    path = folder / "lms.toml"
    path.write_text("\n".join(lines))
    return path


class ServerProcess:
    """Starts when it is made, and is ready then, unless it is not `awaited`. Everything that it
    wrote is in `output`; `variables` are added to its environment."""

    def __init__(
        self,
        *arguments: str,
        command: str = "serve",
        awaited: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")
        }
        environment.pop("DSPEX_SERVER_TOKEN", None)
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "DSPEX_MODEL": ""}
        environment |= variables or {}
        self._serves = command == "serve"
        if self._serves:
            arguments = ("--port", "0", *arguments)
        self.process = subprocess.Popen(
            [sys.executable, *_COMMAND, command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.output: list[str] = []
        self.url = ""
        # Without a certificate store: there is nothing to be verified, and it is slow to read.
        self.http = httpx.Client(verify=False, trust_env=False)  # noqa: S501 - plain HTTP
        self._said = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if awaited:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Until it listens, or a worker waits for jobs. Raises RuntimeError where it ended."""
        is_told = self._said.wait(_START_S)
        said = next((line for line in self.output if line.startswith("dspex: ")), None)
        if not is_told or said is None:
            self.kill()
            raise RuntimeError(f"the server did not start:\n{''.join(self.output)}")
        if self._serves:
            self.url = said.split()[3].removesuffix("/graphql,")
            self.http.close()
            self.http = httpx.Client(
                base_url=self.url,
                timeout=_REQUEST_S,
                trust_env=False,
                verify=False,  # noqa: S501 - plain HTTP
            )

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data. Fails where there are errors."""
        answer = self.ask(query, **variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole answer."""
        response = self.http.post("/graphql", json={"query": query, "variables": variables})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def wait(self, query: str, until: str, timeout_s: float = _REQUEST_S, **variables: Any) -> Any:
        """The one field of the answer, as soon as its state is `until`, and that in time."""

        def has_come(found: Any) -> bool:
            if found["state"] == until:
                return True
            assert found["state"] not in ("FAILED", "CANCELLED", "COMPLETED"), found
            return False

        return self.wait_until(query, has_come, timeout_s, **variables)

    def wait_for_running(self, count: int) -> None:
        """Until so many executions are."""
        query = "{ executions(filter: {state: [RUNNING]}) { totalCount } }"
        self.wait_until(query, lambda found: found["totalCount"] == count)

    def wait_until(
        self,
        query: str,
        has_come: Callable[[Any], bool],
        timeout_s: float = _REQUEST_S,
        **variables: Any,
    ) -> Any:
        """Asks again and again: the one field of the answer, as soon as it is as waited for."""
        deadline = time.monotonic() + timeout_s
        while True:
            (found,) = self.graphql(query, **variables).values()
            if has_come(found):
                return found
            assert time.monotonic() < deadline, f"it is {found}\n{''.join(self.output)}"
            time.sleep(_POLL_S)

    @asynccontextmanager
    async def subscribe(self, query: str, **variables: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The data of each event, over graphql-transport-ws. Raises RuntimeError for errors."""
        url = self.url.replace("http:", "ws:") + "/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"], proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            payload = {"query": query, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))

            async def events() -> AsyncIterator[Any]:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "complete":
                        return
                    if message["type"] == "ping":
                        continue
                    assert message["type"] == "next", message
                    if "errors" in message["payload"]:
                        raise RuntimeError(f"the subscription failed: {message['payload']}")
                    yield message["payload"]["data"]

            yield events()

    def kill(self) -> None:
        """SIGKILL to the server alone: its bridges see to their own end."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def close(self) -> int:
        """Asks it to end; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        self._end()
        return self.process.returncode

    def _end(self) -> None:
        self.http.close()
        self.process.wait(_START_S)
        self._reader.join(_START_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("dspex: "):
                self._said.set()
        self._said.set()
        self.process.stdout.close()
