import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.calibration import share_out


def test_a_score_far_above_the_unknown_takes_nearly_all() -> None:
    assert [0.999955, 0.0] == share_out([0.9, 0.1], temperature=0.04, unknown_score=0.5)


def test_scores_below_the_unknown_leave_nearly_all_to_it() -> None:
    assert sum(share_out([0.3, 0.31], temperature=0.05, unknown_score=0.6)) < 0.01


def test_two_equal_scores_share_equally() -> None:
    first, second = share_out([0.9, 0.9], temperature=0.05, unknown_score=0.5)

    assert first == second == 0.499916


def test_nothing_to_compare_with_is_all_unknown() -> None:
    assert [] == share_out([], temperature=0.05, unknown_score=0.5)


def test_a_lift_moves_shares_between_products_and_none_from_the_unknown() -> None:
    plain = share_out([0.7, 0.65], temperature=0.05, unknown_score=0.6)
    lifted = share_out([0.7, 0.65], temperature=0.05, unknown_score=0.6, lifts=[0.0, 0.2])

    assert plain[0] > plain[1]
    assert lifted[1] > lifted[0]
    assert sum(lifted) == pytest.approx(sum(plain), abs=2e-6)


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=30), st.floats(0.0, 0.5))
def test_a_lift_that_all_have_changes_nothing(scores: list[float], lift: float) -> None:
    plain = share_out(scores, temperature=0.05, unknown_score=0.5)

    assert plain == share_out(scores, temperature=0.05, unknown_score=0.5, lifts=[lift] * len(scores))


@given(
    st.lists(st.tuples(st.floats(-1.0, 1.0), st.sampled_from([0.0, 0.18])), min_size=1, max_size=30),
    st.floats(0.001, 10.0),
    st.floats(-1.0, 2.0),
)
def test_lifted_shares_are_probabilities_and_sum_to_what_they_did(
    pages: list[tuple[float, float]], temperature: float, unknown: float
) -> None:
    scores, lifts = [score for score, _ in pages], [lift for _, lift in pages]
    plain = share_out(scores, temperature=temperature, unknown_score=unknown)
    shares = share_out(scores, temperature=temperature, unknown_score=unknown, lifts=lifts)

    assert all(0.0 <= share <= 1.0 for share in shares)
    assert sum(shares) == pytest.approx(sum(plain), abs=1e-6 * (len(shares) + 1))


@given(
    st.lists(st.floats(-1.0, 1.0), max_size=30),
    st.floats(0.001, 10.0),
    st.floats(-1.0, 2.0),
)
def test_shares_are_probabilities_in_the_order_of_the_scores(
    scores: list[float], temperature: float, unknown: float
) -> None:
    shares = share_out(scores, temperature=temperature, unknown_score=unknown)

    assert all(0.0 <= share <= 1.0 for share in shares)
    assert sum(shares) <= 1.0 + 1e-6 * (len(shares) + 1)
    assert sorted(shares) == [share for _, share in sorted(zip(scores, shares, strict=True))]
