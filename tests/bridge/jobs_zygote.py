"""A zygote whose workers also know kinds of jobs that misbehave."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dspex_bridge.jobs import zygote
from dspex_bridge.jobs.kinds import KINDS
from dspex_bridge.jobs.optimization import Optimization
from dspex_protocol.errors import InternalError

if TYPE_CHECKING:
    from dspex_bridge.jobs.link import Link
    from dspex_protocol.messages import Request


def echo(request: Request, _link: Link) -> Any:
    return request.params["value"]


def spin(_request: Request, link: Link) -> None:
    link.notify("here", {"pid": os.getpid()})
    while True:
        pass


def hold_interpreter(_request: Request, link: Link) -> None:
    """Sleeps in C with the interpreter's lock held: no thread of this process runs again."""
    link.notify("here", {"pid": os.getpid()})
    ctypes.PyDLL(None).sleep(3600)


def die(request: Request, _link: Link) -> None:
    os.kill(os.getpid(), request.params["signal"])


def fail(_request: Request, _link: Link) -> None:
    raise ZeroDivisionError("by design")


def talk(_request: Request, _link: Link) -> None:
    sys.stdout.write("a print\nand another, unfinished")
    sys.stdout.write(" until now\n")
    logging.getLogger("library").warning("a log record")


def until_stopped(_request: Request, link: Link) -> str:
    reason: Future[str] = Future()
    link.on_stop(reason.set_result)
    return reason.result()


def ask(request: Request, link: Link) -> Any:
    return link.request("question", {"value": request.params["value"]}).result()


def ask_and_leave(request: Request, link: Link) -> Any:
    """Done before its question is answered."""
    link.request("question", {"pid": os.getpid()})
    return request.params["value"]


def ask_and_give_up(request: Request, link: Link) -> None:
    """Ended by an error, in the middle of it, as an optimizer is; nobody waits for its question."""
    run = Optimization.__new__(Optimization)
    run._link, run._request = link, request
    link.request("question", {"pid": os.getpid()})
    run._end(InternalError("by design"))


def ask_and_stop(request: Request, link: Link) -> None:
    """Ends when it is asked to, on the thread that reads."""
    run = Optimization.__new__(Optimization)
    run._link, run._request = link, request
    run.tracker = SimpleNamespace(best=lambda: "best")  # type: ignore[assignment]
    run.result = lambda best: {"best": best}  # type: ignore[assignment,method-assign,misc]
    link.on_stop(run._answer_best)
    link.request("question", {"pid": os.getpid()})
    threading.Event().wait()


def environment(_request: Request, _link: Link) -> dict[str, str]:
    return dict(os.environ)


def ask_tool(request: Request, link: Link) -> Any:
    return link.request("call_tool", {"value": request.params["value"]}).result()


def ask_tools(request: Request, link: Link) -> Any:
    """Several at once, as an optimizer's threads do."""
    asked = [link.request("call_tool", {"value": value}) for value in request.params["values"]]
    return [one.result() for one in asked]


def log_in_collections(request: Request, link: Link) -> Any:
    """Python collects garbage wherever something is made, and what is collected may log."""
    logger = logging.getLogger("library")
    left = 0

    def told(phase: str, _info: Any) -> None:
        # So many for a question: what is logged makes things in its turn, and without an end the
        # log would leave no time for the questions.
        nonlocal left
        if left > 0:
            left -= 1
            logger.warning("collected: %s", phase)

    gc.callbacks.append(told)
    gc.set_threshold(1)
    answers = []
    for i in range(request.params["count"]):
        left = 50
        answers.append(link.request("question", {"value": i}).result())
    return answers


def hold_memory(request: Request, link: Link) -> None:
    """Here, and as much in a process of this one's, until the question is answered."""
    size = request.params["bytes"]
    code = f"held = bytearray(b'x') * {size}; print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        held = bytearray(b"x") * size
        link.request("question", {"value": len(held)}).result()


KINDS.update(
    log_in_collections=log_in_collections,
    ask_tool=ask_tool,
    ask_tools=ask_tools,
    hold_memory=hold_memory,
    echo=echo,
    spin=spin,
    hold_interpreter=hold_interpreter,
    die=die,
    fail=fail,
    talk=talk,
    ask=ask,
    until_stopped=until_stopped,
    ask_and_give_up=ask_and_give_up,
    ask_and_leave=ask_and_leave,
    ask_and_stop=ask_and_stop,
    environment=environment,
)

if __name__ == "__main__":
    zygote.main(sys.argv[1:])
