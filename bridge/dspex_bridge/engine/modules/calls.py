"""How our modules call what is inside them: on the event loop, or without one for an optimizer.

DSPy wants a `forward` and an `aforward`; each of our modules is one coroutine, and a `Mode` says
how its calls are made.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

__all__ = ["AT_ONCE", "ON_LOOP", "Mode", "result_of", "together"]

T = TypeVar("T")


class Mode:
    """Calls on the event loop: cancelled with their task, and concurrent where they can be."""

    async def call(self, callee: Any, /, *args: Any, **inputs: Any) -> Any:
        """The result of a DSPy module, or of an embedder."""
        return await callee.acall(*args, **inputs)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return await together(coroutines)

    async def wait(self, work: Awaitable[T]) -> T:
        """The result of what can only wait: a metric of the client's."""
        return await work


class _AtOnce(Mode):
    """Nothing here waits on an event loop of ours, so `result_of` can run it."""

    async def call(self, callee: Any, /, *args: Any, **inputs: Any) -> Any:
        return callee(*args, **inputs)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return [await coroutine for coroutine in coroutines]

    async def wait(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        # An optimizer's threads have no loop.
        return asyncio.run(whole())


ON_LOOP = Mode()
AT_ONCE: Mode = _AtOnce()


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine whose calls are made `AT_ONCE`."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a module that was called without an event loop waits for one")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. The first failure cancels the others and is raised once they ended."""
    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise failure
