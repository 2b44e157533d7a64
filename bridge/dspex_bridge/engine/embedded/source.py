"""The inputs of one request as text to extract from.

Everything is found once, when first asked for, in time linear in the text (sorting aside).
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final

from .tfidf import (
    STOP_WORDS,
    TfIdf,
    Vector,
    spans,
    stem,
    terms,
    words,
)

__all__ = ["READ_LIMIT", "Number", "Source", "shortened"]

# Characters of one input that are looked at: what follows is ignored, so that the largest frame
# costs a bounded time (measured: 0.6 s for a million characters of prose).
READ_LIMIT: Final = 1_000_000
# A "sentence" without punctuation is cut here: an answer should be no longer.
SENTENCE_LIMIT: Final = 400
PHRASE_WORDS: Final = 3
_SENTENCE_END: Final = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s|\n")
_NEGATIONS: Final = frozenset({"not", "no", "never", "without", "cannot", "neither", "nor"})
# How many words before a word may negate it ("not at all urgent").
_NEGATION_REACH: Final = 3
_NEGATION_CHARS: Final = 48
_NOT_TELLING: Final = STOP_WORDS | _NEGATIONS

_NUMBER: Final = re.compile(
    r"(?<![\w.:/-])-?\d{1,15}(?:,\d{3})*(?:\.\d{1,15})?(?!\d|[.:]\d|[-/]\d{1,4}[-/])( ?%)?"
)
_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905  # reads as text
_MONTH: Final = rf"({'|'.join(_MONTHS)})[a-z]{{0,6}}\.?"
_DATES: Final[tuple[tuple[re.Pattern[str], tuple[int, int, int]], ...]] = (
    # A pattern, and which groups are year, month and day. 3/5/2024 is ambiguous and left alone.
    (re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)(?!\d)"), (1, 2, 3)),
    (re.compile(r"(?<!\d)(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d)"), (3, 2, 1)),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? {_MONTH},? (\d{{4}})\b", re.I), (3, 2, 1)),
    (re.compile(rf"\b{_MONTH} (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})\b", re.I), (3, 1, 2)),
)
_TIME: Final = re.compile(
    r"(?<![\d:])(\d{1,2}):(\d\d)(?::(\d\d))?(?:\.\d{1,9})?(?![\d:])"
    r"(?: ?([ap])\.?m\b)?(Z|[+-]\d\d:\d\d)?",
    re.I,
)
_PATTERNS: Final = {
    "email": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    "uri": re.compile(r"https?://[^\s<>\"']{1,2000}[^\s<>\"'.,;:!?)\]]"),
    "uuid": re.compile(r"\b[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\b", re.I),
    "ipv4": re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"),
}


@dataclass(frozen=True)
class Number:
    value: int | float
    percent: bool
    at: int
    """The character where it begins in the whole text."""


class Source:
    """The inputs, by field name, in the order of the prompt."""

    def __init__(self, inputs: Mapping[str, str]) -> None:
        self.inputs = {name: _flattened(text[:READ_LIMIT]) for name, text in inputs.items()}
        self.text = "\n".join(self.inputs.values())

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word occurs, stemmed; stop words are counted too."""
        folded = Counter(word.casefold() for word in words(self.text))
        counts: Counter[str] = Counter()
        for word, count in folded.items():
            counts[stem(word)] += count
        return counts

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Where each word begins, stemmed, in characters."""
        places: dict[str, list[int]] = {}
        for start, word in spans(self.text):
            places.setdefault(stem(word), []).append(start)
        return places

    def distance(self, at: int, wanted: Collection[str]) -> int | None:
        """Characters from `at` to the closest of the wanted terms; None where none occurs."""
        found = []
        for term in wanted:
            places = self._places.get(term, [])
            index = bisect_left(places, at)
            found += [abs(place - at) for place in places[max(index - 1, 0) : index + 1]]
        return min(found, default=None)

    def affirms(self, wanted: Collection[str]) -> bool | None:
        """Whether one of the terms occurs without a negation before it; None where none occurs."""
        places = [place for term in wanted for place in self._places.get(term, ())]
        if not places:
            return None
        return not all(self._negated(place) for place in places)

    def _negated(self, at: int) -> bool:
        before = words(self.text[max(at - _NEGATION_CHARS, 0) : at].casefold())
        return any(
            word in _NEGATIONS or word.endswith(("n't", "n\u2019t"))
            for word in before[-_NEGATION_REACH:]
        )

    @cached_property
    def main(self) -> str | None:
        """The field to extract text from: the longest that is not called a question."""
        names = [name for name, text in self.inputs.items() if text.strip()]
        others = [name for name in names if name not in ("question", "query")]
        return max(others or names, key=lambda name: len(self.inputs[name]), default=None)

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences of the main field."""
        pieces = _SENTENCE_END.split(self.inputs[self.main]) if self.main is not None else []
        return [shortened(piece, SENTENCE_LIMIT) for piece in map(str.strip, pieces) if piece]

    @property
    def opening(self) -> str:
        """The first sentence; empty where there is none."""
        return self.sentences[0] if self.sentences else ""

    @cached_property
    def _questions(self) -> frozenset[str]:
        """The terms of all other fields: what is asked about the main one."""
        others = (text for name, text in self.inputs.items() if name != self.main)
        return frozenset(term for text in others for term in terms(text))

    @cached_property
    def _index(self) -> tuple[TfIdf, list[Vector], dict[str, list[int]]]:
        documents = [terms(sentence) for sentence in self.sentences]
        corpus = TfIdf(documents)
        vectors = [corpus.vector(document) for document in documents]
        postings: dict[str, list[int]] = {}
        for number, vector in enumerate(vectors):
            for term in vector:
                postings.setdefault(term, []).append(number)
        return corpus, vectors, postings

    def _scores(self, wanted: Iterable[str], scores: dict[int, float]) -> dict[int, float]:
        """`scores` of the sentences by number, and on top their closeness to the wanted terms."""
        corpus, vectors, postings = self._index
        scores = dict(scores)
        for term in sorted(wanted):
            for number in postings.get(term, ()):
                # The wanted terms weigh their idf: each counts once.
                scores[number] = scores.get(number, 0.0) + corpus.idf(term) * vectors[number][term]
        return scores

    @cached_property
    def _question_scores(self) -> dict[int, float]:
        return self._scores(self._questions, {})

    def best_sentence(self, wanted: Collection[str]) -> str | None:
        """The sentence closest to the other fields and the wanted terms, the first of equals.

        None where no sentence shares a term with them.
        """
        scores = self._scores(set(wanted) - self._questions, self._question_scores)
        if not scores:
            return None
        return self.sentences[min(scores, key=lambda number: (-round(scores[number], 9), number))]

    @cached_property
    def numbers(self) -> list[Number]:
        """The numbers of the text in order, apart from parts of dates, times and versions."""
        starts = [start for start, _end, _iso in self._dates]
        found = []
        for match in _NUMBER.finditer(self.text):
            before = bisect_right(starts, match.start()) - 1
            if before >= 0 and match.start() < self._dates[before][1]:
                continue
            digits = match[0].rstrip(" %").replace(",", "")
            value = float(digits) if "." in digits else int(digits)
            found.append(Number(value, match[1] is not None, match.start()))
        return found

    @cached_property
    def _dates(self) -> list[tuple[int, int, str]]:
        """Where each date begins and ends, and its ISO form."""
        found = []
        for pattern, (year, month, day) in _DATES:
            for match in pattern.finditer(self.text):
                name = match[month].lower()[:3]
                number = _MONTHS.index(name) + 1 if name in _MONTHS else int(name)
                try:
                    iso = date(int(match[year]), number, int(match[day])).isoformat()
                except ValueError:
                    continue
                found.append((match.start(), match.end(), iso))
        return sorted(found)

    @cached_property
    def _times(self) -> list[tuple[int, str]]:
        """Where each time of day begins, and its ISO form."""
        found = []
        for match in _TIME.finditer(self.text):
            hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
            if match[4] is not None:
                hour = hour % 12 + (12 if match[4].lower() == "p" else 0)
            if hour < 24 and minute < 60 and second < 60:
                zone = (match[5] or "").upper()
                found.append((match.start(), f"{hour:02}:{minute:02}:{second:02}{zone}"))
        return found

    def _date_times(self) -> list[str]:
        """Each date with the time that stands right behind it, or midnight; UTC without a zone."""
        times = dict(self._times)
        found = []
        for _start, end, iso in self._dates:
            clock = times.get(end + 1, "00:00:00")
            zoned = clock.endswith("Z") or clock[-6:-5] in ("+", "-")
            found.append(f"{iso}T{clock}" if zoned else f"{iso}T{clock}Z")
        return found

    def of_format(self, name: str) -> list[str]:
        """The texts of a JSON Schema format, in order; none of a format that is not known."""
        readers: dict[str, Callable[[], list[str]]] = {
            "date": lambda: [iso for _start, _end, iso in self._dates],
            "date-time": self._date_times,
            "time": lambda: [iso for _start, iso in self._times],
        }
        if name in readers:
            return readers[name]()
        pattern = _PATTERNS.get(name)
        return pattern.findall(self.text) if pattern is not None else []

    @cached_property
    def key_phrases(self) -> list[str]:
        """Runs of telling words of the main field, best first, after RAKE.

        A word scores its degree (the lengths of the phrases it stands in, summed) over its
        frequency, a phrase the sum of its words; of equals the earlier comes first.
        """
        phrases = list(_phrases(self.inputs[self.main])) if self.main is not None else []
        degree: Counter[str] = Counter()
        frequency: Counter[str] = Counter()
        for phrase in phrases:
            for word in phrase:
                degree[word.casefold()] += len(phrase)
                frequency[word.casefold()] += 1
        scores: dict[str, float] = {}
        written: dict[str, str] = {}
        for phrase in phrases:
            folded = [word.casefold() for word in phrase]
            key = " ".join(folded)
            scores.setdefault(key, sum(degree[word] / frequency[word] for word in folded))
            written.setdefault(key, " ".join(phrase))
        # The sort is stable and dictionaries keep their order: of equals the earlier stays first.
        return [written[key] for key in sorted(scores, key=lambda key: -round(scores[key], 9))]


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters, cut behind a word where there is one."""
    if len(text) <= limit:
        return text
    cut = text[: limit + 1].rpartition(" ")[0].rstrip() if " " in text[: limit + 1] else ""
    return cut or text[:limit]


def _phrases(text: str) -> Iterator[list[str]]:
    phrase: list[str] = []
    end = 0
    for start, word in spans(text):
        broken = text[end:start] not in (" ", "-") or len(phrase) == PHRASE_WORDS
        telling = word.casefold() not in _NOT_TELLING and not word.isdigit()
        if phrase and (broken or not telling):
            yield phrase
            phrase = []
        if telling:
            phrase.append(word)
        end = start + len(word)
    if phrase:
        yield phrase


def _flattened(text: str) -> str:
    """The strings and numbers inside a list or map that DSPy wrote as JSON, a line each."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return "\n".join(_leaves(value))


def _leaves(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend(reversed(node))
        elif node is not None:
            yield node if isinstance(node, str) else json.dumps(node)
