"""What DSPy finds out anew with every LM call, and finds the same: kept. And what it does in
threads, and takes less time than a thread does: done in place.

Importing this module puts what is here in the place of DSPy's own.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pydantic
from dspy._vendor.lm15.transports import _async as transport
from dspy.adapters import utils as adapter_utils
from dspy.clients import backend_selection, capabilities, costs, execution
from dspy.signatures.signature import SignatureMeta

from .openai_engine import MAX_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["KeptPrompts", "model_info"]

# Far more models, and ways to reach them, than one bridge has LMs.
_KEPT = 1024

# For a model that is not in the price table all of it is scanned, several times a call: a
# millisecond each. What is found is only read.
model_info = lru_cache(_KEPT)(costs.model_info)
costs.model_info = capabilities.model_info = model_info

_select = backend_selection.select_backend
_selected: dict[Any, Any] = {}


def _select_backend(lm: Any, options: Any = None) -> Any:
    """Which engine a call takes, by the LM and its client settings; the environment, which counts
    too, does not change while a bridge runs."""
    told = [
        (key, value)
        for settings in (lm.kwargs, options or {})
        for key, value in settings.items()
        if key in backend_selection.CLIENT_KEYS
    ]
    try:
        key = (lm.model, lm.model_type, lm._engine_spec, lm._providers, tuple(told))
        known = _selected.get(key)
    except TypeError:  # headers are a map
        return _select(lm, options)
    if known is None:
        known = _select(lm, options)
        if len(_selected) >= _KEPT:
            _selected.clear()
        _selected[key] = known
    return known


execution.select_backend = capabilities.select_backend = _select_backend

# DSPy's pools have 100: with a thousand calls under way most would wait for a connection.
execution.RouterConfig = partial(execution.RouterConfig, max_connections=MAX_CONNECTIONS)

# All of the environment is read for it with each request.
transport.proxy_route_for = lru_cache(_KEPT)(transport.proxy_route_for)


async def _wait_for(awaitable: Awaitable[Any], timeout: float | None, **_cancel_result: Any) -> Any:
    """DSPy waits in a task of its own, four times a request, for Python 3.10 has no
    asyncio.timeout. Without one nothing can come beside a cancellation, which would have to be
    undone then."""
    async with asyncio.timeout(timeout):
        return await awaitable


transport.wait_for = _wait_for


async def _to_thread(function: Callable[..., Any], /, *args: Any) -> Any:
    """What a call costs is looked up in place where there is nothing to look up, or the table
    is in memory. All else goes to a thread."""
    if function is execution._price_result:
        *_, provider, _ = args
        if provider is None or model_info.cache_info().currsize:
            return function(*args)
    return await asyncio.to_thread(function, *args)


execution.asyncio = SimpleNamespace(**{**vars(asyncio), "to_thread": _to_thread})

_fields: WeakKeyDictionary[Any, dict[str, dict[str, Any]]] = WeakKeyDictionary()
_KINDS = ("input", "output")
_fields_of = SignatureMeta._get_fields_with_type


def _get_fields_with_type(signature: Any, kind: str) -> dict[str, Any]:
    """The fields of a signature, which are looked through twenty times a call. They are made with
    it, and a signature with others is another one."""
    known = _fields.get(signature)
    if known is None:
        known = _fields[signature] = {kind: _fields_of(signature, kind) for kind in _KINDS}
    return known[kind].copy()


SignatureMeta._get_fields_with_type = _get_fields_with_type

_type_adapter = lru_cache(_KEPT)(pydantic.TypeAdapter)


def _type_adapter_of(described: Any) -> Any:
    """Pydantic's adapter of a type. Kept for Python's own classes, whose schema is made each time:
    models bring theirs along, and other types may be equal and differ, as unions in their order."""
    if isinstance(described, type) and described.__module__ == "builtins":
        return _type_adapter(described)
    return pydantic.TypeAdapter(described)


adapter_utils.TypeAdapter = _type_adapter_of


class KeptPrompts:
    """Of an adapter: what it writes of a signature and of demonstrations, and writes the same for
    each call."""

    _systems: WeakKeyDictionary[Any, tuple[str, str]]
    _demos: WeakKeyDictionary[Any, tuple[list[Any], list[dict[str, Any]]]]

    def format_system_message(self, signature: Any) -> str:
        written = self.__dict__.setdefault("_systems", WeakKeyDictionary())
        # All of a signature but its instructions is made once and for all.
        instructions: str | None
        message: str
        instructions, message = written.get(signature, (None, ""))
        if instructions != signature.instructions:
            message = super().format_system_message(signature)  # type: ignore[misc]
            written[signature] = (signature.instructions, message)
        return message

    def format_demos(self, signature: Any, demos: list[Any]) -> list[dict[str, Any]]:
        """Those that were given last are kept where they are texts: other values may be changed in
        their place, or be equal and differ, as 1 and True."""
        if not demos:
            return []
        written = self.__dict__.setdefault("_demos", WeakKeyDictionary())
        messages: list[dict[str, Any]]
        known, messages = written.get(signature, ([], []))
        if not _are_equal(known, demos):
            messages = super().format_demos(signature, demos)  # type: ignore[misc]
            shown = (demo[name] for demo in demos for name in signature.fields if name in demo)
            if all(type(value) is str for value in shown):
                written[signature] = ([demo.copy() for demo in demos], messages)
        return [message.copy() for message in messages]


def _are_equal(known: list[Any], demos: list[Any]) -> bool:
    """Demonstrations with values that cannot be compared (arrays, a signalling NaN) are others."""
    try:
        return bool(known == demos)
    except (ValueError, ArithmeticError):
        return False
