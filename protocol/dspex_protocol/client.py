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
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias

from .connection import Answered, Connection, Event, Refused
from .errors import (
    ConnectionLostError,
    DSPexError,
    InternalError,
    MethodNotFoundError,
    RequestCancelledError,
)
from .framing import DEFAULT_MAX_FRAME_BYTES
from .messages import Notification, Request

__all__ = ["Client", "Handler", "Listener"]

#: Answers a request from the bridge: the tools and metrics of this program.
Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any]]

#: Hears a notification. It must return at once; what it raises is logged.
Listener: TypeAlias = Callable[[Notification], None]

# Notifications about a request of ours: once it has ended, nobody is left to hear them.
_ABOUT_A_REQUEST = frozenset({"chunk", "item", "progress"})

_READ_BYTES = 64 * 1024

# A bridge ends within a second of its answer to `shutdown`, and at once when its stdin ends.
_EXIT_TIMEOUT_S = 5.0

_log = logging.getLogger("dspex.client")


class Client:
    """One connection to one bridge. Make it with `spawn` or `attach`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        handlers: Mapping[str, Handler] | None = None,
        listener: Listener | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        peer_max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        process: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._handlers = dict(handlers or {})
        self._listener = listener
        self._connection = Connection(max_frame_bytes)
        self._connection.peer_max_frame_bytes = peer_max_frame_bytes
        self._listeners: dict[int, Listener | None] = {}
        self._handling: dict[Request, asyncio.Task[None]] = {}
        self._receiving = asyncio.create_task(self._receive(), name="dspex-client")

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and with it the bridge, at once: what is in flight is lost.

        `shutdown` first lets it finish.
        """
        self._writer.close()
        # A task of its own: a timeout around wait_closed() would cancel the stream's own future.
        ended = asyncio.create_task(self._ended())
        if not (await asyncio.wait({ended}, timeout=_EXIT_TIMEOUT_S))[0]:
            _log.warning("the bridge did not end, or did not read, when it was left: cut off")
            if self.process is None:
                self._writer.transport.abort()
            else:
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
            await ended
        self._receiving.cancel()
        self._end()
        # A handler may be the one that closes.
        tasks = {self._receiving, *self._handling.values()} - {asyncio.current_task()}
        await asyncio.wait(tasks, timeout=_EXIT_TIMEOUT_S)

    async def _ended(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self.process is not None:
            await self.process.wait()

    # Requests

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
    ) -> Any:
        """Sends a request and waits for its answer.

        `timeout_ms` is the bridge's deadline for it; `listener` hears the notifications that are
        about this request (`chunk`, `item`, `progress`).
        """
        own = {key: value for key, value in (params or {}).items() if value is not None}
        if timeout_ms is not None:
            own["timeout_ms"] = timeout_ms
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request_id = self._connection.send_request(method, own, waiter=answer)
        self._listeners[request_id] = listener or self._listener
        try:
            await self._send()
            return await answer
        finally:
            self._listeners.pop(request_id, None)
            if self._connection.give_up(request_id):
                self._connection.send_notification("cancel", {"id": request_id})
                self._flush()

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

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Sends a notification."""
        self._connection.send_notification(method, dict(params))
        self._flush()

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

    # Input and output

    async def _send(self) -> None:
        self._flush()
        # A bridge that has gone is told by the end of its stdout, to everybody at once.
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(data)

    async def _receive(self) -> None:
        try:
            while data := await self._reader.read(_READ_BYTES):
                for event in self._connection.receive_data(data):
                    self._handle(event)
                self._flush()
        except OSError as error:
            _log.info("the connection broke: %s", error)
        finally:
            # Whatever ended this, nobody may wait for an answer that nobody reads.
            self._end()

    def _end(self) -> None:
        for event in self._connection.receive_eof():
            self._handle(event)
        for task in self._handling.values():
            if not task.cancelling():  # a second cancel would cut off what the first one cleans up
                task.cancel()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered):
            # Now, and not when its task runs: a chunk that comes behind it is nobody's.
            self._listeners.pop(event.id, None)
            answer: asyncio.Future[Any] = event.waiter
            if answer.done():  # its task was cancelled just now
                return
            if event.error is None:
                answer.set_result(event.result)
            else:
                answer.set_exception(event.error)
        elif isinstance(event, Notification):
            self._hear(event)
        elif isinstance(event, Request):
            task = asyncio.create_task(self._serve(event))
            self._handling[event] = task
            task.add_done_callback(lambda _: self._handling.pop(event, None))
        elif isinstance(event, Refused):
            _log.warning("a bad frame from the bridge was refused: %s", event.error)
        else:
            _log.warning("%s", event.reason)

    def _hear(self, notification: Notification) -> None:
        about = notification.params.get("id")
        request_id: int = about if type(about) is int else -1  # which no request has
        if notification.method == "cancel":
            self._cancel(request_id)
            return
        listener = self._listener
        if notification.method in _ABOUT_A_REQUEST:
            listener = self._listeners.get(request_id)
        if listener is not None:
            try:
                listener(notification)
            except Exception:  # noqa: BLE001 - one listener's failure is not the connection's
                _log.exception("a listener failed at %s", notification.method)

    def _cancel(self, request_id: int) -> None:
        """Answers a request of the bridge's at once; its handler may take its time to end."""
        for request, task in self._handling.items():
            if request.id == request_id and self._connection.is_open(request):
                cancelled = RequestCancelledError("the bridge cancelled the request")
                self._connection.send_error(request, cancelled)
                task.cancel()

    async def _serve(self, request: Request) -> None:
        """Answers a request of the bridge's."""
        handler = self._handlers.get(request.method)
        try:
            if handler is None:
                raise MethodNotFoundError(f"this client has no {request.method!r}")
            self._connection.send_result(request, await handler(request.params))
        except asyncio.CancelledError:
            self._connection.send_error(request, RequestCancelledError("the handler was cancelled"))
        except DSPexError as error:
            self._connection.send_error(request, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the bridge is told
            _log.exception("the handler of %s failed", request.method)
            self._connection.send_error(request, InternalError(f"{type(error).__name__}: {error}"))
        self._flush()


def _map(value: Any) -> Any:
    """A dict for the wire. What is no map goes as it is: the bridge says best what is wrong."""
    return dict(value) if isinstance(value, Mapping) else value


def _maps(values: Any) -> Any:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return values
    return [_map(item) for item in values]
