"""How alike two values are, 0 to 1: what the built-in metrics are made of.

`expected` is an example's value, `got` the prediction's. Where the example lists several and the
field is no list, each of them is right. Text is compared as DSPy does: without case, punctuation,
English articles and surplus space.
"""

from __future__ import annotations

import json
import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import MetricError
from dspy.evaluate.metrics import f1_score, normalize_text

from dspex_bridge.programs.wire_values import render

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["contains", "exact_match", "f1", "json_match", "numeric_close", "text_of"]

# What arithmetic on floats loses, and no more.
_RELATIVE_TOLERANCE = 1e-6
_ABSOLUTE_TOLERANCE = 1e-9

# As deep as maps and lists are looked into; what is nested deeper counts as one value.
_MAX_DEPTH = 100

# In the place of a value that one side does not have.
_NOTHING = object()


def exact_match(expected: Any, got: Any, _params: Mapping[str, Any]) -> float:
    return float(any(_same(one, got) for one in _accepted(expected, got)))


def f1(expected: Any, got: Any, _params: Mapping[str, Any]) -> float:
    """Of the words, as in SQuAD."""
    text = text_of(got)
    if not normalize_text(text):
        return 0.0  # DSPy says the same, and prints that this is rare
    return max((float(f1_score(text, text_of(one))) for one in _accepted(expected, got)), default=0)


def contains(expected: Any, got: Any, _params: Mapping[str, Any]) -> float:
    """Whether the expected text stands somewhere in the answer, or the value in its list."""
    if isinstance(got, list):
        wanted = expected if isinstance(expected, list) else [expected]
        return float(all(any(_same(one, item) for item in got) for one in wanted))
    text = normalize_text(text_of(got))
    return float(any(normalize_text(text_of(one)) in text for one in _accepted(expected, got)))


def numeric_close(expected: Any, got: Any, params: Mapping[str, Any]) -> float:
    """Whether two numbers, which may stand as text, are the same within a tolerance.

    Raises MetricError where the example's is no number.
    """
    wanted, found = _number(expected), _number(got)
    if wanted is None:
        raise MetricError(f"the example's value is no number: {render(expected)}")
    relative, absolute = params.get("relative_tolerance"), params.get("absolute_tolerance")
    return float(
        found is not None
        and math.isclose(
            wanted,
            found,
            rel_tol=_RELATIVE_TOLERANCE if relative is None else relative,
            abs_tol=_ABSOLUTE_TOLERANCE if absolute is None else absolute,
        )
    )


def json_match(expected: Any, got: Any, _params: Mapping[str, Any]) -> float:
    """The share of the values inside maps and lists that are right and in the right place."""
    right, total = _leaves(expected, got, _MAX_DEPTH)
    return right / total


def text_of(value: Any) -> str:
    """A value as text: a str as it is, nothing as the empty one, others as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _accepted(expected: Any, got: Any) -> list[Any]:
    """The answers that count as right: an example may list several where a field is no list."""
    return expected if isinstance(expected, list) and not isinstance(got, list) else [expected]


def _same(expected: Any, got: Any) -> bool:
    if isinstance(expected, str) and isinstance(got, str):
        return bool(normalize_text(expected) == normalize_text(got))
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    # A list of texts is the same where its texts are.
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(_same, expected, got))
    if hasattr(expected, "tobytes") and hasattr(got, "tobytes"):  # NumPy compares item by item
        return bool(
            (expected.dtype, expected.shape) == (got.dtype, got.shape)
            and expected.tobytes() == got.tobytes()
        )
    return bool(expected == got)


def _number(value: Any) -> float | None:
    """A number, also one that stands as text."""
    try:
        found = float(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and not isinstance(value, bool) else None


def _leaves(expected: Any, got: Any, depth: int) -> tuple[int, int]:
    """How many values are the same in the same place, and how many there are on either side: what
    an answer has besides is wrong, too, or one with everything in it would be the best."""
    if depth and isinstance(expected, dict) and isinstance(got, dict) and (expected or got):
        names = [*expected, *(name for name in got if name not in expected)]
        pairs = [(expected.get(name, _NOTHING), got.get(name, _NOTHING)) for name in names]
    elif depth and isinstance(expected, list) and isinstance(got, list) and (expected or got):
        pairs = list(zip_longest(expected, got, fillvalue=_NOTHING))
    else:
        return int(_same(expected, got)), 1
    counts = [_leaves(one, other, depth - 1) for one, other in pairs]
    return sum(right for right, _ in counts), sum(total for _, total in counts)
