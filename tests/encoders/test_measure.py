"""Our figures are the bench's."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from encoders.measure import (
    Labelled,
    calibration_error,
    known_or_unknown,
    off_shelf,
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

    assert pytest.approx(bench.known_or_unknown(*theirs)) == known_or_unknown(query, gallery, strangers.vectors)


def test_a_product_without_a_page_is_refused() -> None:
    with pytest.raises(ValueError, match="p14"):
        retrieval(some(30, 15, 0), some(10, 10, 1))


def test_knowing_the_catalogue_helps_to_reject_what_is_off_the_shelf() -> None:
    pages = some(30, 30, 3)
    figures = off_shelf(pages, pages, ways=10)

    assert 1.0 == figures["AUROC with catalogue"]
    assert figures["AUROC"] <= 1.0


def test_shares_leave_the_rest_to_the_unknown() -> None:
    told = shares(np.array([[0.9, 0.1], [0.2, 0.1]]), temperature=0.05, unknown_score=0.5)

    assert np.allclose(1.0, told.sum(axis=1))
    assert told[0, 0] > 0.99
    assert told[1, -1] > 0.99


def test_calibration_error_is_the_gap_between_told_and_true() -> None:
    confidence = np.full(10, 0.8)

    assert pytest.approx(0.0) == calibration_error(confidence, np.arange(10) < 8)
    assert pytest.approx(0.3) == calibration_error(confidence, np.arange(10) < 5)
