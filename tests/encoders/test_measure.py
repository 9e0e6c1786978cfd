"""Our figures are the bench's."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from encoders.measure import (
    Labelled,
    calibration_error,
    intervals,
    known_or_unknown,
    new_and_trained,
    off_shelf,
    product_interval,
    retrieval,
    retrieval_intervals,
    shares,
)
from tests.encoders.conftest import SHARED

BENCH = SHARED / "bench/retrieval.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    if not BENCH.is_file():
        pytest.skip("../shared/bench is not here")
    found = importlib.util.spec_from_file_location("bench_retrieval", BENCH)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def some(count: int, products: int, seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 8)).astype(np.float32)
    labels = np.array([f"p{i % products:02d}" for i in range(count)])
    return Labelled(rows / np.linalg.norm(rows, axis=1, keepdims=True), labels)


def test_retrieval_agrees_with_the_bench(bench: ModuleType) -> None:
    query, gallery = some(60, 12, 0), some(30, 15, 1)
    theirs = bench.Vectors(*query), bench.Vectors(*gallery)

    assert pytest.approx(bench.retrieval(*theirs)) == retrieval(query, gallery)
    expected = {k: pytest.approx(v) for k, v in bench.intervals(*theirs).items()}
    assert expected == retrieval_intervals(query, gallery)


def test_rejection_agrees_with_the_bench(bench: ModuleType) -> None:
    query, gallery, strangers = some(60, 12, 0), some(30, 15, 1), some(40, 5, 2)
    theirs = (bench.Vectors(*part) for part in (query, gallery, strangers))

    assert pytest.approx(bench.known_or_unknown(*theirs)) == known_or_unknown(query, gallery, strangers.vectors)[0]


def test_a_product_without_a_page_is_refused() -> None:
    with pytest.raises(ValueError, match="p14"):
        retrieval(some(30, 15, 0), some(10, 10, 1))


def test_knowing_the_catalogue_helps_to_reject_what_is_off_the_shelf() -> None:
    pages = some(30, 30, 3)
    figures, told = off_shelf(pages, pages, ways=10)

    assert 1.0 == figures["AUROC with catalogue"]
    assert (1.0, 1.0) == told["AUROC with catalogue"]
    chance, spread = off_shelf(some(60, 30, 4), pages, ways=10)
    low, high = spread["AUROC"]
    assert 0.3 < low < chance["AUROC"] < high < 0.7


def test_an_interval_of_a_mean_is_that_of_whole_products_drawn() -> None:
    labels = np.repeat([f"p{i:02}" for i in range(20)], 30)  # a product's photos stand and fall together
    right = np.repeat(np.arange(20) < 15, 30)
    told = intervals(lambda rows: {"R@1": float(np.mean(right[rows]))}, labels)

    assert told == intervals(lambda rows: {"R@1": float(np.mean(right[rows]))}, labels)
    assert product_interval(right, labels) == pytest.approx(told["R@1"], abs=0.06)
    assert told["R@1"][1] - told["R@1"][0] > 0.3  # 600 photos of their own would give 0.07


def test_of_new_and_trained_products_each_is_ranked_among_its_own_and_among_all() -> None:
    products = np.array(["a", "b", "new1", "new2"])
    labels = np.array(["a", "b", "new1", "new2"])
    scores = np.array([[0.9, 0.1, 0.2, 0.0], [0.3, 0.5, 0.6, 0.0], [0.8, 0.0, 0.7, 0.1], [0.0, 0.0, 0.9, 0.3]])
    parts, told = new_and_trained(scores, products, labels, np.array(["new1", "new2"]))

    assert (1.0, 0.5) == (parts["seen"]["R@1"], parts["unseen"]["R@1"])
    assert {"new R@1": 0.0, "trained R@1": 0.5, "harmonic": 0.0} == parts["mixed"]
    assert (0.0, 1.0) == told["mixed"]["trained R@1"]
    with pytest.raises(ValueError, match="0 of 4"):
        new_and_trained(scores, products, labels, np.array(["nobody"]))


def test_shares_leave_the_rest_to_the_unknown() -> None:
    told = shares(np.array([[0.9, 0.1], [0.2, 0.1]]), temperature=0.05, unknown_score=0.5)

    assert np.allclose(1.0, told.sum(axis=1))
    assert told[0, 0] > 0.99
    assert told[1, -1] > 0.99


def test_calibration_error_is_the_gap_between_told_and_true() -> None:
    confidence = np.full(10, 0.8)

    assert pytest.approx(0.0) == calibration_error(confidence, np.arange(10) < 8)
    assert pytest.approx(0.3) == calibration_error(confidence, np.arange(10) < 5)
