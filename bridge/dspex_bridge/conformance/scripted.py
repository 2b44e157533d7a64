"""`dspex conformance --serve`: a bridge that puts its client to the test.

It is spawned as a bridge is, answers what a client does when it starts, and plays the cases of
`client_cases.py` when their programs are executed. protocol/CONFORMANCE.md is the recipe for the
client's side. Everything that the client sends is judged on the way.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import DSPexError, InvalidParamsError, NotFoundError, ParseError
from dspex_protocol.framing import DEFAULT_MAX_FRAME_BYTES, FrameReader, Oversized, frame
from dspex_protocol.messages import (
    Notification,
    Request,
    Response,
    UnanswerableError,
    parse_message,
)
from dspex_protocol.signatures import signature_from_wire

from dspex_bridge.catalog import ADAPTERS, METRICS, MODULES, OPTIMIZERS, PROTOCOL_VERSION, VERSION
from dspex_bridge.methods import METHODS
from dspex_bridge.params import COMMON
from dspex_bridge.stdio import claim

from .client_cases import CASES, Case
from .patterns import MismatchError, match, shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "FailedError", "Script", "serve"]

_PREFIX = "conformance/"

# How long a script waits for what the client has to do next.
_BOUND_S = 10.0

# Late enough that a client which takes `ready` for a part of the handshake is found out.
_READY_AFTER_S = 0.2

_READ_BYTES = 64 * 1024


_NOTIFICATIONS = {"cancel": {"id": int}, "grant": {"id": int, "n": int}}


class FailedError(Exception):
    """The client did not do what the case asks of it."""


@dataclass(slots=True)
class Call:
    """An execute of the client's, of a case's program."""

    request: Request
    cancelled: threading.Event = field(default_factory=threading.Event)
    credit: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def id(self) -> int:
        return self.request.id

    @property
    def inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = self.request.params["inputs"]
        return inputs

    @property
    def params(self) -> dict[str, Any]:
        return self.request.params


@dataclass(slots=True)
class _Run:
    """A case that was begun, or that the client reports on."""

    case: Case
    is_begun: bool = False
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: queue.SimpleQueue[Call] = field(default_factory=queue.SimpleQueue)
    done: threading.Event = field(default_factory=threading.Event)
    failure: str | None = None
    problems: list[str] = field(default_factory=list)
    is_reported: bool = False


class Script:
    """What a case's script can do. Every wait is bounded, and raises FailedError."""

    def __init__(self, bridge: _Bridge, run: _Run) -> None:
        self._bridge = bridge
        self._run = run

    @property
    def client_max_frame_bytes(self) -> int:
        return self._bridge.client_max_frame_bytes

    def call(self) -> Call:
        """The next call of this case's program."""
        try:
            return self._run.calls.get(timeout=_BOUND_S)
        except queue.Empty:
            raise FailedError(f"a call is missing after {_BOUND_S:g} s") from None

    def calls(self, count: int) -> list[Call]:
        return [self.call() for _ in range(count)]

    def answer(self, call: Call, outputs: dict[str, Any]) -> None:
        self._bridge.settle(call)
        self.send([1, call.id, None, self.result(call, outputs)])

    def fail(self, call: Call, code: str, **more: Any) -> None:
        """Answers with an error; `more` are keys of it."""
        self._bridge.settle(call)
        error = {"code": code, "message": f"this is {code}", "retryable": False, "data": {}}
        self.send([1, call.id, {**error, **more}, None])

    def result(self, call: Call, outputs: dict[str, Any]) -> dict[str, Any]:
        """The result of an execute with these outputs."""
        return _executed(call.params["program"], outputs)

    def settle(self, call: Call) -> None:
        """For a script that writes the bytes of the answer itself."""
        self._bridge.settle(call)

    def send(self, *messages: Any) -> None:
        """All of them in one write."""
        self.write(b"".join(frame(encode(message)) for message in messages))

    def write(self, data: bytes) -> None:
        self._bridge.write(data)

    def ask(self, request: list[Any]) -> None:
        """Sends the client a request, well-formed or not; `reply` has its answer."""
        self._bridge.ask(request[1])
        self.send(request)

    def reply(self, request_id: int) -> Response:
        """The client's answer to a request of ours."""
        return self._bridge.reply(request_id)

    def require(self, is_met: bool, problem: str) -> None:
        if not is_met:
            raise FailedError(problem)

    def wait_for_cancel(self, call: Call) -> None:
        self.require(call.cancelled.wait(_BOUND_S), f"no cancel came within {_BOUND_S:g} s")

    def wait_for_credit(self, call: Call) -> None:
        """One more chunk than the window allows."""
        self.require(call.credit.acquire(timeout=_BOUND_S), f"no grant within {_BOUND_S:g} s")

    def exit(self) -> NoReturn:
        """The process ends here, as a crashed bridge does."""
        self._bridge.record(self._run)
        os._exit(1)


