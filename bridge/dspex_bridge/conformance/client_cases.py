"""What `dspex conformance --serve` tries its client with: one entry in `CASES` each.

A case is some calls that the client makes, a script that plays the bridge meanwhile, and what has
to come of each call: a pattern of its outcome, `{"outputs": …}` or `{"error": {code, …}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dspex_protocol.codec import encode
from dspex_protocol.errors import ERRORS
from dspex_protocol.framing import frame
from dspex_protocol.messages import MAX_ID
from dspex_protocol.tensor import Tensor

from .literals import is_same, to_json
from .patterns import match

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scripted import Call, Script

__all__ = ["CASES", "Case"]

# Clients' limits above this are not tried: the frame would have to be longer.
_MAX_OVERSIZED_BYTES = 64 * 1024 * 1024

_LARGE_CHARS = 1_000_000

# Of a call that is told its deadline. The script answers at once, so nobody waits for it.
_TIMEOUT_MS = 60_000

_ANY_ERROR = {"error": {"code": {"$any": "string"}}}

#: Every kind of value, as it goes into `execute` and comes back from it.
_VALUES: dict[str, Any] = {
    "nil": None,
    "booleans": [True, False],
    "integers": [0, -1, 127, 128, -32, -33, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "beyond 64 bits": [2**64, -(2**63) - 1, 10**40],
    "floats": [0.1, 1.0, -0.0, 1e300, float("nan"), float("inf"), float("-inf")],
    "text": ["", "é😀", "a\0b", "x" * 300],
    "bytes": [b"", bytes(range(256))],
    "containers": [[], {}, [[[]]], {"": {"a": [1, None]}}],
    "timestamps": [
        datetime(2024, 5, 1, 10, 30, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    "decimals": [Decimal("0.10"), Decimal("-12345678901234567890.123456789")],
    "tensors": [
        Tensor("f32", (2, 1), b"\0\0\xc0\x3f\0\0\0\xc0"),
        Tensor("u8", (0,), b""),
    ],
}


@dataclass(frozen=True, slots=True)
class Case:
    """`calls` are made at the same time, or one after the other where they are `in_turn`. `needs`
    names what not every client has. After one that `is_last` the process is gone."""

    name: str
    about: str
    calls: tuple[dict[str, Any], ...]
    expected: tuple[Any, ...]
    script: Callable[[Script], None]
    in_turn: bool = False
    needs: tuple[str, ...] = ()
    is_last: bool = False

    def told(self) -> dict[str, Any]:
        """What the client's driver needs to know of it."""
        return {
            "case": self.name,
            "about": self.about,
            "calls": list(self.calls),
            "in_turn": self.in_turn,
            "needs": list(self.needs),
            "last": self.is_last,
        }


def _outputs(**outputs: Any) -> dict[str, Any]:
    return {"outputs": {"$exactly": outputs}}


# Answers


def _values(script: Script) -> None:
    call = script.call()
    match(to_json(_VALUES), call.inputs, {}, "inputs")  # which says where they differ
    script.require(is_same(call.inputs, _VALUES), "inputs: there are keys that are not the case's")
    script.answer(call, _VALUES)


def _out_of_order(script: Script) -> None:
    for call in reversed(script.calls(8)):
        script.answer(call, {"n": call.inputs["n"]})


def _byte_by_byte(script: Script) -> None:
    for call in script.calls(2):
        script.settle(call)
        answer = [1, call.id, None, script.result(call, {"n": call.inputs["n"]})]
        for byte in frame(encode(answer)):
            script.write(bytes([byte]))


def _joined(script: Script) -> None:
    calls = script.calls(3)
    for call in calls:
        script.settle(call)
    data = b"".join(
        frame(encode([2, "unknown", {}]))
        + frame(encode([1, call.id, None, script.result(call, {"n": call.inputs["n"]})]))
        for call in calls
    )
    script.write(data[:-20])
    script.write(data[-20:])


def _large(script: Script) -> None:
    call = script.call()
    script.answer(call, {"text": "x" * call.inputs["size"]})


