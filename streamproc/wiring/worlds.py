"""`recognise`, `demo` and `up`: the whole pipeline with what it needs around it."""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from tqdm import tqdm

from streamproc.adapters.jsonl import read_pages, read_shelves, refuse_unwritable, write_mentions
from streamproc.adapters.kafka_admin import KafkaAdmin
from streamproc.adapters.kafka_client import KafkaClient
from streamproc.adapters.kafka_outbox import KafkaOutbox
from streamproc.adapters.latest_by_key import LatestByKey, LatestReleases, LatestShelves, shelves_by_version
from streamproc.adapters.memory import MemoryChunkHistory, MemoryFollower
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.memory_index import MemoryIndex
from streamproc.adapters.memory_pipeline import MemoryPipeline, Seat
from streamproc.adapters.object_store import normal_uri
from streamproc.adapters.release_folders import ReleaseFolders
from streamproc.agents.index import Index
from streamproc.core.release import ReleaseActivation
from streamproc.embedded.world import PARTITIONS, EmbeddedWorld
from streamproc.errors import BadMessage, Misconfigured
from streamproc.jobs import bench_quality
from streamproc.jobs import recognise as recognising
from streamproc.jobs import topics as topic_jobs
from streamproc.jobs.ingest import cut_file
from streamproc.jobs.kafka_pipeline import KafkaPipeline
from streamproc.jobs.reindex import collection_of
from streamproc.ports import ReleaseFacts
from streamproc.settings import Settings
from streamproc.topics import (
    LIVE_CANDIDATES,
    LIVE_CHUNKS,
    LIVE_CLIPS,
    LIVE_SHELVES,
    MATCH_STATE,
    RELEASES,
    SPEECH_STATE,
    SPOT_STATE,
)
from streamproc.topology import model
from streamproc.wiring.engines import (
    STAGE,
    SystemClock,
    encoders_of,
    matching,
    milvus,
    object_store,
    perceiving,
    spotting,
)
from streamproc.wiring.process_watch import spent_cpu_s, watched_memory

NEVER_READ: Final = 0  # again, in a world whose workers are started once
KEPT_MEDIA_BYTES: Final = 8 * 2**20  # of chunks that every agent has done with, per partition, for speech
ACTIVATED_AT: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Figures(Struct, frozen=True, kw_only=True):
    """What recognition took and gave."""

    streams: int
    media_s: float
    chunks: int
    mentions: int
    events: int
    wall_s: float  # without loading models and pages
    cpu_s: float  # this process and its children
    times_real_time: float
    peak_mb: float  # this process and all below it, shared pages once
    growth_mb: float  # rise of a straight line through the last three quarters of the run; pages of files left out
    dead_letters: int = 0
    through: str = "memory"
    release: str = ""

    def told(self) -> str:
        """For people."""
        return (
            f"{self.streams} streams, {self.media_s:.0f} s of media: {self.mentions} mentions in {self.events} events; "
            f"{self.wall_s:.1f} s wall, {self.cpu_s:.1f} s CPU, {self.times_real_time:.1f} x real time, "
            f"{self.peak_mb:.0f} MB at most, {self.growth_mb:+.0f} MB after the first quarter"
        )


