"""What holds of every stream, however odd."""

from itertools import pairwise

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from streamproc.core.candidate import CandidateRecord, Candidates, Ended, SpokenCandidates, Stalled
from streamproc.core.mention import ProductMention, mention_id_of
from streamproc.core.rule import MentionRule
from streamproc.core.span import Span
from streamproc.core.spotting import StreamMentions, advance
from tests.builders import (
    CLIP_MS,
    OTHER_RELEASE,
    RELEASE,
    STREAM,
    Shares,
    clip_of,
    gap_of,
    scores_of,
)

PRODUCTS = ("mug", "pot", "pan")
# Quick to open and to close, so that short streams have many mentions.
NERVOUS = MentionRule(
    open_probability=0.5, close_after_ms=500, spoken_close_after_ms=1_500, minimum_ms=1_500, gap_after_ms=3_000
)


@st.composite
def shares(draw: st.DrawFn) -> Shares:
    return {product: draw(st.sampled_from((0.0, 0.02, 0.3, 0.33))) for product in PRODUCTS} | (
        {draw(st.sampled_from(PRODUCTS)): 0.34} if draw(st.booleans()) else {draw(st.sampled_from(PRODUCTS)): 0.3}
    )


one_shown = st.sampled_from(PRODUCTS).map(lambda product: {product: 0.95})
frames = st.lists(st.one_of(one_shown, shares(), st.just({})), max_size=3)


@st.composite
def utterances(draw: st.DrawFn, until_ms: int) -> list[SpokenCandidates]:
    said = []
    for _ in range(draw(st.integers(0, 2))):
        end_ms = draw(st.integers(0, until_ms))
        start_ms = max(0, end_ms - draw(st.integers(1, 12_000)))
        share = draw(st.sampled_from((0.0, 0.2, 0.9)))
        product = draw(st.sampled_from(PRODUCTS))
        said.append(SpokenCandidates(span=Span(start_ms=start_ms, end_ms=end_ms), scores=scores_of({product: share})))
    return said


@st.composite
def streams(draw: st.DrawFn) -> list[CandidateRecord]:
    """Clips in turn with holes, late and repeated ones, stalls, ends, another release or broadcast in between."""
    records: list[CandidateRecord] = []
    broadcast, sequence, release = 1, 0, RELEASE
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(("clip",) * 12 + ("gap", "late", "again", "stall", "end", "release", "broadcast")))
        name, now_ms = f"b-{broadcast}", sequence * CLIP_MS
        if kind == "gap":
            count = draw(st.integers(1, 3))
            records.append(gap_of(sequence, count, broadcast=name))
            sequence += count
        elif kind == "again" and records:
            records.append(draw(st.sampled_from(records)))
        elif kind == "stall":
            records.append(Stalled(stream_id=STREAM, broadcast_id=name, at_ms=now_ms, silent_ms=15_000))
        elif kind == "end":
            records.append(Ended(stream_id=STREAM, broadcast_id=name, at_ms=now_ms, reason="silence"))
        elif kind == "broadcast":
            broadcast, sequence = broadcast + 1, 0
        else:
            release = OTHER_RELEASE if kind == "release" else release
            place = max(0, sequence - draw(st.integers(1, 3))) if kind == "late" else sequence
            records.append(
                clip_of(
                    place,
                    *draw(frames),
                    spoken=draw(utterances(place * CLIP_MS)),
                    broadcast=name,
                    release=release,
                    rule=NERVOUS,
                    withdrawn=draw(st.sampled_from(((), (), (), ("mug",)))),
                )
            )
            sequence += kind != "late"
    return records


def all_of(records: list[CandidateRecord], state: StreamMentions | None = None) -> list[ProductMention]:
    state = state or StreamMentions()
    told: list[ProductMention] = []
    for record in records:
        state, mentions, _ = advance(state, record)
        told += mentions
    return told


