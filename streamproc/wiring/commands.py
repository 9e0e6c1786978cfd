"""The smaller verbs: each opens what it needs, calls one job, and lets go."""

import asyncio
import contextlib
import importlib.metadata
import platform
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from streamproc import wire
from streamproc.adapters.evidence_frames import Cited, EvidenceFrames, Swept
from streamproc.adapters.jsonl import mention_line, read_pages, read_shelves, write_mentions
from streamproc.adapters.kafka_admin import KafkaAdmin
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.adapters.milvus_index import MilvusIndex
from streamproc.adapters.object_store import FsspecObjectStore
from streamproc.adapters.release_folders import ReleaseFolders, read_facts
from streamproc.adapters.topic_reader import read_topics
from streamproc.core.catalog import Shelf
from streamproc.core.chunk import LiveChunk
from streamproc.core.embedding import ReleaseId
from streamproc.core.mention import ProductMention
from streamproc.core.release import ReleaseActivation, ReleaseReport
from streamproc.errors import Misconfigured, StreamprocError, Unavailable
from streamproc.jobs import reindex as reindexing
from streamproc.jobs import replay as replaying
from streamproc.jobs import topics as topic_jobs
from streamproc.ports import Record
from streamproc.settings import Settings, read_settings
from streamproc.topics import (
    CATALOG_PAGES,
    DEAD_LETTERS,
    LIVE_CANDIDATES,
    LIVE_CHUNKS,
    LIVE_SHELVES,
    PRODUCT_MENTIONS,
    RELEASES,
)
from streamproc.topology import check, draw, model
from streamproc.wiring.engines import REGISTRY, SystemClock, load_tower, milvus, object_store, spotting

SWEEP_DEADLINE_S: Final = 600.0
"""For one folder: a store may take its time over the frames of a day."""


def client_of(settings: Settings) -> KafkaClient:
    """How this process reaches the broker."""
    return KafkaClient(broker=settings.broker)


# --- catalogue, shelves, sources --------------------------------------------------------------------------------


async def load_catalog(settings: Settings, path: Path) -> tuple[int, tuple[str, ...]]:
    """Publishes pages.jsonl, its images first, into the object store, so that every worker can fetch them."""
    loaded = read_pages(path)
    objects = object_store(settings)
    async with KafkaOutbox(client_of(settings)) as outbox:
        for page in loaded.rows:
            images = []
            for image in page.images:
                if "://" not in image:
                    stored = await objects.put(Path(image).read_bytes(), content_type="image/*")  # noqa: ASYNC240
                    images.append(stored.uri)
                else:
                    images.append(image)
            published = msgspec.structs.replace(page, images=tuple(images))
            await outbox.send(wire.encode(published, topic=CATALOG_PAGES, key=page.page_id))
    return len(loaded.rows), loaded.faults


