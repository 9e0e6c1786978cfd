"""One message of each kind with every field used, and the golden records they were published as.

`python -m tests.wire.samples` writes the golden records that are missing. It never changes one that is there: what
has been published is a promise. While a version is not released yet, delete the file and run it.
"""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

import streamproc.schemas
from streamproc import topics, wire
from streamproc.core.candidate import (
    Candidates,
    Ended,
    Gap,
    ProductScore,
    SeenCandidates,
    SpokenCandidates,
    Stalled,
)
from streamproc.core.catalog import PageIndexed, ProductPage, Shelf, ShortVideo
from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.embedding import ClipEmbedding, EvidenceFrame, SeenVector, SpokenVector
from streamproc.core.feedback import MentionFeedback
from streamproc.core.mention import Evidence, MentionSpan, ProductMention, SeenFrame
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.core.rule import MentionRule
from streamproc.core.span import Span
from streamproc.core.status import LiveStatus
from streamproc.core.transcript import Transcript, Utterance, Word
from streamproc.ports import Origin, Record

FOLDER: Final = Path(streamproc.schemas.__file__).with_name("samples")

ORIGIN: Final = Origin(topic="live.chunks", partition=3, offset=4711, n=1)
CLOCK: Final = {
    "captured": "2026-11-22T19:00:06Z",
    "ingested": "2026-11-22T19:00:08.25Z",
    "decoded": "2026-11-22T19:00:08.5Z",
    "transcribed": "2026-11-22T19:00:09Z",
    "embedded": "2026-11-22T19:00:09.125Z",
    "matched": "2026-11-22T19:00:09.25Z",
    "emitted": "2026-11-22T19:00:09.5Z",
}
RELEASE: Final = "sha256:" + "5a" * 32
CAPTURED_AT: Final = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
VECTOR: Final = b"\x9a\x99\x19\x3f\xcd\xcc\x4c\xbf"  # 0.6, -0.8 as little-endian float32
MUG: Final = Word(text="mug", span=Span(start_ms=6_400, end_ms=6_800), probability=0.98)
REF: Final = MediaRef(uri="s3://chunks/room-7/3.ts", size_bytes=2_400_000, sha256="ab" * 32, content_type="video/mp2t")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A message, and how it is written."""

    message: Struct
    topic: str
    key: str = "room-7"
    origin: Origin | None = None
    clock: dict[str, str] = field(default_factory=dict)

    def record(self) -> Record:
        return wire.encode(
            self.message,
            topic=self.topic,
            key=self.key,
            origin=self.origin,
            clock=self.clock,
            source="streamproc/sample",
        )


def _chunk(media: bytes | MediaRef) -> LiveChunk:
    return LiveChunk(
        stream_id="room-7",
        broadcast_id="b-1",
        sequence=3,
        start_ms=6_000,
        duration_ms=2_000,
        captured_at=CAPTURED_AT,
        last=True,
        shop_id="shop-1",
        media=media,
    )


SAMPLES: Final[dict[str, Sample]] = {
    "chunk.v1": Sample(
        message=_chunk(b"\x47\x40\x00\x10\x00"), topic=topics.LIVE_CHUNKS, clock={"ingested": CLOCK["ingested"]}
    ),
    "chunk.v1.claim": Sample(message=_chunk(REF), topic=topics.LIVE_CHUNKS),
    "transcript.v1": Sample(
        message=Transcript(
            stream_id="room-7",
            broadcast_id="b-1",
            sequence=3,
            utterances=(
                Utterance(span=Span(start_ms=6_000, end_ms=7_200), text="This mug!", language="en", words=(MUG,)),
            ),
        ),
        topic=topics.LIVE_TRANSCRIPTS,
        origin=ORIGIN,
        clock=CLOCK,
    ),
    "clip.v1": Sample(
        message=ClipEmbedding(
            stream_id="room-7",
            broadcast_id="b-1",
            sequence=3,
            span=Span(start_ms=6_000, end_ms=8_000),
            captured_at=CAPTURED_AT,
            shop_id="shop-1",
            last=True,
            release=RELEASE,
            engine={"device": "cpu", "torch": "2.14.1"},
            seen=(SeenVector(at_ms=6_000, vector=VECTOR),),
            spoken=(
                SpokenVector(
                    span=Span(start_ms=6_000, end_ms=7_200), text="这个杯子", language="zh", words=(MUG,), vector=VECTOR
                ),
            ),
            fused=VECTOR,
            frames=(EvidenceFrame(at_ms=6_000, ref="sha256:" + "cd" * 32),),
            quality="fewer_frames",
            lost="undecodable_media",
        ),
        topic=topics.LIVE_CLIPS,
        origin=ORIGIN,
        clock=CLOCK,
    ),
    "candidates.v1": Sample(
        message=Candidates(
            stream_id="room-7",
            broadcast_id="b-1",
            sequence=3,
            span=Span(start_ms=6_000, end_ms=8_000),
            captured_at=CAPTURED_AT,
            shop_id="shop-1",
            release=RELEASE,
            shelf_version=7,
            withdrawn=("kettle",),
            threshold=0.4,
            rule=MentionRule(),
            seen=(
                SeenCandidates(
                    at_ms=6_000,
                    scores=(ProductScore(product_id="mug", page_id="page-mug", score=0.812345, probability=0.91),),
                    off_shelf=0.03,
                ),
            ),
            spoken=(
                SpokenCandidates(
                    span=Span(start_ms=6_000, end_ms=7_200),
                    words=(MUG,),
                    scores=(
                        ProductScore(product_id="mug", page_id="page-mug", score=-0.25, named=0.5, probability=0.25),
                    ),
                    off_shelf=0.125,
                ),
            ),
            frames=(EvidenceFrame(at_ms=6_000, ref="sha256:" + "cd" * 32),),
            quality="no_speech",
        ),
        topic=topics.LIVE_CANDIDATES,
        origin=ORIGIN,
        clock=CLOCK,
    ),
    "gap.v1": Sample(
        message=Gap(stream_id="room-7", broadcast_id="b-1", span=Span(start_ms=6_000, end_ms=8_000), reason="missing"),
        topic=topics.LIVE_CANDIDATES,
        origin=ORIGIN,
    ),
    "stalled.v1": Sample(
        message=Stalled(stream_id="room-7", broadcast_id="b-1", at_ms=8_000, silent_ms=12_000),
        topic=topics.LIVE_CANDIDATES,
        origin=ORIGIN,
    ),
    "ended.v1": Sample(
        message=Ended(stream_id="room-7", broadcast_id="b-1", at_ms=8_000, reason="last_chunk"),
        topic=topics.LIVE_CANDIDATES,
        origin=ORIGIN,
    ),
    "shelf.v1": Sample(
        message=Shelf(stream_id="room-7", version=7, product_ids=("mug", "kettle")), topic=topics.LIVE_SHELVES
    ),
    "status.v1": Sample(
        message=LiveStatus(
            stream_id="room-7", broadcast_id="b-1", status="degraded", at_ms=8_000, reason="fewer_frames"
        ),
        topic=topics.LIVE_STATUS,
        origin=ORIGIN,
    ),
    "page.v1": Sample(
        message=ProductPage(
            page_id="page-mug",
            product_id="mug",
            title="Blue mug, 0.3 l",
            description="Glazed by hand.",
            images=("s3://pages/mug.jpg",),
            category="kitchen",
            shop_id="shop-1",
            price=12.5,
        ),
        topic=topics.CATALOG_PAGES,
        key="page-mug",
    ),
    "video.v1": Sample(
        message=ShortVideo(
            video_id="video-mug", product_id="mug", uri="s3://videos/mug.mp4", title="Blue mug", shop_id="shop-1"
        ),
        topic=topics.CATALOG_VIDEOS,
        key="video-mug",
    ),
    "indexed.v1": Sample(
        message=PageIndexed(
            page_id="page-mug", product_id="mug", release=RELEASE, collection="pages_5a5a", page_sha256="ef" * 32
        ),
        topic=topics.CATALOG_INDEXED,
        key="page-mug",
    ),
    "activation.v1": Sample(
        message=ReleaseActivation(release=RELEASE, collection="pages_5a5a", at=CAPTURED_AT),
        topic=topics.RELEASES,
        key="active",
    ),
    "report.v1": Sample(
        message=ReleaseReport(worker="perceive-0", agent="perceive", release=RELEASE, status="ready", detail="warm"),
        topic=topics.RELEASES,
        key=f"worker/perceive/perceive-0/{RELEASE}",
    ),
    "mention.v1": Sample(
        message=ProductMention(
            mention_id="0123456789abcdef" * 2,
            revision=3,
            status="ended",
            stream_id="room-7",
            broadcast_id="b-1",
            shop_id="shop-1",
            product_id="mug",
            page_id="page-mug",
            span=MentionSpan(start_ms=12_000, end_ms=20_000),
            started_at=datetime(2026, 11, 22, 19, 0, 12, tzinfo=UTC),
            confidence=0.93,
            evidence=Evidence(
                seen=0.91,
                spoken=0.4,
                frames=(SeenFrame(at_ms=14_000, ref="sha256:" + "cd" * 32),),
                words=(MUG,),
            ),
            observed_until_ms=24_000,
            end_reason="left_view",
            continues="fedcba9876543210" * 2,
            quality="full",
            release=RELEASE,
            shelf_version=7,
        ),
        topic=topics.PRODUCT_MENTIONS,
        origin=ORIGIN,
        clock=CLOCK,
    ),
    "feedback.v1": Sample(
        message=MentionFeedback(
            mention_id="0123456789abcdef" * 2, stream_id="room-7", verdict="wrong", product_id="kettle", by="ann"
        ),
        topic=topics.MENTION_FEEDBACK,
    ),
}


def golden(name: str) -> Record:
    """The record as it was published."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    value = base64.b64decode(content["value_base64"]) if "value_base64" in content else content["value"].encode()
    headers = tuple((header, text.encode()) for header, text in content["headers"].items())
    return Record(topic=content["topic"], key=content["key"].encode(), value=value, headers=headers)


def _as_text(record: Record) -> str:
    assert record.key is not None
    assert record.value is not None
    content: dict[str, object] = {
        "topic": record.topic,
        "key": record.key.decode(),
        "headers": {header: text.decode() for header, text in record.headers},
    }
    if record.value.startswith(b"{"):
        content["value"] = record.value.decode()
    else:  # media
        content["value_base64"] = base64.b64encode(record.value).decode()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, sample in SAMPLES.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            path.write_text(_as_text(sample.record()), encoding="utf-8")


if __name__ == "__main__":
    main()
