"""Shapes of parameters that requests share, with one another and with saved states."""

from __future__ import annotations

from dspex_bridge.catalog import ADAPTERS, LATER_ADAPTERS, LATER_MODULES, MODULES
from dspex_bridge.params import (
    MAX_NAME_CHARS,
    TOOLS,
    array,
    boolean,
    either,
    integer,
    map_of,
    mapping,
    name,
    not_yet,
    number,
    one_of,
    record,
    text,
)

__all__ = ["ADAPTER", "CONFIG", "CREATE", "LM", "LMS", "LM_OR_NAME", "NAME", "PROGRAM_OR_CREATE"]

# Retries multiply the time a caller may wait; more of them hide a provider that is down.
_MAX_RETRIES = 20

NAME = name
ADAPTER = one_of(*ADAPTERS, later=LATER_ADAPTERS)

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
        "fallbacks": not_yet,
        "limits": not_yet,
    },
)
LMS = map_of(LM)
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

_CREATE_OPTIONAL = {
    "module": one_of(*MODULES, later=LATER_MODULES),
    "options": mapping,
    "lm": name,
    "adapter": ADAPTER,
    "config": CONFIG,
    "instructions": text,
    "demos": array(record({"inputs": mapping, "outputs": mapping})),
    "tools": TOOLS,
    "variables": not_yet,
    "limits": not_yet,
}
_SIGNATURE = either(text, mapping, "a string or a map")

CREATE = record(
    {"signature": _SIGNATURE}, {**_CREATE_OPTIONAL, "program": name, "replace": boolean}
)
PROGRAM_OR_CREATE = either(
    name, record({"signature": _SIGNATURE}, _CREATE_OPTIONAL), "the id of a program or a map"
)
