"""Words, terms and TF-IDF vectors: what the embedded models know of text.

A *word* is a run of letters and digits (an apostrophe may join two, and so may the point or comma
inside a number; each ideograph, kana and hangul syllable is a word of its own). A *term* is a word
folded to lower case and stripped of its commonest English endings; stop words are no terms, unless
there is nothing else.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["STOP_WORDS", "TfIdf", "Vector", "cosine", "spans", "stem", "terms", "words"]

Vector = dict[str, float]
"""A sparse vector of unit length (or the empty one): term to weight."""

# Scripts that are written without spaces between words.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_RUN = rf"[^\W_{_UNSPACED}]+"
_WORD = re.compile(rf"[{_UNSPACED}]|{_RUN}(?:(?:['\u2019]|(?<=\d)[.,](?=\d)){_RUN})*")

# English function words. "no", "not" and "never" are left out: they turn a sentence round.
STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been before being but by can could
    did do does doing done each else for from had has have having he her here hers him his how
    i if in into is it its just may me might more most my of on once one only or other our out
    over own same shall she should so some such than that the their them then there these they
    this those through to too under until up upon us very was we were what when where which
    while who whom whose why will with within would yet you your
    """.split()  # noqa: SIM905  # a word list reads as text
)

# An ending, what takes its place, and the least number of letters before it.
_ENDINGS = (("ies", "y", 2), ("ing", "", 3), ("ed", "", 2), ("e", "", 2))


def words(text: str) -> list[str]:
    """The words of a text, in order, as they are written."""
    return _WORD.findall(text)


def spans(text: str) -> Iterator[tuple[int, str]]:
    """The words of a text, each with the character where it begins."""
    for match in _WORD.finditer(text):
        yield match.start(), match[0]


def stem(word: str) -> str:
    """A word in lower case without its plural, possessive, -ing, -ed or -e ending."""
    word = word.casefold().replace("\u2019", "'").removesuffix("'s")
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "ies")) and len(word) > 3:
        word = word[:-1]
    for ending, instead, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            word = word.removesuffix(ending) + instead
            # "shipped" and "shipping" go with "ship", but "called" with "call".
            if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as often as they occur."""
    found = [word.casefold() for word in words(text)]
    telling = [word for word in found if word not in STOP_WORDS]
    return [stem(word) for word in telling or found]


class TfIdf:
    """The document frequencies of a corpus, and vectors weighted by them.

    The weight of a term is `(1 + ln tf) * (1 + ln((1 + n) / (1 + df)))`, scaled to unit length:
    sublinear term frequency, smoothed inverse document frequency. A term that the corpus lacks
    weighs most, so a text with many unknown terms is far from everything.
    """

    def __init__(self, documents: Iterable[Iterable[str]]) -> None:
        self._size = 0
        self._frequency: Counter[str] = Counter()
        for document in documents:
            self._size += 1
            self._frequency.update(set(document))

    def idf(self, term: str) -> float:
        return 1.0 + math.log((1 + self._size) / (1 + self._frequency[term]))

    def vector(self, document: Iterable[str]) -> Vector:
        weights = {
            term: (1.0 + math.log(count)) * self.idf(term)
            for term, count in Counter(document).items()
        }
        # fsum is exact, so the same bag of terms has the same length in whatever order.
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()}


def cosine(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """The cosine of two unit vectors, 0 to 1; 0 where either is empty."""
    if len(b) < len(a):
        a, b = b, a
    return math.fsum(weight * b[term] for term, weight in a.items() if term in b)