def recognise(
    settings: Settings,
    files: Sequence[Path],
    *,
    pages: Path,
    shelves: Path | None,
    out: Path,
    through: str,
    record: Path | None,
    without: str | None,
    warn: Callable[[str], None],
) -> Figures:
    """Files to a mention log. Wrong rows are warned of, and the rest is used.

    Raises Misconfigured where nothing can be used or a file cannot be opened, Unavailable for the world.
    """
    catalogue = read_pages(pages)
    rooms = None if shelves is None else read_shelves(shelves, products={p.product_id for p in catalogue.rows})
    for fault in (*catalogue.faults, *(() if rooms is None else rooms.faults)):
        warn(fault)
    if not catalogue.rows:
        raise Misconfigured("--pages", f"{pages} has no page that can be used")
    if rooms is not None and not rooms.rows:
        raise Misconfigured("--shelves", f"{shelves} has no shelf that can be used")  # none at all: everything counts
    if rooms is not None:
        sells = {shelf.stream_id for shelf in rooms.rows}
        for stream_id in (file.stem for file in files if file.stem not in sells):
            warn(f"stream {stream_id!r} has no shelf in {shelves}: the whole catalogue may be reported in it")
    refuse_unwritable(out)
    if through == "kafka" and (without or record):
        raise Misconfigured("--through", "--without and --record go with memory")
    for file in files:
        with contextlib.closing(cut_file(file)) as pieces:
            next(pieces, None)  # one that is no media is told before models and pages are loaded
    settings = msgspec.structs.replace(
        settings, media_prefixes=(*settings.media_prefixes, *_image_folders(catalogue.rows))
    )

    async def work() -> Figures:
        async with AsyncExitStack() as stack:
            if through == "memory":
                in_memory = memory_pipeline(settings, without=without, keep_between=record is not None)
                pipeline: Any = await stack.enter_async_context(in_memory)
            else:
                pipeline = await stack.enter_async_context(kafka_pipeline(settings))
            watch = _Stopwatch()
            memory = await stack.enter_async_context(watched_memory())
            bar = stack.enter_context(_progress(files))
            done = await recognising.recognise(
                files,
                catalogue.rows,
                () if rooms is None else rooms.rows,
                pipeline,
                loaded=watch.start,
                progress=bar,
            )
            wall_s, cpu_s = watch.taken()
            letters = await pipeline.dead_letters()
            for line in letters:
                warn(line)
            write_mentions(out, done.mentions)
            if record is not None:
                rows = await pipeline.rows(sorted({page.product_id for page in catalogue.rows}))
                _record(record, clips=pipeline.topic(LIVE_CLIPS), candidates=pipeline.topic(LIVE_CANDIDATES), rows=rows)
            media_s = done.media_ms / 1000
            return Figures(
                streams=len(files),
                media_s=media_s,
                chunks=done.chunks,
                mentions=len({mention.mention_id for mention in done.mentions}),
                events=len(done.mentions),
                wall_s=round(wall_s, 2),
                cpu_s=round(cpu_s, 2),
                times_real_time=round(media_s / wall_s, 2),
                peak_mb=round(memory.peak_mb),
                growth_mb=round(memory.growth_mb),
                dead_letters=len(letters),
                through=through,
                release=pipeline.active.release,
            )

    return asyncio.run(work())


def bench(
    settings: Settings, plan: bench_quality.BenchPlan, *, sides: Sequence[str], say: Callable[[str], None]
) -> dict[str, bench_quality.BenchFigures]:
    """Recognises the bench's streams with both sides, without sound, and without pictures, and scores each.

    Raises Misconfigured where the bench or its data is missing.
    """
    folders = bench_quality.made_streams(plan, say)
    figures = {}
    for side in sides:
        logs = []
        for folder in folders:
            logs.append(folder / f"mentions-{side}.jsonl")
            took = recognise(
                settings,
                sorted((folder / "streams").iterdir()),
                pages=folder / "pages.jsonl",
                shelves=folder / "shelves.jsonl",
                out=logs[-1],
                through="memory",
                record=folder / "recorded" if side == "both" else None,
                without=bench_quality.SIDES[side],
                warn=say,
            )
            say(f"{folder.name} {side}: {took.told()}")
        truths = [folder / "truth.jsonl" for folder in folders]
        figures[side] = bench_quality.scored(plan, truths, logs, side)
        say(figures[side].told(side))
    return figures


@asynccontextmanager
async def memory_pipeline(
    settings: Settings, *, without: str | None = None, keep_between: bool = True
) -> AsyncIterator[MemoryPipeline]:
    """All four agents in this process. Without `keep_between` what goes from agent to agent is dropped once read."""
    clock = SystemClock()
    retained = {LIVE_CHUNKS: KEPT_MEDIA_BYTES} | dict.fromkeys((SPEECH_STATE, MATCH_STATE, SPOT_STATE), NEVER_READ)
    if not keep_between:
        retained |= dict.fromkeys((LIVE_CLIPS, LIVE_CANDIDATES), NEVER_READ)
    broker = MemoryBroker(clock=clock, partitions=PARTITIONS, retain_bytes=retained)
    activations: LatestByKey[ReleaseActivation] = LatestByKey(ReleaseActivation)
    rooms = shelves_by_version()
    MemoryFollower(broker, RELEASES, activations)
    MemoryFollower(broker, LIVE_SHELVES, rooms)
    releases, folders = LatestReleases(activations), ReleaseFolders(settings.release_dir)
    active = activation_of(folders.all()[0])
    index = MemoryIndex()
    await index.create(active.collection, release=active.release, dim=folders.all()[0].dim)
    with tempfile.TemporaryDirectory(prefix="streamproc-") as scratch:
        own = msgspec.structs.replace(settings, object_store=settings.object_store or Path(scratch).as_uri())
        objects = object_store(own)
        encoders = encoders_of(own, folders, objects, releases)
        await asyncio.to_thread(encoders.load_all)
        history = MemoryChunkHistory(broker)
        async with perceiving(own, encoders=encoders, history=history, objects=objects, without=without) as perceive:
            agents: dict[str, Any] = {
                "perceive": perceive,
                "match": matching(index, LatestShelves(rooms), releases, folders),
                "spot": spotting(),
                "index": Index(index=index, encoders=encoders, releases=releases),
            }
            seats = model.load().agents
            yield MemoryPipeline(
                broker,
                {name: Seat(agent=agents[name], state_topic=seats[name].state, stage=STAGE[name]) for name in agents},
                active,
                clock,
                index,
            )


