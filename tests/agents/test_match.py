import gc
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from streamproc.adapters.memory_index import MemoryIndex
from streamproc.agents.match import NEAREST, Match, MatchState
from streamproc.core.calibration import Calibration
from streamproc.core.candidate import CandidateRecord, Candidates, Ended, Gap, Stalled
from streamproc.core.catalog import Shelf
from streamproc.core.embedding import ClipEmbedding, PageEmbedding
from streamproc.core.gallery import Gallery
from streamproc.core.judgement import Judgement
from streamproc.core.release import ReleaseActivation
from streamproc.core.rule import MentionRule
from streamproc.errors import BadMessage, Unavailable
from streamproc.ports import Output, ReleaseFacts
from streamproc.topics import LIVE_CANDIDATES
from tests.builders import (
    OTHER_RELEASE,
    RELEASE,
    STREAM,
    FixedClock,
    clip_of,
    delivery_of,
    embedding_of,
    row_of,
    vector_of,
)

MUG, POT, CUP = vector_of(1, 0, 0), vector_of(0, 1, 0), vector_of(1, 0.4, 0)
ON_SHELF = Judgement()
WITHOUT_SHELF = Judgement(calibration=Calibration(threshold=0.7), mention_rule=MentionRule(open_probability=0.8))
PAGES = (row_of("mug", MUG), row_of("pot", POT), row_of("cup", CUP))


class FakeShelves:
    def __init__(self) -> None:
        self.shelf: Shelf | None = None

    def of(self, stream_id: str) -> Shelf | None:
        return self.shelf


class FakeReleases:
    def __init__(self) -> None:
        self.now: ReleaseActivation | None = activation(RELEASE, "pages-a")
        self.next: ReleaseActivation | None = None

    def active(self) -> ReleaseActivation | None:
        return self.now

    def prepared(self) -> ReleaseActivation | None:
        return self.next


class FakeBook:
    """Has the facts of every release that it is told of."""

    def __init__(self, *releases: str) -> None:
        self.releases = releases

    def facts(self, release: str) -> ReleaseFacts | None:
        if release not in self.releases:
            return None
        return ReleaseFacts(release=release, name="lite", dim=3, on_shelf=ON_SHELF, without_shelf=WITHOUT_SHELF)


class CountingIndex(MemoryIndex):
    """Counts how often whole pages are asked for."""

    asked = 0

    async def pages_of(self, collection: str, product_ids: Sequence[str]) -> tuple[PageEmbedding, ...]:
        self.asked += 1
        return await super().pages_of(collection, product_ids)


class World:
    """A match agent over an index with a mug, a pot and a cup, in a room that sells mug and pot."""

    def __init__(self) -> None:
        self.index, self.shelves, self.releases, self.clock = (
            CountingIndex(),
            FakeShelves(),
            FakeReleases(),
            FixedClock(),
        )
        self.agent = Match(
            index=self.index,
            shelves=self.shelves,
            releases=self.releases,
            book=FakeBook(RELEASE, OTHER_RELEASE),
            clock=self.clock,
        )
        self.state = self.agent.fresh(STREAM)
        self.shelves.shelf = shelf_of("mug", "pot")

    async def fill(self, *rows: PageEmbedding, collection: str = "pages-a", release: str = RELEASE) -> None:
        await self.index.create(collection, release=release, dim=3)
        await self.index.upsert(collection, rows)

    async def come(self, clip: ClipEmbedding) -> list[CandidateRecord]:
        step = await self.agent.step(self.state, delivery_of(clip))
        self.state = step.state
        return messages(step.outputs)


def messages(outputs: Sequence[Output]) -> list[CandidateRecord]:
    assert all((LIVE_CANDIDATES, STREAM) == (output.topic, output.key) for output in outputs)
    return [output.message for output in outputs if isinstance(output.message, Candidates | Gap | Stalled | Ended)]


def activation(release: str, collection: str) -> ReleaseActivation:
    return ReleaseActivation(release=release, collection=collection, at=datetime(2026, 11, 22, tzinfo=UTC))


def shelf_of(*products: str, version: int = 1) -> Shelf:
    return Shelf(stream_id=STREAM, version=version, product_ids=products)


async def world_with(*rows: PageEmbedding) -> World:
    world = World()
    await world.fill(*(rows or PAGES))
    return world


def candidates_in(records: Sequence[CandidateRecord]) -> Candidates:
    (found,) = [record for record in records if isinstance(record, Candidates)]
    return found


def products_in(records: Sequence[CandidateRecord]) -> list[str]:
    return [score.product_id for frame in candidates_in(records).seen for score in frame.scores]


