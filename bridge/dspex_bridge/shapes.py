"""Shapes of parameters that requests share, with one another and with saved states."""

from __future__ import annotations

from dspex_bridge.catalog import ADAPTERS, MODULES
from dspex_bridge.params import (
    MAX_NAME_CHARS,
    TOOLS,
    Check,
    anything,
    array,
    boolean,
    either,
    integer,
    map_of,
    mapping,
    name,
    number,
    one_of,
    record,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ADAPTER",
    "CONFIG",
    "CREATE",
    "EMBEDDERS",
    "LIMITS",
    "LM",
    "LMS",
    "LM_OR_NAME",
    "MAX_STEPS",
    "NAME",
    "PIPELINE",
    "PROGRAM_OR_CREATE",
    "VARIABLES",
]

# Retries multiply the time a caller may wait; more of them hide a provider that is down.
_MAX_RETRIES = 20

NAME = name
ADAPTER = one_of(*ADAPTERS)

# More than any provider allows, and few enough to keep their times.
_MAX_PER_MINUTE = 1_000_000

LIMITS = record(
    optional={
        "max_cost_usd": number(0),
        "max_tokens": integer(0),
        "max_calls": integer(0),
        "requests_per_minute": integer(1, _MAX_PER_MINUTE),
        "max_concurrency": integer(1),
    }
)

LM = record(
    {"model": name},
    {
        "api_key": text,
        "api_key_env": name,
        "api_base": text,
        "temperature": number(0),
        "max_tokens": integer(1),
        "cache": boolean,
        "num_retries": integer(0, _MAX_RETRIES),
        "timeout_ms": integer(1),
        "extra": mapping,
        "fallbacks": array(name),
        "limits": LIMITS,
    },
)
LMS = map_of(LM)
EMBEDDERS = map_of(
    record(
        {"model": name},
        {
            "api_key": text,
            "api_key_env": name,
            "api_base": text,
            "num_retries": integer(0, _MAX_RETRIES),
            "timeout_ms": integer(1),
            "extra": mapping,
        },
    )
)
LM_OR_NAME = either(name, LM, f"the name of an LM (1 to {MAX_NAME_CHARS} characters) or a map")

# What may be set for one call; connections and keys belong to the LM.
CONFIG = record(
    optional={
        "temperature": number(0),
        "max_tokens": integer(1),
        "top_p": number(0, 1),
        "stop": array(text),
        "seed": integer(),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "reasoning_effort": text,
    }
)

VARIABLES = map_of(
    record(
        {
            "kind": one_of("float", "int", "categorical", "module", "lm", "adapter", "text"),
            "applies_to": text,
        },
        {
            "low": number(),
            "high": number(),
            "log": boolean,
            "choices": array(anything),
            "default": anything,
            "depends_on": record({"variable": name, "in": array(anything)}),
        },
    )
)

_SIGNATURE = either(text, mapping, "a string or a map")
_DEMOS = array(record({"inputs": mapping, "outputs": mapping}))

_MODULE = {
    "module": one_of(*MODULES),
    "options": mapping,
    "instructions": text,
    "demos": _DEMOS,
    "tools": TOOLS,
}
_PROGRAM = {
    "lm": name,
    "adapter": ADAPTER,
    "config": CONFIG,
    "variables": VARIABLES,
    "limits": LIMITS,
}
_REGISTERED: dict[str, Check] = {"program": name, "replace": boolean}

# Each is at least one LM call.
MAX_STEPS = 100

# What makes a pipeline, in place of a signature and a module.
PIPELINE = {
    "inputs": array(mapping),
    "steps": array(
        record(
            {"name": name, "signature": _SIGNATURE},
            {"from": map_of(text), **_MODULE},
        ),
        maximum=MAX_STEPS,
    ),
    "outputs": array(text),
}


def _creation(more: dict[str, Check]) -> Check:
    module = record({"signature": _SIGNATURE}, {**_MODULE, **_PROGRAM, **more})
    pipeline = record(PIPELINE, {**_PROGRAM, **more})

    def check(value: Any, where: str) -> None:
        (pipeline if type(value) is dict and "steps" in value else module)(value, where)

    return check


CREATE = _creation(_REGISTERED)
PROGRAM_OR_CREATE = either(name, _creation({}), "the id of a program or a map")
