"""Calls that run programs: once, many times, scored, optimized."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from dspex_bridge.methods.many import MAX_CONCURRENCY, Halt, run_many
from dspex_bridge.params import array, boolean, integer, mapping, name, one_of, record
from dspex_bridge.programs import bundles
from dspex_bridge.programs.json_forms import from_json, to_json
from dspex_bridge.shapes import ADAPTER, CONFIG, LIMITS, PROGRAM_OR_CREATE
from dspex_bridge.streams import DEFAULT_WINDOW
from dspex_protocol.errors import (
    AlreadyExistsError,
    DSPexError,
    NotFoundError,
    RequestCancelledError,
    RequestTimeoutError,
    UnavailableError,
)

from dspex_server.executing import Call
from dspex_server.ids import new_id
from dspex_server.loaded import Stored
from dspex_server.resources import program_creation, programs
from dspex_server.resources.executions import error_map
from dspex_server.resources.jobs import MAX_BATCH

from .lm_names import lm_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.client import Client
    from dspex_protocol.messages import Notification

    from dspex_server.app import App
    from dspex_server.db.models import Execution, Program

    from .event_stream import Outbox

__all__ = [
    "COMMON",
    "Caller",
    "batch",
    "evaluate",
    "execute",
    "in_a_bridge",
    "optimize",
    "stored",
]

COMMON = {"meta": mapping, "timeout_ms": integer(1)}

_RUN = {"lm": lm_name, "config": CONFIG, **COMMON}
_EXECUTE = record(
    {"program": PROGRAM_OR_CREATE, "inputs": mapping},
    {"adapter": ADAPTER, "limits": LIMITS, "stream": mapping, **_RUN},
)
# Without limits: an execution keeps its own, and nobody keeps those of all.
_BATCH = record(
    {"program": name, "inputs": array(mapping, MAX_BATCH)},
    {
        "on_error": one_of("collect", "halt"),
        "max_concurrency": integer(1, MAX_CONCURRENCY),
        "results": boolean,
        **_RUN,
    },
)
_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


class Caller:
    """Who is told what happens meanwhile."""

    def __init__(self, outbox: Outbox, trace_id: str | None) -> None:
        self.trace_id = trace_id
        self._outbox = outbox

    async def room(self) -> None:
        """Returns when the client has read so much that it may be told more."""
        await self._outbox.room()

    def tell(self, event: str, params: Mapping[str, Any]) -> None:
        self._outbox.tell(event, to_json(params))

    def hear(self, notification: Notification) -> None:
        """What a bridge says of a request, whose id there is nothing to the client. It does not
        wait: a client that does not read misses how far its request was meanwhile."""
        params = {key: value for key, value in notification.params.items() if key != "id"}
        if notification.method == "progress":
            self._outbox.tell_newest(notification.method, to_json(params))

    def chunk(self, told: Mapping[str, Any]) -> None:
        """A piece of a stream. The bridge may send another once it has been passed on."""
        piece = {key: told[key] for key in ("field", "attempt", "text", "done")}
        self._outbox.tell("chunk", piece, told["grant"])


class _RowError(DSPexError):
    """The error of an execution, as its row has it."""

    def __init__(self, row: Execution) -> None:
        error = row.error or error_map(RequestCancelledError("it was cancelled"))
        spent = {"usage": _usage(row), "cost_usd": row.cost_usd}
        super().__init__(
            error["message"], data={**error["data"], **spent}, retryable=error["retryable"]
        )
        self.code = error["code"]  # type: ignore[misc]


async def stored(app: App, program: str) -> tuple[Program, Stored]:
    """A program and the revision of it that runs."""
    async with app.database.read() as session:
        row = await programs.find_program(session, program)
        number = row.deployed_revision or row.revision
        return row, await app.executor.stored(session, row, number)


async def in_a_bridge(
    app: App, revision: Stored, method: str, params: Mapping[str, Any], caller: Caller | None = None
) -> dict[str, Any]:
    """What a bridge answers to a method about a program."""

    async def work(client: Client, key: str) -> dict[str, Any]:
        listener = None if caller is None else caller.hear
        asked = {**params, "program": key}
        answer: dict[str, Any] = await client.request(method, asked, listener=listener)
        return answer

    return await _run(app, revision, work)


async def _run(
    app: App, revision: Stored, work: Callable[[Client, str], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Without a row."""
    async with app.executor.calls.one():
        return await app.bridges.run(revision, work)


