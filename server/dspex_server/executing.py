"""One execution from its inputs to its row: checked, written, run, written again."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_bridge.programs import bundles
from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.json_forms import from_json, to_json
from dspex_protocol.errors import (
    DSPexError,
    InternalError,
    RequestCancelledError,
    SignatureError,
    UnavailableError,
)

from .bridges import Stored
from .errors import BridgeUnavailableError, DatabaseUnavailableError, WrongStateError
from .resources.executions import (
    begin_execution,
    cancel_execution,
    complete_execution,
    count_in_batch,
    fail_execution,
    find_execution,
    start_execution,
)
from .resources.programs import PROGRAMS, find_program, find_revision, require_runnable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.client import Client
    from dspex_protocol.messages import Notification
    from sqlalchemy.ext.asyncio import AsyncSession

    from .bridges import Bridges
    from .db.database import Database
    from .db.models import Execution, Program
    from .events import Events

__all__ = ["Call", "Executor"]

T = TypeVar("T")

# Runs under way at once; the others are pending. A bridge answers 'overloaded' at a thousand.
MAX_RUNNING = 500

# Revisions whose converters are kept: a few kilobytes each.
_MAX_KNOWN = 1_000

# What was paid for is written even where the database has to come back first.
_WRITE_PATIENCE_S = 120.0
_WRITE_PAUSES_S = (0.1, 0.3, 1.0, 2.0)

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
class _Known:
    stored: Stored
    inputs: InputConverter


class Executor:
    """Runs programs on the bridges. `server_id` owns the executions that it has open."""

    def __init__(
        self, database: Database, bridges: Bridges, events: Events, server_id: str
    ) -> None:
        self._database = database
        self._bridges = bridges
        self._events = events
        self._server_id = server_id
        self._places = asyncio.Semaphore(MAX_RUNNING)
        self._known: OrderedDict[tuple[str, int], _Known] = OrderedDict()
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

        `inputs` are JSON. Raises NotFoundError and WrongStateError for the program, and
        DatabaseUnavailableError; everything else is in the row. `began` hears its id, and `chunk`
        the pieces of a stream, each with a function `grant` to be called once it was passed on.
        """
        async with self._database.write() as session:
            program = await find_program(session, program_id)
            known = await self._know(session, program, require_runnable(program))
            problem = self._problem(known, inputs)
            is_free = problem is None and not self._places.locked()
            execution_id = await begin_execution(
                session,
                program.id,
                known.stored.revision,
                inputs,
                owner=self._server_id,
                running=is_free,
                trace_id=call.trace_id,
            )
            if problem is not None:
                await fail_execution(session, execution_id, program.id, problem)
                return await find_execution(session, execution_id)
        if began is not None:
            began(execution_id)
        return await self.run(
            execution_id,
            program,
            known.stored,
            inputs,
            call,
            is_started=is_free,
            stream=stream,
            chunk=chunk,
        )

    async def run(
        self,
        execution_id: str,
        program: Program,
        stored: Stored,
        inputs: Mapping[str, Any],
        call: Call,
        *,
        is_started: bool,
        is_in_batch: bool = False,
        stream: Mapping[str, Any] | None = None,
        chunk: Callable[[dict[str, Any]], None] | None = None,
    ) -> Execution:
        """An execution whose row is there."""

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

        running = asyncio.create_task(self._run(execution_id, stored, work, is_started))
        self._running[execution_id] = running
        has_gone = False
        try:
            result = await running
            outcome: DSPexError | dict[str, Any] = {
                **result,
                "outputs": {name: to_json(value) for name, value in result["outputs"].items()},
            }
        except DSPexError as error:
            outcome = error
        except asyncio.CancelledError:
            # By `cancel`, which has written it; or whoever asked has gone.
            this = asyncio.current_task()
            has_gone = this is not None and this.cancelling() > 0
            outcome = RequestCancelledError("it was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it is, its row must say so
            _log.exception("execution %s failed", execution_id)
            outcome = InternalError(f"the server failed ({type(error).__name__}): its log says how")
        finally:
            del self._running[execution_id]
        execution = await asyncio.shield(self._end(execution_id, program, outcome, is_in_batch))
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
        return (await self._know(session, program, revision)).stored

    async def _run(
        self,
        execution_id: str,
        stored: Stored,
        work: Callable[[Client, str], Awaitable[dict[str, Any]]],
        is_started: bool,
    ) -> dict[str, Any]:
        async with self._places:
            if not is_started:
                await self._write(partial(self._start, execution_id))
            self._events.changed(execution_id, stored.program_id)
            return await self._bridges.run(stored, work)

    async def _start(self, execution_id: str, session: AsyncSession) -> None:
        try:
            await start_execution(session, execution_id, self._server_id)
        except WrongStateError:
            # Written a moment ago, where the database went away before it said so.
            execution = await find_execution(session, execution_id)
            if (execution.state, execution.owner) != ("running", self._server_id):
                raise

    async def _end(
        self,
        execution_id: str,
        program: Program,
        outcome: DSPexError | dict[str, Any],
        is_in_batch: bool,
    ) -> Execution:
        async def write(session: AsyncSession) -> Execution:
            try:
                if isinstance(outcome, DSPexError):
                    await fail_execution(session, execution_id, program.id, outcome)
                else:
                    await complete_execution(session, execution_id, program.id, outcome)
                await self._judge(session, program, outcome)
                if is_in_batch:
                    await count_in_batch(session, execution_id)
            except WrongStateError:
                pass  # it was cancelled meanwhile, and that stands
            return await find_execution(session, execution_id)

        execution = await self._write(write)
        self._events.changed(execution_id, program.id, execution.batch_id)
        return execution

    async def _write(self, write: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """A result is not lost because the database is away for a minute."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _WRITE_PATIENCE_S
        attempt = 0
        while True:
            try:
                async with self._database.write() as session:
                    return await write(session)
            except DatabaseUnavailableError as error:
                if loop.time() > until:
                    raise
                _log.warning("a result waits for the database: %s", error)
                await asyncio.sleep(_WRITE_PAUSES_S[min(attempt, len(_WRITE_PAUSES_S) - 1)])
                attempt += 1

    async def _judge(
        self, session: AsyncSession, program: Program, outcome: DSPexError | dict[str, Any]
    ) -> None:
        """A program that cannot even be made says so in its state, until it can."""
        cannot_be_made = isinstance(outcome, SignatureError | UnavailableError) and not isinstance(
            outcome, BridgeUnavailableError
        )
        if program.state == "ready" and cannot_be_made:
            assert isinstance(outcome, DSPexError)  # noqa: S101 - it is one of two of them
            await PROGRAMS.move(session, program.id, "error", reason=outcome.message)
        elif program.state == "error" and not isinstance(outcome, DSPexError):
            await PROGRAMS.move(session, program.id, "ready", reason="it ran")

    async def _know(self, session: AsyncSession, program: Program, revision: int) -> _Known:
        key = (program.id, revision)
        known = self._known.get(key)
        if known is None:
            row = await find_revision(session, program, revision)
            spec = bundles.load(row.state)
            known = _Known(Stored(program.id, revision, row.state), InputConverter(spec.signature))
            self._known[key] = known
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def _problem(self, known: _Known, inputs: Mapping[str, Any]) -> DSPexError | None:
        """What is wrong with the inputs, told before a bridge is asked."""
        try:
            known.inputs.convert({key: from_json(item, "inputs") for key, item in inputs.items()})
        except DSPexError as error:
            return error
        return None