async def delete_pages(settings: Settings, page_ids: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """A tombstone for each of these pages, after which the index has none of their rows; a line per page that the
    catalogue does not have."""
    client = client_of(settings)
    catalogue = await reindexing.read_catalogue(read_topics(client, [CATALOG_PAGES]))
    known = [page_id for page_id in dict.fromkeys(page_ids) if page_id in catalogue.pages]
    async with KafkaOutbox(client) as outbox:
        for page_id in known:
            await outbox.send(Record(topic=CATALOG_PAGES, key=page_id.encode(), value=None))
    unknown = [page_id for page_id in dict.fromkeys(page_ids) if page_id not in catalogue.pages]
    return len(known), tuple(f"page {page_id} is not in the catalogue" for page_id in unknown)


async def load_shelves(settings: Settings, path: Path) -> tuple[int, tuple[str, ...]]:
    """Publishes shelves.jsonl, without products that the catalogue on the broker does not have."""
    client = client_of(settings)
    catalogue = await reindexing.read_catalogue(read_topics(client, [CATALOG_PAGES]))
    loaded = read_shelves(path, products={page.product_id for page in catalogue.pages.values()})
    async with KafkaOutbox(client) as outbox:
        for shelf in loaded.rows:
            await outbox.send(wire.encode(shelf, topic=LIVE_SHELVES, key=shelf.stream_id))
    return len(loaded.rows), loaded.faults


async def set_shelf(settings: Settings, stream_id: str, product_ids: Sequence[str]) -> tuple[Shelf, tuple[str, ...]]:
    """Replaces one room's shelf, its version the next after the newest on the topic; the new shelf, and a line per
    product that the catalogue does not have and the shelf therefore neither. Misconfigured where it has none of them.
    """
    client = client_of(settings)
    catalogue = await reindexing.read_catalogue(read_topics(client, [CATALOG_PAGES]))
    known = {page.product_id for page in catalogue.pages.values()}
    unknown = [product_id for product_id in dict.fromkeys(product_ids) if product_id not in known]
    if unknown and known.isdisjoint(product_ids):
        raise Misconfigured("PRODUCT_IDS", "the catalogue has none of these; `streamproc catalog load` puts pages in")
    version = 0
    async for record in read_topics(client, [LIVE_SHELVES]):
        if record.value is not None and record.key == stream_id.encode():
            message = wire.decode(record).message
            if isinstance(message, Shelf):
                version = max(version, message.version)
    kept = tuple(product_id for product_id in dict.fromkeys(product_ids) if product_id in known)
    shelf = Shelf(stream_id=stream_id, version=version + 1, product_ids=kept)
    async with KafkaOutbox(client) as outbox:
        await outbox.send(wire.encode(shelf, topic=LIVE_SHELVES, key=stream_id))
    return shelf, tuple(f"unknown product {product_id!r}" for product_id in unknown)


async def ingest(
    settings: Settings,
    source: str,
    *,
    stream_id: str,
    shop_id: str | None,
    realtime: bool,
    give_up_s: float | None = None,
) -> int:
    """A source to live.chunks; how many chunks. What cannot be a source is refused before the broker is asked.

    Raises Unavailable where a live source has given nothing for `give_up_s` (None: it is tried for ever)."""
    from streamproc.jobs.ingest import ingest as ingesting  # media: not where only match or spot run
    from streamproc.jobs.ingest import refuse_source

    await asyncio.to_thread(refuse_source, source)
    async with KafkaOutbox(client_of(settings)) as outbox:

        async def sink(chunk: LiveChunk) -> None:
            await outbox.send(wire.encode(chunk, topic=LIVE_CHUNKS, key=chunk.stream_id))

        return await ingesting(
            source,
            sink,
            stream_id=stream_id,
            shop_id=shop_id,
            realtime=realtime,
            store=object_store(settings),
            give_up_s=give_up_s,
        )


# --- evidence ---------------------------------------------------------------------------------------------------


def evidence_of(settings: Settings) -> EvidenceFrames:
    """The frames in the store that the settings name; a large folder may take it a while."""
    store = FsspecObjectStore(settings.object_store_url, deadline_s=SWEEP_DEADLINE_S)
    return EvidenceFrames(store, SystemClock())


async def sweep_evidence(settings: Settings) -> Swept:
    """Frames whose day has come go, but those that a mention on product.mentions cites."""
    cited = set()
    async for record in read_topics(client_of(settings), [PRODUCT_MENTIONS]):
        mention = wire.decode(record).message
        if isinstance(mention, ProductMention):
            cited |= {Cited(stream_id=mention.stream_id, ref=frame.ref) for frame in mention.evidence.frames}
    return await evidence_of(settings).sweep(cited)


# --- reading what is said ---------------------------------------------------------------------------------------


async def tail(
    settings: Settings, *, since: datetime | None, form: str, follow: bool, say: Callable[[str], None]
) -> None:
    """Mentions as they come, from `since`, or from now on where it is None and `follow`."""
    moment = datetime.now(UTC) if since is None and follow else since
    async for record in read_topics(client_of(settings), [PRODUCT_MENTIONS], since=moment, follow=follow):
        mention = wire.decode(record).message
        if isinstance(mention, ProductMention):
            say(mention_line(mention).decode().rstrip() if form == "json" else mention_row(mention))


def mention_row(mention: ProductMention) -> str:
    """One event on one line, for people."""
    end = "…" if mention.span.end_ms is None else f"{mention.span.end_ms / 1000:.1f}"
    times = f"{mention.span.start_ms / 1000:8.1f} - {end:<8}"
    return (
        f"{mention.status:<9} {mention.stream_id:<16} {mention.product_id:<20} {times} "
        f"p={mention.confidence:.2f} seen={mention.evidence.seen:.2f} spoken={mention.evidence.spoken:.2f} "
        f"{mention.mention_id[:8]}/{mention.revision}"
    )


class SetAside(Struct, frozen=True, kw_only=True):
    """A dead letter without what it holds."""

    reason: str
    topic: str
    partition: int
    offset: int
    agent: str
    detail: str

    def told(self) -> str:
        """For people."""
        return f"{self.reason}\t{self.topic}/{self.partition}/{self.offset}\t{self.agent}\t{self.detail}"


async def list_dead_letters(settings: Settings) -> tuple[SetAside, ...]:
    """All that the topic still holds, a partition after the other."""
    found = []
    async for record in read_topics(client_of(settings), [DEAD_LETTERS]):
        letter = wire.read_dead_letter(record)
        was = letter.original
        found.append(
            SetAside(
                reason=letter.reason,
                topic=was.topic,
                partition=was.partition,
                offset=was.offset,
                agent=letter.agent,
                detail=letter.detail,
            )
        )
    return tuple(found)


# --- topics and picture -----------------------------------------------------------------------------------------


async def apply_topics(settings: Settings, *, partitions: int | None, replication: int | None) -> topic_jobs.Applied:
    """What was created or changed."""
    async with KafkaAdmin(settings.broker) as admin:
        return await topic_jobs.apply(model.load(), admin, partitions=partitions, replication=replication)


async def diff_topics(
    settings: Settings, *, partitions: int | None, replication: int | None
) -> tuple[topic_jobs.Difference, ...]:
    """What `apply_topics` would create, change or refuse."""
    async with KafkaAdmin(settings.broker) as admin:
        return await topic_jobs.diff(model.load(), admin, partitions=partitions, replication=replication)


def problems() -> tuple[str, ...]:
    """What is wrong with topology.yaml."""
    return check.problems(model.load(), agents=REGISTRY)


def drawn(form: str) -> str:
    """The picture."""
    return draw.mermaid(model.load()) if form == "mermaid" else draw.text(model.load())


def redrawn(page: str) -> str:
    """A page with its picture drawn anew."""
    return draw.redraw(page, model.load())


# --- releases and replay ----------------------------------------------------------------------------------------


def release_folder(settings: Settings) -> Path:
    """The folder of the first release at hand."""
    folders = ReleaseFolders(settings.release_dir)
    return folders.folder(folders.all()[0].release)


async def reindex(settings: Settings, folder: Path, *, build: int) -> reindexing.Reindexed:
    """Every page of catalog.pages into the release's own collection."""
    facts = read_facts(folder, told_by="FOLDER")
    encoder = load_tower(settings, object_store(settings), folder)
    catalogue = await reindexing.read_catalogue(read_topics(client_of(settings), [CATALOG_PAGES]))
    target = ReleaseActivation(
        release=facts.release, collection=reindexing.collection_of(facts.release, build), at=datetime.now(UTC)
    )
    async with _index(settings) as index:
        return await reindexing.reindex(catalogue, target, dim=facts.dim, index=index, encoder=encoder)


async def prepare_release(settings: Settings, folder: Path, collection: str) -> str:
    """Announces a release with the collection that it built, upon which every worker loads it. Misconfigured where
    the two do not match."""
    facts = read_facts(folder, told_by="FOLDER")
    client = client_of(settings)
    catalogue = await reindexing.read_catalogue(read_topics(client, [CATALOG_PAGES]))
    async with _index(settings) as index:
        await reindexing.refuse_mismatch(
            collection, release=facts.release, dim=facts.dim, pages=catalogue.pages, index=index
        )
        await index.delete(collection, catalogue.deleted)  # since it was built; from now on the agent does it
    await _announce(client, "prepared", facts.release, collection)
    return (
        f"prepared {facts.release} with {collection}; next: `streamproc release status` until every worker says ready, "
        "then `streamproc release activate`"
    )


async def activate_release(settings: Settings, *, anyway: bool = False) -> str:
    """Makes the prepared release the active one. Misconfigured where none is prepared, or the pair broke since;
    Unavailable where a worker has not loaded it, unless `anyway`."""
    client = client_of(settings)
    announced, reports = await _releases(client)
    prepared = announced.get("prepared")
    if prepared is None:
        raise Misconfigured("release", "none is prepared: streamproc release prepare FOLDER COLLECTION")
    waiting = without_release(reports.values(), prepared.release)
    if waiting and not anyway:
        raise Unavailable("release", f"{prepared.release} is not loaded by {'; '.join(waiting)}; --anyway activates it")
    async with _index(settings) as index:
        there = await index.describe(prepared.collection)
    if there is None or there[0] != prepared.release:
        raise Misconfigured("release", f"{prepared.collection} is not a collection of {prepared.release} any more")
    await _announce(client, "active", prepared.release, prepared.collection)
    return f"active: {prepared.release} with {prepared.collection}"


def without_release(reports: Collection[ReleaseReport], release: ReleaseId) -> tuple[str, ...]:
    """A line per worker that has reported and does not have this release: its word on it, if any."""
    words = {(report.agent, report.worker): report for report in reports if report.release == release}
    lines = []
    for agent, worker in sorted({(report.agent, report.worker) for report in reports}):
        word = words.get((agent, worker))
        if word is None:
            lines.append(f"{agent} {worker} (has said nothing of it)")
        elif word.status != "ready":
            told = f"{word.status}: {word.detail}" if word.detail else word.status
            lines.append(f"{agent} {worker} ({told})")
    return tuple(lines)


class ReleaseStatus(Struct, frozen=True, kw_only=True):
    """What the releases topic says."""

    announced: dict[str, ReleaseActivation]  # `active`, `prepared`
    workers: tuple[ReleaseReport, ...]

    def told(self) -> tuple[str, ...]:
        """A line each, for people."""
        lines = [f"{role:<9} {found.release} {found.collection}" for role, found in self.announced.items()]
        lines += [f"{one.agent:<9} {one.worker} {one.status} {one.release} {one.detail}" for one in self.workers]
        return tuple(lines or ["no release was announced yet"])


async def release_status(settings: Settings) -> ReleaseStatus:
    """The announced releases, and what each worker has said."""
    announced, reports = await _releases(client_of(settings))
    return ReleaseStatus(
        announced=dict(sorted(announced.items())), workers=tuple(report for _, report in sorted(reports.items()))
    )


async def replay(settings: Settings, *, since: datetime | None, out: Path | None) -> replaying.ReplayReport:
    """live.candidates folded again, against product.mentions."""
    client = client_of(settings)
    partitions = (await client.partitions((LIVE_CANDIDATES,)))[LIVE_CANDIDATES]
    count, replayed = await replaying.replay_candidates(
        read_topics(client, [LIVE_CANDIDATES], since=since),
        spot=spotting(),
        partitions=partitions,
        clock=SystemClock(),
    )
    emitted = [record async for record in read_topics(client, [PRODUCT_MENTIONS], since=since)]
    if out is not None:
        events = [wire.decode(record).message for record in replayed]
        write_mentions(out, [event for event in events if isinstance(event, ProductMention)])
    return replaying.compare(count, replayed, tuple(emitted))


async def _announce(client: KafkaClient, role: str, release: str, collection: str) -> None:
    activation = ReleaseActivation(release=release, collection=collection, at=datetime.now(UTC))
    async with KafkaOutbox(client) as outbox:
        await outbox.send(wire.encode(activation, topic=RELEASES, key=role))


async def _releases(client: KafkaClient) -> tuple[dict[str, ReleaseActivation], dict[str, ReleaseReport]]:
    announced: dict[str, ReleaseActivation] = {}
    reports: dict[str, ReleaseReport] = {}
    async for record in read_topics(client, [RELEASES]):
        key = (record.key or b"").decode()
        if record.value is None:
            announced.pop(key, None)
            reports.pop(key, None)
            continue
        message = wire.decode(record).message
        if isinstance(message, ReleaseActivation):
            announced[key] = message
        elif isinstance(message, ReleaseReport):
            reports[key] = message
    return announced, reports


@asynccontextmanager
async def _index(settings: Settings) -> AsyncIterator[MilvusIndex]:
    index = await milvus(settings)
    with contextlib.closing(index):
        yield index


# --- doctor -----------------------------------------------------------------------------------------------------


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    good: bool
    found: str


class Diagnosis(Struct, frozen=True, kw_only=True):
    """Everything that was looked at."""

    findings: tuple[Finding, ...]
    settings: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.good for finding in self.findings)

    def told(self) -> str:
        """For people."""
        lines = [f"{'ok ' if f.good else 'NO '} {f.what:<10} {f.found}" for f in self.findings]
        return "\n".join([*lines, "", *(f"{name}={value}" for name, value in self.settings.items())])


