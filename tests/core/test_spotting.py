from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from streamproc.core.candidate import Candidates, Ended, Stalled
from streamproc.core.embedding import EvidenceFrame
from streamproc.core.mention import ProductMention, mention_id_of
from streamproc.core.rule import ConfidenceRule, MentionRule
from streamproc.core.spotting import TRACKS, StreamMentions, advance, trace
from tests.builders import (
    BROADCAST,
    EPOCH,
    NOTHING,
    OTHER_RELEASE,
    STREAM,
    clip_of,
    clips,
    ended_at,
    final_of,
    fold,
    gap_of,
    said,
    shown,
)

MUG, POT = shown("mug"), shown("pot")


def spans(mentions: list[ProductMention]) -> list[tuple[str, str, int, int | None]]:
    return [(m.product_id, m.status, m.span.start_ms, m.span.end_ms) for m in final_of(mentions)]


# --- seen -----------------------------------------------------------------------------------------------------------


def test_a_product_shown_and_put_away_is_one_mention_over_the_time_it_was_shown() -> None:
    _, mentions, _ = fold(clips(NOTHING, NOTHING, *[MUG] * 4, *[NOTHING] * 6))

    assert [("mug", "ended", 4_000, 12_000)] == spans(mentions)
    assert "left_view" == mentions[-1].end_reason


def test_it_is_told_within_one_clip_of_its_first_two_frames() -> None:
    _, mentions, _ = fold(clips(NOTHING, MUG))

    assert [("started", 4_000, 2_000, None)] == [
        (m.status, m.observed_until_ms, m.span.start_ms, m.span.end_ms) for m in mentions
    ]


def test_its_id_and_wall_clock_follow_from_where_it_started() -> None:
    _, (mention,), _ = fold(clips(NOTHING, MUG))

    assert mention_id_of(STREAM, BROADCAST, "mug", 2_000) == mention.mention_id
    assert EPOCH + timedelta(seconds=2) == mention.started_at


def test_the_id_is_the_digest_of_what_never_changes() -> None:
    # printf '["room-7","b-1","mug",2000]' | sha256sum
    assert "6fc91746aac889f183577103b612655b" == mention_id_of(STREAM, BROADCAST, "mug", 2_000)


def test_one_doubtful_frame_is_no_mention() -> None:
    _, mentions, _ = fold([clip_of(0, NOTHING, shown("mug", 0.6)), *clips(*[NOTHING] * 5, first=1)])

    assert [] == mentions


def test_an_hour_of_one_product_after_another_leaves_a_state_no_larger_than_two_minutes() -> None:
    shows = [shows for n in range(300) for shows in [shown(f"product-{n}")] * 2 + [NOTHING] * 4]
    state, sizes = StreamMentions(), []
    for record in clips(*shows):
        state, _, _ = advance(state, record)
        sizes.append(len(msgspec.json.encode(state)))

    assert 1_800 == len(sizes)
    assert max(sizes[1_740:]) < 1.1 * max(sizes[:60])  # the digits of later times


def test_unknown_products_give_no_mention() -> None:
    _, mentions, _ = fold(clips(*[shown("mug", 0.2)] * 20))

    assert [] == mentions


def test_a_moment_out_of_view_does_not_split_a_mention() -> None:
    _, mentions, _ = fold(clips(*[MUG] * 3, NOTHING, *[MUG] * 3, *[NOTHING] * 6))

    assert [("mug", "ended", 0, 14_000)] == spans(mentions)


def test_a_stray_frame_after_the_product_left_does_not_stretch_its_span() -> None:
    stray = clip_of(6, NOTHING, shown("mug", 0.45))
    _, mentions, _ = fold([*clips(*[MUG] * 4, NOTHING, NOTHING), stray, *clips(*[NOTHING] * 5, first=7)])

    assert [("mug", "ended", 0, 8_000)] == spans(mentions)


def test_a_product_that_comes_back_later_is_a_new_mention() -> None:
    _, mentions, _ = fold(clips(*[MUG] * 3, *[NOTHING] * 6, *[MUG] * 3, *[NOTHING] * 6))

    assert [("mug", "ended", 0, 6_000), ("mug", "ended", 18_000, 24_000)] == spans(mentions)