def _too_large(script: Script) -> None:
    call, limit = script.call(), script.client_max_frame_bytes
    if limit > _MAX_OVERSIZED_BYTES:
        script.fail(call, "frame_too_large")
    else:
        script.answer(call, {"text": "x" * limit})
    _echo(script)


def _echo(script: Script) -> None:
    call = script.call()
    script.answer(call, {"n": call.inputs["n"]})


def _twice(script: Script) -> None:
    call = script.call()
    script.answer(call, {"n": 1})
    script.send(
        [1, call.id, None, script.result(call, {"n": -1})],
        [1, call.id, {"code": "timeout", "message": "late", "retryable": False, "data": {}}, None],
        [1, MAX_ID - 1, None, {"outputs": {"n": -1}}],
    )
    _echo(script)


# Malformed things


def _bad_frames(script: Script) -> None:
    call = script.call()
    for payload in (
        b"",
        b"\xc1",
        b"\x94\x02",
        b"\xc0\xc0",
        b"\x93\x02\xa5chunk\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\xc0",
    ):
        script.write(frame(payload))
    script.send({}, [], "text", [3, call.id, None, {}], [None, 1])
    script.answer(call, {"n": 1})


def _malformed_responses(script: Script) -> None:
    call = script.call()
    script.send(
        [1], [1, "x", None, {}], [1, -1, None, {}], [1, None, None, {}], [1, True, None, {}]
    )
    script.answer(call, {"n": 1})


def _malformed_answer(script: Script) -> None:
    call = script.call()
    script.send([1, call.id, "no map", None])
    script.answer(call, {"n": 1})


def _unreadable_answer(script: Script) -> None:
    call = script.call()
    script.settle(call)
    good = encode([1, call.id, None, script.result(call, {"n": 1})])
    script.write(frame(good[:-1] + b"\xc1"))


def _error_without_id(script: Script) -> None:
    call = script.call()
    error = {"code": "parse_error", "message": "a bad frame", "retryable": False, "data": {}}
    script.send([1, None, error, None])
    script.answer(call, {"n": 1})


def _notifications(script: Script) -> None:
    call = script.call()
    chunk = {"field": "answer", "attempt": 1, "text": "to nobody", "done": False}
    script.send(
        [2, "unknown", {"key": 1}],
        [2, "ready", {"dspy": "0", "litellm": "0", "import_ms": 1.0}],
        [2, "log", {"level": "info", "logger": "l", "message": "m", "request": call.id, "new": 1}],
        [2, "log", {}],
        [2, "chunk", {"id": MAX_ID - 2, **chunk}],
        [2, "chunk", {"id": call.id, **chunk}],
        [2, "chunk", {}],
        [2, "item", {"id": call.id, "index": 0}],
        [2, "progress", {"id": "x"}],
        [2, "cancel", {"id": 12345}],
        [2, "cancel", {}],
        [2, 5, {}],
        [2, "chunk"],
        [2, "chunk", []],
    )
    script.answer(call, {"n": 1})


def _extra_keys(script: Script) -> None:
    call = script.call()
    script.settle(call)
    result = script.result(call, {"n": 1})
    script.send(
        [1, call.id, None, {**result, "new": {"a": 1}, "usage": {**result["usage"], "x": 1}}]
    )


# Errors


def _errors(script: Script) -> None:
    for call in script.calls(len(ERRORS)):
        code = call.inputs["code"]
        script.fail(call, code, retryable=code == "lm_error", data={"detail": [code, 1]}, new=1)


def _unknown_code(script: Script) -> None:
    script.fail(script.call(), "quota_of_the_moon", retryable=True)


# Streams


def _chunk(call: Call, text: str, attempt: int = 1, done: bool = False) -> list[Any]:
    chunk = {"id": call.id, "field": "answer", "attempt": attempt, "text": text, "done": done}
    return [2, "chunk", {**chunk, "new": 1}]


