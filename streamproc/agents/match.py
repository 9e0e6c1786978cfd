"""Ranks each clip against what its room sells, and notices holes, stalls and ends.

The only place where time, shelf, index and release meet a clip; it writes down what it used, so that folding
live.candidates again needs none of them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from msgspec.structs import replace

from streamproc.core.candidate import CandidateRecord, Candidates, background_rows, rank
from streamproc.core.catalog import Shelf
from streamproc.core.continuity import Continuity, arrive, silence
from streamproc.core.embedding import ClipEmbedding, PageEmbedding, unpack
from streamproc.core.gallery import Gallery
from streamproc.core.span import Value
from streamproc.errors import BadMessage, Unavailable
from streamproc.ports import Clock, Delivery, Output, ProductIndex, ReleaseBook, ReleaseFacts, Releases, Shelves, Step
from streamproc.topics import LIVE_CANDIDATES

NEAREST: Final = 24  # index rows per frame and utterance that compete; a page has several views
REFRESH: Final = timedelta(seconds=60)  # pages are asked for again after this: a changed catalogue takes effect
REFRESH_INCOMPLETE: Final = timedelta(seconds=5)  # where a product of the shelf has no page yet
SHELVES_KEPT: Final = 256
PRODUCTS_KEPT: Final = 4_096
LISTED_KEPT: Final = 64

K = TypeVar("K")
V = TypeVar("V")


class MatchState(Value, frozen=True, kw_only=True):
    """What match knows of one stream after a clip (match.state)."""

    continuity: Continuity = Continuity()
    release: str | None = None  # of the newest clip, and the collection it was ranked in:
    collection: str | None = None  # clips still on their way when another release becomes active need it
    shelf_version: int | None = None
    listed: tuple[str, ...] = ()  # products listed lately, newest last


class Match:
    """The agent that reads live.clips and writes live.candidates."""

    name = "match"
    state_type = MatchState

    def __init__(
        self, *, index: ProductIndex, shelves: Shelves, releases: Releases, book: ReleaseBook, clock: Clock
    ) -> None:
        self._shelves = shelves
        self._releases = releases
        self._book = book
        self._pages = _Pages(index, clock)

    def fresh(self, key: str) -> MatchState:
        """A stream that was never seen."""
        del key
        return MatchState()

    async def step(self, state: MatchState, delivery: Delivery) -> Step[MatchState]:
        """The clip's candidates, and what its coming says of the stream.

        BadMessage: foreign_release. Unavailable: the index, no release is active yet, or the clip's own is announced
        and not at hand here.
        """
        clip = _clip_of(delivery)
        arrival = arrive(state.continuity, clip)
        state = replace(state, continuity=arrival.continuity)
        records: list[CandidateRecord] = [*arrival.before]
        if arrival.usable:
            facts, collection = self._release_of(clip, state)
            shelf = self._shelves.of(clip.stream_id)
            candidates = await self._rank(clip, shelf, facts, collection, state)
            records.append(candidates)
            scores = [each.scores for each in candidates.seen] + [each.scores for each in candidates.spoken]
            told = [one.product_id for each in scores for one in each]
            listed = dict.fromkeys(product for product in state.listed if product not in told) | dict.fromkeys(told)
            state = replace(
                state,
                release=clip.release,
                collection=collection,
                shelf_version=candidates.shelf_version,
                listed=tuple(listed)[-LISTED_KEPT:],
            )
        return Step(state=state, outputs=_outputs(clip.stream_id, [*records, *arrival.after]))

    async def lost(self, state: MatchState, delivery: Delivery, reason: str) -> Step[MatchState]:
        """A clip that cannot be ranked is a gap."""
        clip = delivery.message
        if not isinstance(clip, ClipEmbedding):
            return Step(state=state)  # nobody knows which stream it was of, or when
        arrival = arrive(state.continuity, replace(clip, lost=clip.lost or reason))
        return Step(
            state=replace(state, continuity=arrival.continuity),
            outputs=_outputs(clip.stream_id, [*arrival.before, *arrival.after]),
        )

    async def idle(self, state: MatchState, key: str, silent_ms: int) -> Step[MatchState] | None:
        """Stalled after a while, Ended after long."""
        news = silence(state.continuity, key, silent_ms)
        if news is None:
            return None
        continuity, record = news
        return Step(state=replace(state, continuity=continuity), outputs=_outputs(key, [record]))

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept per stream; pages serve whichever streams come."""

    def _release_of(self, clip: ClipEmbedding, state: MatchState) -> tuple[ReleaseFacts, str]:
        """The facts and the collection of the clip's own release, and of no other (promise 4)."""
        facts = self._book.facts(clip.release)
        active = self._releases.active()
        collections = {a.release: a.collection for a in (self._releases.prepared(), active) if a is not None}
        collection = collections.get(clip.release)
        if facts is None and collection is not None:
            raise Unavailable("releases", f"{clip.release} is announced and not at hand here: see `release status`")
        if collection is None and state.release == clip.release:
            collection = state.collection
        if facts is not None and collection is not None:
            return facts, collection
        if active is None:
            raise Unavailable("releases", "no release is active: `streamproc release activate` names one")
        raise BadMessage("foreign_release", f"{clip.release} is neither active nor prepared here")

    async def _rank(
        self, clip: ClipEmbedding, shelf: Shelf | None, facts: ReleaseFacts, collection: str, state: MatchState
    ) -> Candidates:
        near = await self._pages.near(collection, clip, () if shelf is None else shelf.product_ids)
        sold = near if shelf is None else await self._pages.of_shelf(collection, shelf)
        judgement = facts.without_shelf if shelf is None else facts.on_shelf
        changed = shelf is not None and shelf.version != state.shelf_version
        return rank(
            clip,
            shelf=sold,
            background=Gallery(()) if shelf is None else near,
            calibration=judgement.calibration,
            rule=judgement.mention_rule,
            shelf_version=None if shelf is None else shelf.version,
            withdrawn=tuple(sorted(set(state.listed) - set(shelf.product_ids))) if shelf and changed else (),
            clear=facts.clear,
        )