def test_a_new_mention_never_starts_in_what_the_one_before_had_looked_at() -> None:
    rule = MentionRule(close_after_ms=500, spoken_close_after_ms=500)
    late = clip_of(5, NOTHING, NOTHING, spoken=[said("mug", 1_000, 9_900, 0.99)], rule=rule)
    _, mentions, _ = fold([*clips(MUG, MUG, NOTHING, NOTHING, NOTHING, rule=rule), late])
    first, second = final_of(mentions)

    assert first.observed_until_ms <= second.span.start_ms
    assert 8_000 == first.observed_until_ms


def test_words_about_what_an_ended_mention_covered_open_no_new_one() -> None:
    rule = MentionRule(close_after_ms=500)
    late = clip_of(5, NOTHING, NOTHING, spoken=[said("mug", 1_000, 4_000, 0.99)], rule=rule)
    _, mentions, _ = fold([*clips(MUG, MUG, NOTHING, NOTHING, NOTHING, rule=rule), late])

    assert 1 == len(final_of(mentions))


def test_two_products_in_one_picture_are_two_mentions_at_once() -> None:
    _, mentions, _ = fold(clips(*[{"mug": 0.5, "pot": 0.48}] * 5, *[NOTHING] * 6))

    assert [("mug", "ended", 0, 10_000), ("pot", "ended", 0, 10_000)] == spans(mentions)


def test_one_product_after_another_without_a_gap_are_two_mentions_side_by_side() -> None:
    _, mentions, _ = fold(clips(*[MUG] * 4, *[POT] * 4, *[NOTHING] * 6))

    assert [("mug", "ended", 0, 8_000), ("pot", "ended", 8_000, 16_000)] == spans(mentions)


def test_a_mention_without_support_ends_whatever_the_belief() -> None:
    rule = MentionRule(unsupported_ms=6_000, close_after_ms=600_000)
    _, mentions, _ = fold(clips(*[MUG] * 3, *[shown("mug", 0.3)] * 4, rule=rule))

    assert [("mug", "ended", 0, 6_000)] == spans(mentions)


def test_evidence_names_the_best_frames() -> None:
    picture = EvidenceFrame(at_ms=500, ref="sha256:cd")
    records = [clip_of(i, MUG, MUG, pictures=(replace(picture, at_ms=i * 2_000 + 500),)) for i in range(6)]
    _, mentions, _ = fold([*records, ended_at(12_000)])

    assert 0.9 == mentions[-1].evidence.seen
    assert [500, 2_500, 4_500, 6_500] == [frame.at_ms for frame in mentions[-1].evidence.frames]


# --- spoken ---------------------------------------------------------------------------------------------------------


def test_a_product_only_spoken_of_is_a_mention_over_the_words() -> None:
    talk = clip_of(3, NOTHING, NOTHING, spoken=[said("mug", 3_100, 5_900)])
    _, mentions, _ = fold([*clips(*[NOTHING] * 3), talk, *clips(*[NOTHING] * 6, first=4)])

    assert [("mug", "ended", 3_100, 5_900)] == spans(mentions)
    assert (0.0, 0.9) == (mentions[-1].evidence.seen, mentions[-1].evidence.spoken)


def test_speech_without_any_picture_is_enough() -> None:
    records = [clip_of(0), clip_of(1, spoken=[said("mug", 200, 1_900)]), *(clip_of(i) for i in range(2, 30))]
    _, mentions, _ = fold(records)

    assert [("mug", "ended", 200, 1_900)] == spans(mentions)


def test_talk_that_goes_on_about_the_same_thing_carries_the_mention_on() -> None:
    rule = MentionRule(topic_keep=0.8)
    records = [
        clip_of(1, NOTHING, spoken=[said("mug", 0, 2_000)], rule=rule),
        clip_of(2, NOTHING, spoken=[said("mug", 2_500, 4_000, 0.0)], rule=rule),
        *clips(*[NOTHING] * 8, first=3, rule=rule),
    ]
    _, mentions, _ = fold(records)

    assert [("mug", "ended", 0, 4_000)] == spans(mentions)


