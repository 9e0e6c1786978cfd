"""Turns catalogue pages into rows of the index. The only writer of any collection named in `releases`."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from streamproc.core.catalog import PageDeleted, PageIndexed, ProductPage, ShortVideo, VideoDeleted
from streamproc.core.release import ReleaseActivation
from streamproc.errors import BadMessage, Unavailable
from streamproc.ports import Delivery, Output, PageEncoder, ProductIndex, Releases, Step
from streamproc.topics import CATALOG_INDEXED


class PageEncoders(Protocol):
    """The page towers at hand."""

    def of(self, release: str) -> PageEncoder | None: ...


class IndexState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing: an upsert is idempotent, so reading a page again does no harm."""


class Index:
    """The agent that reads catalog.pages and catalog.videos and writes the collection and catalog.indexed."""

    name = "index"
    state_type = IndexState

    def __init__(self, *, index: ProductIndex, encoders: PageEncoders, releases: Releases) -> None:
        self._index = index
        self._encoders = encoders
        self._releases = releases

    def fresh(self, key: str) -> IndexState:
        """No state."""
        del key
        return IndexState()

    async def step(self, state: IndexState, delivery: Delivery) -> Step[IndexState]:
        """One page into the active collection and, between prepare and activate, into the prepared one too; a
        deleted one out of both.

        BadMessage: unusable_page. Unavailable: the index, or no release is active yet.
        """
        page = delivery.message
        if isinstance(page, ShortVideo | VideoDeleted):
            return Step(state=state)  # kept on the topic; the video tower of preset `cope` reads them
        if not isinstance(page, ProductPage | PageDeleted):
            raise TypeError(f"index reads ProductPage, not {type(page).__name__}")
        now = targets(self._releases)
        if not now:
            raise Unavailable("releases", "no release is active: `streamproc release activate` names one")
        if isinstance(page, PageDeleted):
            for target in now:
                await self._index.delete(target.collection, [page.page_id])
            return Step(state=state)
        outputs = []
        for target in now:
            encoder = self._encoders.of(target.release)
            if encoder is None:
                raise Unavailable("releases", f"the weights of {target.release} are not loaded here")
            indexed = await index_page(page, target, self._index, encoder)
            outputs.append(Output(topic=CATALOG_INDEXED, key=page.page_id, message=indexed))
        return Step(state=state, outputs=tuple(outputs))

    async def lost(self, state: IndexState, delivery: Delivery, reason: str) -> Step[IndexState]:
        """A page that cannot be used is not in the index; the rest is."""
        del delivery, reason
        return Step(state=state)

    async def idle(self, state: IndexState, key: str, silent_ms: int) -> None:
        """A quiet catalogue is no news."""

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept."""


def targets(releases: Releases) -> tuple[ReleaseActivation, ...]:
    """The collections to write: active, and prepared where there is one."""
    named = [a for a in (releases.active(), releases.prepared()) if a is not None]
    return tuple({a.collection: a for a in named}.values())


async def index_page(
    page: ProductPage, target: ReleaseActivation, index: ProductIndex, encoder: PageEncoder
) -> PageIndexed:
    """Encodes the page and replaces its rows in the collection of `target`.

    BadMessage: unusable_page. Unavailable: the index does not answer.
    """
    rows = await encoder.encode_page(page)
    if not rows:
        raise BadMessage("unusable_page", f"page {page.page_id} has neither an image nor a text that can be encoded")
    await index.upsert(target.collection, rows)
    return PageIndexed(
        page_id=page.page_id,
        product_id=page.product_id,
        release=target.release,
        collection=target.collection,
        page_sha256=hashlib.sha256(msgspec.json.encode(page)).hexdigest(),
    )
