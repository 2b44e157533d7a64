"""execute: one run of one program."""

from __future__ import annotations

from dspex_bridge.params import mapping, record

from .method import Method
from .shapes import ADAPTER, CONFIG, LM_OR_NAME, PROGRAM_OR_CREATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.modules import Run
    from dspex_bridge.host import Host
    from dspex_bridge.programs.registry import Program

__all__ = ["EXECUTE"]


def _execute(host: Host, call: Call) -> Coroutine[Any, Any, dict[str, Any]]:
    """Finds the program and the LM and checks the inputs in the order of the requests."""
    params, programs = call.params, host.require_programs()
    which = params["program"]
    program = programs.get(which) if isinstance(which, str) else programs.inline(which)
    spec, lm = program.spec, params.get("lm")
    run = host.require_engine().run(
        program.module,
        program.inputs.convert(params["inputs"]),
        lm=spec.lm if lm is None else lm,
        adapter=params.get("adapter") or spec.adapter,
        config={**spec.config, **(params.get("config") or {})},
    )
    return _finish(call, program, run)


async def _finish(call: Call, program: Program, run: Run) -> dict[str, Any]:
    program.executions += 1
    try:
        outputs = program.converted(await run.prediction())
    except BaseException:
        program.errors += 1
        raise
    finally:
        # Told with an error too: it was paid for.
        call.spent = {"usage": run.meter.usage(), "cost_usd": run.meter.cost_usd}
    return {
        "outputs": outputs,
        "program": program.id,
        "lm": run.lm.name,
        **call.spent,
        "duration_ms": round(call.elapsed_ms, 3),
        "cached": run.meter.is_cached,
    }


EXECUTE = Method(
    "execute",
    _execute,
    record(
        {"program": PROGRAM_OR_CREATE, "inputs": mapping},
        {"lm": LM_OR_NAME, "adapter": ADAPTER, "config": CONFIG},
    ),
)