def test_after_a_pause_the_talk_is_no_longer_about_it() -> None:
    rule = MentionRule(topic_keep=1.0, topic_hold_ms=1_000)
    records = [
        clip_of(1, NOTHING, spoken=[said("mug", 0, 2_000)], rule=rule),
        clip_of(3, NOTHING, spoken=[said("mug", 4_500, 6_000, 0.0)], rule=rule),
        *clips(*[NOTHING] * 8, first=4, rule=rule),
    ]
    _, mentions, _ = fold(records)

    assert [("mug", "ended", 0, 2_000)] == spans(mentions)


def test_of_two_look_alikes_it_is_the_one_that_is_spoken_of() -> None:
    both = {"gala": 0.45, "lady": 0.45}
    records = [
        clip_of(i, both, both, spoken=[said("gala", i * 2_000 - 1_500, i * 2_000, 0.95)] if i else [])
        for i in range(1, 8)
    ]
    _, mentions, _ = fold(records)

    assert ["gala"] == [m.product_id for m in final_of(mentions)]


def test_naming_a_product_that_is_not_sold_here_speaks_against_its_look_alike() -> None:
    frame = shown("gala", 0.5)
    silent = [clip_of(i, frame, frame, off_shelf=0.4) for i in range(1, 8)]
    named = [
        clip_of(i, frame, frame, off_shelf=0.4, spoken=[said("", i * 2_000 - 1_500, i * 2_000, 0.0, off_shelf=0.9)])
        for i in range(1, 8)
    ]

    assert 1 == len(final_of(fold(silent)[1]))
    assert [] == fold(named)[1]


def test_words_that_come_late_move_the_start_back_and_keep_the_id() -> None:
    late = clip_of(4, MUG, MUG, spoken=[said("mug", 2_600, 5_000)])
    _, mentions, _ = fold([*clips(NOTHING, NOTHING, MUG, MUG), late])

    assert [(1, 4_000), (2, 2_600)] == [(m.revision, m.span.start_ms) for m in mentions]
    assert 1 == len({m.mention_id for m in mentions})
    assert EPOCH + timedelta(milliseconds=2_600) == mentions[-1].started_at


def test_words_stretch_what_is_seen_only_so_far() -> None:
    rule = MentionRule(spoken_reach_ms=1_000)
    late = clip_of(8, MUG, MUG, spoken=[said("mug", 2_000, 16_000)], rule=rule)
    _, mentions, _ = fold([*clips(*[NOTHING] * 6, MUG, MUG, rule=rule), late])

    assert 11_000 == mentions[-1].span.start_ms


@pytest.mark.parametrize(("tell", "count"), [(False, 0), (True, 32)])
def test_words_are_in_the_evidence_only_where_they_are_told(tell: bool, count: int) -> None:
    rule = MentionRule(tell_words=tell)
    talk = clip_of(1, NOTHING, spoken=[said("mug", 0, 2_000, words=40 if tell else 0)], rule=rule)
    _, mentions, _ = fold([talk])

    assert count == len(mentions[-1].evidence.words)


# --- the life of a mention ------------------------------------------------------------------------------------------


def test_an_open_mention_is_told_again_only_when_something_changed_or_after_a_while() -> None:
    rule = MentionRule(update_after_ms=8_000)
    _, mentions, _ = fold(clips(*[MUG] * 14, rule=rule))

    assert [2_000, 10_000, 18_000, 26_000] == [m.observed_until_ms for m in mentions]
    assert ["started", "updated", "updated", "updated"] == [m.status for m in mentions]


def test_a_mention_that_was_too_short_is_taken_back() -> None:
    rule = MentionRule(minimum_ms=5_000)
    _, mentions, _ = fold(clips(MUG, *[NOTHING] * 6, rule=rule))

    assert ["started", "retracted"] == [m.status for m in mentions]


def test_a_mention_that_turned_out_improbable_is_taken_back() -> None:
    rule = MentionRule(keep_confidence=0.5, confidence=ConfidenceRule(constant=-1.0, seen=1.2, length=2.0))
    _, mentions, _ = fold(clips(MUG, *[NOTHING] * 6, rule=rule))

    assert ["started", "retracted"] == [m.status for m in mentions]
    assert mentions[-1].confidence < 0.5


def test_a_longer_mention_is_surer() -> None:
    short = fold(clips(*[MUG] * 2, *[NOTHING] * 6))[1][-1]
    long = fold(clips(*[MUG] * 9, *[NOTHING] * 6))[1][-1]

    assert short.confidence < long.confidence


