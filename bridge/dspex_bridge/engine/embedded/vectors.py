"""`demo/tfidf`: the embedded embedder. It needs no network and no weights, and compares words."""

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

from .tfidf import TfIdf, terms

__all__ = ["DIMENSIONS", "MAX_TEXTS", "MODEL", "embed"]

MODEL: Final = "demo/tfidf"

# Each term has one of these places, by its hash: enough that two terms of a text seldom meet.
DIMENSIONS: Final = 1024

# More texts than anybody embeds at once.
MAX_TEXTS: Final = 2**31


def embed(texts: Sequence[str]) -> Any:
    """A vector of unit length a text (of zeros where it has no words), as an array of float32.

    Texts that are given together are a corpus: the rarer a term among them, the more it weighs. A
    text that is given alone has its terms' frequencies. The same texts have the same vectors in
    every process, and those of different calls can be compared.
    """
    import numpy  # which the bridge starts without

    documents = [terms(text) for text in texts]
    weights = TfIdf(documents if len(documents) > 1 else ())
    array = numpy.zeros((len(documents), DIMENSIONS), dtype=numpy.float32)
    for row, document in zip(array, documents, strict=True):
        for term, weight in weights.vector(document).items():
            row[crc32(term.encode()) % DIMENSIONS] += weight
    lengths = numpy.linalg.norm(array, axis=1, keepdims=True)
    return array / numpy.where(lengths == 0, 1, lengths)
