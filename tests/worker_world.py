"""A small world for a StreamWorker: agents whose every fold shows, faults on demand, memory or Kafka below."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

from aiokafka import TopicPartition as KafkaPlace
from msgspec import Struct

from streamproc import wire
from streamproc.adapters.faust_app import run_agent
from streamproc.adapters.kafka_client import KafkaClient, read_to
from streamproc.adapters.memory import MemoryOutbox, MemoryRunner, MemoryStateTopic
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.state_topic import KafkaStateTopic
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.adapters.worker_limits import DeadLetterLimit, WorkerLimits
from streamproc.core.candidate import Gap
from streamproc.core.chunk import LiveChunk
from streamproc.core.span import Span
from streamproc.core.status import LiveStatus
from streamproc.core.transcript import Transcript, Utterance
from streamproc.errors import BadMessage
from streamproc.ports import Ack, AnyAgent, Delivery, Origin, Outbox, Output, Record, StateTopic, Step
from streamproc.topics import (
    DEAD_LETTERS,
    LIVE_CANDIDATES,
    LIVE_CHUNKS,
    LIVE_SHELVES,
    LIVE_STATUS,
    LIVE_TRANSCRIPTS,
    RELEASES,
    SPEECH_STATE,
    SPOT_STATE,
)

PARTITIONS = 4
BAD_MEDIA = b"no media at all"
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
PATIENT = WorkerLimits(first_retry_s=0.01, last_retry_s=0.05, settle_s=5.0, deadline_s=20.0)


class FixedClock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.moment = EPOCH

    def now(self) -> datetime:
        return self.moment

    def pass_ms(self, ms: int) -> None:
        self.moment += timedelta(milliseconds=ms)


# --- agents -----------------------------------------------------------------------------------------------------


class Count(Struct, frozen=True, kw_only=True):
    count: int = 0


class Tally:
    """Reads chunks; each transcript says how many chunks of its stream were folded before, so that a chunk folded
    twice, skipped or out of turn shows in every later one. Two outputs for every second chunk."""

    name = "perceive"
    state_type = Count

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}  # streams whose steps wait
        self.running = 0
        self.most_running = 0

    def fresh(self, key: str) -> Count:
        return Count()

    async def step(self, state: Count, delivery: Delivery) -> Step[Count]:
        chunk = cast(LiveChunk, delivery.message)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if gate := self.gates.get(chunk.stream_id):
                await gate.wait()
            if chunk.media == BAD_MEDIA:
                raise BadMessage("undecodable_media", "nothing in it decodes")
            return self._told(state, chunk, str(state.count), times=1 + chunk.sequence % 2)
        finally:
            self.running -= 1

    async def lost(self, state: Count, delivery: Delivery, reason: str) -> Step[Count]:
        return self._told(state, cast(LiveChunk, delivery.message), f"{state.count} {reason}", times=1)

    async def idle(self, state: Count, key: str, silent_ms: int) -> Step[Count] | None:
        return None

    def forget(self, keys: Sequence[str]) -> None:
        self.forgotten += keys

    def _told(self, state: Count, chunk: LiveChunk, text: str, *, times: int) -> Step[Count]:
        utterance = Utterance(span=chunk.span, text=text, language="en")
        message = Transcript(
            stream_id=chunk.stream_id, broadcast_id=chunk.broadcast_id, sequence=chunk.sequence, utterances=(utterance,)
        )
        output = Output(topic=LIVE_TRANSCRIPTS, key=chunk.stream_id, message=message)
        return Step(state=Count(count=state.count + 1), outputs=(output,) * times)


class Watch:
    """Reads gaps, which have the origin of a chunk; tells each as a status and counts them. Idle streams stall."""

    name = "spot"
    state_type = Count

    def __init__(self, *, stalls: bool = False) -> None:
        self._stalls = stalls

    def fresh(self, key: str) -> Count:
        return Count()

    async def step(self, state: Count, delivery: Delivery) -> Step[Count]:
        gap = cast(Gap, delivery.message)
        return self._told(state, gap.stream_id, gap.reason)

    async def lost(self, state: Count, delivery: Delivery, reason: str) -> Step[Count]:
        return Step(state=state)

    async def idle(self, state: Count, key: str, silent_ms: int) -> Step[Count] | None:
        return self._told(state, key, f"silent {silent_ms}") if self._stalls else None

    def forget(self, keys: Sequence[str]) -> None:
        pass

    def _told(self, state: Count, stream_id: str, reason: str) -> Step[Count]:
        told = f"{state.count} {reason}"
        status = LiveStatus(stream_id=stream_id, broadcast_id="b", status="gap", at_ms=0, reason=told)
        output = Output(topic=LIVE_STATUS, key=stream_id, message=status)
        return Step(state=Count(count=state.count + 1), outputs=(output,))


# --- messages ---------------------------------------------------------------------------------------------------


def chunk(stream_id: str, sequence: int, *, media: bytes = b"media") -> Record:
    message = LiveChunk(
        stream_id=stream_id,
        broadcast_id="b",
        sequence=sequence,
        start_ms=sequence * 2_000,
        duration_ms=2_000,
        captured_at=EPOCH,
        media=media,
    )
    return wire.encode(message, topic=LIVE_CHUNKS, key=stream_id)


def gap(stream_id: str, reason: str, *, offset: int, n: int = 0) -> Record:
    message = Gap(stream_id=stream_id, broadcast_id="b", span=Span(start_ms=0, end_ms=1), reason=reason)
    origin = Origin(topic=LIVE_CHUNKS, partition=0, offset=offset, n=n)
    return wire.encode(message, topic=LIVE_CANDIDATES, key=stream_id, origin=origin)


def told(records: Sequence[Record]) -> dict[str, list[tuple[Origin, str]]]:
    """What the agents said of each stream, with its origin, in order."""
    said: dict[str, list[tuple[Origin, str]]] = {}
    for record in records:
        delivery = wire.decode(record)
        message = delivery.message
        text = message.utterances[0].text if isinstance(message, Transcript) else cast(LiveStatus, message).reason
        said.setdefault((record.key or b"").decode(), []).append((delivery.origin, text))
    return said


def once(said: Mapping[str, list[tuple[Origin, str]]]) -> dict[str, list[tuple[Origin, str]]]:
    """What a consumer keeps that drops every record not greater than the last: the first of each origin."""
    kept: dict[str, list[tuple[Origin, str]]] = {}
    for key, records in said.items():
        kept[key] = []
        for origin, text in records:
            if origin.follows(kept[key][-1][0] if kept[key] else None):
                kept[key].append((origin, text))
    return kept


# --- faults -----------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for kill -9 at this very point."""


