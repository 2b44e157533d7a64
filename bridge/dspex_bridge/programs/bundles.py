"""Programs as JSON: states that another process makes the same program from. No pickle, no key.

The values in them are written as `json_forms` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.catalog import MODULES, REDUCES
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
from .ensembles import MAX_PROGRAMS, ensemble
from .json_forms import from_json, to_json
from .pipelines import pipeline_map
from .spec import Demo, Predictor, ProgramSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_ENSEMBLE_STATE = record(
    {
        "format_version": integer(1),
        "ensemble": record(
            {"programs": array(mapping, maximum=MAX_PROGRAMS), "reduce": one_of(*REDUCES)},
            {"size": integer(1)},
        ),
    },
    _SHARED,
)


def dump(spec: ProgramSpec) -> dict[str, Any]:
    """The state of a program: a map that any JSON writer takes."""
    state = {
        "format_version": FORMAT_VERSION,
        **_own_state(spec),
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
    plain: dict[str, Any] = to_json(state)
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
    if "ensemble" in state:
        return _load_ensemble(state)
    (_PIPELINE_STATE if "steps" in state else _STATE)(state, "load: state")
    plain = {
        key: from_json(value) for key, value in state.items() if key not in ("demos", "predictors")
    }
    return replace(
        program_spec(plain),
        lineage=plain.get("lineage") or {},
        demos=_demos(state.get("demos")),
        predictors=_predictors(state),
    )


def _load_ensemble(state: Mapping[str, Any]) -> ProgramSpec:
    _ENSEMBLE_STATE(state, "load: state")
    own = state["ensemble"]
    shared = {
        key: from_json(state.get(key) or {}) for key in ("config", "limits", "variables", "lineage")
    }
    return replace(
        ensemble([load(item) for item in own["programs"]], own["reduce"], own.get("size")),
        lm=state.get("lm"),
        adapter=state.get("adapter"),
        predictors=_predictors(state),
        **shared,
    )


def _predictors(state: Mapping[str, Any]) -> dict[str, Predictor]:
    return {
        name: Predictor(item.get("instructions"), _demos(item["demos"]))
        for name, item in (state.get("predictors") or {}).items()
    }


def _own_state(spec: ProgramSpec) -> dict[str, Any]:
    """What is a module's, a pipeline's or an ensemble's alone."""
    if spec.ensemble is not None:
        own = spec.ensemble
        return {
            "ensemble": {
                "programs": [dump(program) for program in own.programs],
                "reduce": own.reduce,
                "size": own.size,
            }
        }
    return _module_state(spec) if spec.pipeline is None else _pipeline_state(spec)


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
            inputs=from_json(state["inputs"]),
            outputs=from_json(state["outputs"]),
            flags=from_json(state.get("flags") or {}),
        )
        for state in states or ()
    )
