"""Reads a topic outside any group: for commands, jobs and whoever wants to look."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from streamproc.errors import Misconfigured, Unavailable
from streamproc.ports import Record

POLL_MS: Final = 200
MAX_FETCH_BYTES: Final = 4 * 1024 * 1024


@asynccontextmanager
async def _consumer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MAX_FETCH_BYTES,
    )
    try:
        await consumer.start()
    except KafkaConnectionError as error:
        raise Unavailable("broker", f"STREAMPROC_BROKER {bootstrap_servers}: {error}") from error
    try:
        yield consumer
    except KafkaError as error:
        raise Unavailable("broker", f"STREAMPROC_BROKER {bootstrap_servers}: {error}") from error
    finally:
        await consumer.stop()


async def read_topics(
    bootstrap_servers: str,
    topics: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    follow: bool = False,
) -> AsyncIterator[Record]:
    """The records of `topics`, in order within each partition, from the beginning or from `since` (broker time).

    Without `follow` it ends where the topics ended when it began (or at `until`); with it, it goes on for ever.
    Raises Unavailable for the broker, Misconfigured for a topic that is not there.
    """
    async with _consumer(bootstrap_servers) as consumer:
        places = await _places(consumer, topics)
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        if until is not None:
            ends = {**ends, **await _offsets_at(consumer, places, until, ends)}
        starts = dict.fromkeys(places, 0)
        if since is not None:
            starts = await _offsets_at(consumer, places, since, ends)
            for place, offset in starts.items():
                consumer.seek(place, offset)
        else:
            await consumer.seek_to_beginning(*places)
            starts = await consumer.beginning_offsets(places)
        open_places = {place for place in places if follow or starts[place] < ends[place]}
        while open_places:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for place, messages in batches.items():
                for message in messages:
                    if follow or message.offset < ends[place]:
                        yield Record(
                            topic=message.topic,
                            partition=message.partition,
                            offset=message.offset,
                            key=message.key,
                            value=message.value,
                            headers=tuple(message.headers),
                            timestamp_ms=message.timestamp,
                        )
            if not follow:
                # The position passes what compaction or aborted transactions left out; a last record may be neither.
                open_places = {p for p in open_places if await consumer.position(p) < ends[p]}


async def _places(consumer: AIOKafkaConsumer, topics: Sequence[str]) -> list[TopicPartition]:
    found = []
    for topic in topics:
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            await consumer._client.force_metadata_update()  # noqa: SLF001 - assign() alone learns a topic too late
            partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise Misconfigured("topics", f"{topic} is not on the broker: `streamproc topics apply` creates it")
        found += [TopicPartition(topic, number) for number in sorted(partitions)]
    return found


async def _offsets_at(
    consumer: AIOKafkaConsumer,
    places: Sequence[TopicPartition],
    moment: datetime,
    ends: dict[TopicPartition, int],
) -> dict[TopicPartition, int]:
    at_ms = int(moment.timestamp() * 1000)
    found = await consumer.offsets_for_times(dict.fromkeys(places, at_ms))
    return {place: ends[place] if (hit := found.get(place)) is None else hit.offset for place in places}
