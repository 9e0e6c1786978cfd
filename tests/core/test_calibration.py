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
