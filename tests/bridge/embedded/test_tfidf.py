"""Words, terms and vectors."""

import math
import random

import pytest
from dspex_bridge.engine.embedded.tfidf import TfIdf, cosine, spans, stem, terms, words


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("It's 3.5 km, e-mail_me!") == ["It's", "3.5", "km", "e", "mail", "me"]
    assert words("1,250.50, 2024-03-05. v1.x") == ["1,250.50", "2024", "03", "05", "v1", "x"]
    assert words("naïve Größe Москва") == ["naïve", "Größe", "Москва"]


def test_scripts_without_spaces_are_read_character_by_character() -> None:
    assert words("東京2024年") == ["東", "京", "2024", "年"]


def test_spans_say_where_each_word_begins() -> None:
    text = "one, two three"
    assert [text[start : start + len(word)] for start, word in spans(text)] == words(text)


@pytest.mark.parametrize(
    "family",
    [
        ("ship", "ships", "shipped", "shipping"),
        ("price", "prices", "priced", "pricing", "Price's"),
        ("box", "boxes"),
        ("class", "classes"),
        ("city", "cities"),
        ("call", "called", "calling"),
    ],
)
def test_the_forms_of_a_word_have_one_stem(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@pytest.mark.parametrize("pair", [("bus", "bu"), ("bed", "b"), ("king", "k"), ("gas", "ga")])
def test_short_words_are_left_alone(pair: tuple[str, str]) -> None:
    assert stem(pair[0]) == pair[0]


def test_stop_words_are_no_terms_unless_there_is_nothing_else() -> None:
    assert terms("the cat and the dog") == ["cat", "dog"]
    assert terms("how to") == ["how", "to"]
    assert "not" in terms("it is not good")


def test_a_vector_has_unit_length_and_the_empty_text_the_empty_vector() -> None:
    corpus = TfIdf([["a", "b"], ["b", "c"]])
    vector = corpus.vector(["a", "b", "b", "unseen"])
    assert math.isclose(sum(weight**2 for weight in vector.values()), 1.0)
    assert corpus.vector([]) == {}
    assert cosine(vector, {}) == 0.0


def test_rare_terms_weigh_more_than_common_ones() -> None:
    corpus = TfIdf([["common", "rare"], ["common"], ["common"]])
    assert corpus.idf("unseen") > corpus.idf("rare") > corpus.idf("common") > 0


@pytest.mark.parametrize("seed", [7])
def test_the_cosine_does_not_depend_on_the_order_of_words(seed: int) -> None:
    generator = random.Random(seed)
    documents = [[generator.choice("abcdefgh") for _ in range(30)] for _ in range(20)]
    corpus = TfIdf(documents)
    query = corpus.vector(documents[0])
    for document in documents:
        shuffled = generator.sample(document, len(document))
        assert cosine(query, corpus.vector(document)) == cosine(corpus.vector(shuffled), query)
    assert math.isclose(cosine(query, query), 1.0)
