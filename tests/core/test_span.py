import pytest

from streamproc.core.mention import MentionSpan
from streamproc.core.span import Span


def test_a_span_knows_its_length_what_it_shares_and_how_far_the_next_is() -> None:
    span, later = Span(start_ms=1_000, end_ms=3_000), Span(start_ms=2_500, end_ms=9_000)

    assert (2_000, 500, 0) == (span.duration_ms, span.overlap_ms(later), span.gap_to_ms(later))
    assert (0, 1_000) == (
        span.overlap_ms(Span(start_ms=4_000, end_ms=5_000)),
        span.gap_to_ms(Span(start_ms=4_000, end_ms=5_000)),
    )


def test_no_span_ends_before_it_starts() -> None:
    with pytest.raises(ValueError, match="span ends at 1 before it starts at 2"):
        Span(start_ms=2, end_ms=1)
    with pytest.raises(ValueError, match="mention ends at 1 before it starts at 2"):
        MentionSpan(start_ms=2, end_ms=1)
