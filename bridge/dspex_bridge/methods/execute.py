"""execute: one run of one program."""

from __future__ import annotations

from functools import partial

from dspex_protocol.errors import InvalidParamsError
from dspex_protocol.spelling import suggestion

from dspex_bridge.params import array, integer, mapping, one_of, record, text
from dspex_bridge.shapes import ADAPTER, CONFIG, LIMITS, LM_OR_NAME, PROGRAM_OR_CREATE
from dspex_bridge.streams import DEFAULT_MAX_CHARS, DEFAULT_WINDOW, MAX_WINDOW, ChunkStream

from .method import Method
from .program_runs import ProgramRuns, output_names, spent

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
    params, stream = call.params, call.params.get("stream")
    include = tuple(dict.fromkeys(params.get("include") or ()))
    runs = ProgramRuns.of_request(host, call, params)
    if stream is not None:
        call.open_stream(_chunks(host, call, stream))
    run = runs.prepare(
        params["inputs"],
        is_recorded=bool(include),
        chunks=call.chunks,
        fields=_streamed_fields(runs.program, stream or {}),
    )
    return partial(_finish, call, runs, run, include)


def _chunks(host: Host, call: Call, stream: dict[str, Any]) -> ChunkStream:
    def prepare(chunk: dict[str, Any]) -> Callable[[str], bool]:
        params = {"id": call.request.id, **chunk}
        queue = host.connection.text_notifications("chunk", params, "text", about=call.request)

        def send(text: str) -> bool:
            is_queued = queue(text)
            host.flush()
            return is_queued

        return send

    def max_chars() -> int:
        # A character has at most 4 bytes, and the rest of a chunk's frame is small. Asked each
        # time: the client may lower its limit while a stream is open.
        return min(DEFAULT_MAX_CHARS, host.connection.peer_max_frame_bytes // 8)

    return ChunkStream(prepare, stream.get("window") or DEFAULT_WINDOW, max_chars)


def _streamed_fields(program: Program, stream: dict[str, Any]) -> list[str]:
    known = program.spec.streamable
    fields: list[str] = stream.get("fields") or output_names(program)
    for field in fields:
        if field not in known:
            raise InvalidParamsError(
                f"execute: stream.fields: {field!r} is no output of {program.id!r}."
                f"{suggestion(field, known)} Valid: {', '.join(known)}.",
                data={"param": "stream.fields"},
            )
    return fields


async def _finish(
    call: Call, runs: ProgramRuns, run: Run, include: tuple[str, ...]
) -> dict[str, Any]:
    try:
        outputs = await runs.outputs(run)
    finally:
        # Told with an error too: it was paid for.
        call.spent = spent(run.meter)
    told = {} if run.recorder is None else run.recorder.told(include)
    return {**runs.answer(run, outputs, call.received), **told}


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
            "limits": LIMITS,
            "include": array(one_of("trace", "prompt", "completions")),
        },
    ),
)
