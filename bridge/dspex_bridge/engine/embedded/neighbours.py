"""Nearest neighbour over demonstrations."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from .conform import MISSING, conform
from .schemas import Schema, alternatives, resolve
from .source import READ_LIMIT
from .tfidf import TfIdf, cosine, terms

__all__ = ["VOTERS", "Settled", "settle", "similarities"]

# How many of the nearest demonstrations vote on an option and are averaged to a number.
VOTERS: Final = 3
_NUMBER: Final = re.compile(r"[-+]?\d{1,300}(?:\.\d{1,300})?")


def similarities(examples: Sequence[Mapping[str, str]], inputs: Mapping[str, str]) -> list[float]:
    """How close each example's inputs are to these, 0 to 1.

    Field by field: text by the cosine of its TF-IDF vectors, numbers by their distance as a share
    of the examples' range. A field weighs the logarithm of its number of different terms, so that
    neither a one-word label nor a page of context decides alone. An example is compared over the
    fields that it has.
    """
    totals = [0.0] * len(examples)
    weights = [0.0] * len(examples)
    for name, text in inputs.items():
        holders = [index for index, example in enumerate(examples) if name in example]
        values = [examples[index][name] for index in holders]
        closeness, weight = _compare(values, text)
        for index, close in zip(holders, closeness, strict=True):
            totals[index] += weight * close
            weights[index] += weight
    return [
        # Rounded, so that the last bits, in which math libraries differ, decide nothing.
        round(total / weight, 9) if weight else 0.0
        for total, weight in zip(totals, weights, strict=True)
    ]


def _compare(values: Sequence[str], text: str) -> tuple[list[float], float]:
    """The closeness of each value to the text, and the weight of the field."""
    if all(_NUMBER.fullmatch(value.strip()) for value in (*values, text)):
        known, wanted = [float(value) for value in values], float(text)
        spread = max(known, default=wanted) - min(known, default=wanted)
        closeness = [
            float(number == wanted) if not spread else max(0.0, 1 - abs(number - wanted) / spread)
            for number in known
        ]
        return closeness, math.log1p(1)
    documents = [terms(value[:READ_LIMIT]) for value in values]
    corpus = TfIdf(documents)
    query = corpus.vector(terms(text[:READ_LIMIT]))
    closeness = [cosine(query, corpus.vector(document)) for document in documents]
    return closeness, math.log1p(len(query))


class Settled(NamedTuple):
    """An output made of the nearest demonstrations' ones, and how."""

    value: Any
    how: Literal["repeated", "voted", "averaged"]


def settle(ranked: Sequence[tuple[float, Any]], schema: Schema) -> Settled:
    """One value out of (similarity, value) pairs, the nearest first; at least one.

    Options and booleans are voted on by the nearest, each by its similarity; numbers are averaged
    with the same weights, and integers stay integers; of everything else the nearest is repeated.
    So it is where the inputs are the same as the nearest's, and where nothing is similar.
    """
    nearest_similarity, nearest = ranked[0]
    voters = ranked[:VOTERS]
    repeated = Settled(nearest, "repeated")
    is_agreed = all(value == nearest for _similarity, value in voters)
    if nearest_similarity in (0, 1) or is_agreed:
        return repeated
    kind = _kind(schema)
    if kind == "option":
        votes: dict[str, float] = defaultdict(float)
        for similarity, value in voters:
            votes[repr(value)] += similarity
        # max takes the first of equals, and the nearest come first.
        winner = max(votes, key=lambda key: round(votes[key], 9))
        return Settled(next(v for _s, v in voters if repr(v) == winner), "voted")
    total = sum(similarity for similarity, _value in voters)
    numbers = [value for _similarity, value in voters if isinstance(value, int | float)]
    if kind == "number" and len(numbers) == len(voters):
        all_whole = all(isinstance(value, int) for value in numbers)
        try:
            mean = sum(similarity * value for similarity, value in voters) / total
            averaged = conform(round(mean) if all_whole else mean, schema)
        except OverflowError:  # integers beyond the range of a float
            return repeated
        if averaged is not MISSING:
            return Settled(averaged, "averaged")
    return repeated


def _kind(schema: Schema) -> Literal["option", "number", "other"]:
    """How values of a schema are settled; null does not count."""
    resolved, _references = resolve(schema, schema)
    options = [resolve(option, schema)[0] for option in alternatives(resolved) or (resolved,)]
    told = [option for option in options if option.get("type") != "null"]
    if told and all("enum" in option or option.get("type") == "boolean" for option in told):
        return "option"
    if told and all(option.get("type") in ("integer", "number") for option in told):
        return "number"
    return "other"