async def test_a_clip_is_ranked_against_what_its_room_sells() -> None:
    world = await world_with()

    records = await world.come(embedding_of(0, MUG))
    told = candidates_in(records)

    assert ["mug"] == products_in(records)
    assert (ON_SHELF.calibration.threshold, ON_SHELF.mention_rule) == (told.threshold, told.rule)
    assert (RELEASE, "pages-a", 1, ("mug",)) == (
        world.state.release, world.state.collection, world.state.shelf_version, world.state.listed
    )  # fmt: skip


async def test_a_product_that_the_room_does_not_sell_is_not_reported_as_its_look_alike() -> None:
    world = await world_with()
    candidates = candidates_in(await world.come(embedding_of(0, CUP)))

    assert candidates.seen[0].off_shelf > 0.7
    assert candidates.seen[0].scores[0].probability < 0.3


async def test_without_a_shelf_the_whole_catalogue_is_ranked() -> None:
    world = await world_with()
    world.shelves.shelf = None
    records = await world.come(embedding_of(0, CUP))

    assert ["cup", "mug"] == products_in(records)
    told = candidates_in(records)
    assert (None, 0.7, WITHOUT_SHELF.mention_rule) == (told.shelf_version, told.threshold, told.rule)


async def test_without_a_shelf_what_is_said_finds_pages_by_their_texts() -> None:
    looks_like_what_is_said = [row_of(f"other-{i}", MUG) for i in range(NEAREST + 1)]
    words = [row_of("pot", POT), row_of("pot", MUG, part="text")]
    world = await world_with(*looks_like_what_is_said, *words)
    world.shelves.shelf = None
    (spoken,) = candidates_in(await world.come(embedding_of(0, spoken=[("the pot", MUG)]))).spoken

    assert ["pot"] == [score.product_id for score in spoken.scores]


async def test_an_empty_shelf_reports_nothing() -> None:
    world = await world_with()
    world.shelves.shelf = shelf_of()

    assert [] == products_in(await world.come(embedding_of(0, MUG)))


async def test_another_shops_page_does_not_compete() -> None:
    world = await world_with(row_of("mug", MUG, shop_id="a"), row_of("mug-of-b", MUG, shop_id="b"))
    world.shelves.shelf = shelf_of("mug")
    (frame,) = candidates_in(await world.come(embedding_of(0, MUG, shop_id="a"))).seen

    assert 0.0 == frame.off_shelf
    assert frame.scores[0].probability > 0.99


async def test_a_clip_without_vectors_is_written_down_all_the_same() -> None:
    world = await world_with()
    candidates = candidates_in(await world.come(embedding_of(0)))

    assert ((), ()) == (candidates.seen, candidates.spoken)


async def test_a_hole_comes_before_the_clip_and_the_end_after_it() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG))
    records = await world.come(embedding_of(2, MUG, last=True))

    assert [Gap, Candidates, Ended] == [type(record) for record in records]


async def test_a_late_clip_gives_its_candidates() -> None:
    world = await world_with()
    for sequence in (0, 2):
        await world.come(embedding_of(sequence, MUG))

    assert [Candidates] == [type(record) for record in await world.come(embedding_of(1, MUG))]


async def test_a_clip_that_comes_again_gives_nothing() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG))
    before = world.state

    assert [] == await world.come(embedding_of(0, MUG))
    assert before == world.state


async def test_a_lost_clip_is_a_gap() -> None:
    world = await world_with()
    records = await world.come(embedding_of(0, lost="wrong_hash"))

    assert [("wrong_hash", 0, 2_000)] == [
        (r.reason, r.span.start_ms, r.span.end_ms) for r in records if isinstance(r, Gap)
    ]
    assert 1 == len(records)


async def test_products_listed_lately_that_the_shelf_has_no_more_are_withdrawn_once() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG, POT))
    world.shelves.shelf = shelf_of("pot", version=2)
    records = [await world.come(embedding_of(i, POT)) for i in (1, 2)]

    assert [("mug",), ()] == [candidates_in(one).withdrawn for one in records]


async def test_a_clip_is_ranked_in_the_collection_of_its_own_release() -> None:
    world = await world_with()
    await world.fill(row_of("pot", MUG), collection="pages-b", release=OTHER_RELEASE)
    world.releases.next = activation(OTHER_RELEASE, "pages-b")

    assert ["mug"] == products_in(await world.come(embedding_of(0, MUG)))
    assert ["pot"] == products_in(await world.come(embedding_of(1, MUG, release=OTHER_RELEASE)))