async def execute(app: App, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
    _EXECUTE(params, "execute")
    if isinstance(params["program"], str):
        return await _executed(app, params, params["inputs"], caller)
    if "stream" in params:
        raise UnavailableError("execute: only a program of the database is streamed over a server")
    # Of what is registered nowhere there is no row either: a row belongs to a program.
    state = bundles.dump(program_creation.spec_of(params["program"]))
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    answer = await in_a_bridge(app, Stored(digest, 0, state), "execute", params, caller)
    return {**answer, "program": "(inline)"}


async def batch(app: App, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Each of the inputs is an execution, with a row."""
    _BATCH(params, "batch")
    began = time.monotonic()
    inputs: list[dict[str, Any]] = params["inputs"]
    rest = error_map(RequestCancelledError("not run to its end: another input failed"))
    outcomes: list[dict[str, Any]] = [{"error": rest}] * len(inputs)
    spent = _Spent()
    step = 0

    async def run(index: int) -> None:
        nonlocal step
        try:
            outcome: dict[str, Any] = {"ok": await _executed(app, params, inputs[index], caller)}
            spent.add(outcome["ok"])
        except DSPexError as error:
            outcome = {"error": error_map(error)}
            spent.add(error.data)
        if params.get("results", True):
            outcomes[index] = outcome
        # The batch goes on as fast as it is read.
        await caller.room()
        step += 1
        caller.tell("item", {"index": index, **outcome})
        caller.tell("progress", {"step": step, "total": len(inputs)})
        if "error" in outcome and params.get("on_error") == "halt":
            raise Halt

    # A program that is not there is the request's error, and not each input's.
    await stored(app, params["program"])
    timeout_ms = params.get("timeout_ms")
    try:
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            await run_many(len(inputs), params.get("max_concurrency"), run)
    except TimeoutError:
        raise RequestTimeoutError(f"the deadline of {timeout_ms} ms passed") from None
    return {
        "results": outcomes if params.get("results", True) else [],
        "usage": spent.usage,
        "cost_usd": spent.cost_usd,
        "duration_ms": round((time.monotonic() - began) * 1000, 3),
    }


async def evaluate(app: App, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
    _refuse_callback(params, "evaluate")
    if params.get("lm") is not None:
        lm_name(params["lm"], "evaluate: lm")
    _program, revision = await stored(app, _named(params, "evaluate"))
    return await in_a_bridge(app, revision, "evaluate", params, caller)


async def optimize(app: App, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """The new program is one of the database. While it is made it is this call's alone: what has to
    outlive the server is a job."""
    _refuse_callback(params, "optimize")
    if "checkpoint" in params:
        raise UnavailableError("optimize: over a server, what goes on after its end is a job")
    program, revision = await stored(app, _named(params, "optimize"))
    save_as = params.get("save_as") or new_id()
    await _require_free(app, save_as)
    # In the bridge it has a name that nobody else asks for, until it is out of there.
    asked = {**params, "save_as": new_id()}

    async def work(client: Client, key: str) -> dict[str, Any]:
        result: dict[str, Any] = await client.request(
            "optimize", {**asked, "program": key}, listener=caller.hear
        )
        await client.delete(result["program"])
        return result

    result = await _run(app, revision, work)
    base = {"base_program": program.name, "base_revision": revision.revision}
    state = {**result["state"], "lineage": {**result["state"]["lineage"], **base}}
    async with app.database.write() as session:
        await program_creation.add_program(session, bundles.load(state), name=save_as)
    return {**result, "program": save_as, "base_program": program.name, "state": state}


async def _executed(
    app: App, params: Mapping[str, Any], inputs: Mapping[str, Any], caller: Caller
) -> dict[str, Any]:
    """What the protocol's execute answers, of a row. Raises the row's error."""
    asked = {key: params.get(key) for key in ("lm", "adapter", "config", "limits", "timeout_ms")}
    row = await app.executor.execute(
        params["program"],
        to_json(inputs),
        Call(**asked, trace_id=caller.trace_id),
        stream=_slowed(params.get("stream")),
        chunk=caller.chunk,
    )
    if row.state != "completed":
        raise _RowError(row)
    return {
        "outputs": from_json(row.outputs, "outputs"),
        "program": params["program"],
        "lm": row.lm,
        "usage": _usage(row),
        "cost_usd": row.cost_usd,
        "duration_ms": row.duration_ms,
        "cached": row.cached,
    }


def _slowed(stream: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """However many chunks a client would have at once: here they would wait for it."""
    window = None if stream is None else stream.get("window")
    if stream is None or not isinstance(window, int) or window <= DEFAULT_WINDOW:
        return stream  # the bridge says what is wrong with it
    return {**stream, "window": DEFAULT_WINDOW}


def _usage(row: Execution) -> dict[str, int]:
    return {key: getattr(row, key) for key in _TOKENS}


class _Spent:
    """The sum of what executions took; their cost is None where one is not known."""

    def __init__(self) -> None:
        self.usage = dict.fromkeys(_TOKENS, 0)
        self.cost_usd: float | None = 0.0

    def add(self, told: Mapping[str, Any]) -> None:
        # What failed before anything ran tells of nothing spent.
        usage = told.get("usage")
        if usage is None or usage["total_tokens"] == 0:
            return
        for key in _TOKENS:
            self.usage[key] += usage[key]
        cost = told["cost_usd"]
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost


def _named(params: Mapping[str, Any], method: str) -> str:
    """The program, of a method whose parameters are the bridge's to check."""
    program = params.get("program")
    name(program, f"{method}: program")
    return str(program)


def _refuse_callback(params: Mapping[str, Any], method: str) -> None:
    metric = params.get("metric")
    if isinstance(metric, dict) and metric.get("callback") is not None:
        raise UnavailableError(
            f"{method}: a metric that is a function is run by the client of a bridge, and this "
            "server has none to run: take a metric by its name, or a judge",
            data={"param": "metric.callback"},
        )


async def _require_free(app: App, program: str) -> None:
    async with app.database.read() as session:
        try:
            await programs.find_program(session, program)
        except NotFoundError:
            return
    raise AlreadyExistsError(
        f"there is a program {program!r} already: choose another name", data={"name": program}
    )
