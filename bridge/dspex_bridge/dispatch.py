"""From a request to its one answer: the methods table, deadlines, cancel, limits, draining.

Exceptions become errors here and nowhere else.
"""

from __future__ import annotations

import threading
import time

from dspex_protocol.codec import EncodeError
from dspex_protocol.errors import (
    DSPexError,
    FrameTooLargeError,
    InternalError,
    MethodNotFoundError,
    OverloadedError,
    RequestCancelledError,
    RequestTimeoutError,
    ShuttingDownError,
)
from dspex_protocol.spelling import suggestion

from . import params
from .exceptions import describe
from .logs import CURRENT_REQUEST
from .methods import METHODS
from .methods.control import PING, PONG_PARAMS, pong

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

    from dspex_protocol.messages import Notification, Request

    from .host import Host
    from .methods import Method
    from .streams import ChunkStream
    from .timers import Timer

__all__ = ["Call", "Dispatcher"]

# Work that has been cancelled ends at its next wait; what does not by then, hangs.
_STUCK_AFTER_S = 1.0

# What a job that is asked to end with what it has may take for that.
_STOP_WITHIN_S = 1.5


_COMMON = params.COMMON.keys()

# What a ping may carry that is answered as it is read, and its longest deadline.
_AT_ONCE_PARAMS = PONG_PARAMS | {"timeout_ms"}
_PLAIN_TIMEOUT_MS = 2**31

# Held for two assignments: one for all calls, most of which have no stream.
_OPENING = threading.Lock()


class Call:
    """One request from its arrival to its answer."""

    __slots__ = (
        "_early_credit",
        "_timer",
        "chunks",
        "method",
        "params",
        "received",
        "request",
        "spent",
        "stop",
        "task",
    )

    def __init__(self, request: Request, method: Method, own_params: dict[str, Any]) -> None:
        self.request = request
        self.method = method
        self.params = own_params
        self.received = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self.chunks: ChunkStream | None = None
        # Usage and cost so far, which an error tells as well as a result.
        self.spent: dict[str, Any] = {}
        # Set by work that can end early with what it has: called with the reason, on the loop.
        self.stop: Callable[[str], None] | None = None
        self._timer: Timer | None = None
        self._early_credit = 0

    @property
    def meta(self) -> dict[str, Any]:
        """The client's own."""
        return self.request.params.get("meta") or {}

    def open_stream(self, chunks: ChunkStream) -> None:
        """From here on chunks may go, as credit allows: what was granted before counts."""
        with _OPENING:
            self.chunks = chunks
        chunks.grant(self._early_credit)

    def grant(self, credit: int) -> None:
        """More credit, on the reader's thread: it may come before the stream is there."""
        with _OPENING:
            if self.chunks is None:
                self._early_credit += credit
                return
        self.chunks.grant(credit)

    @property
    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.received) * 1000


