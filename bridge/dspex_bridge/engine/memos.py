"""What DSPy finds out anew with every LM call, and finds the same: kept. And larger pools.

Importing this module puts what is here in the place of DSPy's own.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from dspy.clients import backend_selection, capabilities, costs, execution

__all__ = ["model_info"]

# Far more models, and ways to reach them, than one bridge has LMs.
_KEPT = 1024

_MAX_CONNECTIONS = 256

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


# DSPy's pools have 100: with a thousand calls under way most would wait for a connection. A process
# usually has 1,024 descriptors, which is enough for a few LMs at their busiest.
execution.RouterConfig = partial(execution.RouterConfig, max_connections=_MAX_CONNECTIONS)

execution.select_backend = capabilities.select_backend = _select_backend