def test_open_mentions_end_with_the_stream() -> None:
    _, mentions, statuses = fold([*clips(*[MUG] * 3), ended_at(6_000)])

    assert [("mug", "ended", 0, 6_000)] == spans(mentions)
    assert "stream_ended" == mentions[-1].end_reason
    assert ["live", "ended"] == [s.status for s in statuses]


def test_a_stream_that_goes_on_after_its_end_starts_new_mentions() -> None:
    ended = Ended(stream_id=STREAM, broadcast_id=BROADCAST, at_ms=6_000, reason="silence")
    _, mentions, statuses = fold([*clips(*[MUG] * 3), ended, *clips(*[MUG] * 3, first=3)])

    assert [("mug", "ended", 0, 6_000), ("mug", "started", 6_000, None)] == spans(mentions)
    assert ["live", "ended", "live"] == [s.status for s in statuses]


def test_another_broadcast_ends_what_was_open_and_counts_from_zero() -> None:
    state, mentions, _ = fold([*clips(*[MUG] * 3), clip_of(0, MUG, MUG, broadcast="b-2")])

    assert [("mug", "ended", 0, 6_000), ("mug", "started", 0, None)] == spans(mentions)
    assert ("b-2", ("b-1",)) == (state.broadcast_id, state.past_broadcasts)


def test_another_release_ends_open_mentions_and_their_successors_name_them() -> None:
    after = [clip_of(i, MUG, MUG, release=OTHER_RELEASE) for i in range(3, 6)]
    _, mentions, _ = fold([*clips(*[MUG] * 3), *after])
    first, second = final_of(mentions)

    assert ("ended", "release", 0, 6_000) == (
        first.status, first.end_reason, first.span.start_ms, first.span.end_ms
    )  # fmt: skip
    assert (first.mention_id, OTHER_RELEASE, 6_000) == (second.continues, second.release, second.span.start_ms)


def test_a_successor_that_comes_much_later_continues_nothing() -> None:
    shows = [NOTHING] * 10 + [MUG] * 2
    after = [clip_of(3 + i, show, show, release=OTHER_RELEASE) for i, show in enumerate(shows)]
    _, mentions, _ = fold([*clips(*[MUG] * 3), *after])

    assert None is final_of(mentions)[-1].continues


def test_a_product_taken_off_the_shelf_ends_at_once() -> None:
    gone = clip_of(3, NOTHING, NOTHING, shelf_version=2, withdrawn=("mug", "pot"))
    _, mentions, _ = fold([*clips(*[MUG] * 3), gone])

    assert [("mug", "ended", 0, 6_000)] == spans(mentions)
    assert "shelf" == mentions[-1].end_reason


def test_the_worst_quality_that_a_mention_rests_on_is_told() -> None:
    poor = clip_of(2, MUG, quality="fewer_frames")
    _, mentions, statuses = fold([*clips(MUG, MUG), poor, *clips(MUG, first=3)])

    assert ["full", "fewer_frames"] == [m.quality for m in mentions]
    assert [("live", ""), ("degraded", "fewer_frames"), ("live", "")] == [(s.status, s.reason) for s in statuses]


# --- holes, stalls, repetitions -------------------------------------------------------------------------------------


def test_a_long_hole_ends_open_mentions() -> None:
    _, mentions, statuses = fold([*clips(*[MUG] * 3), gap_of(3, 3), *clips(*[MUG] * 3, first=6)])

    assert [("mug", "ended", 0, 6_000), ("mug", "started", 12_000, None)] == spans(mentions)
    assert "gap" == mentions[1].end_reason
    assert ["live", "gap", "live"] == [s.status for s in statuses]


def test_a_short_hole_is_bridged() -> None:
    _, mentions, _ = fold([*clips(*[MUG] * 3), gap_of(3, 1), *clips(*[MUG] * 3, first=4), ended_at(14_000)])

    assert [("mug", "ended", 0, 14_000)] == spans(mentions)


def test_short_holes_in_a_row_are_one_long_hole() -> None:
    holes = [gap_of(i, 1, reason="undecodable_media") for i in (3, 4, 5)]
    _, mentions, statuses = fold([*clips(*[MUG] * 3), *holes])

    assert "gap" == mentions[-1].end_reason
    assert [("live", ""), ("gap", "undecodable_media")] == [(s.status, s.reason) for s in statuses]