def by_id(mentions: list[ProductMention]) -> dict[str, list[ProductMention]]:
    groups: dict[str, list[ProductMention]] = {}
    for mention in mentions:
        groups.setdefault(mention.mention_id, []).append(mention)
    return groups


many = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(streams())
def test_every_mention_lives_by_the_protocol(records: list[CandidateRecord]) -> None:
    for mention_id, revisions in by_id(all_of(records)).items():
        first = revisions[0]

        assert list(range(1, len(revisions) + 1)) == [m.revision for m in revisions]
        assert ["started"] + ["updated"] * (len(revisions) - 2) == [m.status for m in revisions[:-1]] or 1 == len(
            revisions
        )
        assert all(m.status in ("updated", "ended", "retracted") for m in revisions[1:])
        assert {first.product_id} == {m.product_id for m in revisions}
        assert {first.release} == {m.release for m in revisions}
        assert mention_id == mention_id_of(STREAM, first.broadcast_id, first.product_id, first.span.start_ms)


@many
@given(streams())
def test_spans_never_invert_and_nothing_is_told_of_media_not_seen(records: list[CandidateRecord]) -> None:
    for revisions in by_id(all_of(records)).values():
        for mention in revisions:
            end_ms = mention.span.end_ms
            assert (end_ms is None) == (mention.status in ("started", "updated"))
            assert mention.span.start_ms <= (mention.observed_until_ms if end_ms is None else end_ms)
        assert all(one.observed_until_ms <= two.observed_until_ms for one, two in pairwise(revisions))
        assert all(one.span.start_ms >= two.span.start_ms for one, two in pairwise(revisions))


@many
@given(streams())
def test_mentions_of_a_product_follow_one_another(records: list[CandidateRecord]) -> None:
    groups: dict[tuple[str, str], list[list[ProductMention]]] = {}
    for revisions in by_id(all_of(records)).values():
        groups.setdefault((revisions[0].broadcast_id, revisions[0].product_id), []).append(revisions)
    for mentions in groups.values():
        for before, after in pairwise(mentions):
            assert before[-1].status in ("ended", "retracted")
            assert all(before[-1].observed_until_ms <= m.span.start_ms for m in after)


@many
@given(streams())
def test_a_state_that_went_through_json_gives_the_same_bytes(records: list[CandidateRecord]) -> None:
    plain = travelled = StreamMentions()
    for record in records:
        plain, told, changed = advance(plain, record)
        travelled = msgspec.json.decode(msgspec.json.encode(travelled), type=StreamMentions)
        travelled, told_again, changed_again = advance(travelled, record)

        assert msgspec.json.encode((told, changed)) == msgspec.json.encode((told_again, changed_again))
    assert msgspec.json.encode(plain) == msgspec.json.encode(travelled)


@many
@given(streams(), st.data())
def test_folding_a_prefix_twice_changes_nothing(records: list[CandidateRecord], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(records)))
    state = StreamMentions()
    for record in records[:cut]:
        state, _, _ = advance(state, record)
    for record in records[:cut]:
        again, mentions, statuses = advance(state, record)

        assert (state, (), ()) == (again, mentions, statuses)


@many
@given(streams())
def test_no_two_events_have_one_id_and_revision(records: list[CandidateRecord]) -> None:
    told = all_of(records)

    assert len(told) == len({(m.mention_id, m.revision) for m in told})


@given(streams(), st.sampled_from(PRODUCTS))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_product_that_is_never_listed_is_never_mentioned(records: list[CandidateRecord], product: str) -> None:
    def without(record: CandidateRecord) -> CandidateRecord:
        if not isinstance(record, Candidates):
            return record
        return replace(
            record,
            seen=tuple(
                replace(frame, scores=tuple(s for s in frame.scores if s.product_id != product))
                for frame in record.seen
            ),
            spoken=tuple(
                replace(said, scores=tuple(s for s in said.scores if s.product_id != product)) for said in record.spoken
            ),
        )

    assert product not in {m.product_id for m in all_of([without(record) for record in records])}
