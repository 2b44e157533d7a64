"""batch: one program on many inputs."""

from __future__ import annotations

import time
from functools import partial

from dspex_protocol.errors import RequestCancelledError

from dspex_bridge.params import array, boolean, integer, mapping, one_of, record
from dspex_bridge.shapes import CONFIG, LIMITS, LM_OR_NAME, PROGRAM_OR_CREATE

from .many import MAX_CONCURRENCY, Halt, Teller, run_many
from .method import Method
from .program_runs import ProgramRuns, spent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host

__all__ = ["BATCH"]


def _batch(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Finds the program and the LM in the order of the requests."""
    return partial(_run, host, call, ProgramRuns.of_request(host, call, call.params))


async def _run(host: Host, call: Call, runs: ProgramRuns) -> dict[str, Any]:
    params = call.params
    inputs: list[dict[str, Any]] = params["inputs"]
    results: list[dict[str, Any] | None] = [None] * len(inputs)
    is_kept = params.get("results") is not False
    teller = Teller(host, call, len(inputs))

    async def run(index: int) -> None:
        outcome = await _one(host, call, runs, inputs[index])
        if is_kept:
            results[index] = outcome
        await teller.item(index, outcome)
        teller.progress()
        if "error" in outcome and params.get("on_error") == "halt":
            raise Halt

    try:
        await run_many(len(inputs), params.get("max_concurrency"), run)
    finally:
        # Told with an error too, such as a result that is too large: it was paid for.
        call.spent = spent(runs.meter)
    halted = RequestCancelledError("not run to its end: another input failed, and on_error is halt")
    kept = [outcome or {"error": halted.to_wire()} for outcome in results] if is_kept else []
    return {"results": kept, **call.spent, "duration_ms": round(call.elapsed_ms, 3)}


async def _one(host: Host, call: Call, runs: ProgramRuns, inputs: dict[str, Any]) -> dict[str, Any]:
    """`{ok}` with what execute answers, or `{error}`."""
    since, run = time.monotonic(), None
    try:
        run = runs.prepare(inputs)
        outputs = await runs.outputs(run)
    except Exception as error:  # noqa: BLE001 - one input's failure is not the others'
        wire_error = host.dispatcher.to_wire_error(error, call.request)
        if run is not None:
            wire_error.data = {**wire_error.data, **spent(run.meter)}
        return {"error": wire_error.to_wire()}
    return {"ok": runs.answer(run, outputs, since)}


BATCH = Method(
    "batch",
    _batch,
    record(
        {"program": PROGRAM_OR_CREATE, "inputs": array(mapping)},
        {
            "max_concurrency": integer(1, MAX_CONCURRENCY),
            "on_error": one_of("collect", "halt"),
            "results": boolean,
            "lm": LM_OR_NAME,
            "config": CONFIG,
            "limits": LIMITS,
        },
    ),
)
