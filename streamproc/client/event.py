"""The public event as a consumer reads it.

The same fields as core's ProductMention (a test holds that), read as a consumer should: fields and reasons that are
newer than this code are passed over or passed on, never refused. README.md beside this file says what each means.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from streamproc.errors import BadMessage

Ms = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]


class MentionSpan(Struct, frozen=True, kw_only=True):
    """Stream time, end exclusive; the end is None while the mention is open."""

    start_ms: Ms
    end_ms: Ms | None = None

    def holds(self, at_ms: int) -> bool:
        return self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)


class WordSpan(Struct, frozen=True, kw_only=True):
    """Stream time, end exclusive."""

    start_ms: Ms
    end_ms: Ms


class Word(Struct, frozen=True, kw_only=True):
    """One recognised word that speaks for the mention."""

    text: str
    span: WordSpan
    probability: Probability


class Frame(Struct, frozen=True, kw_only=True):
    """A picture that speaks for the mention: a content-addressed JPEG in the object store."""

    at_ms: Ms
    ref: str


class Evidence(Struct, frozen=True, kw_only=True):
    """Why: the strongest frame and utterance, and where to look."""

    seen: Probability
    spoken: Probability
    frames: tuple[Frame, ...] = ()
    words: tuple[Word, ...] = ()


class Mention(Struct, frozen=True, kw_only=True):
    """One revision of one mention."""

    mention_id: str
    revision: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    status: Literal["started", "updated", "ended", "retracted"]
    stream_id: str
    broadcast_id: str
    shop_id: str | None = None
    product_id: str
    page_id: str
    span: MentionSpan
    started_at: Annotated[datetime, Meta(tz=True)]
    confidence: Probability
    evidence: Evidence
    observed_until_ms: Ms
    end_reason: str | None = None  # open on purpose: reasons may be added
    continues: str | None = None
    quality: str = "full"  # open on purpose
    release: str
    shelf_version: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the product is still being shown or spoken of, as far as is known."""
        return self.status in ("started", "updated")


def parse(value: bytes) -> Mention:
    """The event in the value of a record. Raises BadMessage (undecodable_message, invalid_field): set it aside and
    go on."""
    try:
        return msgspec.json.decode(value, type=Mention)
    except msgspec.ValidationError as exc:
        raise BadMessage("invalid_field", str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadMessage("undecodable_message", str(exc)) from exc
