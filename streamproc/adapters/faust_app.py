"""One agent as a Faust app: its consumer group, its offsets. The only module that knows Faust.

Faust brings records and commits offsets; all else (order, states, dead letters, holding) is the StreamWorker's. Four
faults of faust-streaming 0.15.3 lose data in this use; `install_guards` mends them, and tests show each without.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import faust
import structlog
from faust.streams import Stream
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.types import TP, EventT, StreamT
from faust.types.tuples import Message, ack_lock
from mode.utils.futures import notify

from streamproc.adapters.kafka_client import FETCH_BYTES, LARGEST_REQUEST_BYTES, SETTING, KafkaClient, kafka_errors
from streamproc.adapters.stream_worker import StreamWorker, TopicPartition
from streamproc.errors import Misconfigured
from streamproc.ports import Record

STOP_WITHIN_S: Final = 30.0

_log: Final = structlog.get_logger()

# --- guards -----------------------------------------------------------------------------------------------------


def _new_offset(self: Consumer, tp: TP) -> int | None:
    """Guard 1: what may be committed ends before the oldest event that is still open.

    Faust refuses a gap in the acknowledged offsets only where it is wider than one, and none at the very beginning;
    and it counts the record after a gap in the log (compaction leaves such) as done. (#606, #312)
    """
    acked = self._acked[tp]
    oldest_open = min((m.offset for m in self._unacked_messages if m.tp == tp), default=None)
    done = [offset for offset in acked if oldest_open is None or offset < oldest_open]
    if not done:
        return None
    committable = max(done) + 1
    acked[:] = sorted(offset for offset in acked if offset >= committable)
    self._acked_index[tp].difference_update(done)
    self._gap[tp].chop(0, committable)
    return committable


async def _on_partitions_revoked(self: Consumer, revoked: set[TP]) -> None:
    """Guard 2: finish and commit what is being worked on, then forget the bookkeeping; Faust forgets first. (#502)"""
    if self._active_partitions is not None:
        self._active_partitions.difference_update(revoked)
    self._paused_partitions.difference_update(revoked)
    await self._on_partitions_revoked(revoked)
    books: tuple[Any, ...] = (self._gap, self._acked, self._acked_index, self._read_offset, self._committed_offset)
    for tp in revoked:
        for book in books:
            book.pop(tp, None)
    for message in [m for m in self._unacked_messages if m.tp in revoked]:
        self._unacked_messages.discard(message)  # let go: the next owner gets it, and no commit waits for it


async def _on_recovery_completed(self: Recovery, generation_id: int = 0) -> None:
    """Guard 3: no record flows until the partitions have been sought to their committed offsets; else a record read
    before the seek makes those that are read again look old."""
    self.app.consumer.stop_flow()
    await cast(Consumer, self.app.consumer).wait_for_stopped_flow()
    await _UNGUARDED[Recovery, "on_recovery_completed"](self, generation_id)


def _ack(self: Consumer, message: Message) -> bool:
    """Guard 4: an event of an older generation counts for nothing. It was fetched again since, by whoever has its
    partition now, and a commit may pass neither."""
    if message.generation_id == self.app.consumer_generation_id:
        acked: bool = _UNGUARDED[Consumer, "ack"](self, message)
        return acked
    with ack_lock:
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
    return False


_GUARDS: Final[dict[tuple[type, str], Any]] = {
    (Consumer, "_new_offset"): _new_offset,
    (Consumer, "on_partitions_revoked"): _on_partitions_revoked,
    (Recovery, "on_recovery_completed"): _on_recovery_completed,
    (Consumer, "ack"): _ack,
}
_UNGUARDED: Final[dict[tuple[type, str], Any]] = {(owner, name): getattr(owner, name) for owner, name in _GUARDS}


def install_guards() -> None:
    """Mends Faust in this process; before any App is built. May be called again."""
    for (owner, name), guard in _GUARDS.items():
        setattr(owner, name, guard)


# --- the app ----------------------------------------------------------------------------------------------------


class _Handover:
    """Between Faust's events and the worker's inputs."""

    def __init__(self, worker: StreamWorker) -> None:
        self.worker = worker
        # Faust keeps open events weakly; one that nobody else refers to would vanish, and a commit pass it.
        self._open: dict[TopicPartition, dict[int, EventT[Any]]] = {}

    async def feed(self, stream: StreamT[Any]) -> None:
        """Never raises: Faust would acknowledge the event and drop it."""
        async for event in cast(Stream[Any], stream).noack().events():
            record = _record_of(event.message)
            place = TopicPartition(record.topic, record.partition)
            if place not in self.worker.places and self.worker.failure is None:
                _log.error("input_not_here", topic=record.topic, partition=record.partition, offset=record.offset)
            opened = self._open.setdefault(place, {})
            opened[record.offset] = event
            await self.worker.take(record, _Ack(opened, record.offset, event))

    async def here(self, partitions: Iterable[TP]) -> None:
        await self.worker.assign(TopicPartition(tp.topic, tp.partition) for tp in partitions)

    async def settle(self) -> None:
        """Nothing is being worked on afterwards. What was let go stays open, so that a commit stays before it."""
        await self.worker.revoke(self.worker.places)

    def forget(self) -> None:
        self._open.clear()


class _Ack:
    """ports.Ack of one event."""

    def __init__(self, opened: dict[int, EventT[Any]], offset: int, event: EventT[Any]) -> None:
        self._opened = opened
        self._offset = offset
        self._event = event

    async def __call__(self) -> None:
        self._event.ack()
        if self._opened.get(self._offset) is self._event:
            del self._opened[self._offset]


class _App(faust.App):
    """A Faust app whose rebalances are the worker's."""

    handover: _Handover

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if not self.should_stop:
            await self.handover.here(assigned)  # before the flow resumes: no event may come to a partition not here
        await super()._on_partitions_assigned(assigned, generation_id)

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super()._on_partitions_revoked(revoked)
        await self.handover.settle()  # done already, but where Faust saw no assignment
        self.handover.forget()

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        """Faust would wait for every open event, for ever where one is held. The flow has stopped by now."""
        del logger
        await self.handover.settle()
        await consumer.commit()


def build_app(
    worker: StreamWorker,
    *,
    topics: Sequence[str],
    client: KafkaClient,
    group: str,
    instance: str | None,
    datadir: Path,
) -> faust.App:
    """One consumer group as a Faust app, not started. Call `install_guards` first; must run in the event loop that
    will run it. `instance`: name of this member in the group, stable over restarts and unlike any other's; a restart
    within the session time-out then moves no partition."""
    datadir.mkdir(parents=True, exist_ok=True)  # Faust makes the last part only
    app = _App(
        group,
        broker=";".join(f"kafka://{address.strip()}" for address in client.broker.split(",")),
        broker_credentials=_credentials(client.security),
        broker_commit_interval=1.0,  # what is done again after a kill
        broker_heartbeat_interval=3.0,
        broker_max_poll_records=8,  # with the next, what bounds memory before the worker's own limits
        stream_buffer_maxsize=8,
        broker_rebalance_timeout=60.0,
        broker_request_timeout=90.0,
        broker_session_timeout=30.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance or "",
        consumer_max_fetch_size=FETCH_BYTES,
        datadir=datadir,
        producer_acks=-1,
        producer_max_request_size=LARGEST_REQUEST_BYTES,
        store="memory://",
        stream_wait_empty=False,  # see _consumer_wait_empty
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.handover = _Handover(worker)
    channel = app.topic(*topics, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    app.agent(channel, name=group, concurrency=1)(app.handover.feed)
    return app


class Companion(Protocol):
    """Something that runs beside the worker and that it cannot do without."""

    async def failed(self) -> Exception:
        """Waits for its failure and returns it."""
        ...


async def run_agent(
    worker: StreamWorker,
    *,
    topics: Sequence[str],
    client: KafkaClient,
    group: str,
    instance: str | None = None,
    datadir: Path,
    stop: asyncio.Event,
    companions: Sequence[Companion] = (),
    tick_s: float | None = None,
) -> None:
    """Runs one agent until `stop` is set, then finishes what is being worked on, commits and leaves.

    `tick_s`: how often to ask the agent about silent streams; None never (replay, recognise). Raises Unavailable or
    Misconfigured where the broker cannot be used at the start, and the failure where the worker, a companion or
    Faust itself fails: let the process end with code 1 and be started again; nothing is lost.
    """
    await client.partitions(tuple(topics))
    install_guards()
    app = build_app(worker, topics=topics, client=client, group=group, instance=instance, datadir=datadir)
    tasks: dict[str, asyncio.Task[Any]] = {
        name: asyncio.create_task(work, name=name)
        for name, work in {
            "stop": stop.wait(),
            "crash": app.wait_until_stopped(),
            "worker": worker.failed(),
            "start": app.start(),
            **{f"companion {n}": companion.failed() for n, companion in enumerate(companions)},
            **({} if tick_s is None else {"tick": _tick(worker, tick_s)}),
        }.items()
    }
    watched = {task for name, task in tasks.items() if name != "start"}
    try:
        _log.info("agent_starts", group=group, topics=list(topics), broker=client.broker)
        await asyncio.wait({tasks["start"], *watched}, return_when=asyncio.FIRST_COMPLETED)
        if tasks["start"].done():
            tasks["start"].result()
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _stop(app, tasks)
        _log.info("agent_stopped", group=group, served=worker.counters.served)
    if worker.failure is not None:
        raise worker.failure
    if isinstance(app.crash_reason, Exception):
        with kafka_errors(client.broker):
            raise app.crash_reason
    for task in watched:
        if not task.cancelled() and isinstance(failure := task.result(), Exception):
            raise failure


async def _stop(app: faust.App, tasks: Mapping[str, asyncio.Task[Any]]) -> None:
    for name, task in tasks.items():
        if name != "start":
            task.cancel()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await app.stop()
    except TimeoutError:
        _log.error("agent_stops_hard", within_s=STOP_WITHIN_S)
    tasks["start"].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _tick(worker: StreamWorker, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await worker.tick()


def _record_of(message: Message) -> Record:
    headers: Any = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Record(
        topic=message.topic,
        key=message.key,
        value=message.value,
        headers=tuple((name, content) for name, content in pairs),
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round((message.timestamp or 0) * 1000),
    )


def _credentials(security: Mapping[str, Any]) -> Any:
    """aiokafka's words for it in Faust's. Raises Misconfigured for what Faust cannot speak."""
    protocol = security.get("security_protocol", "PLAINTEXT")
    context = security.get("ssl_context")
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    if protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        return faust.SASLCredentials(
            username=security.get("sasl_plain_username"),
            password=security.get("sasl_plain_password"),
            mechanism=security.get("sasl_mechanism", "PLAIN"),
            ssl_context=context,
        )
    raise Misconfigured(SETTING, f"security protocol {protocol!r} is not known")
