"""Sentences, and the heads behind them."""

import numpy as np
import pytest

from encoders.grocery import Product
from encoders.sentences import SentenceEncoder, TextHead, page_texts
from encoders.text import Rows, utterances


def products() -> list[Product]:
    from pathlib import Path

    return [
        Product(product_id=f"p{i}", name=name, title=name, description="It is good.", category="Tea", packshot=Path())
        for i, name in enumerate(("Mint", "Sencha"))
    ]


def test_a_page_is_known_by_its_title_and_each_sentence() -> None:
    assert ["Mint", "Mint. Cool. Green!", "Mint. Cool.", "Mint. Green!"] == page_texts("Mint", "Cool. Green!")


def test_a_page_without_a_description_still_has_a_text() -> None:
    assert ["Mint", "Mint."] == page_texts("Mint", "")


def test_heads_give_unit_vectors(weights: dict[str, Rows]) -> None:
    head = TextHead(weights)
    sentence = np.random.default_rng(0).normal(size=512).astype(np.float32)

    assert pytest.approx(1.0, abs=1e-5) == float(np.linalg.norm(head.utterance(sentence)))
    assert 32 == len(head.page(sentence))


def test_a_head_of_another_width_is_refused(weights: dict[str, Rows]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TextHead(weights | {"page.weight": np.zeros((32, 300), np.float32)})


def test_made_up_talk_is_repeatable_and_partly_about_nothing() -> None:
    said = utterances(products(), each=10, rng=np.random.default_rng(0))

    assert said == utterances(products(), each=10, rng=np.random.default_rng(0))
    assert {-1, 0, 1} == {label for _, label in said}


def test_a_sentence_has_the_same_vector_alone_and_among_others() -> None:
    encoder = SentenceEncoder()
    alone = encoder.encode("the mint tea")
    encoder.encode("something else entirely, at some length")

    assert np.array_equal(alone, encoder.encode("the mint tea"))
