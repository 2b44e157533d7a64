"""The table of modules: how each is made, what it takes, and which names are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003 - NamedTuples read them
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import dspy
from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.catalog import INNER_MODULES
from dspex_bridge.metric_shape import metric
from dspex_bridge.params import Check, boolean, integer, name, number, one_of, record

from . import sandboxed
from .best_of_n import HINT, BestOfN, Refine
from .knn import KNN
from .multi_chain_comparison import MultiChainComparison
from .react_v2 import ReActV2
from .rewards import make_reward

if TYPE_CHECKING:
    from dspex_bridge.engine.tools import ClientTool
    from dspex_bridge.programs.spec import Demo

__all__ = ["MODULES", "Kind", "Parts", "Resources"]

# DSPy's own limit of steps is 20; a program that needs more than this is lost.
_MAX_ITERATIONS = 1000

# Each attempt is at least one LM call.
_MAX_ATTEMPTS = 100

# They stand in one prompt, side by side.
_MAX_CHAINS = 20

# DSPy's own.
_DEFAULT_CHAINS = 3
_DEFAULT_CHAIN_TEMPERATURE = 0.7


class Resources(Protocol):
    """What a module may need beside its specification."""

    def lm(self, which: str | None) -> Any:
        """An LM by name. Raises NotFoundError."""

    def embedder(self, name: str | None) -> Any:
        """An embedder by name, or the default one: a dspy.Embedder. Raises NotFoundError."""


class Parts(NamedTuple):
    """What a module is made from."""

    signature: type[dspy.Signature]
    options: Mapping[str, Any]
    tools: Sequence[ClientTool]
    demos: Sequence[Demo]
    resources: Resources | None

    def needed(self) -> Resources:
        """The resources, for a module that is not made without."""
        if self.resources is None:
            raise RuntimeError("this module is not made without LMs and embedders")
        return self.resources


class Kind(NamedTuple):
    """How a module is made; `own_fields` are names that its signature cannot use, and
    `own_prefix` how such names begin. `needs_deno`: it runs code, which is done in Deno only, and
    blocks meanwhile, which is done in a job only."""

    make: Callable[[Parts], dspy.Module]
    options: Check = record()
    has_tools: bool = False
    own_tools: tuple[str, ...] = ()
    own_fields: tuple[str, ...] = ()
    own_prefix: str | None = None
    needs_deno: bool = False


def _plain(module: Callable[..., dspy.Module]) -> Callable[[Parts], dspy.Module]:
    return lambda parts: module(parts.signature, **parts.options)


def _chain_of_thought(parts: Parts) -> dspy.Module:
    # As DSPy has it: a model that reasons by itself is not asked to write its reasoning as well.
    native = {"rationale_field_type": dspy.Reasoning} if parts.options.get(_NATIVE) else {}
    return dspy.ChainOfThought(parts.signature, **native)


def _agent(module: Callable[..., dspy.Module]) -> Callable[[Parts], dspy.Module]:
    return lambda parts: module(parts.signature, tools=list(parts.tools), **parts.options)


def _inner(parts: Parts) -> dspy.Module:
    return _INNER[parts.options.get("module") or "predict"](parts.signature)


def _rewarded(module: type[BestOfN]) -> Callable[[Parts], dspy.Module]:
    def make(parts: Parts) -> dspy.Module:
        options = parts.options
        return module(_inner(parts), options["N"], make_reward(parts), options.get("fail_count"))

    return make


def _multi_chain_comparison(parts: Parts) -> dspy.Module:
    chains, temperature = parts.options.get("M"), parts.options.get("temperature")
    return MultiChainComparison(
        parts.signature,
        chains=chains or _DEFAULT_CHAINS,
        temperature=_DEFAULT_CHAIN_TEMPERATURE if temperature is None else temperature,
    )


def _knn(parts: Parts) -> dspy.Module:
    if not parts.demos:
        raise InvalidParamsError(
            "the module knn chooses among demonstrations: give it some in demos",
            data={"param": "demos"},
        )
    embedder = parts.needed().embedder(parts.options.get("embedder"))
    return KNN(_inner(parts), parts.options["k"], embedder)


_INNER: dict[str, Callable[..., dspy.Module]] = {
    "predict": dspy.Predict,
    "chain_of_thought": dspy.ChainOfThought,
}

_MAX_ITERS = integer(1, _MAX_ITERATIONS)
_INNER_MODULE = one_of(*INNER_MODULES)
_REWARDED = record(
    {"N": integer(1, _MAX_ATTEMPTS), "metric": metric, "threshold": number()},
    {"module": _INNER_MODULE, "fail_count": integer(0, _MAX_ATTEMPTS)},
)

# What ChainOfThought calls its own field.
_REASONING = "reasoning"

# Whether it is the model's own reasoning, where the model has that.
_NATIVE = "native_reasoning"

MODULES = {
    "predict": Kind(_plain(dspy.Predict)),
    "chain_of_thought": Kind(
        _chain_of_thought,
        options=record(optional={_NATIVE: boolean}),
        own_fields=(_REASONING,),
    ),
    "react": Kind(
        _agent(dspy.ReAct),
        options=record(optional={"max_iters": _MAX_ITERS}),
        has_tools=True,
        own_tools=("finish",),
        own_fields=(
            *(_REASONING, "trajectory", "next_thought", "next_tool_name", "next_tool_args"),
            "max_iters",
        ),
    ),
    "react_v2": Kind(
        _agent(ReActV2),
        options=record(optional={"max_iters": _MAX_ITERS}),
        has_tools=True,
        own_tools=("submit",),
        own_fields=(
            *("history", "termination_reason", "tools", "next_thought", "tool_calls"),
            "max_iters",
        ),
    ),
    "best_of_n": Kind(_rewarded(BestOfN), options=_REWARDED, own_fields=(_REASONING,)),
    "refine": Kind(_rewarded(Refine), options=_REWARDED, own_fields=(_REASONING, HINT)),
    "multi_chain_comparison": Kind(
        _multi_chain_comparison,
        options=record(optional={"M": integer(2, _MAX_CHAINS), "temperature": number(0, 2)}),
        own_fields=(_REASONING, "rationale"),
        own_prefix="reasoning_attempt_",
    ),
    "knn": Kind(
        _knn,
        options=record({"k": integer(1)}, {"module": _INNER_MODULE, "embedder": name}),
        own_fields=(_REASONING,),
    ),
    "program_of_thought": Kind(
        sandboxed.program_of_thought,
        options=sandboxed.options(max_iters=_MAX_ITERS),
        own_fields=(
            *(_REASONING, "generated_code", "previous_code", "error"),
            *("final_generated_code", "code_output"),
        ),
        needs_deno=True,
    ),
    "code_act": Kind(
        sandboxed.code_act,
        options=sandboxed.options(max_iters=_MAX_ITERS),
        has_tools=True,
        own_fields=(_REASONING, "trajectory", "generated_code", "finished", "max_iters"),
        needs_deno=True,
    ),
    "rlm": Kind(
        sandboxed.rlm,
        options=sandboxed.options(
            max_iters=_MAX_ITERS, max_llm_calls=integer(0), max_output_chars=integer(1)
        ),
        has_tools=True,
        own_tools=sandboxed.OWN_NAMES,
        own_fields=(
            *("trajectory", "final_reasoning", "interpreter_factory", "variables_info"),
            *("repl_history", "iteration", "json", *sandboxed.OWN_NAMES),
            *sandboxed.PREDICTION_NAMES,
        ),
        needs_deno=True,
    ),
    "flex": Kind(
        sandboxed.flex,
        options=sandboxed.options(max_predictor_calls=integer(1)),
        has_tools=True,
        own_tools=sandboxed.OWN_NAMES,
        own_fields=("prediction", "json", *sandboxed.OWN_NAMES, *sandboxed.PREDICTION_NAMES),
        needs_deno=True,
    ),
}
