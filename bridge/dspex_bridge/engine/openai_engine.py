"""Calls of `openai/…` models, at OpenAI or any address that speaks its chat API, without DSPy's
detours.

DSPy's own engine finds out with each call which provider a model is of, in a thread, and makes the
request twice. Here the provider is known beforehand. What puts a request into OpenAI's form,
sends it, reads the answer and names the failures is DSPy's own: all of it means the same.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspy._vendor.lm15.transports import StdlibAsyncTransport  # nothing re-exports it
from dspy.clients.backend_selection import select_backend
from dspy.clients.capabilities import capabilities
from dspy.clients.costs import estimate_cost
from dspy.clients.engines.base import validate_request
from dspy.clients.engines.lm15_engine import timeouts_for
from dspy.clients.model_metadata import apreload
from dspy.lm15 import AsyncLMRouter, Request, Response, RouterConfig

from .metering import CallRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import dspy

__all__ = ["MAX_CONNECTIONS", "AsyncOpenAIEngine", "OpenAIEngine", "cost_of", "is_served"]

# DSPy's name for OpenAI's chat API, whatever the address.
_PROVIDER = "openai-chat"

# Of one LM: as many calls may be under way.
MAX_CONNECTIONS = 1024

# Files that a bridge has open beside these connections. A process usually may have 1,024.
_OTHER_FILES = 512


def is_served(lm: dspy.LM) -> bool:
    """Whether this is what DSPy's own engine would do with the LM, in a longer way."""
    selection = select_backend(lm)
    found = selection.resolution
    return bool(selection.native and found.provider == _PROVIDER and not found.declared)


def cost_of(answered: Response | Sequence[Response], request: Request) -> float | None:
    """Dollars, by DSPy's price table; None for a model that is not in it."""
    responses = (answered,) if isinstance(answered, Response) else answered
    asked = {"provider": _PROVIDER, "requested_model": request.model, "request": request}
    costs = [estimate_cost(response, **asked)[0] for response in responses]
    return None if None in costs else sum(costs)


class OpenAIEngine:
    """What DSPy asks of an engine beside calls: what its model can. `lm` is one that `is_served`.

    Calls are all made on the event loop, by AsyncOpenAIEngine.
    """

    def __init__(self, lm: dspy.LM) -> None:
        self._lm = lm

    def __deepcopy__(self, _memo: dict[int, Any]) -> OpenAIEngine:
        return self

    @property
    def supports_function_calling(self) -> bool:
        return bool(capabilities(self._lm).function_calling)

    @property
    def supports_reasoning(self) -> bool:
        return bool(capabilities(self._lm).reasoning)

    @property
    def supports_response_schema(self) -> bool:
        return bool(capabilities(self._lm).response_schema)

    @property
    def supported_params(self) -> frozenset[str]:
        params: frozenset[str] = capabilities(self._lm).params
        return params

    def complete(self, request: Request) -> Response:
        raise NotImplementedError("LMs are called on the event loop")


class AsyncOpenAIEngine:
    """Calls with the key, the address and the timeout of an LM that `is_served`.

    What it cannot ask it refuses before anything is sent, and the CallRecord is not `is_sent`.
    """

    def __init__(self, lm: dspy.LM) -> None:
        selection = select_backend(lm)
        clients = selection.clients
        address = clients.get("api_base") or clients.get("base_url")
        key = clients.get("api_key")
        self._model = selection.resolution.model
        self._keys = None if key is None else {_PROVIDER: key}
        self._addresses = None if address is None else {_PROVIDER: address}
        self._timeouts = timeouts_for(clients.get("timeout"))
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> AsyncOpenAIEngine:
        """Itself: optimizers copy programs with the LMs in them, and connections are shared."""
        return self

    async def complete(self, request: Request) -> Response:
        """The whole answer. Raises LM15Error."""
        client, asked = await self._begin(request)
        return await client.complete(asked)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The answer as it comes. Raises LM15Error."""
        client, asked = await self._begin(request)
        async with aclosing(client.stream(asked)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _begin(self, request: Request) -> tuple[Any, Request]:
        validate_request(request)
        await apreload()  # the price table, which is read when the answer is there
        client = self._connected()
        asked = replace(request, model=self._model)
        record = CallRecord.current()
        if record is not None:
            record.request = asked
        return client, asked

    def _connected(self) -> Any:
        """DSPy's client, whose connections belong to an event loop. Raises NotConfiguredError
        where there is no key."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            _allow_files()
            pool = RouterConfig(timeouts=self._timeouts, max_connections=MAX_CONNECTIONS)
            config = RouterConfig(
                api_keys=self._keys,
                base_urls=self._addresses,
                transport=_Transport(**pool.transport_kwargs()),
            )
            self._client = AsyncLMRouter(config).lm(f"{_PROVIDER}:{self._model}")
            self._loop = loop
        return self._client


class _Transport(StdlibAsyncTransport):  # type: ignore[misc]  # dspy ships no types
    """DSPy's own: as fast as any, with a thousand connections too."""

    def stream(self, request: Any) -> Any:
        record = CallRecord.current()
        if record is not None:
            record.is_sent = True
        return super().stream(request)

    async def _open(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super()._open(*args, **kwargs)
        connection.writer = _Together(connection.writer)
        return connection


class _Together:
    """Writes what is written before a drain at once: DSPy writes the head of a request and its
    body, and each would be a system call and a packet."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, data: bytes) -> None:
        self._written.append(data)

    async def drain(self) -> None:
        written, self._written = self._written, []
        self._writer.write(b"".join(written))
        await self._writer.drain()


def _allow_files() -> None:
    """Lets the process open as many files as its connections need, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