@dataclass
class Faults:
    """What goes wrong, and when. `at` is asked before and after every send, save and ack."""

    at: Callable[[str, str, int], None] = lambda when, what, count: None  # (before | after, send | save | ack, count)
    seen: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def around(self, what: str) -> AsyncIterator[None]:
        self.seen[what] += 1
        count = self.seen[what]
        self.at("before", what, count)
        yield
        self.at("after", what, count)


class FaultyOutbox:
    def __init__(self, outbox: Outbox, faults: Faults) -> None:
        self._outbox, self._faults = outbox, faults

    async def send(self, record: Record) -> None:
        async with self._faults.around("send"):
            await self._outbox.send(record)


class FaultyStates:
    def __init__(self, states: StateTopic, faults: Faults) -> None:
        self._states, self._faults = states, faults

    async def load(self, partition: int) -> dict[str, bytes]:
        return await self._states.load(partition)

    async def save(self, partition: int, key: str, value: bytes | None) -> None:
        async with self._faults.around("save"):
            await self._states.save(partition, key, value)


class FaultyAcks(StreamWorker):
    """A worker whose acks may fail too."""

    faults: Faults

    async def take(self, record: Record, ack: Ack) -> None:
        async def faulty() -> None:
            async with self.faults.around("ack"):
                await ack()

        await super().take(record, faulty)


# --- worlds -----------------------------------------------------------------------------------------------------


