"""A zygote whose workers also know kinds of jobs that misbehave."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from dspex_bridge.jobs import zygote
from dspex_bridge.jobs.kinds import KINDS

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


def ask(request: Request, link: Link) -> Any:
    return link.request("question", {"value": request.params["value"]}).result()


def environment(_request: Request, _link: Link) -> dict[str, str]:
    return dict(os.environ)


KINDS.update(
    echo=echo,
    spin=spin,
    hold_interpreter=hold_interpreter,
    die=die,
    fail=fail,
    talk=talk,
    ask=ask,
    environment=environment,
)

if __name__ == "__main__":
    zygote.main(sys.argv[1:])
