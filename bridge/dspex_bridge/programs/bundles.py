"""Programs as JSON: states that another process makes the same program from. No pickle, no key.

JSON has no bytes, timestamps, decimals or tensors; those stand as a map with one key that begins
with `$`, and a map of the user's own with such a key stands inside `$map`.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from dspex_protocol.errors import InvalidParamsError
from dspex_protocol.tensor import Tensor

from dspex_bridge.catalog import MODULES
from dspex_bridge.params import (
    TOOLS,
    array,
    boolean,
    integer,
    map_of,
    mapping,
    one_of,
    record,
    text,
)
from dspex_bridge.shapes import ADAPTER, CONFIG, LIMITS, PIPELINE, VARIABLES

from .creation import program_spec
from .pipelines import pipeline_map
from .spec import Demo, Predictor, ProgramSpec

__all__ = ["FORMAT_VERSION", "dump", "load"]

FORMAT_VERSION = 1

_FLAGS = record(optional={"augmented": boolean})
_DEMO = record({"inputs": mapping, "outputs": mapping}, {"flags": _FLAGS})
_SHARED = {
    "lm": text,
    "adapter": ADAPTER,
    # The same as in `create`: no address, no key.
    "config": CONFIG,
    "limits": LIMITS,
    "variables": VARIABLES,
    "lineage": mapping,
    "predictors": map_of(record({"demos": array(_DEMO)}, {"instructions": text})),
}
_STATE = record(
    {"format_version": integer(1), "signature": mapping, "module": one_of(*MODULES)},
    {"options": mapping, "demos": array(_DEMO), "tools": TOOLS, **_SHARED},
)
_PIPELINE_STATE = record({"format_version": integer(1), **PIPELINE}, _SHARED)


def dump(spec: ProgramSpec) -> dict[str, Any]:
    """The state of a program: a map that any JSON writer takes."""
    state = {
        "format_version": FORMAT_VERSION,
        **(_module_state(spec) if spec.pipeline is None else _pipeline_state(spec)),
        "lm": spec.lm,
        "adapter": spec.adapter,
        "config": dict(spec.config),
        "limits": dict(spec.limits),
        "variables": dict(spec.variables),
        "lineage": dict(spec.lineage),
        "predictors": {
            name: {
                "instructions": predictor.instructions,
                "demos": [_demo_state(demo) for demo in predictor.demos],
            }
            for name, predictor in spec.predictors.items()
        },
    }
    plain: dict[str, Any] = _to_json(state)
    return plain


def load(state: Mapping[str, Any]) -> ProgramSpec:
    """The program of a state. Raises InvalidParamsError and SignatureError."""
    found = state.get("format_version")
    if type(found) is int and found > FORMAT_VERSION:
        raise InvalidParamsError(
            f"load: the state has format version {found}, newer than the {FORMAT_VERSION} that "
            "this bridge reads: update dspex",
            data={"param": "state.format_version"},
        )
    (_PIPELINE_STATE if "steps" in state else _STATE)(state, "load: state")
    plain = {
        key: _from_json(value) for key, value in state.items() if key not in ("demos", "predictors")
    }
    return replace(
        program_spec(plain),
        lineage=plain.get("lineage") or {},
        demos=_demos(state.get("demos")),
        predictors={
            name: Predictor(item.get("instructions"), _demos(item["demos"]))
            for name, item in (state.get("predictors") or {}).items()
        },
    )


def _module_state(spec: ProgramSpec) -> dict[str, Any]:
    return {
        "signature": spec.signature.to_map(),
        "module": spec.module,
        "options": dict(spec.options),
        "demos": [_demo_state(demo) for demo in spec.demos],
        "tools": [tool.to_map() for tool in spec.tools],
    }


def _pipeline_state(spec: ProgramSpec) -> dict[str, Any]:
    return {"inputs": spec.signature.to_map()["inputs"], **pipeline_map(spec)}


def _demo_state(demo: Demo) -> dict[str, Any]:
    return {**demo.to_map(), "flags": dict(demo.flags)} if demo.flags else demo.to_map()


def _demos(states: list[Mapping[str, Any]] | None) -> tuple[Demo, ...]:
    return tuple(
        Demo(
            inputs=_from_json(state["inputs"]),
            outputs=_from_json(state["outputs"]),
            flags=_from_json(state.get("flags") or {}),
        )
        for state in states or ()
    )


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: _to_json(item) for key, item in value.items()}
        return {"$map": plain} if any(key.startswith("$") for key in plain) else plain
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_to_json(item) for item in sorted(value, key=repr)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, (date, time)):
        return value.isoformat()
    if hasattr(value, "dtype") and not isinstance(value, Tensor):
        value = Tensor.from_numpy(value)
    if isinstance(value, Tensor):
        return {"$tensor": [value.dtype, list(value.shape), b64encode(value.data).decode()]}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$map" and isinstance(item, Mapping):
            return {name: _from_json(inner) for name, inner in item.items()}
        if key in _TAGS:
            try:
                return _TAGS[key](item)
            except (ValueError, TypeError, InvalidOperation, Base64Error) as error:
                raise InvalidParamsError(
                    f"load: the state has a {key} that is none: {error}", data={"param": "state"}
                ) from error
    return {name: _from_json(inner) for name, inner in value.items()}


def _tensor(item: Any) -> Tensor:
    dtype, shape, data = item
    return Tensor(dtype, tuple(shape), b64decode(data, validate=True))


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$bytes": lambda item: b64decode(item, validate=True),
    "$decimal": Decimal,
    "$datetime": datetime.fromisoformat,
    "$tensor": _tensor,
}
