import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamproc.core.candidate import Ended, Gap, Stalled
from streamproc.core.continuity import Arrival, Continuity, arrive, silence
from streamproc.core.embedding import ClipEmbedding
from streamproc.core.progress import Placed, Progress
from streamproc.core.span import Span
from tests.builders import STREAM, embedding_of


def come(*clips: ClipEmbedding) -> list[Arrival]:
    known, arrivals = Continuity(), []
    for clip in clips:
        arrivals.append(arrive(known, clip))
        known = arrivals[-1].continuity
    return arrivals


def told(arrivals: list[Arrival]) -> list[tuple[str, Span | int, str]]:
    said: list[tuple[str, Span | int, str]] = []
    for arrival in arrivals:
        for record in (*arrival.before, *arrival.after):
            if isinstance(record, Gap):
                said.append(("gap", record.span, record.reason))
            else:
                said.append((f"ended {record.broadcast_id}", record.at_ms, record.reason))
    return said


def test_clips_in_turn_are_all_used_and_say_nothing_else() -> None:
    arrivals = come(*(embedding_of(i) for i in range(3)))

    assert [True] * 3 == [a.usable for a in arrivals]
    assert [] == told(arrivals)


def test_a_hole_in_the_sequence_is_a_gap_from_the_last_media_on() -> None:
    arrivals = come(embedding_of(0), embedding_of(3))

    assert [("gap", Span(start_ms=2_000, end_ms=6_000), "missing")] == told(arrivals)


def test_a_stream_that_is_met_in_the_middle_begins_with_a_gap() -> None:
    assert [("gap", Span(start_ms=0, end_ms=8_000), "missing")] == told(come(embedding_of(4)))


def test_a_clip_after_its_gap_is_used_and_reopens_nothing() -> None:
    arrivals = come(embedding_of(0), embedding_of(2), embedding_of(1), embedding_of(3))

    assert [True] * 4 == [a.usable for a in arrivals]
    assert 1 == len(told(arrivals))


def test_words_that_could_not_be_heard_again_are_a_gap_of_no_length() -> None:
    arrivals = come(embedding_of(0), replace(embedding_of(1), speech_lost="audio_expired"))

    start_ms = embedding_of(1).span.start_ms
    assert [("gap", Span(start_ms=start_ms, end_ms=start_ms), "audio_expired")] == told(arrivals)
    assert [True, True] == [a.usable for a in arrivals]


def test_a_late_clip_that_is_lost_was_a_gap_already() -> None:
    arrivals = come(embedding_of(0), embedding_of(2), embedding_of(1, lost="wrong_hash"))

    assert 1 == len(told(arrivals))
    assert not arrivals[-1].usable


def test_a_clip_that_comes_again_means_nothing() -> None:
    arrivals = come(embedding_of(0), embedding_of(1), embedding_of(1))

    assert [True, True, False] == [a.usable for a in arrivals]
    assert arrivals[1].continuity == arrivals[2].continuity


def test_a_lost_clip_is_a_gap_with_its_reason() -> None:
    arrivals = come(embedding_of(0), embedding_of(1, lost="undecodable_media"), embedding_of(2))

    assert [("gap", Span(start_ms=2_000, end_ms=4_000), "undecodable_media")] == told(arrivals)
    assert [True, False, True] == [a.usable for a in arrivals]


def test_the_last_clip_ends_the_broadcast_even_if_it_is_lost() -> None:
    assert [("ended b-1", 4_000, "last_chunk")] == told(come(embedding_of(0), embedding_of(1, last=True)))
    assert ("ended b-1", 4_000, "last_chunk") == told(come(embedding_of(0), embedding_of(1, last=True, lost="x")))[-1]


def test_another_broadcast_ends_the_one_before_and_starts_anew() -> None:
    arrivals = come(embedding_of(0), embedding_of(0, broadcast="b-2"), embedding_of(1, broadcast="b-2"))

    assert [("ended b-1", 2_000, "new_broadcast")] == told(arrivals)


def test_a_broadcast_that_ended_is_not_ended_again_by_the_next() -> None:
    arrivals = come(embedding_of(0, last=True), embedding_of(0, broadcast="b-2"))

    assert [("ended b-1", 2_000, "last_chunk")] == told(arrivals)


def test_a_clip_of_a_past_broadcast_means_nothing() -> None:
    arrivals = come(embedding_of(0), embedding_of(0, broadcast="b-2"), embedding_of(1))

    assert not arrivals[-1].usable
    assert "b-2" == arrivals[-1].continuity.broadcast_id


def test_a_hole_filled_after_the_end_opens_nothing() -> None:
    arrivals = come(embedding_of(0), embedding_of(2, last=True), embedding_of(1))

    assert arrivals[-1].usable
    assert arrivals[-1].continuity.ended


def test_silence_is_first_a_stall_then_an_end_and_each_only_once() -> None:
    known = come(embedding_of(0))[-1].continuity
    stalled = silence(known, STREAM, 20_000)
    assert stalled is not None
    over = silence(stalled[0], STREAM, 300_000)
    assert over is not None

    assert None is silence(known, STREAM, 10_000)
    assert Stalled(stream_id=STREAM, broadcast_id="b-1", at_ms=2_000, silent_ms=20_000) == stalled[1]
    assert None is silence(stalled[0], STREAM, 40_000)
    assert Ended(stream_id=STREAM, broadcast_id="b-1", at_ms=2_000, reason="silence") == over[1]
    assert None is silence(over[0], STREAM, 900_000)


def test_a_stream_that_never_came_is_not_missed() -> None:
    assert None is silence(Continuity(), STREAM, 900_000)


def test_a_stream_that_comes_back_can_stall_again() -> None:
    known = come(embedding_of(0))[-1].continuity
    stalled = silence(known, STREAM, 20_000)
    assert stalled is not None
    back = arrive(stalled[0], embedding_of(1)).continuity

    assert None is not silence(back, STREAM, 20_000)


@pytest.mark.parametrize(
    ("came", "sequence", "placed"),
    [
        ([], 0, "next"),
        ([], 3, "ahead"),
        ([0, 1], 1, "again"),
        ([0, 3], 1, "late"),
        ([0, 5, 3], 2, "late"),
        ([0, 5, 3], 3, "again"),
        ([0, 5, 3], 4, "late"),
    ],
)
def test_a_sequence_has_its_place(came: list[int], sequence: int, placed: Placed) -> None:
    progress = Progress()
    for one in came:
        progress = progress.having(one)

    assert placed == progress.place(sequence)


@given(st.lists(st.integers(0, 30), max_size=40))
def test_what_has_come_comes_again_whatever_the_order(came: list[int]) -> None:
    progress = Progress()
    for i, sequence in enumerate(came):
        assert (progress.place(sequence) == "again") == (sequence in came[:i])
        progress = progress.having(sequence)