class World(Protocol):
    """Where a worker runs."""

    outbox: Outbox

    def states(self, topic: str) -> StateTopic: ...

    async def log(self, topic: str) -> tuple[Record, ...]:
        """All records of a topic, partition by partition."""
        ...

    async def run(self, worker: StreamWorker, *, group: str, topics: Sequence[str], stop: asyncio.Event) -> None:
        """Until `stop`; raises the worker's failure."""
        ...


class MemoryWorld:
    def __init__(self) -> None:
        self.broker = MemoryBroker(clock=FixedClock(), partitions=PARTITIONS, single=(), max_lag=10_000)
        self.outbox: Outbox = MemoryOutbox(self.broker)

    def states(self, topic: str) -> StateTopic:
        return MemoryStateTopic(self.broker, topic)

    async def log(self, topic: str) -> tuple[Record, ...]:
        return self.broker.log(topic)

    async def run(self, worker: StreamWorker, *, group: str, topics: Sequence[str], stop: asyncio.Event) -> None:
        running = asyncio.create_task(MemoryRunner(self.broker, worker, group=group, topics=topics).run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if running.done():
            running.result()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


class KafkaWorld:
    def __init__(self, client: KafkaClient, outbox: Outbox, datadir: Path) -> None:
        self.client = client
        self.outbox = outbox
        self._datadir = datadir
        self._prefix = uuid.uuid4().hex[:8]  # offsets of another test are not ours

    def states(self, topic: str) -> StateTopic:
        return KafkaStateTopic(self.client, topic, outbox=self.outbox)

    async def log(self, topic: str) -> tuple[Record, ...]:
        async with self.client.consumer() as consumer:
            return tuple([r for n in range(PARTITIONS) async for r in read_to(consumer, KafkaPlace(topic, n))])

    async def run(self, worker: StreamWorker, *, group: str, topics: Sequence[str], stop: asyncio.Event) -> None:
        group = f"{self._prefix}-{group}"
        datadir = self._datadir / group
        await run_agent(worker, topics=topics, client=self.client, group=group, datadir=datadir, stop=stop)


READS = {"perceive": (LIVE_CHUNKS, SPEECH_STATE), "spot": (LIVE_CANDIDATES, SPOT_STATE)}
ALL_TOPICS = (
    DEAD_LETTERS,
    LIVE_CANDIDATES,
    LIVE_CHUNKS,
    LIVE_SHELVES,
    LIVE_STATUS,
    LIVE_TRANSCRIPTS,
    RELEASES,
    SPEECH_STATE,
    SPOT_STATE,
)


def worker_in(
    world: World,
    agent: AnyAgent,
    *,
    faults: Faults | None = None,
    limits: WorkerLimits = PATIENT,
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit(),  # noqa: B008 - frozen
    clock: FixedClock | None = None,
) -> StreamWorker:
    topic, state_topic = READS[agent.name]
    faults = faults or Faults()
    worker = FaultyAcks(
        agent,
        outbox=FaultyOutbox(world.outbox, faults),
        states=FaultyStates(world.states(state_topic), faults),
        partitions={topic: PARTITIONS},
        clock=clock or FixedClock(),
        stage="embedded",
        limits=limits,
        dead_letter_limit=dead_letter_limit,
    )
    worker.faults = faults
    return worker


@asynccontextmanager
async def running(world: World, worker: StreamWorker, agent: AnyAgent) -> AsyncIterator["asyncio.Task[None]"]:
    """The worker at work; stopped in an orderly way at the end, unless it failed, which is raised there."""
    stop = asyncio.Event()
    topics = READS[agent.name][:1]
    task = asyncio.create_task(world.run(worker, group=agent.name, topics=topics, stop=stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
    task.result()


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Returns when it holds; fails the test where it does not in time. The one place that polls."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.02)


async def serve_all(world: World, agent: AnyAgent, inputs: int, *, faults: Faults | None = None) -> StreamWorker:
    """One worker from start to end: returns when it has served `inputs`; raises what it fails with."""
    worker = worker_in(world, agent, faults=faults)
    async with running(world, worker, agent) as task:
        await until(lambda: worker.counters.served >= inputs or task.done())
    return worker