def _stream(script: Script) -> None:
    one, other = script.calls(2)
    script.send(_chunk(one, "wrong"), _chunk(other, "b"), _chunk(one, "a", attempt=2))
    script.send(_chunk(other, "", done=True), _chunk(one, "á 😀", attempt=2, done=True))
    script.answer(one, {"answer": "aá 😀", "n": one.inputs["n"]})
    script.answer(other, {"answer": "b", "n": other.inputs["n"]})


def _credit(script: Script) -> None:
    call = script.call()
    script.require(call.params.get("stream") is not None, "the call asks for no stream")
    window = call.params["stream"].get("window") or 32
    for _ in range(window):
        script.send(_chunk(call, "x"))
    for _ in range(2 * window):
        script.wait_for_credit(call)
        script.send(_chunk(call, "y"))
    script.send(_chunk(call, "", done=True))
    script.answer(call, {"answer": "x" * window + "y" * 2 * window})


def _late_chunks(script: Script) -> None:
    call = script.call()
    script.send(_chunk(call, "all", done=True))
    script.answer(call, {"answer": "all"})
    script.send(_chunk(call, "late"), _chunk(call, "later", attempt=2, done=True))
    _echo(script)


# Cancel and deadline


def _cancel(script: Script) -> None:
    call = script.call()
    script.wait_for_cancel(call)
    script.fail(call, "cancelled")
    _echo(script)


def _cancel_crosses(script: Script) -> None:
    call = script.call()
    script.wait_for_cancel(call)
    script.answer(call, {"n": -1})
    _echo(script)


def _timeout(script: Script) -> None:
    call = script.call()
    found = call.params.get("timeout_ms")
    fits = type(found) is int and 0 < found <= _TIMEOUT_MS
    script.require(fits, f"timeout_ms is {found!r}, and the call's deadline {_TIMEOUT_MS}")
    script.fail(call, "timeout")


# Requests of the bridge's


def _unknown_request(script: Script) -> None:
    call = script.call()
    script.ask([0, 0, "no_such_method", {}])
    _require_error(script, 0, "method_not_found")
    script.ask([0, 1, "call_tool"])
    _require_error(script, 1, "invalid_request")
    script.answer(call, {"n": 1})


def _tool(script: Script, call: Call, request_id: int, tool: str, **args: Any) -> None:
    about = {"program": call.params["program"], "request": call.id, "meta": {}}
    script.ask([0, request_id, "call_tool", {**about, "tool": tool, "args": args}])


def _tools(script: Script) -> None:
    call = script.call()
    # The bridge's ids are its own: here that of the request which is in flight.
    _tool(script, call, call.id, "add", a=2, b=3)
    reply = script.reply(call.id)
    script.require(reply.error is None, f"add was answered with {reply.error!r}")
    script.answer(call, {"sum": reply.result})


def _tools_at_once(script: Script) -> None:
    call = script.call()
    _tool(script, call, 7, "wait")
    for number in range(1, 5):
        _tool(script, call, 100 + number, "add", a=number, b=number)
    sums = [script.reply(100 + number).result for number in range(1, 5)]
    script.send([2, "cancel", {"id": 7}], [2, "cancel", {"id": 7}])
    _require_error(script, 7, "cancelled")
    script.answer(call, {"sums": sums})


def _tools_nest(script: Script) -> None:
    outer = script.call()
    _tool(script, outer, 0, "nest", n=5)
    inner = script.call()
    _tool(script, inner, 1, "add", a=inner.inputs["n"], b=1)
    script.answer(inner, {"n": script.reply(1).result})
    reply = script.reply(0)
    script.require(reply.error is None, f"nest was answered with {reply.error!r}")
    script.answer(outer, {"n": reply.result})


def _tools_fail(script: Script) -> None:
    call = script.call()
    _tool(script, call, 0, "fail")
    _require_error(script, 0)
    _tool(script, call, 1, "no_such_tool")
    _require_error(script, 1)
    _tool(script, call, 0, "add", a=1, b=1)
    script.answer(call, {"sum": script.reply(0).result})


