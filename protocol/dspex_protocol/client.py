"""An asyncio client: spawns a bridge, or attaches to two streams that lead to one.

    async with await Client.spawn() as client:
        await client.configure(lms={"main": {"model": "demo/knn"}})
        await client.create("question -> answer", program="qa")
        result = await client.execute("qa", {"question": "Where is Paris?"})
        result["outputs"]["answer"]

Every method raises the `DSPexError` that the bridge answered with, ConnectionLostError where it
went away before it answered, and EncodeError (a ValueError) for a value that cannot be sent. A task
that is cancelled while it waits cancels its request.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from .errors import ConnectionLostError, InternalError
from .framing import DEFAULT_MAX_FRAME_BYTES
from .peer import Handler, Listener, Peer

__all__ = ["Client"]


class Client(Peer):
    """One connection to one bridge, and its methods. Make it with `spawn` or `attach`."""

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stderr: int | None = None,
        handlers: Mapping[str, Handler] | None = None,
        listener: Listener | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        log_level: str | None = None,
    ) -> Self:
        """Starts a bridge (`command`: this Python's by default) and introduces itself.

        `env` is the whole environment of the process (None: this one's); `stderr` is as for
        subprocess (None: this process's own, where the bridge logs). Raises OSError where the
        command cannot be started, ConnectionLostError where it ends before it has answered.
        """
        process = await asyncio.create_subprocess_exec(
            *(command or (sys.executable, "-P", "-m", "dspex_bridge")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=None if env is None else dict(env),
            cwd=cwd,
            # The bridge ends its whole process group when it is left alone.
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        client = cls(
            process.stdout,
            process.stdin,
            handlers=handlers,
            listener=listener,
            max_frame_bytes=max_frame_bytes,
            process=process,
        )
        try:
            await client.initialize(log_level=log_level)
        except ConnectionLostError as error:
            await client.close()
            raise ConnectionLostError(
                f"the bridge ended with status {process.returncode} before it answered: "
                "what it wrote to stderr says why"
            ) from error
        except BaseException:
            await client.close()
            raise
        return client

    @classmethod
    async def attach(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        handlers: Mapping[str, Handler] | None = None,
        listener: Listener | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        log_level: str | None = None,
    ) -> Self:
        """Speaks to a bridge at the other end of two streams, and introduces itself.

        The streams are the client's from here on, and `close` closes the writer.
        """
        client = cls(
            reader,
            writer,
            handlers=handlers,
            listener=listener,
            max_frame_bytes=max_frame_bytes,
        )
        try:
            await client.initialize(log_level=log_level)
        except BaseException:
            await client.close()
            raise
        return client

    async def initialize(self, *, log_level: str | None = None) -> dict[str, Any]:
        from importlib.metadata import version

        answer: dict[str, Any] = await self.request(
            "initialize",
            {
                "protocol_version": 1,
                "client": {"name": "dspex-python", "version": version("dspex")},
                "max_frame_bytes": self._connection.max_frame_bytes,
                "log_level": log_level,
            },
        )
        try:
            self._connection.peer_max_frame_bytes = answer["limits"]["max_frame_bytes"]
        except (KeyError, TypeError, ValueError) as error:
            raise InternalError(
                f"the answer to initialize has no usable limits.max_frame_bytes ({error}): "
                "is this a DSPex bridge?"
            ) from error
        return answer

    async def ping(self, payload: Any = None) -> Any:
        answer: dict[str, Any] = await self.request("ping", {"payload": payload})
        return answer["payload"]

    async def configure(self, **params: Any) -> dict[str, Any]:
        """Parameters as in the protocol: lms, default_lm, adapter."""
        answer: dict[str, Any] = await self.request("configure", params)
        return answer

    async def create(
        self,
        signature: str | Mapping[str, Any] | None = None,
        *,
        timeout_ms: int | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """Parameters as in the protocol: program, module, lm, instructions, demos…; without a
        signature a pipeline's: inputs, steps, outputs."""
        answer: dict[str, Any] = await self.request(
            "create", {"signature": signature, **params}, timeout_ms=timeout_ms
        )
        return answer

    async def execute(
        self,
        program: str | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """Parameters as in the protocol: lm, adapter, config…"""
        answer: dict[str, Any] = await self.request(
            "execute",
            {"program": program, "inputs": _map(inputs), **params},
            timeout_ms=timeout_ms,
            listener=listener,
        )
        return answer

    async def batch(
        self,
        program: str | Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """Parameters as in the protocol: max_concurrency, on_error, results, lm, config…

        `listener` hears of each `item` as it finishes, and `progress`.
        """
        answer: dict[str, Any] = await self.request(
            "batch",
            {"program": program, "inputs": _maps(inputs), **params},
            timeout_ms=timeout_ms,
            listener=listener,
        )
        return answer

    async def evaluate(
        self,
        program: str | Mapping[str, Any],
        devset: Sequence[Mapping[str, Any]],
        metric: Mapping[str, Any],
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """`devset` is a list of examples `{inputs, outputs}`; `metric` as in the protocol.

        A `{callback: name}` is asked of the handler of `call_metric`. `listener` hears `progress`.
        """
        answer: dict[str, Any] = await self.request(
            "evaluate",
            {"program": program, "devset": _maps(devset), "metric": metric} | params,
            timeout_ms=timeout_ms,
            listener=listener,
        )
        return answer

    async def optimize(
        self,
        program: str,
        optimizer: str | Mapping[str, Any],
        trainset: Sequence[Mapping[str, Any]] | None = None,
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """A better program of one. `optimizer` is a name or `{name, params}`; `trainset` is a list
        of examples `{inputs, outputs}`. Parameters as in the protocol: valset, metric, save_as,
        seed, limits, checkpoint, on_stop, include.

        `listener` hears `progress`, whose `id` is what a `cancel` names.
        """
        named = {"name": optimizer} if isinstance(optimizer, str) else dict(optimizer)
        rows = None if trainset is None else _maps(trainset)
        answer: dict[str, Any] = await self.request(
            "optimize",
            {"program": program, "optimizer": named, "trainset": rows, **params},
            timeout_ms=timeout_ms,
            listener=listener,
        )
        return answer

    def grant(self, request_id: int, chunks: int) -> None:
        """Lets a streamed execute send so many more chunks, each of which names its `id`.

        Its `stream.window` says how many come without.
        """
        self.notify("grant", {"id": request_id, "n": chunks})

    async def describe(self, program: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.request("describe", {"program": program})
        return answer

    async def list(self, prefix: str | None = None) -> list[dict[str, Any]]:
        answer: dict[str, list[dict[str, Any]]] = await self.request("list", {"prefix": prefix})
        return answer["programs"]

    async def delete(self, program: str) -> None:
        await self.request("delete", {"program": program})

    async def dump(self, program: str) -> dict[str, Any]:
        answer: dict[str, dict[str, Any]] = await self.request("dump", {"program": program})
        return answer["state"]

    async def load(
        self,
        state: Mapping[str, Any] | None = None,
        *,
        path: str | None = None,
        program: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Makes a program from a `dump`, or from the file that `save` wrote at `path`."""
        answer: dict[str, Any] = await self.request(
            "load",
            {
                "state": None if state is None else dict(state),
                "path": path,
                "program": program,
                "replace": replace,
            },
        )
        return answer

    async def save(self, program: str, path: str) -> dict[str, Any]:
        """Writes a program's state to a file in the bridge's `--state-dir`."""
        answer: dict[str, Any] = await self.request("save", {"program": program, "path": path})
        return answer

    async def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.request("stats")
        return answer

    async def shutdown(self, drain_ms: int | None = None) -> dict[str, Any]:
        """Lets work in flight finish for `drain_ms`; the bridge exits after the answer."""
        answer: dict[str, Any] = await self.request("shutdown", {"drain_ms": drain_ms})
        return answer


def _map(value: Any) -> Any:
    """A dict for the wire. What is no map goes as it is: the bridge says best what is wrong."""
    return dict(value) if isinstance(value, Mapping) else value


def _maps(values: Any) -> Any:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return values
    return [_map(item) for item in values]
