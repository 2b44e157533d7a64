"""The tools and metrics of a test, which its bridge calls."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import NotFoundError, ToolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_protocol.peer import Handler

__all__ = ["Callbacks"]


class Callbacks:
    """Functions by name. What they raise is told to the bridge."""

    def __init__(self) -> None:
        self.tools: dict[str, Callable[..., Any]] = {}
        self.metrics: dict[str, Callable[..., Any]] = {}

    @property
    def handlers(self) -> Mapping[str, Handler]:
        return {"call_tool": self._call_tool, "call_metric": self._call_metric}

    def clear(self) -> None:
        self.tools.clear()
        self.metrics.clear()

    async def _call_tool(self, params: dict[str, Any]) -> Any:
        name = params["tool"]
        function = self.tools.get(name)
        if function is None:
            raise NotFoundError(
                f"this test has no tool {name!r}: give it one with dspex.tool",
                data={"kind": "tool", "name": name},
            )
        return await _called(name, functools.partial(function, **params["args"]))

    async def _call_metric(self, params: dict[str, Any]) -> Any:
        name = params["metric"]
        function = self.metrics.get(name)
        if function is None:
            raise NotFoundError(
                f"this test has no metric {name!r}: give it one with dspex.metric",
                data={"kind": "metric", "name": name},
            )
        about = (params["example"], params["prediction"], params.get("trace"))
        return await _called(name, functools.partial(function, *about))


async def _called(name: str, function: functools.partial[Any]) -> Any:
    """What a function of the test's returns. What it raises is told to the bridge."""
    try:
        if inspect.iscoroutinefunction(function):
            return await function()
        return await _in_thread(function, name)
    except Exception as error:
        raise ToolError(f"{type(error).__name__}: {error}") from error


def _in_thread(function: Callable[[], Any], name: str) -> Awaitable[Any]:
    """Its result. A daemon thread and no pool, whose end would wait for a tool that hangs."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if result.done():  # it was cancelled
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)

    def work() -> None:
        try:
            value, error = function(), None
        except Exception as raised:  # noqa: BLE001 - told to the bridge
            value, error = None, raised
        loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name=f"callback {name}", daemon=True).start()
    return result