def _require_error(script: Script, request_id: int, code: str | None = None) -> None:
    error = script.reply(request_id).error
    if error is None or (code is not None and error.code != code):
        wanted = "an error" if code is None else code
        script.require(False, f"{wanted} was to answer the bridge's request, not {error!r}")


# Ends


def _dies(script: Script) -> None:
    script.call()
    script.exit()


def _dies_in_a_frame(script: Script) -> None:
    call = script.call()
    whole = frame(encode([1, call.id, None, script.result(call, {"n": 1})]))
    script.write(whole[: len(whole) // 2])
    script.exit()


def _prints(script: Script) -> None:
    script.call()
    script.write(b"Traceback (most recent call last):\n" + b'  File "bridge.py", line 1\n' * 10)
    script.exit()


def _numbered(count: int) -> tuple[dict[str, Any], ...]:
    return tuple({"inputs": {"n": number}} for number in range(1, count + 1))


def _stream_call(number: int = 1) -> dict[str, Any]:
    return {"inputs": {"n": number}, "stream": True}


_SAVED = {"$save": "all", "as": {"$any": "string"}}
_CANCELLED = {"$one_of": [{"cancelled": True}, {"error": {"code": "cancelled"}}]}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "values",
            "every kind of value goes and comes back as it is",
            ({"inputs": _VALUES},),
            ({"outputs": {"$exactly": to_json(_VALUES)}},),
            _values,
        ),
        Case(
            "out_of_order",
            "eight calls at once, answered last first",
            _numbered(8),
            tuple(_outputs(n=number) for number in range(1, 9)),
            _out_of_order,
        ),
        Case(
            "byte_by_byte",
            "answers that come a byte at a time",
            _numbered(2),
            (_outputs(n=1), _outputs(n=2)),
            _byte_by_byte,
        ),
        Case(
            "joined",
            "answers that come in one piece with other things, and cut in the last",
            _numbered(3),
            tuple(_outputs(n=number) for number in range(1, 4)),
            _joined,
        ),
        Case(
            "large",
            f"an answer of {_LARGE_CHARS} characters",
            ({"inputs": {"size": _LARGE_CHARS}},),
            ({"outputs": {"$exactly": {"text": {"$text": ["x", _LARGE_CHARS]}}}},),
            _large,
        ),
        Case(
            "too_large",
            "an answer over the client's own limit is the error of its call, and of no other",
            _numbered(2),
            (_ANY_ERROR, _outputs(n=2)),
            _too_large,
            in_turn=True,
        ),
        Case(
            "twice",
            "a second and a third answer to a call, and one to none, reach nobody",
            _numbered(2),
            (_outputs(n=1), _outputs(n=2)),
            _twice,
            in_turn=True,
        ),
        Case(
            "bad_frames",
            "frames that are no value, and values that are no message, disturb no call",
            _numbered(1),
            (_outputs(n=1),),
            _bad_frames,
        ),
        Case(
            "malformed_responses",
            "responses without a good id disturb no call",
            _numbered(1),
            (_outputs(n=1),),
            _malformed_responses,
        ),
        Case(
            "malformed_answer",
            "a malformed response with the call's id is its error, or is waited out",
            _numbered(1),
            ({"$one_of": [_outputs(n=1), _ANY_ERROR]},),
            _malformed_answer,
        ),
        Case(
            "unreadable_answer",
            "a response that is not one whole value is the error of its call, at once",
            _numbered(1),
            (_ANY_ERROR,),
            _unreadable_answer,
        ),
        Case(
            "error_without_id",
            "an error with the id nil is for the log",
            _numbered(1),
            (_outputs(n=1),),
            _error_without_id,
        ),
        Case(
            "notifications",
            "notifications that nobody knows, that are malformed, or about no call of ours",
            _numbered(1),
            (_outputs(n=1),),
            _notifications,
        ),
        Case(
            "extra_keys",
            "keys to come in a result",
            _numbered(1),
            (_outputs(n=1),),
            _extra_keys,
        ),
        Case(
            "errors",
            "every code, with its retryable and its data",
            tuple({"inputs": {"code": code}} for code in ERRORS),
            tuple(
                {
                    "error": {
                        "code": code,
                        "retryable": code == "lm_error",
                        "data": {"detail": [code, 1]},
                    }
                }
                for code in ERRORS
            ),
            _errors,
        ),
        Case(
            "unknown_code",
            "a code to come is internal_error, and as retryable as it says",
            _numbered(1),
            ({"error": {"code": "internal_error", "retryable": True}},),
            _unknown_code,
        ),
        Case(
            "unknown_request",
            "a request of the bridge's that the client has no method for is answered with an error",
            _numbered(1),
            (_outputs(n=1),),
            _unknown_request,
        ),
        Case(
            "stream",
            "the chunks of two calls between one another; those of the last attempt are the value",
            (_stream_call(1), _stream_call(2)),
            (
                {"outputs": {"answer": "aá 😀", "n": 1}, "text": "aá 😀"},
                {"outputs": {"answer": "b", "n": 2}, "text": "b"},
            ),
            _stream,
            needs=("stream",),
        ),
        Case(
            "credit",
            "a stream of three times its window, which goes on when the client grants more",
            (_stream_call(),),
            ({"outputs": {"answer": _SAVED}, "text": {"$saved": "all"}},),
            _credit,
            needs=("stream",),
        ),
        Case(
            "late_chunks",
            "chunks that come after their answer reach nobody",
            (_stream_call(1), _stream_call(2)),
            ({"outputs": {"answer": "all"}, "text": "all"}, {"outputs": {"n": 2}, "text": ""}),
            _late_chunks,
            in_turn=True,
            needs=("stream",),
        ),
        Case(
            "cancel",
            "a call that is cancelled tells the bridge, and its answer reaches nobody else",
            ({"inputs": {"n": 1}, "cancel": True}, {"inputs": {"n": 2}}),
            (_CANCELLED, _outputs(n=2)),
            _cancel,
            in_turn=True,
            needs=("cancel",),
        ),
        Case(
            "cancel_crosses",
            "the same, with a result that crosses the cancel",
            ({"inputs": {"n": 1}, "cancel": True}, {"inputs": {"n": 2}}),
            (_CANCELLED, _outputs(n=2)),
            _cancel_crosses,
            in_turn=True,
            needs=("cancel",),
        ),
        Case(
            "timeout",
            "the deadline of a call goes with it",
            ({"inputs": {"n": 1}, "timeout_ms": _TIMEOUT_MS},),
            ({"error": {"code": "timeout"}},),
            _timeout,
            needs=("timeout",),
        ),
        Case(
            "tools",
            "the bridge calls a tool, with a request whose id is that of the call",
            _numbered(1),
            (_outputs(sum=5),),
            _tools,
            needs=("tools",),
        ),
        Case(
            "tools_at_once",
            "tools answer while another waits, which is then cancelled",
            _numbered(1),
            (_outputs(sums=[2, 4, 6, 8]),),
            _tools_at_once,
            needs=("tools",),
        ),
        Case(
            "tools_nest",
            "a tool makes a call of its own, which calls a tool",
            _numbered(1),
            (_outputs(n=6),),
            _tools_nest,
            needs=("tools",),
        ),
        Case(
            "tools_fail",
            "a tool that fails, and one that is not there, are errors; the next one works",
            _numbered(1),
            (_outputs(sum=2),),
            _tools_fail,
            needs=("tools",),
        ),
        Case(
            "dies",
            "the bridge ends before it answers",
            _numbered(1),
            (_ANY_ERROR,),
            _dies,
            is_last=True,
        ),
        Case(
            "dies_in_a_frame",
            "the bridge ends in the middle of its answer",
            _numbered(1),
            (_ANY_ERROR,),
            _dies_in_a_frame,
            is_last=True,
        ),
        Case(
            "prints",
            "text stands where frames should be, and the bridge ends",
            _numbered(1),
            (_ANY_ERROR,),
            _prints,
            is_last=True,
        ),
    )
}
