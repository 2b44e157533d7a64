"""What code in the sandbox gets for `dspy`: predictors that run outside, made of text of the LM's.

DSPy's own facade reads the signatures with a parser that imports modules by name and follows
attributes, and hands on whatever keywords come. Here a signature is one of the wire's grammar, and
keywords are those of a table: nothing of what the code says is looked up anywhere else.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError, SignatureError
from dspex_protocol.grammar import parse_type
from dspex_protocol.signatures import parse_signature
from dspex_protocol.types import DSPY_TYPES, Code, Scalar
from dspy.predict import rlm
from dspy.predict.flex import bridge
from dspy.primitives import facade
from dspy.primitives.code_interpreter import CodeInterpreterError
from dspy.signatures import signature as dspy_signatures

from dspex_bridge.params import Check, anything, integer, record
from dspex_bridge.programs.annotations import annotation
from dspex_bridge.programs.object_models import type_of_model

from .signature import make_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.types import Type

__all__ = ["Facade", "read_types_by_our_grammar"]

# More steps than DSPy's 20 for each of its agents are more than a subtask takes.
_MAX_STEPS = integer(1, 1000)

# How the LM's samples are drawn; what it may call is for `tools` of an agent to say.
_SAMPLING = record(
    optional=dict.fromkeys(
        sorted(facade.SANDBOX_LM_KWARGS - {"tools", "tool_choice", "parallel_tool_calls"}), anything
    )
)
_AGENT = record({"tools": anything}, {"max_iters": _MAX_STEPS})

# The predictors that code can make, and the keywords of each. CodeAct is not among them: DSPy's
# own sends the source of its tools into the sandbox, and these have none that would run there.
_KEYWORDS: dict[str, Check] = {
    "Predict": _SAMPLING,
    "ChainOfThought": _SAMPLING,
    "ReAct": _AGENT,
    "ReActV2": _AGENT,
    "ProgramOfThought": record(optional={"max_iters": _MAX_STEPS}),
    "RLM": record(
        optional={
            "tools": anything,
            "max_iters": _MAX_STEPS,
            "max_llm_calls": integer(0),
            "max_output_chars": integer(1),
        }
    ),
}

# As Flex writes `any` into its source.
_ANY: dict[str, Type] = {"Any": Scalar("any")}

# The grammar's types whose classes have a name of their own, by those.
_CLASS_NAMES: dict[type, Type] = {
    annotation(type_): type_
    for type_ in map(
        Scalar, ("date", "time", "datetime", "decimal", *sorted(DSPY_TYPES - {"code"}))
    )
}


class Facade(facade.FacadeInvocation):  # type: ignore[misc]  # dspy ships no types
    """The host's side of `dspy` in one run of code."""

    def _build_predictor(self, kind: str, signature: Any, kwargs: dict[str, Any] | None) -> Any:
        """Raises CodeInterpreterError, SignatureError and InvalidParamsError, which the code is
        told."""
        check = _KEYWORDS.get(kind)
        if check is None:
            raise CodeInterpreterError(
                f"dspy.{kind} is not to be had in this sandbox: there are {', '.join(_KEYWORDS)}"
            )
        check(kwargs or {}, f"dspy.{kind}")
        made = _signature(signature, self._custom_types or {})
        return _Predictor(super()._build_predictor(kind, made, kwargs), made)


class _Predictor:
    """Takes the inputs of its signature: DSPy's modules would also take a signature, an LM and
    options as if they were such."""

    def __init__(self, module: dspy.Module, signature: type[dspy.Signature]) -> None:
        self._module = module
        self._inputs = frozenset(signature.input_fields)

    def __call__(self, **inputs: Any) -> dspy.Prediction:
        unknown = sorted(inputs.keys() - self._inputs)
        if unknown:
            raise CodeInterpreterError(
                f"unknown inputs: {', '.join(unknown)}; the signature has "
                f"{', '.join(sorted(self._inputs))}"
            )
        return self._module(**inputs)


def _signature(payload: Any, classes: Mapping[str, type]) -> type[dspy.Signature]:
    """Of the text of the shim, or of what its `dspy.Signature(text, instructions)` makes."""
    instructions = None
    if isinstance(payload, dict) and payload.get(facade.SIGNATURE_MARKER):
        payload, instructions = payload.get("signature"), payload.get("instructions")
    if not isinstance(payload, str) or not isinstance(instructions, str | None):
        raise SignatureError(
            "a signature is a string such as 'question -> answer: int', "
            "or dspy.Signature of such a string and a string of instructions"
        )
    spec = parse_signature(payload, names={**_ANY, **_named(classes)})
    return make_signature(replace(spec, instructions=instructions))


def _named(classes: Mapping[str, type]) -> dict[str, Type]:
    """The types of a program's own signature, whose classes its source names."""
    found = {name: _type_of(class_) for name, class_ in classes.items()}
    return {name: type_ for name, type_ in found.items() if type_ is not None}


def _type_of(class_: Any) -> Type | None:
    if issubclass(class_, dspy.Code):
        return Scalar("code") if class_ is dspy.Code else Code(class_.language)
    return _CLASS_NAMES.get(class_) or type_of_model(class_)


def read_types_by_our_grammar() -> None:
    """For the whole process: DSPy's own reader of signatures in strings knows the grammar's types
    and imports nothing. For one in which an LM's text may come to it by a way unknown to us."""
    dspy_signatures._parse_type_node = _parse_type_node


def _parse_type_node(node: ast.expr, _names: object = None) -> Any:
    try:
        return annotation(parse_type(ast.unparse(node)))
    except DSPexError as error:
        raise ValueError(error.message) from error


# Every RLM and Flex makes its own, those that code makes included.
for _user in (rlm, bridge):
    if _user.FacadeInvocation is not facade.FacadeInvocation:
        raise ImportError(f"{_user.__name__} has another facade than this DSPy is known to have")
    _user.FacadeInvocation = Facade