class _Pages:
    """Page rows by product, asked for again when they are old. Bounded; rebuilt from the index at any time.

    How old they are depends on the clock: which page version a clip was ranked against stands in its scores.
    """

    def __init__(self, index: ProductIndex, clock: Clock) -> None:
        self._index = index
        self._clock = clock
        self._shelves: OrderedDict[tuple[str, tuple[str, ...]], tuple[datetime, Gallery]] = OrderedDict()
        self._products: OrderedDict[tuple[str, str], tuple[datetime, tuple[PageEmbedding, ...]]] = OrderedDict()

    async def of_shelf(self, collection: str, shelf: Shelf) -> Gallery:
        """The pages of what a room sells. A product without a page in the index cannot be found in the stream."""
        key, now = (collection, shelf.product_ids), self._clock.now()
        kept = self._shelves.get(key)
        if kept is not None:
            complete = len(kept[1].product_ids) == len(set(shelf.product_ids))
            if now - kept[0] < (REFRESH if complete else REFRESH_INCOMPLETE):
                return kept[1]
        gallery = Gallery(await self._index.pages_of(collection, shelf.product_ids))
        _keep(self._shelves, key, (now, gallery), SHELVES_KEPT)
        return gallery

    async def near(self, collection: str, clip: ClipEmbedding, sold: Sequence[str]) -> Gallery:
        """All rows of the unsold products that are nearest to a clip: to its frames by their images, to what is said in
        it by their texts."""
        seen, spoken = (tuple(unpack(one.vector) for one in part) for part in (clip.seen, clip.spoken))
        rows = [
            *await self._index.nearest(collection, seen, part="image", limit=NEAREST),
            *await self._index.nearest(collection, spoken, part="text", limit=NEAREST),
        ]
        products = sorted({row.product_id for row in background_rows(rows, shelf=sold, shop_id=clip.shop_id)})
        return Gallery(await self._of(collection, products))

    async def _of(self, collection: str, products: Sequence[str]) -> list[PageEmbedding]:
        now = self._clock.now()
        fresh = {}
        for product in products:
            kept = self._products.get((collection, product))
            if kept is not None and now - kept[0] < REFRESH:
                fresh[product] = kept[1]
        stale = [product for product in products if product not in fresh]
        if stale:
            rows = await self._index.pages_of(collection, stale)
            for product in stale:
                fresh[product] = tuple(row for row in rows if row.product_id == product)
                _keep(self._products, (collection, product), (now, fresh[product]), PRODUCTS_KEPT)
        return [row for product in products for row in fresh[product]]


def _keep(kept: OrderedDict[K, tuple[datetime, V]], key: K, value: tuple[datetime, V], limit: int) -> None:
    """Drops what is too old to be used, since rooms close and nobody says so here, and beyond the limit the oldest."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > limit or value[0] - next(iter(kept.values()))[0] >= REFRESH:
        kept.popitem(last=False)


def _outputs(stream_id: str, records: Sequence[CandidateRecord]) -> tuple[Output, ...]:
    return tuple(Output(topic=LIVE_CANDIDATES, key=stream_id, message=record) for record in records)


def _clip_of(delivery: Delivery) -> ClipEmbedding:
    if not isinstance(delivery.message, ClipEmbedding):
        raise TypeError(f"match reads ClipEmbedding, not {type(delivery.message).__name__}")
    return delivery.message
