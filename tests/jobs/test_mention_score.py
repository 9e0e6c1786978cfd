from streamproc.jobs.mention_score import Told, TruthRow, score, told_of
from tests.builders import NOTHING, clips, fold, shown


def row(product: str | None, start_ms: int, end_ms: int, *, shown: bool = True, spoken: bool = False) -> TruthRow:
    return TruthRow(
        stream_id="room-7",
        product_id=product,
        start_ms=start_ms,
        end_ms=end_ms,
        shown=shown and product is not None,
        spoken=spoken,
        on_shelf=product is not None,
    )


def told(name: str, product: str, start_ms: int, end_ms: int, confidence: float = 0.9) -> Told:
    return Told(
        mention_id=name,
        stream_id="room-7",
        product_id=product,
        start_ms=start_ms,
        end_ms=end_ms,
        confidence=confidence,
        first_ms=start_ms + 2_000,
    )


TRUTH = (
    row("mug", 0, 10_000),
    row(None, 10_000, 20_000),
    row("pot", 20_000, 30_000, shown=False, spoken=True),
    row(None, 30_000, 3_600_000),
)


def test_the_truth_itself_scores_one() -> None:
    found = score(TRUTH, [told("a", "mug", 0, 10_000, 1.0), told("b", "pot", 20_000, 30_000, 1.0)])

    assert {"0.3": 1.0, "0.5": 1.0, "0.7": 1.0} == found.f1
    assert (0.0, 2_000, 1.0, 0.0) == (
        found.false_per_hour, found.recognise_p50_ms, found.mentions_per_span, found.ece
    )  # fmt: skip


def test_a_span_that_is_half_covered_counts_at_low_overlap_only() -> None:
    found = score(TRUTH, [told("a", "mug", 0, 4_000)])

    assert (2 / 3, 0.0) == (found.f1["0.3"], found.f1["0.5"])
    assert (1.0, 0.0, None) == (found.recall["shown@0.3"], found.recall["spoken@0.3"], found.recall["both@0.3"])


def test_one_true_span_is_one_mention_and_the_surest_takes_it() -> None:
    found = score(TRUTH, [told("a", "mug", 0, 9_000, 0.6), told("b", "mug", 0, 10_000, 0.8)])

    assert (1.0, 2.0) == (found.false_per_hour, found.mentions_per_span)


def test_nothing_told_of_nothing_has_no_score() -> None:
    found = score((), ())

    assert (None, None, None, 0.0) == (found.f1["0.5"], found.ece, found.mentions_per_span, found.false_per_hour)


def test_what_was_taken_back_is_not_told_and_what_is_open_ends_where_media_ends() -> None:
    _, events, _ = fold(clips(NOTHING, shown("mug"), shown("mug")))
    retracted = [event for event in events if event.status == "retracted"]

    assert [] == retracted
    assert [("mug", 2_000, 4_000)] == [(one.product_id, one.start_ms, one.end_ms) for one in told_of(events)]
