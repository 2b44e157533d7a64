"""execute: one run of one program."""

from __future__ import annotations

from functools import partial

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.params import array, integer, mapping, not_yet, record, suggest, text
from dspex_bridge.shapes import ADAPTER, CONFIG, LM_OR_NAME, PROGRAM_OR_CREATE
from dspex_bridge.streams import DEFAULT_MAX_CHARS, DEFAULT_WINDOW, MAX_WINDOW, ChunkStream

from .method import Method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.engine.runs import Run
    from dspex_bridge.host import Host
    from dspex_bridge.programs.registry import Program

__all__ = ["EXECUTE"]


def _execute(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Finds the program and the LM and checks the inputs in the order of the requests."""
    params, programs = call.params, host.require_programs()
    which = params["program"]
    program = programs.get(which) if isinstance(which, str) else programs.inline(which)
    spec, lm = program.spec, params.get("lm")
    stream = params.get("stream")
    if stream is not None:
        call.open_stream(_chunks(host, call, stream))
    run = host.require_engine().run(
        program.module,
        program.inputs.convert(params["inputs"]),
        lm=spec.lm if lm is None else lm,
        adapter=params.get("adapter") or spec.adapter,
        config={**spec.config, **(params.get("config") or {})},
        call_tool=partial(_call_tool, host, call, program),
        chunks=call.chunks,
        fields=_streamed_fields(program, stream or {}),
    )
    return partial(_finish, call, program, run)


async def _call_tool(
    host: Host, call: Call, program: Program, tool: str, arguments: dict[str, Any]
) -> Any:
    params = {
        "program": program.id,
        "request": call.request.id,
        "tool": tool,
        "args": arguments,
        "meta": call.meta,
    }
    return await host.callbacks.request("call_tool", params)


def _chunks(host: Host, call: Call, stream: dict[str, Any]) -> ChunkStream:
    def send(chunk: dict[str, Any]) -> bool:
        params = {"id": call.request.id, **chunk}
        is_sent = host.connection.send_notification("chunk", params, about=call.request)
        host.flush()
        return is_sent

    # A character has at most 4 bytes, and the rest of a chunk's frame is small.
    max_chars = min(DEFAULT_MAX_CHARS, host.connection.peer_max_frame_bytes // 8)
    return ChunkStream(send, stream.get("window") or DEFAULT_WINDOW, max_chars)


def _streamed_fields(program: Program, stream: dict[str, Any]) -> list[str]:
    spec = program.spec
    known = [*(item.name for item in spec.signature.outputs), *spec.extra_outputs]
    fields: list[str] = stream.get("fields") or known
    for field in fields:
        if field not in known:
            raise InvalidParamsError(
                f"execute: stream.fields: {field!r} is no output of {program.id!r}."
                f"{suggest(field, known)} Valid: {', '.join(known)}.",
                data={"param": "stream.fields"},
            )
    return fields


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


_STREAM = record(
    optional={"fields": array(text), "window": integer(1, MAX_WINDOW)},
)

EXECUTE = Method(
    "execute",
    _execute,
    record(
        {"program": PROGRAM_OR_CREATE, "inputs": mapping},
        {
            "lm": LM_OR_NAME,
            "adapter": ADAPTER,
            "config": CONFIG,
            "stream": _STREAM,
            "limits": not_yet,
            "include": not_yet,
        },
    ),
)
