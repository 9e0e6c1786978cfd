"""What a shop sells and what a room may report."""

from typing import Annotated

from msgspec import Meta

from streamproc.core.span import Id, Span, Value

Title = Annotated[str, Meta(min_length=1, max_length=512)]


class ProductPage(Value, frozen=True, kw_only=True):
    """One page of the catalogue. Its images are packshots: paths or URLs under an allowed prefix."""

    page_id: Id
    product_id: Id
    title: Title
    description: str = ""
    images: tuple[str, ...] = ()
    category: str = ""
    shop_id: str | None = None
    price: float | None = None


class PageDeleted(Value, frozen=True, kw_only=True):
    """A page left the catalogue: what a tombstone on catalog.pages says."""

    page_id: Id


class ShortVideo(Value, frozen=True, kw_only=True):
    """A short product video of the catalogue."""

    video_id: Id
    product_id: Id
    uri: str
    title: str = ""
    shop_id: str | None = None


class VideoDeleted(Value, frozen=True, kw_only=True):
    """A short video left the catalogue: what a tombstone on catalog.videos says."""

    video_id: Id


class Shelf(Value, frozen=True, kw_only=True):
    """The products that a room sells at the moment: what may be reported in its stream."""

    stream_id: Id
    version: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    product_ids: tuple[Id, ...]


class PageIndexed(Value, frozen=True, kw_only=True):
    """A page whose vectors are in a collection and answer queries."""

    page_id: Id
    product_id: Id
    release: str
    collection: str
    page_sha256: str  # of the page as JSON: which version of it


__all__ = ["Id", "PageDeleted", "PageIndexed", "ProductPage", "Shelf", "ShortVideo", "Span", "Title", "VideoDeleted"]
