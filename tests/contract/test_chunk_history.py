"""live.chunks read again, in memory and on Kafka alike."""

from dataclasses import replace

from streamproc.adapters.chunk_history import KafkaChunkHistory
from streamproc.adapters.memory import MemoryChunkHistory
from streamproc.adapters.murmur2 import partition_of
from streamproc.ports import ChunkHistory
from tests.worker_world import PARTITIONS, KafkaWorld, MemoryWorld, World, chunk

PLACE = partition_of(b"room-1", PARTITIONS)
NEIGHBOUR = next(n for n in (f"n{i}" for i in range(99)) if partition_of(n.encode(), PARTITIONS) == PLACE)


def history_of(world: World) -> ChunkHistory:
    if isinstance(world, MemoryWorld):
        return MemoryChunkHistory(world.broker)
    assert isinstance(world, KafkaWorld)
    return KafkaChunkHistory(world.client)


async def test_the_chunks_of_one_stream_between_two_offsets_come_in_order(world: World) -> None:
    for sequence in range(4):
        await world.outbox.send(chunk("room-1", sequence))  # offsets 0, 2, 4, 6
        await world.outbox.send(chunk(NEIGHBOUR, sequence))

    found = await history_of(world).chunks(PLACE, stream_id="room-1", first_offset=2, end_offset=6)

    assert [(2, 1), (4, 2)] == [(offset, chunk.sequence) for offset, chunk in found]


async def test_what_is_no_chunk_is_passed_over_and_nothing_is_asked_for_nothing(world: World) -> None:
    await world.outbox.send(chunk("room-1", 0))
    await world.outbox.send(replace(chunk("room-1", 1), headers=()))
    await world.outbox.send(chunk("room-1", 2))
    history = history_of(world)

    found = await history.chunks(PLACE, stream_id="room-1", first_offset=0, end_offset=3)

    assert [0, 2] == [chunk.sequence for _, chunk in found]
    assert () == await history.chunks(PLACE, stream_id="room-1", first_offset=3, end_offset=3)
