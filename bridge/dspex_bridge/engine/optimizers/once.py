"""Each example is run once, however long it takes.

DSPy's executor gives one that has run for two minutes to a second thread as well: its LM calls are
paid again, and its tools do again what they do. An LM call that hangs has a time limit of its own;
a tool that does, the run's.
"""

from __future__ import annotations

from typing import Any

from dspy.utils.parallelizer import ParallelExecutor

__all__ = ["run_examples_once"]

_execute = ParallelExecutor.execute


def run_examples_once() -> None:
    """For all of this process, from here on."""
    ParallelExecutor.execute = _execute_once


def _execute_once(executor: Any, function: Any, data: Any) -> Any:
    executor.timeout = 0
    return _execute(executor, function, data)
