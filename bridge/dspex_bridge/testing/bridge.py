"""A bridge for one test: its client for plain tests, its log, and its state put back afterwards."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_protocol.client import Client
from dspex_protocol.errors import ConnectionLostError, DSPexError

from .callbacks import Callbacks
from .client_elsewhere import ClientElsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from dspex_protocol.messages import Notification
    from dspex_protocol.peer import Listener

    from .background import Background

__all__ = ["Bridge"]

Function = TypeVar("Function", bound="Callable[..., Any]")

# The deadline of every request that names none. A test that takes longer is a test that hangs.
DEFAULT_TIMEOUT_MS = 60_000

# How much longer than its deadline a request is waited for: the bridge answers at once, so this is
# for a bridge that cannot answer any more.
_GRACE_S = 10.0

# From the start of the process to its first answer, on a machine under load.
_START_S = 60.0

# Putting things back is a few messages; a bridge that needs longer is replaced.
_RESET_S = 5.0

# How long a failing test's report waits for the last words of its bridge.
_LISTEN_S = 2.0

# What `configure` can be given that the next test's own replaces; the rest stays until the bridge
# ends: the protocol knows no way to take it back.
_PUT_BACK = {"lms", "default_lm", "adapter"}

# The client kills a bridge that does not end when it is left.
_CLOSE_S = 30.0

# What is shown of a failing test's bridge: its last words are what is looked for.
_SHOWN_BYTES = 64 * 1024
_SHOWN_EVENTS = 200


class Bridge:
    """A bridge that is running. Tests get it as `dspex`; it may serve many of them in turn.

    The methods are those of the asyncio client, for tests that have no loop. They raise what it
    raises, and TimeoutError where the bridge is silent for longer than the deadline of a request.
    """

    def __init__(self, background: Background, command: Sequence[str]) -> None:
        """Starts it. Raises RuntimeError, with what it wrote to stderr, where that fails."""
        self.logs: list[dict[str, Any]] = []
        """The `log` events of this test: {level, logger, message, request?}."""
        self.background = background
        self.command = tuple(command)
        self._callbacks = Callbacks()
        self._in_flight: set[Future[Any]] = set()
        # A file and not a pipe: what the bridge wrote is there even where nobody was reading.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the bridge
        self._stderr_start = 0
        self._last_words = ""
        self._adapter: str | None = None
        self._lm: Mapping[str, Any] = {}
        self._tests = 0
        self._is_asked = False
        self._is_changed = False
        try:
            self._client = background.run(self._spawn(), _START_S)
        except (DSPexError, OSError) as error:
            text = self.stderr.strip()
            self._stderr.close()
            raise RuntimeError(
                f"the bridge {' '.join(self.command)!r} did not start: {error}"
                + (f"\n{text}" if text else "")
            ) from None
        self.client: Client = ClientElsewhere(self.submit, background, lambda: self._client)
        """The same bridge for async tests; its methods may be awaited on any asyncio loop."""

    async def _spawn(self) -> Client:
        return await Client.spawn(
            self.command,
            env=_environment(),
            stderr=self._stderr.fileno(),
            handlers=self._callbacks.handlers,
            listener=self._hear,
            log_level="debug",
        )

    # What a test does

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        listener: Listener | None = None,
    ) -> Any:
        """Any method of the protocol. `listener` hears its notifications, on another thread."""
        __tracebackhide__ = True
        future = self.submit(method, params, timeout_ms=timeout_ms, listener=listener)
        try:
            return future.result(timeout_ms / 1000 + _GRACE_S)
        except DSPexError as error:
            # The way it took through the other thread tells the reader of a failure nothing.
            raise error.with_traceback(None) from None
        except TimeoutError:
            raise TimeoutError(
                f"the bridge did not answer {method} within its deadline of {timeout_ms} ms, nor "
                f"in the {_GRACE_S:g} s after that"
            ) from None
        finally:
            future.cancel()

    def configure(self, *, timeout_ms: int = DEFAULT_TIMEOUT_MS, **params: Any) -> dict[str, Any]:
        """Parameters as in the protocol: lms, default_lm, adapter."""
        __tracebackhide__ = True
        answer: dict[str, Any] = self.request("configure", params, timeout_ms=timeout_ms)
        return answer

    def create(
        self,
        signature: str | Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        **params: Any,
    ) -> dict[str, Any]:
        """Parameters as in the protocol: program, module, demos, tools…; without a signature a
        pipeline's: inputs, steps, outputs."""
        __tracebackhide__ = True
        answer: dict[str, Any] = self.request(
            "create", {"signature": signature, **params}, timeout_ms=timeout_ms
        )
        return answer

    def execute(
        self,
        program: str | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        listener: Listener | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """Parameters as in the protocol: lm, adapter, config, stream…"""
        __tracebackhide__ = True
        answer: dict[str, Any] = self.request(
            "execute",
            {
                "program": program,
                "inputs": dict(inputs) if isinstance(inputs, Mapping) else inputs,
                **params,
            },
            timeout_ms=timeout_ms,
            listener=listener,
        )
        return answer

    def tool(self, function: Function) -> Function:
        """A decorator: programs of this test that have a tool of this name call the function.

        It gets the tool's arguments by name. A plain function runs on a thread of its own, so
        that it may block; an async one runs on the loop of the bridge.
        """
        self._callbacks.tools[function.__name__] = function
        return function

    def metric(self, name: str, function: Function) -> Function:
        """Evaluations of this test whose metric is `{"callback": name}` call the function.

        It gets the example, `{"inputs", "outputs"}`, the prediction, and the trace or None, and
        returns a number, a boolean or `{"score", "feedback"}`. It runs as a tool does.
        """
        self._callbacks.metrics[name] = function
        return function

    @property
    def pid(self) -> int:
        assert self._client.process is not None  # noqa: S101 - it was spawned
        return self._client.process.pid

    @property
    def stderr(self) -> str:
        """What the bridge has written to stderr in this test: its last 64 KiB."""
        if self._stderr.closed:
            return self._last_words
        end = os.fstat(self._stderr.fileno()).st_size
        start = max(self._stderr_start, end - _SHOWN_BYTES)
        return os.pread(self._stderr.fileno(), end - start, start).decode("utf-8", "replace")

    # What its client and the fixtures do

    def submit(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        *,
        timeout_ms: int | None,
        listener: Listener | None,
    ) -> Future[Any]:
        """Sends a request; cancelling the future cancels it."""
        if _changes_for_good(method, params or {}):
            self._keep_from_other_tests()
        self._is_asked = True
        future = self.background.submit(
            self._client.request(
                method, params, timeout_ms=timeout_ms or DEFAULT_TIMEOUT_MS, listener=listener
            )
        )
        self._in_flight.add(future)
        future.add_done_callback(self._in_flight.discard)
        return future

    def _keep_from_other_tests(self) -> None:
        """Before a change that cannot be taken back. A budget counts what was spent before it was
        set, so a bridge that has served other tests is replaced before that, too."""
        self._is_changed = True
        if self._tests <= 1:
            return
        if self._is_asked:
            raise RuntimeError(
                "limits and embedders come first in a test: this bridge has served other tests, "
                "whose LM calls a budget would count, and it cannot be replaced any more. Move "
                "this configure to the top, or mark the test @pytest.mark.dspex(fresh=True)"
            )
        self.background.run(self._client.close(), _CLOSE_S)
        self._client = self.background.run(self._spawn(), _START_S)
        self._tests = 1
        self._set_up()

    @property
    def is_alive(self) -> bool:
        process = self._client.process
        return process is not None and process.returncode is None

    def begin(self, lm: Mapping[str, Any]) -> None:
        """A test begins: `lm` is its LM, named main, and nothing of another test is left."""
        self.logs.clear()
        self._stderr_start = os.fstat(self._stderr.fileno()).st_size
        self._lm = lm
        self._tests += 1
        self._is_asked = False
        self._set_up()

    def _set_up(self) -> None:
        if self._adapter is None:
            self._adapter = self.configure()["adapter"]
        # Where the LM has limits, this asks for a bridge of its own, and so sets that one up.
        self._is_asked = False
        self.configure(lms={"main": dict(self._lm)}, default_lm="main", adapter=self._adapter)
        self._is_asked = False

    def end(self) -> bool:
        """A test has ended. False where this bridge is not fit for another one."""
        self._callbacks.clear()
        if self._is_changed:
            return False
        for future in list(self._in_flight):
            future.cancel()
        try:
            self.background.run(self._delete_programs(), _RESET_S)
        except (DSPexError, TimeoutError):
            return False
        return True

    async def _delete_programs(self) -> None:
        for program in await self._client.list():
            await self._client.delete(program["program"])

    def close(self) -> None:
        self.background.run(self._client.close(), _CLOSE_S)
        self._last_words = self.stderr
        self._stderr.close()

    def report(self) -> list[tuple[str, str]]:
        """(title, text) of what the bridge said in this test, for people."""
        sections = []
        if self.is_alive:
            # A bridge that says nothing now is shown with what it has said.
            with contextlib.suppress(DSPexError, TimeoutError):
                self.background.run(self._listen(), _LISTEN_S)
        if not (self.is_alive or self._stderr.closed):
            status = self._client.process.returncode if self._client.process else None
            sections.append(("dspex bridge", f"It ended before the test did: status {status}."))
        if text := self.stderr:
            sections.append(("dspex bridge stderr", text))
        if self.logs:
            cut = len(self.logs) - _SHOWN_EVENTS
            lines = [f"({cut} earlier ones)"] if cut > 0 else []
            lines += [_line(event) for event in self.logs[-_SHOWN_EVENTS:]]
            sections.append(("dspex bridge log", "\n".join(lines)))
        return sections

    async def _listen(self) -> None:
        """Returns when everything that the bridge has said so far has been heard."""
        try:
            await self._client.ping()
        except ConnectionLostError:
            if self._client.process is not None:
                await self._client.process.wait()

    def _hear(self, notification: Notification) -> None:
        if notification.method == "log":
            self.logs.append(notification.params)


def _changes_for_good(method: str, params: Mapping[str, Any]) -> bool:
    """Whether a request leaves what no later one undoes: what was spent under limits, an LM's
    too, stays spent."""
    if method != "configure":
        return False
    lms = params.get("lms")
    models = lms.values() if isinstance(lms, dict) else ()
    given = {key for key, value in params.items() if value is not None}
    return not given <= _PUT_BACK or any(
        isinstance(model, dict) and model.get("limits") is not None for model in models
    )


def _environment() -> dict[str, str]:
    """This process's, without a proxy between the bridge and an LM on this machine."""
    names = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]
    direct = ",".join(name for name in names if name)
    return {**os.environ, "NO_PROXY": direct, "no_proxy": direct}


def _line(event: Mapping[str, Any]) -> str:
    about = f" [request {event['request']}]" if "request" in event else ""
    return f"{event['logger']}: {event['level']}{about}: {event['message']}"
