"""The bridge's client for tests that have an asyncio loop of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dspex_protocol.client import Client

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Coroutine, Mapping
    from concurrent.futures import Future

    from dspex_protocol.messages import Notification
    from dspex_protocol.peer import Listener

    from .background import Background

__all__ = ["ClientElsewhere"]

T = TypeVar("T")


class Submit(Protocol):
    """Sends a request from the thread of the connection; cancelling the future cancels it."""

    def __call__(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        *,
        timeout_ms: int | None,
        listener: Listener | None,
    ) -> Future[Any]: ...


class ClientElsewhere(Client):
    """A client whose connection belongs to the loop of another thread."""

    def __init__(
        self, submit: Submit, background: Background, client: Callable[[], Client]
    ) -> None:
        """`client` is asked each time: its process may be replaced."""
        self._submit = submit
        self._background = background
        self._of_the_thread = client

    @property
    def process(self) -> Process | None:  # type: ignore[override]
        return self._client.process

    @property
    def _client(self) -> Client:
        return self._of_the_thread()

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
    ) -> Any:
        loop = asyncio.get_running_loop()

        def hear(notification: Notification) -> None:
            assert listener is not None  # noqa: S101 - else it is not passed on
            loop.call_soon_threadsafe(listener, notification)

        future = self._submit(
            method, params, timeout_ms=timeout_ms, listener=None if listener is None else hear
        )
        return await asyncio.wrap_future(future)

    async def initialize(self, *, log_level: str | None = None) -> dict[str, Any]:
        return await self._there(self._client.initialize(log_level=log_level))

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        self._background.call(self._client.notify, method, params)

    async def close(self) -> None:
        await self._there(self._client.close())

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._background.submit(work))