def serve(report: str | None) -> int:
    """Serves until the client shuts down or is gone. 0 where all went well, else 1."""
    wire = claim()
    os.set_blocking(wire.write_fd, True)
    bridge = _Bridge(wire.write_fd, report)
    reader = FrameReader()
    while not bridge.is_over and (data := os.read(wire.read_fd, _READ_BYTES)):
        for item in reader.feed(data):
            bridge.receive(item)
    return bridge.conclude()


class _Bridge:
    """Reading is one thread's; the scripts write from theirs."""

    def __init__(self, write_fd: int, report: str | None) -> None:
        self.client_max_frame_bytes = DEFAULT_MAX_FRAME_BYTES
        self.is_over = False
        self._write_fd = write_fd
        self._report = report
        self._writing = threading.Lock()
        self._runs: dict[str, _Run] = {}
        self._problems: list[str] = []
        self._open: dict[int, Call | None] = {}
        self._ever: set[int] = set()
        self._asked: dict[int, queue.SimpleQueue[Response]] = {}
        self._programs: dict[str, dict[str, Any]] = {}

    # What the scripts do

    def write(self, data: bytes) -> None:
        with self._writing:
            view = memoryview(data)
            while view:
                view = view[os.write(self._write_fd, view) :]

    def settle(self, call: Call) -> None:
        """From here on the client may use the id again."""
        self._open.pop(call.id, None)

    def fail(self, run: _Run, problem: str) -> None:
        """Its script is at an end before its time: nobody is left waiting for it."""
        run.problems.append(problem)
        run.failure = problem
        for call in list(self._open.values()):
            if call is not None and call.params["program"] == _PREFIX + run.case.name:
                self.refuse(call, problem)

    def refuse(self, call: Call, problem: str) -> None:
        """Answers a call that is open still: the reader and a script may both come to it."""
        if self._open.pop(call.id, None) is call:
            self._answer(Response(call.id, InvalidParamsError(problem), None))

    def ask(self, request_id: int) -> None:
        self._asked[request_id] = queue.SimpleQueue()

    def reply(self, request_id: int) -> Response:
        try:
            return self._asked[request_id].get(timeout=_BOUND_S)
        except queue.Empty:
            raise FailedError(f"no answer to request {request_id} of the bridge's") from None

    # What the client sends

    def receive(self, item: bytes | Oversized) -> None:
        if isinstance(item, Oversized):
            self._complain(f"a frame of {item.size} bytes, over the limit that it was told")
            return
        try:
            message = parse_message(decode(item))
        except (ParseError, DSPexError, UnanswerableError) as error:
            self._complain(f"a bad frame: {error}: {item[:64].hex(' ')}")
            return
        if isinstance(message, Request):
            self._request(message)
        elif isinstance(message, Response):
            self._response(message)
        else:
            self._notification(message)

    def _request(self, request: Request) -> None:
        if request.id in self._open:
            self._complain(f"the id {request.id} is in flight already")
            return
        self._open[request.id] = None
        self._ever.add(request.id)
        try:
            self._check(request)
            result = _HANDLERS[request.method](self, request)
        except DSPexError as error:
            self._complain(f"{request.method}: {error}")
            self._answer(Response(request.id, error, None))
            return
        if result is not None:
            self._answer(Response(request.id, None, result))

    def _check(self, request: Request) -> None:
        if request.method not in _HANDLERS:
            raise NotFoundError(f"there is no method {request.method!r}", data={"kind": "method"})
        own = {key: value for key, value in request.params.items() if key not in COMMON}
        METHODS[request.method].check(own, request.method)
        timeout_ms = request.params.get("timeout_ms")
        if timeout_ms is not None and (type(timeout_ms) is not int or timeout_ms < 1):
            raise InvalidParamsError(f"timeout_ms is an integer over 0, got {timeout_ms!r}")

    def _response(self, response: Response) -> None:
        if response.id is None:
            return  # it refuses a frame, as it should where a script sent a bad one
        waiting = self._asked.get(response.id)
        if waiting is None:
            self._complain(f"a response to request {response.id}, which was never sent")
        else:
            waiting.put(response)

    def _notification(self, notification: Notification) -> None:
        shape = _NOTIFICATIONS.get(notification.method)
        params = notification.params
        if shape is None or any(type(params.get(key)) is not kind for key, kind in shape.items()):
            self._complain(f"no notification for a bridge: {notification.method} {shown(params)}")
        elif params["id"] not in self._ever:
            self._complain(f"{notification.method} of {params['id']}, which was never sent")
        elif notification.method == "grant" and params["n"] < 1:
            self._complain(f"a grant of {params['n']}")
        else:
            call = self._open.get(params["id"])
            if call is None:
                return  # it crossed the answer
            if notification.method == "cancel":
                call.cancelled.set()
            else:
                call.credit.release(params["n"])

    # Methods

    def initialize(self, request: Request) -> dict[str, Any]:
        limit = request.params.get("max_frame_bytes")
        self.client_max_frame_bytes = DEFAULT_MAX_FRAME_BYTES if limit is None else limit
        ready = {"dspy": "0", "litellm": "0", "import_ms": 0.0, "unknown": None}
        timer = threading.Timer(_READY_AFTER_S, self._send, ([2, "ready", ready],))
        timer.daemon = True
        timer.start()
        return {
            "protocol_version": PROTOCOL_VERSION,
            "ready": False,
            "server": {
                "name": "conformance",
                "version": VERSION,
                "pid": os.getpid(),
                "python": "0",
            },
            "limits": {"max_frame_bytes": DEFAULT_MAX_FRAME_BYTES, "max_in_flight": 4096},
            "methods": list(_HANDLERS),
            "modules": list(MODULES),
            "optimizers": list(OPTIMIZERS),
            "metrics": list(METRICS),
            "adapters": list(ADAPTERS),
            "unknown": {"a key": "to come"},
        }

    def ping(self, request: Request) -> dict[str, Any]:
        return {"payload": request.params.get("payload")}

    def configure(self, request: Request) -> dict[str, Any]:
        lms = request.params.get("lms") or {}
        masked = {
            name: {key: "***" if key == "api_key" else value for key, value in lm.items()}
            for name, lm in lms.items()
        }
        return {"lms": masked, "default_lm": request.params.get("default_lm"), "adapter": "chat"}

    def create(self, request: Request) -> dict[str, Any]:
        signature = signature_from_wire(request.params["signature"])
        name: str = request.params.get("program") or f"program-{len(self._programs) + 1}"
        program = {
            "program": name,
            "signature": signature.to_map(),
            "module": request.params.get("module") or "predict",
            "input_schema": {"type": "object"},
            "output_schema": {"type": "object"},
            "revision": 1,
        }
        self._programs[name] = {**program, "string": signature.to_string()}
        return program

    def load(self, request: Request) -> dict[str, Any]:
        params = {**request.params["state"], "program": request.params.get("program")}
        return self.create(Request(request.id, "create", params))

    def dump(self, request: Request) -> dict[str, Any]:
        program = self._program(request)
        kept = {key: program[key] for key in ("signature", "module")}
        return {"state": {"format_version": 1, **kept}}

    def describe(self, request: Request) -> dict[str, Any]:
        program = {key: value for key, value in self._program(request).items() if key != "string"}
        return {
            **program,
            **dict.fromkeys(("instructions", "lm", "adapter", "base_program")),
            "demos": [],
            "config": {},
            "variables": {},
            "counters": {"executions": 0, "errors": 0},
        }

    def list(self, request: Request) -> dict[str, Any]:
        prefix = request.params.get("prefix") or ""
        return {
            "programs": [
                {
                    "program": name,
                    "module": program["module"],
                    "signature": program["string"],
                    "revision": 1,
                    "executions": 0,
                }
                for name, program in self._programs.items()
                if name.startswith(prefix)
            ]
        }

    def delete(self, request: Request) -> dict[str, Any]:
        del self._programs[self._program(request)["program"]]
        return {"deleted": True}

    def stats(self, _request: Request) -> dict[str, Any]:
        nothing = dict.fromkeys(("uptime_ms", "queued", "memory_bytes", "stuck"), 0)
        return {
            **nothing,
            "requests": {},
            "in_flight": len(self._open),
            "programs": len(self._programs),
            "lms": {},
        }

    def shutdown(self, _request: Request) -> dict[str, Any]:
        self.is_over = True
        return {"completed": 0, "cancelled": len(self._open) - 1}

    def execute(self, request: Request) -> dict[str, Any] | None:
        program = request.params["program"]
        name = program.removeprefix(_PREFIX) if isinstance(program, str) else ""
        if name in _QUESTIONS:
            # They wait for scripts, which wait for what is read here.
            _start(lambda: self._answer_question(request, _QUESTIONS[name]))
            return None
        if name not in CASES:
            raise NotFoundError(f"there is no case {program!r}", data={"kind": "program"})
        call = Call(request)
        self._open[request.id] = call
        run = self._run({"case": name})
        if not run.is_begun:
            run.is_begun = True
            _start(lambda: _play(self, run))
        run.calls.put(call)
        if run.failure is not None:  # it may have failed while this one came
            self.refuse(call, run.failure)
        run.arrived.release()
        return None

    # The cases

    def cases(self, _inputs: dict[str, Any]) -> dict[str, Any]:
        return {"cases": [case.told() for case in CASES.values()]}

    def arrived(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Once a call of the case has come, so that the client can cancel it in flight."""
        run = self._run(inputs)
        return {"ok": run.arrived.acquire(timeout=_BOUND_S)}

    def saw(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What came of a case's calls at the client. The case may have ended an earlier process."""
        run = self._run(inputs)
        if not (run.case.is_last or run.done.wait(_BOUND_S)) or not (
            run.failure or run.calls.empty()
        ):
            run.problems.append("its script is not over")
        try:
            match(list(run.case.expected), inputs.get("outcomes"), {}, "the outcomes")
        except MismatchError as error:
            run.problems.append(str(error))
        run.is_reported = True
        run.problems += self._problems
        self._problems = []
        self.record(run)
        return {"ok": not run.problems, "problems": run.problems}

    def record(self, run: _Run) -> None:
        """Writes a line of the report: what a case that ends the process cannot say itself."""
        if self._report is not None:
            line = {"case": run.case.name, "ok": not run.problems, "problems": run.problems}
            with open(self._report, "a", encoding="utf-8") as file:  # noqa: PTH123 - one line
                file.write(f"{json.dumps(line)}\n")

    def conclude(self) -> int:
        """The exit status; what was wrong stands on stderr."""
        problems = list(self._problems)
        for name, run in self._runs.items():
            problems += [f"{name}: {problem}" for problem in run.problems]
            if not run.is_reported:
                problems.append(f"{name}: nobody reported what came of it")
        for problem in problems:
            sys.stderr.write(f"dspex conformance: {problem}\n")
        return 1 if problems else 0

    def _run(self, inputs: dict[str, Any]) -> _Run:
        """The run of the case that a question names, begun or not."""
        name = inputs.get("case")
        if name not in CASES:
            raise NotFoundError(f"there is no case {name!r}", data={"kind": "case"})
        return self._runs.setdefault(name, _Run(CASES[name]))

    def _program(self, request: Request) -> dict[str, Any]:
        name = request.params["program"]
        if name not in self._programs:
            raise NotFoundError(f"there is no program {name!r}", data={"kind": "program"})
        return self._programs[name]

    def _answer_question(self, request: Request, question: _Question) -> None:
        try:
            outputs = question(self, request.params["inputs"])
        except DSPexError as error:
            self._answer(Response(request.id, error, None))
        else:
            result = _executed(request.params["program"], outputs)
            self._answer(Response(request.id, None, result))

    def _answer(self, response: Response) -> None:
        if response.id is not None:
            self._open.pop(response.id, None)
        self._send(response.to_wire())

    def _send(self, message: Any) -> None:
        self.write(frame(encode(message)))

    def _complain(self, problem: str) -> None:
        self._problems.append(f"the client sent {problem}")


def _start(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _play(bridge: _Bridge, run: _Run) -> None:
    try:
        run.case.script(Script(bridge, run))
    except (FailedError, MismatchError) as error:
        bridge.fail(run, str(error))
    except (LookupError, TypeError, ValueError) as error:
        bridge.fail(
            run, f"what came is not what the case asks for ({type(error).__name__}: {error})"
        )
    run.done.set()


def _executed(program: str, outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "outputs": outputs,
        "program": program,
        "lm": "conformance",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "cost_usd": None,
        "duration_ms": 0.0,
        "cached": False,
    }


_HANDLERS: dict[str, Callable[[_Bridge, Request], dict[str, Any] | None]] = {
    "initialize": _Bridge.initialize,
    "ping": _Bridge.ping,
    "configure": _Bridge.configure,
    "create": _Bridge.create,
    "execute": _Bridge.execute,
    "describe": _Bridge.describe,
    "list": _Bridge.list,
    "delete": _Bridge.delete,
    "dump": _Bridge.dump,
    "load": _Bridge.load,
    "stats": _Bridge.stats,
    "shutdown": _Bridge.shutdown,
}

_Question: TypeAlias = "Callable[[_Bridge, dict[str, Any]], dict[str, Any]]"

_QUESTIONS: dict[str, _Question] = {
    "cases": _Bridge.cases,
    "arrived": _Bridge.arrived,
    "saw": _Bridge.saw,
}