PARTS: Final = ("faust-streaming", "aiokafka", "pymilvus", "torch", "av", "faster-whisper", "openvino", "milvus-lite")


async def doctor(environment: Mapping[str, str]) -> Diagnosis:
    """Settings, installed parts, release, broker with its topics, index. Raises Misconfigured for a wrong setting."""
    settings = read_settings(environment)
    findings = [Finding(what="python", good=True, found=f"{platform.python_version()} {platform.machine()}")]
    parts = []
    for part in PARTS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{part} {importlib.metadata.version(part)}")
    findings.append(Finding(what="parts", good=True, found=", ".join(parts)))
    try:
        found = ", ".join(f"{facts.name} {facts.release}" for facts in ReleaseFolders(settings.release_dir).all())
        findings.append(Finding(what="releases", good=True, found=found))
    except StreamprocError as error:
        findings.append(Finding(what="releases", good=False, found=str(error)))
    findings.append(await _look("broker", _broker(settings)))
    findings.append(await _look("index", _milvus(settings)))
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    shown = {
        f"STREAMPROC_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
    }
    if settings.milvus_token:
        shown["STREAMPROC_MILVUS_TOKEN"] = "(set)"  # noqa: S105 - that it is set, not what it is
    return Diagnosis(findings=tuple(findings), settings=shown)


async def _look(what: str, work: Coroutine[object, object, str]) -> Finding:
    try:
        return Finding(what=what, good=True, found=await work)
    except StreamprocError as error:
        return Finding(what=what, good=False, found=f"{error}; `streamproc up` starts one for development")


async def _broker(settings: Settings) -> str:
    async with KafkaAdmin(settings.broker) as admin:
        found = await topic_jobs.diff(model.load(), admin)
        missing = sum(difference.found is None for difference in found)
        return (
            f"{settings.broker}: {missing} topics missing; `streamproc topics apply` creates them"
            if missing
            else (f"{settings.broker}: every topic is there")
        )


async def _milvus(settings: Settings) -> str:
    async with _index(settings):
        return settings.milvus_uri
