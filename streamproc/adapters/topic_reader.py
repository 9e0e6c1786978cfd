"""Reads topics outside any group: for commands, jobs and whoever wants to look."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiokafka import TopicPartition

from streamproc.adapters.kafka_client import POLL_MS, KafkaClient, as_record
from streamproc.ports import Record


async def read_topics(
    client: KafkaClient, topics: Sequence[str], *, since: datetime | None = None, follow: bool = False
) -> AsyncGenerator[Record, None]:
    """The records of `topics`, in order within each partition, from the beginning or from `since` (broker time).

    Without `follow` it ends where the topics ended when it began; with it, it goes on for ever. Raises Unavailable
    for the broker, Misconfigured for a topic that is not there.
    """
    counts = await client.partitions(tuple(topics))
    places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    async with client.consumer() as consumer:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        if since is None:
            await consumer.seek_to_beginning(*places)
        else:
            for place, offset in (await _offsets_at(consumer, places, since, ends)).items():
                consumer.seek(place, offset)
        unread = set(places)
        while unread:
            for messages in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for message in messages:
                    if follow or message.offset < ends[TopicPartition(message.topic, message.partition)]:
                        yield as_record(message)
            if not follow:
                # The position passes what compaction left out; a last record may be such a one.
                unread = {place for place in unread if await consumer.position(place) < ends[place]}


async def _offsets_at(
    consumer: Any, places: Sequence[TopicPartition], moment: datetime, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    found = await consumer.offsets_for_times(dict.fromkeys(places, int(moment.timestamp() * 1000)))
    return {place: ends[place] if found.get(place) is None else found[place].offset for place in places}
