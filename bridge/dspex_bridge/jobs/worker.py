"""What runs in a worker: one job, named by the first request, and then the end of the process."""

from __future__ import annotations

import random
import sys
import traceback
from typing import TYPE_CHECKING

from dspex_protocol.errors import DSPexError, InternalError

from dspex_bridge.engine import errors, logs, type_markers
from dspex_bridge.engine.modules import facade
from dspex_bridge.engine.remote import RemoteLMError
from dspex_bridge.exceptions import describe

from .kinds import CHATTY, KINDS
from .link import Link
from .output import JobLog

if TYPE_CHECKING:
    import socket

__all__ = ["main"]

facade.read_types_by_our_grammar()


def main(sock: socket.socket) -> None:
    """Does the job that `sock` asks for, and exits; what went wrong with it is its answer."""
    link = Link(sock)
    request = link.first_request()
    # Forks of one process would otherwise draw the same numbers.
    random.seed()
    type_markers.make_unguessable()
    log = JobLog(link, is_chatty=request.method in CHATTY)
    logs.join(log)
    try:
        result = KINDS[request.method](request, link)
        sys.stdout.flush()
        log.flush()
        link.answer(request, result)
    except BaseException as error:  # noqa: BLE001 - the boundary: whatever it is, the bridge is told
        known = _to_wire_error(error, log)
        log.flush()
        link.fail(request, known)
    link.end()


def _to_wire_error(error: BaseException, log: JobLog) -> DSPexError:
    if isinstance(error, RemoteLMError):
        return error.wire_error
    known = error if isinstance(error, DSPexError) else errors.translate(error)
    if known is None:
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.write("error", "dspex", f"a job failed: {describe(error)}\n{trace}")
        known = InternalError(describe(error))
    return known
