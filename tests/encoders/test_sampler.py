"""Batches: balanced, repeatable, sometimes hard."""

import numpy as np
import pytest

from encoders.sampler import ProductSampler

LABELS = [label for label in range(8) for _ in range(3 + label)]
NO_LIKENESS = np.eye(8, dtype=np.float32)


def sampler(**changes: float) -> ProductSampler:
    given = {"count": 4, "each": 2, "hard": 0.0, "wide": 0.5, "seed": 1} | changes
    return ProductSampler(LABELS, **given)  # type: ignore[arg-type]


def test_every_step_has_distinct_products_and_photos_of_each() -> None:
    for step in range(20):
        draw = sampler().draw(step, NO_LIKENESS)

        assert 4 == len(set(draw.products))
        for product, photos in zip(draw.products, draw.photos, strict=True):
            assert {product} == {LABELS[photo] for photo in photos}
            assert 2 == len(set(photos))


def test_a_step_is_the_same_whenever_it_is_drawn() -> None:
    first, again = sampler().draw(7, NO_LIKENESS), sampler().draw(7, NO_LIKENESS)

    assert np.array_equal(first.photos, again.photos)
    assert first.wide == again.wide


def test_products_are_drawn_equally_often_however_many_photos_they_have() -> None:
    drawn = np.concatenate([sampler().draw(step, NO_LIKENESS).products for step in range(400)])

    assert np.abs(np.bincount(drawn) / 400 - 0.5).max() < 0.1


def test_a_hard_step_holds_products_that_look_alike() -> None:
    likeness = np.kron(np.eye(2), np.ones((4, 4))).astype(np.float32)
    draws = [sampler(hard=1.0, count=4).draw(step, likeness).products for step in range(50)]

    assert all(max(np.bincount(draw // 4)) >= 2 for draw in draws)
    assert any({0} == set(draw // 4) or {1} == set(draw // 4) for draw in draws)


def test_products_without_photos_come_along_when_they_are_named() -> None:
    alone = ProductSampler([0, 0, 1], count=3, each=2, hard=0.0, wide=0.0, seed=0, also=[2])
    draw = alone.draw(0, np.eye(3, dtype=np.float32))

    assert [-1, -1] == draw.photos[list(draw.products).index(2)].tolist()


def test_more_products_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="9 products a step, but only 8"):
        sampler(count=9)
