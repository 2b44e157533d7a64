"""One execution from its inputs to its row: checked, written, run, written again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_bridge.programs.json_forms import from_json, to_json
from dspex_protocol.errors import (
    DSPexError,
    InternalError,
    RequestCancelledError,
    ShuttingDownError,
    SignatureError,
    UnavailableError,
)
from sqlalchemy.exc import IntegrityError

from .errors import BridgeUnavailableError, DatabaseUnavailableError, WrongStateError
from .interrupting import Calls
from .known_revisions import KnownRevisions
from .resources.executions import (
    begin_execution,
    cancel_execution,
    complete_execution,
    fail_execution,
    find_execution,
    read_execution,
    start_execution,
)
from .resources.programs import PROGRAMS, find_runnable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.client import Client
    from dspex_protocol.messages import Notification
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession

    from .bridges import Bridges
    from .db.database import Database
    from .db.models import Execution, Program
    from .events import Events
    from .loaded import Stored
    from .resources.programs import Runnable

__all__ = ["Call", "Executor"]

T = TypeVar("T")

# Runs under way at once; the others are pending. A bridge answers 'overloaded' at a thousand.
MAX_RUNNING = 500

# What was paid for is written even where the database has to come back first.
_WRITE_PATIENCE_S = 120.0
_WRITE_PAUSES_S = (0.1, 0.3, 1.0, 2.0)

# What ends a run and says nothing of it.
_NOT_ITS_OWN = (ShuttingDownError, DatabaseUnavailableError)

_log = logging.getLogger("dspex.server")


@dataclass(frozen=True)
class Call:
    """What is asked for beside the inputs; as `execute` of the protocol takes it."""

    lm: str | None = None
    adapter: str | None = None
    config: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] | None = None
    timeout_ms: int | None = None
    trace_id: str | None = None

    def params(self) -> dict[str, Any]:
        meta = None if self.trace_id is None else {"trace_id": self.trace_id}
        given = {
            "lm": self.lm,
            "adapter": self.adapter,
            "config": self.config,
            "limits": self.limits,
            "meta": meta,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class _Begun:
    execution_id: str
    program: Runnable
    stored: Stored
    is_started: bool
    problem: DSPexError | None


class Executor:
    """Runs programs on the bridges. `server_id` owns the executions that it has open."""

    def __init__(
        self, database: Database, bridges: Bridges, events: Events, server_id: str
    ) -> None:
        self._database = database
        self._bridges = bridges
        self._events = events
        self._server_id = server_id
        #: Those who wait for an answer; items of batches have nobody who does.
        self.calls = Calls()
        self._places = asyncio.Semaphore(MAX_RUNNING)
        self._revisions = KnownRevisions()
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def execute(
        self,
        program_id: str,
        inputs: Mapping[str, Any],
        call: Call,
        *,
        stream: Mapping[str, Any] | None = None,
        chunk: Callable[[dict[str, Any]], None] | None = None,
        began: Callable[[str], None] | None = None,
    ) -> Execution:
        """The execution when it has ended, completed, failed or cancelled.

        `inputs` are JSON. Raises NotFoundError and WrongStateError for the program,
        ShuttingDownError and DatabaseUnavailableError; everything else is in the row. `began` hears
        its id, and `chunk` the pieces of a stream, each with a function `grant` to be called once
        it was passed on.
        """
        with self.calls.under_way.one():
            self.calls.require()
            try:
                begun = await self._begin(program_id, inputs, call)
            except IntegrityError:
                # The program was deleted between the look at it and the row: now it is not found.
                begun = await self._begin(program_id, inputs, call)
            if begun.problem is not None:
                # Whoever asked may go meanwhile: its row does not stay open.
                return await asyncio.shield(
                    self._end(begun.execution_id, begun.program, begun.problem)
                )
            if began is not None:
                began(begun.execution_id)
            return await self.run(
                begun.execution_id,
                begun.program,
                begun.stored,
                inputs,
                call,
                is_started=begun.is_started,
                is_waited_for=True,
                stream=stream,
                chunk=chunk,
            )

    async def _begin(self, program_id: str, inputs: Mapping[str, Any], call: Call) -> _Begun:
        def write(connection: Connection) -> _Begun:
            program = find_runnable(connection, program_id)
            known = self._revisions.get(connection, program.id, program.revision)
            problem = known.problem(inputs)
            is_free = problem is None and not self._places.locked()
            execution_id = begin_execution(
                connection,
                program.id,
                program.revision,
                inputs,
                owner=self._server_id,
                running=is_free,
                trace_id=call.trace_id,
            )
            return _Begun(execution_id, program, known.stored, is_free, problem)

        # Its end is what is acknowledged: a power failure, which ends its run too, may undo it.
        writing = asyncio.ensure_future(self._database.write_soon(write, is_synced=False))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Whoever asked has gone: what was written for them does not stay open.
            await asyncio.wait({writing})
            if writing.exception() is None:
                begun = writing.result()
                error = RequestCancelledError("it was cancelled")
                await self._end(begun.execution_id, begun.program, error)
            raise

    async def run(
        self,
        execution_id: str,
        program: Runnable,
        stored: Stored,
        inputs: Mapping[str, Any],
        call: Call,
        *,
        is_started: bool,
        is_waited_for: bool = False,
        stream: Mapping[str, Any] | None = None,
        chunk: Callable[[dict[str, Any]], None] | None = None,
    ) -> Execution:
        """An execution whose row is there. One that is waited for is ended with the server, and
        with whoever waits. Another one is left as it is, to be run again, where this server's end,
        or the database, ends its run: that is no outcome of its own, and is raised."""

        async def work(client: Client, key: str) -> dict[str, Any]:
            more = {} if stream is None else {"stream": stream}
            values = {name: from_json(value, "inputs") for name, value in inputs.items()}

            def hear(notification: Notification) -> None:
                told = notification.params
                if chunk is not None and notification.method == "chunk":
                    chunk({**told, "grant": partial(client.grant, told["id"], 1)})

            return await client.execute(
                key,
                values,
                timeout_ms=call.timeout_ms,
                listener=hear,
                **call.params(),
                **more,
            )

        running = asyncio.create_task(
            self._run(execution_id, stored, work, is_started, is_waited_for)
        )
        self._running[execution_id] = running
        has_gone = False
        try:
            result = await running
            outcome: DSPexError | dict[str, Any] = {
                **result,
                "outputs": {name: to_json(value) for name, value in result["outputs"].items()},
            }
        except DSPexError as error:
            if not is_waited_for and isinstance(error, _NOT_ITS_OWN):
                self._running.pop(execution_id, None)
                raise
            outcome = error
        except asyncio.CancelledError:
            # By `cancel`, which has written it; or whoever asked has gone.
            this = asyncio.current_task()
            has_gone = this is not None and this.cancelling() > 0
            if has_gone and not is_waited_for:
                self._running.pop(execution_id, None)
                raise
            outcome = RequestCancelledError("it was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, its row must say so
            _log.exception("execution %s failed", execution_id)
            outcome = InternalError(f"the server failed ({type(error).__name__}): its log says how")
        execution = await asyncio.shield(self._end(execution_id, program, outcome))
        if has_gone:
            raise asyncio.CancelledError
        return execution

    async def cancel(self, execution_id: str) -> Execution:
        """Cancels it, here or, by what its row says, on the server that runs it."""
        async with self._database.write() as session:
            execution = await cancel_execution(session, execution_id)
        self.stop(execution_id)
        self._events.changed(execution_id, execution.program_id, execution.batch_id)
        return execution

    def stop(self, execution_id: str) -> None:
        """Ends the work of an execution that is not wanted any more, where it runs here."""
        running = self._running.get(execution_id)
        if running is not None:
            running.cancel()

    def look_at(self, execution_id: str) -> None:
        """Another server changed it: where it runs here, it may have been cancelled there."""
        if execution_id in self._running:
            task = asyncio.create_task(self._look_at(execution_id))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look_at(self, execution_id: str) -> None:
        async with self._database.read() as session:
            execution = await find_execution(session, execution_id)
        if execution.state == "cancelled":
            self.stop(execution_id)

    @property
    def running(self) -> list[str]:
        return list(self._running)

    async def stored(self, session: AsyncSession, program: Program, revision: int) -> Stored:
        connection = await session.connection()
        return (await connection.run_sync(self._revisions.get, program.id, revision)).stored

    async def _run(
        self,
        execution_id: str,
        stored: Stored,
        work: Callable[[Client, str], Awaitable[dict[str, Any]]],
        is_started: bool,
        is_waited_for: bool,
    ) -> dict[str, Any]:
        ended = self.calls.one() if is_waited_for else contextlib.nullcontext()
        async with ended, self._places:
            if not is_started:
                await self._write(
                    partial(self._start, execution_id),
                    order=_order(stored.program_id, execution_id),
                )
            self._events.changed(execution_id, stored.program_id)
            return await self._bridges.run(stored, work)

    def _start(self, execution_id: str, connection: Connection) -> None:
        try:
            start_execution(connection, execution_id, self._server_id)
        except WrongStateError:
            # Written a moment ago, where the database went away before it said so.
            execution = read_execution(connection, execution_id)
            if (execution.state, execution.owner) != ("running", self._server_id):
                raise

    async def _end(
        self, execution_id: str, program: Runnable, outcome: DSPexError | dict[str, Any]
    ) -> Execution:
        def write(connection: Connection) -> Execution:
            try:
                if isinstance(outcome, DSPexError):
                    execution = fail_execution(connection, execution_id, outcome)
                else:
                    execution = complete_execution(connection, execution_id, outcome)
            except WrongStateError:
                # It was cancelled meanwhile, and that stands.
                return read_execution(connection, execution_id)
            self._judge(connection, program, outcome)
            return execution

        try:
            execution = await self._write(write, order=_order(program.id, execution_id))
        finally:
            # Not before: what is open and runs nowhere is held for forgotten.
            self._running.pop(execution_id, None)
        self._events.changed(execution_id, program.id, execution.batch_id)
        return execution

    async def _write(self, write: Callable[[Connection], T], *, order: str) -> T:
        """A result is not lost because the database is away for a minute."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _WRITE_PATIENCE_S
        attempt = 0
        while True:
            try:
                return await self._database.write_soon(write, order=order)
            except DatabaseUnavailableError as error:
                if loop.time() > until:
                    raise
                _log.warning("a result waits for the database: %s", error)
                await asyncio.sleep(_WRITE_PAUSES_S[min(attempt, len(_WRITE_PAUSES_S) - 1)])
                attempt += 1

    def _judge(
        self, connection: Connection, program: Runnable, outcome: DSPexError | dict[str, Any]
    ) -> None:
        """A program that cannot even be made says so in its state, until it can."""
        cannot_be_made = isinstance(outcome, SignatureError | UnavailableError) and not isinstance(
            outcome, BridgeUnavailableError
        )
        with contextlib.suppress(WrongStateError):  # its state was changed meanwhile
            if program.state == "ready" and cannot_be_made:
                assert isinstance(outcome, DSPexError)  # noqa: S101 - it is one of two of them
                PROGRAMS.change(connection, program.id, "error", reason=outcome.message)
            elif program.state == "error" and not isinstance(outcome, DSPexError):
                PROGRAMS.change(connection, program.id, "ready", reason="it ran")


def _order(program_id: str, execution_id: str) -> str:
    """Executions are locked by their ids, as by whoever cancels a batch; their program last."""
    return f"{program_id} {execution_id}"
