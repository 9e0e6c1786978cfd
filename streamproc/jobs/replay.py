"""Folds recorded candidates again and compares with what was emitted. Byte-equal, always: what the decision used is
in the records (promise 2)."""

import asyncio
from collections.abc import AsyncIterable
from typing import Final

from msgspec import Struct

from streamproc import wire
from streamproc.adapters.memory import MemoryOutbox, MemoryRunner, MemoryStateTopic
from streamproc.adapters.memory_broker import MemoryBroker
from streamproc.adapters.stream_worker import StreamWorker
from streamproc.adapters.worker_limits import WorkerLimits
from streamproc.core.mention import ProductMention
from streamproc.ports import AnyAgent, Clock, Record
from streamproc.topics import LIVE_CANDIDATES, PRODUCT_MENTIONS, SPOT_STATE

EXAMPLES: Final = 5

Said = dict[tuple[str, int], bytes]
"""(mention_id, revision) -> the bytes of the event."""


class ReplayReport(Struct, frozen=True, kw_only=True):
    """What replay gave against what was emitted."""

    candidates: int
    replayed: int  # events
    emitted: int
    only_replayed: tuple[str, ...] = ()  # mention_id/revision, the first few
    only_emitted: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Byte for byte."""
        return not (self.only_replayed or self.only_emitted or self.different)

    def told(self) -> str:
        """For people."""
        if self.equal:
            return f"{self.candidates} candidate records: {self.replayed} events, byte-equal with what was emitted"
        return (
            f"{self.candidates} candidate records: {self.replayed} events against {self.emitted} emitted; different "
            f"{list(self.different)}, only replayed {list(self.only_replayed)}, only emitted {list(self.only_emitted)}"
        )


async def replay_candidates(
    candidates: AsyncIterable[Record], *, spot: AnyAgent, partitions: int, clock: Clock
) -> tuple[int, tuple[Record, ...]]:
    """How many records were folded, and the product.mentions that they give, in order within each partition.

    The records keep partition and origin, so a repeated one is dropped as it was then. Nothing is written anywhere.
    """
    broker = MemoryBroker(clock=clock, partitions=partitions)
    worker = StreamWorker(
        spot,
        outbox=MemoryOutbox(broker),
        states=MemoryStateTopic(broker, SPOT_STATE),
        partitions={LIVE_CANDIDATES: partitions},
        clock=clock,
        limits=WorkerLimits(deadline_s=None),
    )
    runner = MemoryRunner(broker, worker, group="replay", topics=[LIVE_CANDIDATES])
    folding = asyncio.create_task(runner.run())
    count = 0
    async for record in candidates:
        await broker.send(record)
        count += 1
        if folding.done():
            break  # it has failed; what it says is raised below
    broker.finish(LIVE_CANDIDATES)
    await folding
    return count, broker.log(PRODUCT_MENTIONS)


def compare(candidates: int, replayed: tuple[Record, ...], emitted: tuple[Record, ...]) -> ReplayReport:
    """Event by event; of repeated ones the first counts, as for any consumer."""
    ours, theirs = _said(replayed), _said(emitted)
    both = ours.keys() & theirs.keys()
    return ReplayReport(
        candidates=candidates,
        replayed=len(ours),
        emitted=len(theirs),
        only_replayed=_named(ours.keys() - theirs.keys()),
        only_emitted=_named(theirs.keys() - ours.keys()),
        different=_named({key for key in both if ours[key] != theirs[key]}),
    )


def _said(records: tuple[Record, ...]) -> Said:
    said: Said = {}
    for record in records:
        message = wire.decode(record).message
        if isinstance(message, ProductMention) and record.value is not None:
            said.setdefault((message.mention_id, message.revision), record.value)
    return said


def _named(keys: set[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(f"{mention_id}/{revision}" for mention_id, revision in sorted(keys)[:EXAMPLES])