class Dispatcher:
    """Requests come in on the reader's thread; answers are sent from whichever thread has them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: dict[int, Call] = {}
        self._unready: list[Call] | None = []
        self._draining: _Draining | None = None
        self._lock = threading.Lock()
        # Work of requests that were answered before it ended -> since when.
        self._ending: dict[asyncio.Task[None], float] = {}

    @property
    def stuck(self) -> int:
        """Pieces of work that go on though their requests were answered a while ago."""
        latest = time.monotonic() - _STUCK_AFTER_S
        ending = sum(since < latest for since in list(self._ending.values()))
        # Where the loop stands still, what stops it has not even been told to end.
        return ending + (self._host.runner.lag_s > _STUCK_AFTER_S)

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    @property
    def queued(self) -> int:
        """Requests that wait for DSPy to be imported."""
        return len(self._unready or ())

    # Coming in

    def request(self, request: Request) -> None:
        """Answers at once what can be, and sends the rest on its way."""
        try:
            call = self._admit(request)
            if not call.method.is_inline:
                self._start(call)
                return
            # What is answered here and now is in flight for nobody. Shutdown answers later, when
            # everything else has been answered.
            result = call.method.handler(self._host, call)
            if result is not None and self._host.connection.send_result(request, result):
                self._host.stats.record(call.method.name, call.elapsed_ms, is_error=False)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._refuse(request, error)

    def answer_at_once(self, request: Request) -> bool:
        """Answers a ping as any client sends it, which takes no more than this; False for all other
        requests, and for one that is refused: those go the long way."""
        own = request.params
        if request.method != PING.name or not _AT_ONCE_PARAMS.issuperset(own):
            return False
        if "timeout_ms" in own:
            # It is met, and has to be one all the same.
            timeout_ms = own["timeout_ms"]
            if type(timeout_ms) is not int or not 1 <= timeout_ms <= _PLAIN_TIMEOUT_MS:
                return False
        if self._draining is not None:
            return False
        started = time.monotonic()
        result = pong(own)
        try:
            self._host.connection.send_at_once(request, result, result["payload"])
        except (EncodeError, FrameTooLargeError):
            return False
        self._host.stats.record(PING.name, (time.monotonic() - started) * 1000, is_error=False)
        return True

    def notification(self, notification: Notification) -> None:
        """Never raises: nobody is answered, and the reader has to go on."""
        try:
            if notification.method == "cancel":
                self._cancel(notification.params.get("id"))
            elif notification.method == "grant":
                self._grant(notification.params)
            else:
                name = params.quoted(notification.method)
                self._host.log.warning(f"unknown notification {name} ignored")
        except Exception as error:  # noqa: BLE001 - the boundary
            self._host.log.error(f"{notification.method} failed: {describe(error)}")

    def _cancel(self, request_id: Any) -> None:
        """Ends a request; one that has been answered, or never came, is ignored."""
        cancelled = RequestCancelledError("the client cancelled the request")
        call = self._calls.get(request_id) if type(request_id) is int else None
        shutdown = None if self._draining is None else self._draining.request
        if call is not None:
            self._stop_or_end(call, "cancelled", cancelled)
        elif shutdown is not None and shutdown.id == request_id:
            # Its request ends here; the shutdown goes on, because there is no way back from it.
            self._host.connection.send_error(shutdown, cancelled)

    def _grant(self, credit: dict[str, Any]) -> None:
        """More credit for a stream; for one that has ended, or was none, it is ignored."""
        request_id, chunks = credit.get("id"), credit.get("n")
        call = self._calls.get(request_id) if type(request_id) is int else None
        if call is not None and type(chunks) is int and chunks > 0:
            call.grant(chunks)

    def _admit(self, request: Request) -> Call:
        method = METHODS.get(request.method)
        if method is None:
            raise MethodNotFoundError(
                f"there is no method {params.quoted(request.method)}."
                f"{suggestion(request.method, METHODS)} Valid: {', '.join(METHODS)}."
            )
        self._refuse_while_draining()
        own = request.params
        if not _COMMON.isdisjoint(own):
            own = {key: value for key, value in own.items() if key not in params.COMMON}
            for key, check in params.COMMON.items():
                if request.params.get(key) is not None:
                    check(request.params[key], f"{method.name}: {key}")
        try:
            method.check(own, method.name)
        except params.UnknownParameterError as error:
            if error.where != method.name:  # inside one of its parameters
                raise
            known = (*error.known, *params.COMMON)
            raise params.UnknownParameterError.of(error.where, error.key, known) from None
        limit = self._host.max_in_flight
        if not method.is_inline and len(self._calls) >= limit:
            raise OverloadedError(
                f"{limit} requests are in flight already, which is the limit",
                data={"max_in_flight": limit},
            )
        return Call(request, method, own)

    def _refuse_while_draining(self) -> None:
        if self._draining is not None:
            raise ShuttingDownError("the bridge is shutting down: send this to another one")

    def _start(self, call: Call) -> None:
        with self._lock:
            # A signal's shutdown begins on another thread, and waits for those that it finds here.
            self._refuse_while_draining()
            self._calls[call.request.id] = call
        timeout_ms = call.request.params.get("timeout_ms")
        if timeout_ms is not None:
            call._timer = self._host.timers.at(
                call.received + timeout_ms / 1000, lambda: self._time_out(call, timeout_ms)
            )
        self._host.runner.submit(lambda: self._run_when_ready(call))

    # Running, on the loop's thread

    def ready(self) -> None:
        """DSPy is there, or will never be: what came meanwhile runs now, in the order it came."""
        waiting, self._unready = self._unready or [], None
        for call in waiting:
            self._run(call)

    def _run_when_ready(self, call: Call) -> None:
        if self._unready is None:
            self._run(call)
        else:
            self._unready.append(call)

    def _run(self, call: Call) -> None:
        """A handler does what has to be in order at once, and returns either its result or an
        async function for the rest."""
        if not self._is_open(call):
            return
        token = CURRENT_REQUEST.set(call.request.id)
        try:
            outcome = call.method.handler(self._host, call)
        except Exception as error:  # noqa: BLE001 - the boundary
            self.end(call, self.to_wire_error(error, call.request))
            return
        finally:
            CURRENT_REQUEST.reset(token)
        if callable(outcome):
            call.task = self._host.runner.loop.create_task(self._finish(call, outcome))
            if not self._is_open(call):  # it ended just now, on another thread, without a task
                self._stop(call.task)
        else:
            self._answer(call, outcome)

    async def _finish(self, call: Call, rest: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        from asyncio import CancelledError

        CURRENT_REQUEST.set(call.request.id)  # in the context of this task alone
        try:
            self._answer(call, await rest())
        except CancelledError:
            # By a client or a deadline, which have answered, or by code of a program's own.
            self.end(call, RequestCancelledError("the request was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary; no SystemExit ends the loop
            wire_error = self.to_wire_error(error, call.request)
            wire_error.data = {**wire_error.data, **call.spent}
            self.end(call, wire_error)

    # Going out

    def end(self, call: Call, error: DSPexError) -> None:
        """Answers with an error, at once and from any thread, and then stops the work."""
        if self._host.connection.send_error(call.request, error):
            self._settled(call, error)
        task = call.task
        if task is not None and not task.done():
            self._host.runner.submit(lambda: self._stop(task))

    def _stop_or_end(self, call: Call, reason: str, error: DSPexError) -> None:
        """Ends a request: with what it has where it can, within a moment, else with the error."""
        stop, call.stop = call.stop, None
        if stop is None:
            self.end(call, error)
            return
        self._host.runner.submit(lambda: stop(reason))
        self._host.timers.at(time.monotonic() + _STOP_WITHIN_S, lambda: self.end(call, error))

    def _stop(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._ending.setdefault(task, time.monotonic())
            task.add_done_callback(lambda done: self._ending.pop(done, None))
            task.cancel()

    def _answer(self, call: Call, result: Any) -> None:
        if self._host.connection.send_result(call.request, result, error_data=call.spent):
            self._settled(call, None)

    def _refuse(self, request: Request, error: Exception) -> None:
        self._host.connection.send_error(request, self.to_wire_error(error, request))
        name = request.method if request.method in METHODS else "(unknown)"
        self._host.stats.record(name, 0.0, is_error=True)
        self._host.flush()

    def _settled(self, call: Call, error: DSPexError | None) -> None:
        with self._lock:
            # The client may have seen the answer by now, and given its id to another request.
            if self._calls.get(call.request.id) is call:
                del self._calls[call.request.id]
        if call._timer is not None:
            call._timer.cancel()
        self._host.stats.record(call.method.name, call.elapsed_ms, error is not None)
        if self._draining is not None:
            self._draining.one_settled(error)
            self._finish_drain_if_empty()
        self._host.flush()

    def _is_open(self, call: Call) -> bool:
        return self._host.connection.is_open(call.request)

    def _time_out(self, call: Call, timeout_ms: int) -> None:
        self._stop_or_end(call, "timeout", RequestTimeoutError(f"no result within {timeout_ms} ms"))

    def to_wire_error(self, error: BaseException, request: Request) -> DSPexError:
        """The wire's error for an exception; nothing secret leaves in it."""
        known = error if isinstance(error, DSPexError) else self._host.translate(error)
        if known is None:
            import traceback

            trace = "".join(traceback.format_tb(error.__traceback__))
            self._host.log.error(f"{request.method} failed: {describe(error)}\n{trace}", request.id)
            known = InternalError(describe(error))
        redactor = self._host.redactor
        data: Any = redactor.value(known.data)
        return type(known)(redactor.text(known.message), data=data, retryable=known.retryable)

    # Shutdown

    def shut_down(
        self,
        drain_ms: int,
        finish: Callable[[dict[str, int]], None],
        request: Request | None = None,
    ) -> None:
        """Refuses what is new; calls `finish` with `{completed, cancelled}` once all is answered.

        What is not done after `drain_ms` is answered with `shutting_down`. `request` is the one
        that asked for it, if any did.
        """
        with self._lock:
            if self._draining is not None:
                return
            self._draining = _Draining(finish, request)
        self._host.timers.at(time.monotonic() + drain_ms / 1000, self._cut_off)
        self._finish_drain_if_empty()

    def _cut_off(self) -> None:
        for call in list(self._calls.values()):
            self.end(call, ShuttingDownError("the bridge shut down before this was done"))

    def _finish_drain_if_empty(self) -> None:
        with self._lock:
            drain = self._draining
            if drain is None or self._calls or drain.is_finished:
                return
            drain.is_finished = True
        drain.finish({"completed": drain.completed, "cancelled": drain.cancelled})


class _Draining:
    def __init__(self, finish: Callable[[dict[str, int]], None], request: Request | None) -> None:
        self.finish = finish
        self.request = request
        self.completed = 0
        self.cancelled = 0
        self.is_finished = False

    def one_settled(self, error: DSPexError | None) -> None:
        if isinstance(error, (RequestCancelledError, ShuttingDownError)):
            self.cancelled += 1
        else:
            self.completed += 1
