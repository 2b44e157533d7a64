"""What the methods of one bridge share."""

from __future__ import annotations

import threading
import time
from collections import deque

from dspex_protocol.connection import Connection
from dspex_protocol.errors import InternalError
from dspex_protocol.framing import DEFAULT_MAX_FRAME_BYTES

from .callbacks import Callbacks
from .health import DEFAULT_MAX_STUCK, memory_bytes, tree_bytes
from .logs import Log
from .outflow import Outflow
from .redaction import Redactor
from .runner import Runner
from .state_dir import StateDir
from .stats import RequestStats
from .timers import Timers
from .writer import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dspex_protocol.errors import DSPexError, UnavailableError

    from .dispatch import Dispatcher
    from .engine import Engine
    from .jobs.pool import Jobs
    from .programs.registry import Registry

__all__ = ["DEFAULT_MAX_IN_FLIGHT", "Host", "Options"]

# A thousand executes at once is what one process is meant for; each costs it about 100 kB.
DEFAULT_MAX_IN_FLIGHT = 4096

# A long turn of the loop sends as soon as there is so much: the client reads it meanwhile. One of
# many short answers has less.
_TURN_BYTES = 16 * 1024

# After the answer to `shutdown` the process is gone within a second, whether it was read or not.
_LAST_WRITE_S = 0.5


class Options:
    """What the command line sets."""

    __slots__ = (
        *("is_fork_server", "log_level", "max_frame_bytes", "max_in_flight", "max_memory_mb"),
        *("max_stuck", "record", "state_dir"),
    )

    def __init__(
        self,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        log_level: str = "warning",
        state_dir: StateDir | None = None,
        record: str | None = None,
        max_memory_mb: int | None = None,
        max_stuck: int = DEFAULT_MAX_STUCK,
        is_fork_server: bool = False,
    ) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.max_in_flight = max_in_flight
        self.log_level = log_level
        self.state_dir = state_dir or StateDir()
        self.record = record
        self.max_memory_mb = max_memory_mb
        self.max_stuck = max_stuck
        self.is_fork_server = is_fork_server


class Host:
    """One bridge: a connection, the threads that serve it, and, once imported, DSPy."""

    dispatcher: Dispatcher

    def __init__(
        self, write_fd: int, options: Options, exit_process: Callable[[int], None]
    ) -> None:
        self.options = options
        self.exit_process = exit_process
        self.started = time.monotonic()
        self.state_dir = options.state_dir
        self.redactor = Redactor()
        self.log = Log(self.redactor, options.log_level)
        self.connection = Connection(options.max_frame_bytes)
        self.writer = Writer(write_fd, self.connection, self._broken)
        self.outflow = Outflow(self.writer)
        self.runner = Runner(self.writer.flush)
        self.timers = Timers()
        self.callbacks = Callbacks(self)
        self.stats = RequestStats()
        self.engine: Engine | None = None
        self.programs: Registry | None = None
        self.unavailable: UnavailableError | None = None
        self._log_events: deque[dict[str, Any]] = deque()
        self._jobs: Jobs | None = None
        self._reader = threading.get_ident()
        # Held by the reader while it handles what one read brought: each request of it is
        # answered before the process ends.
        self.batch = threading.Lock()
        self.is_leaving = False

    @property
    def max_in_flight(self) -> int:
        return self.options.max_in_flight

    def tell_log(self, event: dict[str, Any]) -> None:
        """Sends a `log` event: now, or where that would have to wait, with whatever is sent next.
        Whoever logs may be a finalizer, in the middle of sending something else."""
        self._log_events.append(event)
        if self.send_log_events():
            self.flush()

    def send_log_events(self) -> bool:
        """Queues the events that wait; False where that would have to wait."""
        while self._log_events:
            try:
                event = self._log_events.popleft()
            except IndexError:  # another thread took the last one
                return True
            if not self.connection.offer_notification("log", event):
                self._log_events.appendleft(event)
                return False
        return True

    def flush(self) -> None:
        """Sends what is queued: at once, but for what the reader and the event loop have. Those
        send all that comes of one read, or of one turn of the loop, together, the loop in pieces of
        some size."""
        if self._log_events:
            self.send_log_events()
        if threading.get_ident() == self._reader:
            return
        if not self.runner.in_turn() or self.connection.queued_bytes >= _TURN_BYTES:
            self.writer.flush()

    def translate(self, error: BaseException) -> DSPexError | None:
        """The wire's error for one of DSPy's, or None for one that nobody knows."""
        return None if self.engine is None else self.engine.translate(error)

    @property
    def jobs(self) -> Jobs:
        """Work in processes of its own. For the event loop's thread; nothing is started before the
        first job."""
        if self._jobs is None:
            from .jobs.pool import Jobs

            self._jobs = Jobs()
        return self._jobs

    def memory_bytes(self) -> int:
        """The memory of this process and of its jobs. For any thread."""
        root = None if self._jobs is None else self._jobs.root_pid
        return memory_bytes() + (0 if root is None else tree_bytes(root))

    def require_engine(self) -> Engine:
        if self.engine is None:
            raise self.unavailable or InternalError("DSPy is not imported yet")
        return self.engine

    def require_programs(self) -> Registry:
        if self.programs is None:
            raise self.unavailable or InternalError("DSPy is not imported yet")
        return self.programs

    def leave(self) -> None:
        """Sends what is queued, for as long as the client may take, and exits with status 0.

        Within a batch of the reader's own, when that is done.
        """
        if threading.get_ident() == self._reader and self.batch.locked():
            self.is_leaving = True
            return
        with self.batch:
            self.writer.flush()
            self.writer.wait_until_below(0, timeout=_LAST_WRITE_S)
            if self.engine is not None and self.engine.tracing is not None:
                self.engine.tracing.flush()
            self.exit_process(0)

    def _broken(self, error: OSError) -> None:
        self.log.info(f"the client closed the connection ({error.strerror})")
        self.exit_process(0)
