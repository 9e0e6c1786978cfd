"""Topics without a broker: partitioned logs in this process, with the rules of Kafka that the product leans on."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from streamproc.adapters.murmur2 import partition_of
from streamproc.ports import Clock, Record

_MIB: Final = 1024 * 1024


@dataclass
class _Log:
    """One partition. `first` is the offset of the oldest record that is still kept."""

    records: deque[Record] = field(default_factory=deque)
    first: int = 0
    size: int = 0  # bytes kept

    @property
    def end(self) -> int:
        return self.first + len(self.records)


@dataclass
class _Reader:
    """A consumer group on one partition."""

    position: int = 0  # next to hand out
    acked: set[int] = field(default_factory=set)  # beyond committed
    committed: int = 0  # everything before it is done


class MemoryBroker:
    """Ordered, offset-numbered, keyed like Kafka (murmur2), with consumer groups and back-pressure.

    `send` to a topic that a group reads waits while the group is `max_lag` records or `max_lag_bytes` behind: a fast
    producer cannot fill the memory. Records that every group of their topic has done with are dropped when their
    partition holds more than `retain_bytes` says of the topic (nothing: kept for ever, as tests want).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        partitions: int = 4,
        single: Iterable[str] = ("releases",),
        max_lag: int = 256,
        max_lag_bytes: int = 64 * _MIB,
        retain_bytes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._clock = clock
        self._count = partitions
        self._single = frozenset(single)
        self._max_lag = max_lag
        self._max_lag_bytes = max_lag_bytes
        self._retain_bytes = retain_bytes
        self._logs: dict[tuple[str, int], _Log] = {}
        self._groups: dict[str, dict[tuple[str, int], _Reader]] = {}
        self._finished: set[str] = set()
        self._watchers: dict[str, list[Callable[[Record], None]]] = {}
        self._changed = asyncio.Event()

    def partitions(self, topic: str) -> int:
        """How many the topic has."""
        return 1 if topic in self._single else self._count

    async def send(self, record: Record) -> Record:
        """Appends and returns the record with its partition, offset and time. Waits while readers are too far
        behind. Raises ValueError after `finish` of its topic."""
        size = len(record.value or b"")
        while self._is_behind(record.topic, size):
            await self._next_change()
        if record.topic in self._finished:
            raise ValueError(f"{record.topic} was finished")
        number = record.partition
        if number < 0:
            number = 0 if record.key is None else partition_of(record.key, self.partitions(record.topic))
        log = self._log(record.topic, number)
        placed = replace(
            record, partition=number, offset=log.end, timestamp_ms=int(self._clock.now().timestamp() * 1000)
        )
        log.records.append(placed)
        log.size += size
        self._trim(record.topic, number)
        self._notify()
        for watcher in self._watchers.get(record.topic, ()):
            watcher(placed)
        return placed

    def finish(self, topic: str) -> None:
        """No more will come: who reads the topic may end when everything in it is done."""
        self._finished.add(topic)
        self._notify()

    def log(self, topic: str) -> tuple[Record, ...]:
        """What is kept of a topic, partition by partition."""
        return tuple(record for number in range(self.partitions(topic)) for record in self._log(topic, number).records)

    def partition_log(self, topic: str, partition: int) -> tuple[Record, ...]:
        """What is kept of one partition, in order."""
        return tuple(self._log(topic, partition).records)

    def watch(self, topic: str, watcher: Callable[[Record], None]) -> None:
        """Calls `watcher` with everything kept, then with every record as it comes."""
        for record in self.log(topic):
            watcher(record)
        self._watchers.setdefault(topic, []).append(watcher)

    # --- consumer groups ----------------------------------------------------------------------------------------

    def join(self, group: str, topics: Iterable[str]) -> None:
        """The group reads these topics from now on, from where it has got to (at first from the beginning). What was
        handed out and not acknowledged is handed out again."""
        readers = self._groups.setdefault(group, {})
        for topic in topics:
            for number in range(self.partitions(topic)):
                reader = readers.setdefault((topic, number), _Reader(committed=self._log(topic, number).first))
                reader.position = reader.committed
                reader.acked.clear()

    async def read(self, group: str) -> Record | None:
        """The next record for the group, from each partition in turn; None when all of its topics are finished and
        read to the end."""
        readers = self._groups[group]
        while True:
            for place, reader in list(readers.items()):
                log = self._log(*place)
                reader.position = max(reader.position, log.first)
                if reader.position < log.end:
                    record = log.records[reader.position - log.first]
                    reader.position += 1
                    readers[place] = readers.pop(place)  # the others first, next time
                    return record
            if all(topic in self._finished for topic, _ in readers):
                return None
            await self._next_change()

    def ack(self, group: str, record: Record) -> None:
        """Done with it. Acks may come out of order; the group restarts at the oldest that is missing."""
        reader = self._groups[group][record.topic, record.partition]
        if record.offset < reader.committed:
            return
        reader.acked.add(record.offset)
        while reader.committed in reader.acked:
            reader.acked.discard(reader.committed)
            reader.committed += 1
        self._trim(record.topic, record.partition)
        self._notify()

    def lag(self, group: str) -> int:
        """Records that the group has not acknowledged yet."""
        return sum(
            self._log(*place).end - reader.committed - len(reader.acked)
            for place, reader in self._groups[group].items()
        )

    # --- inside -------------------------------------------------------------------------------------------------

    def _log(self, topic: str, partition: int) -> _Log:
        return self._logs.setdefault((topic, partition), _Log())

    def _is_behind(self, topic: str, size: int) -> bool:
        for readers in self._groups.values():
            behind = [(self._log(*place), reader) for place, reader in readers.items() if place[0] == topic]
            records = sum(log.end - reader.committed - len(reader.acked) for log, reader in behind)
            if records >= self._max_lag:
                return True
            waiting = sum(
                len(log.records[offset - log.first].value or b"")
                for log, reader in behind
                for offset in range(max(reader.committed, log.first), log.end)
                if offset not in reader.acked
            )
            if records and waiting + size > self._max_lag_bytes:
                return True
        return False

    def _trim(self, topic: str, partition: int) -> None:
        retained = self._retain_bytes.get(topic)
        if retained is None:
            return
        log, place = self._log(topic, partition), (topic, partition)
        done = min((readers[place].committed for readers in self._groups.values() if place in readers), default=log.end)
        while log.size > retained and log.first < done and log.records:
            log.size -= len(log.records.popleft().value or b"")
            log.first += 1

    def _notify(self) -> None:
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
