"""Serves one connection: reads, hands over to the dispatcher, and imports DSPy meanwhile."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
import time

from dspex_protocol.connection import Answered, Ignored, Refused
from dspex_protocol.messages import Notification, Request

from .dispatch import Dispatcher
from .exceptions import describe
from .health import Health
from .heap import keep_freed_memory
from .host import Host, Options
from .methods.control import DEFAULT_DRAIN_MS
from .writer import BACKLOG_HIGH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from dspex_protocol.connection import Event

    from .stdio import Wire

__all__ = ["load", "make_host", "read", "serve", "serve_once"]

# Long enough for a client's first request to arrive, short enough not to delay a silent one's.
_GREETING_MS = 5

# Reads of 1 MiB cost 10 µs more a message than these: the buffer is allocated for each.
_READ_BYTES = 64 * 1024

# So long may a socket's client take to read the last of it. The process is gone within a second of
# its answer to `shutdown`, whether that was read or not.
_LAST_READ_S = 0.4

# Of the reason why DSPy cannot be imported: enough to act on, and less than any frame's limit.
_MAX_REASON_CHARS = 500

# A reply beside a busy Python thread takes as long as that thread may keep the interpreter: 5 ms
# by default.
_SWITCH_INTERVAL_S = 0.0001

# A call makes some hundreds of objects, which live until its LM answers: with Python's thresholds a
# tenth of the processor time goes into looking at those of the calls under way.
_GC_THRESHOLDS = (5_000, 20, 20)


def make_host(wire: Wire, options: Options) -> Host:
    """A bridge that is not served yet. Nothing is read or written before it is."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*_GC_THRESHOLDS)

    def exit_process(status: int) -> None:
        wire.finish(_LAST_READ_S)
        os._exit(status)

    host = Host(wire.write_fd, options, exit_process)
    host.dispatcher = Dispatcher(host)
    return host


def serve(host: Host, read_fd: int, ready: dict[str, Any] | None = None) -> NoReturn:
    """Serves until the client is gone or asks for shutdown; the process exits here.

    `ready` is what `load` has returned, where DSPy is there already.
    """
    host.started = time.monotonic()
    # A client that introduces itself at once is answered before the imports take the processor.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _shut_down(host))
    if ready is not None:
        _tell_ready(host, ready)
    poller = select.poll()
    poller.register(read_fd, select.POLLIN)
    is_greeted = bool(poller.poll(_GREETING_MS)) and serve_once(host, read_fd)
    Health(host).watch()
    if ready is None:
        host.runner.start()
        threading.Thread(target=_load, args=(host,), name="dspex-import", daemon=True).start()
    while is_greeted or serve_once(host, read_fd):
        is_greeted = False
    # The client is gone: nobody is left to answer. Threads that block would hang a normal exit.
    os._exit(0)


def serve_once(host: Host, fd: int) -> bool:
    """Handles what one read brings; False at the end of the stream."""
    data = read(fd)
    host.batch.acquire()  # `with` takes twice as long, and this is done for each ping
    try:
        for event in host.connection.events(data, host.dispatcher.answer_at_once):
            if isinstance(event, Request):
                host.dispatcher.request(event)
            else:
                _handle(host, event)
        host.send_log_events()
        host.writer.flush()
    finally:
        host.batch.release()
    if host.is_leaving:
        host.leave()
    if host.writer.backlog > BACKLOG_HIGH:
        host.writer.wait_until_below(BACKLOG_HIGH // 2)
    return bool(data)


def read(fd: int) -> bytes:
    """What is there, waiting for it; nothing at the end of the stream."""
    while True:
        try:
            return os.read(fd, _READ_BYTES)
        except ConnectionResetError:  # a socket's way to say end of file
            return b""
        except BlockingIOError:
            # Where stdin and stdout are one socket, neither blocks once the other does not.
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll()


def _handle(host: Host, event: Event) -> None:
    if isinstance(event, Notification):
        host.dispatcher.notification(event)
    elif isinstance(event, Answered):
        host.callbacks.answered(event)
    elif isinstance(event, Refused):
        host.log.warning(f"a bad frame was refused: {event.error}", event.id)
    elif isinstance(event, Ignored):
        host.log.warning(event.reason)


def _shut_down(host: Host) -> None:
    """SIGTERM: the same as a `shutdown` request that nobody waits for.

    A signal comes while this thread may hold any lock, and the loop may stand still: the work is a
    thread's of its own.
    """
    threading.Thread(
        target=host.dispatcher.shut_down,
        args=(DEFAULT_DRAIN_MS, lambda _counts: host.leave()),
        name="dspex-shutdown",
        daemon=True,
    ).start()


def _load(host: Host) -> None:
    """Off the reader's and the loop's thread."""
    _tell_ready(host, load(host))


def load(host: Host) -> dict[str, Any]:
    """Imports DSPy; what `ready` is to tell of that."""
    from dspex_protocol.errors import UnavailableError

    started = time.monotonic()
    try:
        from .engine import Engine
        from .programs.registry import Registry

        host.engine = Engine(host.log, host.redactor, host.state_dir, host.options.record)
        host.programs = Registry(host.engine)
        # What was imported stays: a collection need not look at it again. Large frames make many
        # objects at once, and most of their time was collections.
        gc.freeze()
        keep_freed_memory()
        return {
            **host.engine.versions(),
            "import_ms": round((time.monotonic() - started) * 1000, 3),
        }
    except BaseException as error:  # noqa: BLE001 - told to the client, whatever it is
        reason = describe(error)[:_MAX_REASON_CHARS]
        host.unavailable = UnavailableError(
            f"DSPy could not be imported ({reason}); "
            "install it with: pip install 'dspy>=3.4.1,<3.5'"
        )
        host.log.error(str(host.unavailable))
        return {"error": host.unavailable.to_wire()}


def _tell_ready(host: Host, ready: dict[str, Any]) -> None:
    try:
        host.connection.send_notification("ready", ready)
        host.send_log_events()
        host.writer.flush()
    finally:
        # Whatever else: those who wait for the import are answered.
        host.runner.submit(host.dispatcher.ready)
