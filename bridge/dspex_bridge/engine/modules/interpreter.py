"""DSPy's interpreter (Python in WebAssembly, in Deno) with a limit on how long code may run."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import RequestTimeoutError
from dspy.primitives.code_interpreter import CodeInterpreterError
from dspy.primitives.python_interpreter import PythonInterpreter, _deno_subprocess_env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Interpreter"]

# Deno compiles 10 MB of WebAssembly, which takes a busy machine half a minute; where its packages
# cannot be had, it may also wait for them.
_START_LIMIT_S = 120.0

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child: ends with the thread that spawned it, which in a job is the process."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Interpreter(PythonInterpreter):  # type: ignore[misc]  # dspy ships no types
    """Kills Deno when a piece of code has run for `limit_s` seconds, those spent in tools and LM
    calls not counted. Raises RequestTimeoutError then: what the code had computed is gone."""

    def __init__(self, limit_s: float, tools: dict[str, Callable[..., Any]] | None = None) -> None:
        super().__init__(tools=tools)
        self._limit_s = limit_s
        self._clock: _Clock | None = None

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        self.start()
        with self._limited(self._limit_s, "a piece of code ran for"):
            return super().execute(code, variables)

    def invoke_tool(self, tool_name: str, kwargs: dict[str, Any]) -> Any:
        if self._clock is None:
            return super().invoke_tool(tool_name, kwargs)
        with self._clock.stopped():
            return super().invoke_tool(tool_name, kwargs)

    def shutdown(self) -> None:
        process: Any = self.deno_process
        super().shutdown()
        if process is not None:
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(BrokenPipeError):  # what was still to be written
                    pipe.close()

    def _spawn_process(self) -> None:
        # DSPy's own would leave it running where this process is killed.
        self.deno_process = subprocess.Popen(  # noqa: S603 - the command is DSPy's
            self.deno_command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="UTF-8",
            env=_deno_subprocess_env(),
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, looked up before
        )
        with self._limited(_START_LIMIT_S, "Deno was not ready after"):
            self._health_check()

    @contextmanager
    def _limited(self, limit_s: float, what: str) -> Iterator[None]:
        clock = self._clock = _Clock(limit_s, self._kill)
        clock.start()
        try:
            yield
        except CodeInterpreterError:
            if clock.is_over:
                raise RequestTimeoutError(f"{what} {limit_s:g} s, which is the limit") from None
            raise
        finally:
            clock.stop()
            self._clock = None

    def _kill(self) -> None:
        process = self.deno_process
        if process is not None:
            process.kill()


class _Clock:
    """Calls `on_end` once it has run for `limit_s` seconds; it can be stopped and started."""

    def __init__(self, limit_s: float, on_end: Callable[[], None]) -> None:
        self.is_over = False
        self._left_s = limit_s
        self._on_end = on_end
        self._since = 0.0
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        self._since = time.monotonic()
        self._timer = threading.Timer(max(0.0, self._left_s), self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s -= time.monotonic() - self._since

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _end(self) -> None:
        self.is_over = True
        self._on_end()
