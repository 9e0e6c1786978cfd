"""Retrieval between domains and one-shot classification on vectors whose answers are known."""

import numpy as np
import pytest

from encoders.directions import directions, item_retrieval, one_shot, one_shot_within
from encoders.measure import Labelled

SAME = Labelled(np.full((80, 4), 0.5, np.float32), np.array([f"p{i // 4}" for i in range(80)]))
SURE = Labelled(np.repeat(np.eye(20, dtype=np.float32), 4, axis=0), np.array([f"p{i // 4:02d}" for i in range(80)]))


def test_features_that_are_all_alike_find_by_chance_and_one_hot_ones_always() -> None:
    assert 4 / 80 == item_retrieval(SAME, SAME)["R@1"]
    assert 1 / 20 == pytest.approx(one_shot(SAME, SAME)["top-1"])

    figures = item_retrieval(SURE, SURE)
    assert 1.0 == figures["R@1"] == figures["mAP"]
    assert 0.25 == figures["recall@1"]


def test_a_prototype_does_not_ask_for_itself() -> None:
    """Two samples of each product, opposite to each other: only themselves would find them."""
    vectors = np.concatenate([np.eye(5, dtype=np.float32), -np.eye(5, dtype=np.float32)])
    samples = Labelled(vectors, np.array([f"p{i}" for i in range(5)] * 2))

    assert 0.0 == one_shot_within(samples)["top-1"]
    assert 1.0 == one_shot_within(SURE)["top-1"]
    with pytest.raises(ValueError, match="second sample"):
        one_shot_within(Labelled(vectors[:5], samples.labels[:5]))


def test_only_the_directions_between_domains_that_exist_are_told() -> None:
    result = directions({"P": SURE, "L": SURE})

    assert ["P2L", "L2P"] == list(result["directions"])
    assert 1.0 == result["mean R@1"] == result["mean one-shot"]


def test_queries_of_products_that_are_not_there_are_skipped() -> None:
    some = Labelled(SURE.vectors[:8], SURE.labels[:8])

    assert 8 == item_retrieval(SURE, some)["queries"]
    with pytest.raises(ValueError, match="no query"):
        item_retrieval(some, SURE.of(SURE.labels[40:]))
