"""`demo/tfidf` as an embedder: vectors that can be compared, the same everywhere."""

from __future__ import annotations

import numpy
from dspex_bridge.engine.embedded.vectors import DIMENSIONS, embed

TEXTS = ["the cat sat on the mat", "a dog and a cat", "stocks fell sharply today"]


def test_a_vector_has_unit_length_or_is_empty() -> None:
    array = embed([*TEXTS, "", "?!"])
    assert array.shape == (5, DIMENSIONS)
    assert array.dtype == numpy.float32
    lengths = numpy.linalg.norm(array, axis=1)
    assert numpy.allclose(lengths, [1, 1, 1, 0, 0])


def test_the_text_with_the_same_words_is_the_nearest() -> None:
    scores = embed(TEXTS) @ embed(["did stocks fall? stocks fell"])[0]
    assert list(scores).index(max(scores)) == 2
    assert scores[0] == scores[1] == 0


def test_the_rarer_of_two_shared_words_weighs_more() -> None:
    corpus = ["report paris", "report rome", "report oslo"]
    paris, rome, _ = embed(corpus) @ embed(["paris report"])[0]
    assert paris > 2 * rome > 0


def test_the_same_texts_have_the_same_vectors() -> None:
    assert numpy.array_equal(embed(TEXTS), embed(TEXTS))
