"""live.chunks, read again: a stream's sound after a take-over."""

from aiokafka import TopicPartition

from streamproc import wire
from streamproc.adapters.kafka_client import KafkaClient, read_to
from streamproc.core.chunk import LiveChunk
from streamproc.errors import BadMessage
from streamproc.ports import Record
from streamproc.topics import LIVE_CHUNKS


class KafkaChunkHistory:
    """ports.ChunkHistory. Each call has its own connection: it happens once per stream and take-over."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client

    async def chunks(
        self, partition: int, *, stream_id: str, first_offset: int, end_offset: int
    ) -> tuple[tuple[int, LiveChunk], ...]:
        """As far as the topic still keeps them; what is no chunk is passed over. Raises Unavailable."""
        found: list[tuple[int, LiveChunk]] = []
        if first_offset >= end_offset:
            return ()
        async with self._client.consumer() as consumer:
            place = TopicPartition(LIVE_CHUNKS, partition)
            async for record in read_to(consumer, place, end_offset, start=first_offset):
                found += chunk_in(record, stream_id)
        return tuple(found)


def chunk_in(record: Record, stream_id: str) -> tuple[tuple[int, LiveChunk], ...]:
    """(offset, chunk) of a record of live.chunks; nothing where it is another stream's, or no chunk."""
    if record.key != stream_id.encode():
        return ()
    try:
        message = wire.decode(record).message
    except BadMessage:
        return ()  # it has its dead letter
    return ((record.offset, message),) if isinstance(message, LiveChunk) else ()