def test_a_gap_that_is_no_news_changes_nothing() -> None:
    before = fold([*clips(*[MUG] * 3)])

    assert before == (advance(before[0], gap_of(1, 1))[0], before[1], before[2])


def test_a_stall_changes_the_status_and_no_mention() -> None:
    stalled = Stalled(stream_id=STREAM, broadcast_id=BROADCAST, at_ms=6_000, silent_ms=15_000)
    _, mentions, statuses = fold([*clips(*[MUG] * 3), stalled, stalled, *clips(MUG, first=3)])

    assert 1 == len(final_of(mentions))
    assert [("live", 2_000), ("stalled", 6_000), ("live", 8_000)] == [(s.status, s.at_ms) for s in statuses]


def test_a_stall_after_the_end_is_no_news() -> None:
    stalled = Stalled(stream_id=STREAM, broadcast_id=BROADCAST, at_ms=2_000, silent_ms=15_000)
    _, _, statuses = fold([*clips(MUG), ended_at(2_000), stalled])

    assert ["live", "ended"] == [s.status for s in statuses]


def test_a_clip_that_comes_after_its_gap_reopens_nothing() -> None:
    late = clip_of(3, POT, POT, spoken=[said("pot", 4_000, 6_000, 0.99)])
    with_it = fold([*clips(*[MUG] * 3), gap_of(3, 1), *clips(*[MUG] * 3, first=4), late, ended_at(14_000)])
    without = fold([*clips(*[MUG] * 3), gap_of(3, 1), *clips(*[MUG] * 3, first=4), ended_at(14_000)])

    assert with_it[1:] == without[1:]


def test_a_record_of_a_past_broadcast_changes_nothing() -> None:
    state, _, _ = fold([*clips(MUG), clip_of(0, MUG, broadcast="b-2")])

    assert (state, (), ()) == advance(state, clip_of(1, MUG, MUG))
    assert (state, (), ()) == advance(state, ended_at(2_000))


def test_an_end_that_is_told_twice_ends_once() -> None:
    _, mentions, statuses = fold([*clips(*[MUG] * 3), ended_at(6_000), ended_at(6_000)])

    assert ["started", "ended"] == [m.status for m in mentions]
    assert 2 == len(statuses)


def test_an_end_before_what_was_seen_is_an_old_one() -> None:
    state, _, _ = fold(clips(*[MUG] * 3))

    assert (state, (), ()) == advance(state, ended_at(4_000))


def test_time_that_runs_backwards_inverts_nothing() -> None:
    backwards = replace(clip_of(3, MUG, MUG), span=clip_of(1).span, seen=clip_of(1, MUG, MUG).seen)
    _, mentions, _ = fold([*clips(*[MUG] * 3), backwards, ended_at(6_000)])

    assert [("mug", "ended", 0, 6_000)] == spans(mentions)


def test_the_state_stays_small_however_long_and_crowded_the_stream() -> None:
    crowd: list[Candidates] = [
        clip_of(i, *({f"p{i}-{j}-{k}": 0.12 for k in range(8)} for j in range(8))) for i in range(40)
    ]
    state, _, _ = fold(crowd)

    assert len(state.tracks) <= TRACKS
    assert () == StreamMentions().tracks


def test_tracing_gives_the_same_and_what_the_mention_rested_on() -> None:
    state, _, _ = fold(clips(*[MUG] * 3))
    end = ended_at(6_000)
    folded, (closing,) = trace(state, end)

    assert advance(state, end) == folded
    assert (state.mentions[0].mention_id, 6_000, 6) == (closing.mention_id, closing.length_ms, closing.support.frames)


def test_a_state_that_lost_the_evidence_of_an_open_mention_is_a_fault_and_loud() -> None:
    state, _, _ = fold(clips(*[MUG] * 3))
    hollow = replace(state, tracks=(replace(state.tracks[0], support=None),))

    with pytest.raises(AssertionError, match="an open mention of mug has lost its evidence"):
        advance(hollow, ended_at(6_000))


def test_a_state_with_a_mention_that_no_clip_opened_is_a_fault_and_loud() -> None:
    state, _, _ = fold(clips(*[MUG] * 3))

    with pytest.raises(AssertionError, match="a mention without a clip"):
        advance(replace(state, captured_at=None), ended_at(6_000))