async def test_a_clip_still_on_its_way_when_another_release_becomes_active_is_ranked_in_its_own() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG))
    world.releases.now = activation(OTHER_RELEASE, "pages-b")

    assert ["mug"] == products_in(await world.come(embedding_of(1, MUG)))


async def test_a_clip_of_an_announced_release_waits_until_its_facts_are_at_hand() -> None:
    world = await world_with()
    later = "sha256:" + "c" * 64
    world.releases.next = activation(later, "pages-c")

    with pytest.raises(Unavailable, match="not at hand here"):
        await world.come(embedding_of(0, MUG, release=later))


async def test_a_clip_of_a_foreign_release_is_a_bad_message_and_leaves_a_gap() -> None:
    world = await world_with()
    clip = embedding_of(0, MUG, release="sha256:" + "c" * 64)

    with pytest.raises(BadMessage, match="foreign_release"):
        await world.come(clip)
    step = await world.agent.lost(world.state, delivery_of(clip), "foreign_release")

    assert [("foreign_release", 0, 2_000)] == [
        (r.reason, r.span.start_ms, r.span.end_ms) for r in messages(step.outputs) if isinstance(r, Gap)
    ]
    assert 1 == step.state.continuity.progress.awaited


async def test_without_an_active_release_clips_wait() -> None:
    world = await world_with()
    world.releases.now = None

    with pytest.raises(Unavailable, match="no release is active"):
        await world.come(embedding_of(0, MUG))


async def test_an_index_that_does_not_answer_holds_the_clip() -> None:
    world = await world_with()
    world.index.fail_with = Unavailable("index", "down")

    with pytest.raises(Unavailable, match="down"):
        await world.come(embedding_of(0, MUG))
    assert world.agent.fresh(STREAM) == world.state


async def test_pages_are_asked_for_again_when_they_are_old() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG))
    asked = world.index.asked
    await world.come(embedding_of(1, MUG))
    assert asked == world.index.asked

    await world.fill(row_of("mug", POT), row_of("pot", MUG))
    world.clock.pass_seconds(61)

    assert ["pot"] == products_in(await world.come(embedding_of(2, MUG)))


async def test_a_shelf_with_a_product_that_has_no_page_yet_is_asked_for_soon() -> None:
    world = await world_with(row_of("pot", POT))
    await world.come(embedding_of(0, MUG))
    await world.fill(row_of("mug", MUG))
    world.clock.pass_seconds(6)

    assert ["mug"] == products_in(await world.come(embedding_of(1, MUG)))


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamproc.agents.match.SHELVES_KEPT", 1)
    monkeypatch.setattr("streamproc.agents.match.PRODUCTS_KEPT", 1)
    world = await world_with()
    for sequence, shelf in enumerate((shelf_of("mug"), shelf_of("pot"), shelf_of("mug"))):
        world.shelves.shelf = shelf
        await world.come(embedding_of(sequence, MUG))

    assert ["mug"] == products_in(await world.come(embedding_of(3, MUG)))


async def test_pages_of_rooms_that_have_closed_are_dropped_when_they_are_old() -> None:
    world, kept = await world_with(), []
    for number in range(10):  # each room sells something of its own, for a minute
        world.shelves.shelf = shelf_of("mug", f"only-in-{number}")
        await world.come(embedding_of(number, MUG))
        world.clock.pass_seconds(61)
        gc.collect()
        kept.append(sum(type(each) is Gallery for each in gc.get_objects()))

    assert kept[0] == kept[-1]


async def test_a_silent_stream_stalls_and_then_ends() -> None:
    world = await world_with()
    await world.come(embedding_of(0, MUG))
    assert None is await world.agent.idle(world.state, STREAM, 1_000)
    stalled = await world.agent.idle(world.state, STREAM, 16_000)
    assert stalled is not None
    ended = await world.agent.idle(stalled.state, STREAM, 301_000)
    assert ended is not None

    assert [Stalled, Ended] == [type(record) for step in (stalled, ended) for record in messages(step.outputs)]
    assert None is await world.agent.idle(ended.state, STREAM, 999_000)


async def test_match_reads_clips_and_nothing_else() -> None:
    world = await world_with()

    with pytest.raises(TypeError, match="match reads ClipEmbedding, not Candidates"):
        await world.agent.step(world.state, delivery_of(clip_of(0)))
    assert (MatchState(), ()) == (
        (step := await world.agent.lost(world.state, delivery_of(clip_of(0)), "invalid_field")).state, step.outputs
    )  # fmt: skip
    world.agent.forget([STREAM])