@asynccontextmanager
async def kafka_pipeline(settings: Settings, *, data_dir: Path | None = None) -> AsyncIterator[KafkaPipeline]:
    """Embedded Kafka and Milvus with topics and an empty collection; the agents are processes."""
    folders = ReleaseFolders(settings.release_dir)
    facts = folders.all()[0]
    with contextlib.ExitStack() as stack:
        scratch = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamproc-")))
        world = EmbeddedWorld(scratch, settings=_for_children(settings), cache=settings.cache_dir)
        await asyncio.to_thread(world.start)
        try:
            own = msgspec.structs.replace(
                settings,
                broker=world.kafka.bootstrap_servers,
                milvus_uri=world.milvus.uri,
                object_store=world.environment["STREAMPROC_OBJECT_STORE"],
            )
            async with KafkaAdmin(own.broker) as admin:
                await topic_jobs.apply(model.load(), admin, partitions=PARTITIONS, replication=1)
            active = activation_of(facts)
            with contextlib.closing(await milvus(own)) as index:
                await index.create(active.collection, release=active.release, dim=facts.dim)
            client = KafkaClient(broker=own.broker)
            async with KafkaOutbox(client) as outbox:
                yield KafkaPipeline(world, client, outbox, active, object_store(own))
        finally:
            await asyncio.to_thread(world.stop)


def up(settings: Settings, *, data_dir: Path | None, say: Callable[[str], None]) -> None:
    """The embedded world with its agents until Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    async def work() -> None:
        folder = data_dir or settings.cache_dir / "world"
        async with kafka_pipeline(settings, data_dir=folder) as pipeline:
            await pipeline.load((), ())
            for name, value in pipeline.world.environment.items():
                say(f"export {name}={value}")
            say("ready; Ctrl-C ends it")
            while not await asyncio.to_thread(stop.wait, 1.0):
                await asyncio.to_thread(pipeline.world.revive)

    asyncio.run(work())


def activation_of(facts: ReleaseFacts) -> ReleaseActivation:
    """The first build of a release, for worlds that begin with it."""
    return ReleaseActivation(release=facts.release, collection=collection_of(facts.release, 1), at=ACTIVATED_AT)


class _Stopwatch:
    """Runs from the first chunk on: loading models and pages is not recognition."""

    def start(self) -> None:
        self._began_s, self._spent_s = time.monotonic(), spent_cpu_s()

    def taken(self) -> tuple[float, float]:
        """Wall and processor seconds since the start."""
        return time.monotonic() - self._began_s, spent_cpu_s() - self._spent_s


@contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    with tqdm(
        unit="s", unit_scale=True, disable=not sys.stderr.isatty(), desc=f"{len(files)} streams", leave=False
    ) as bar:

        def passed(media_ms: int) -> None:
            bar.update(media_ms / 1000)

        yield passed


def _image_folders(pages: Sequence[Any]) -> tuple[str, ...]:
    """The folders that local images lie in: who names a file on the command line allows it."""
    local = {str(Path(image).parent) for page in pages for image in page.images if "://" not in image}
    return tuple(f"file://{folder}" for folder in sorted(local) if _is_plain(f"file://{folder}"))


def _is_plain(uri: str) -> bool:
    """Whether an object store takes this URI; where not, each image under it becomes a dead letter that says why."""
    try:
        normal_uri(uri)
    except BadMessage:
        return False
    return True


def _for_children(settings: Settings) -> dict[str, str]:
    """The settings that were given, as variables again."""
    defaults = Settings()
    given = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return {
        f"STREAMPROC_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
        if value != getattr(defaults, name) and name not in ("broker", "milvus_uri", "object_store")
    }


def _record(folder: Path, **recorded: Sequence[Struct]) -> None:
    """What rules are fitted on, as JSON lines: `NAME.jsonl`, in the order of the topic."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, values in recorded.items():
        (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
