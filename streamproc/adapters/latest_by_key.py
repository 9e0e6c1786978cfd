"""The newest message of every key of a compacted topic: shelves and releases, whoever reads them in."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import structlog
from msgspec import Struct

from streamproc import wire
from streamproc.core.catalog import Shelf
from streamproc.core.release import ReleaseActivation
from streamproc.errors import BadMessage
from streamproc.ports import Record

M = TypeVar("M", bound=Struct)

_log: Final = structlog.get_logger()


def _later(old: Struct, new: Struct) -> bool:
    del old, new
    return True


class LatestByKey(Generic[M]):
    """Fed with the records of a topic in the order of each partition; answers with what holds now.

    A record that cannot be decoded, or is of another type, is logged, counted and passed over: what was known of its
    key goes on holding. A tombstone forgets the key.
    """

    def __init__(self, message_type: type[M], *, supersedes: Callable[[M, M], bool] = _later) -> None:
        self._message_type = message_type
        self._supersedes = supersedes  # (old, new): whether new counts
        self._latest: dict[str, M] = {}
        self._partition_of: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.version = 0  # rises with every message, tombstone and drop that was taken in
        self.passed_over = 0

    def apply(self, record: Record) -> None:
        """Takes one more record in. Raises nothing."""
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._latest.pop(key, None)
            self._partition_of.pop(key, None)
            self._tell()
            return
        try:
            message = wire.decode(record).message
        except BadMessage as bad:
            self.passed_over += 1
            facts = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            _log.warning("record_passed_over", reason=bad.reason, detail=bad.detail[:500], **facts)
            return
        if not isinstance(message, self._message_type):
            return  # the topic carries others too (releases: reports)
        known = self._latest.get(key)
        if known is None or self._supersedes(known, message):
            self._latest[key] = message
            self._partition_of[key] = record.partition
            self._tell()

    async def beyond(self, version: int) -> None:
        """Returns when something was taken in after `version`."""
        while self.version <= version:
            await self._changed.wait()

    def get(self, key: str) -> M | None:
        return self._latest.get(key)

    def items(self) -> dict[str, M]:
        """A copy: every key with what holds for it."""
        return dict(self._latest)

    def drop(self, partition: int) -> None:
        """Forgets what came from a partition that is no longer followed."""
        for key in [key for key, found in self._partition_of.items() if found == partition]:
            del self._latest[key], self._partition_of[key]
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()  # whoever waits has the old one


def shelves_by_version() -> LatestByKey[Shelf]:
    """The greatest version of a room's shelf counts, the later one of equal versions."""
    return LatestByKey(Shelf, supersedes=lambda old, new: new.version >= old.version)


class LatestShelves:
    """ports.Shelves."""

    def __init__(self, shelves: LatestByKey[Shelf]) -> None:
        self._shelves = shelves

    def of(self, stream_id: str) -> Shelf | None:
        """As far as this worker has read."""
        return self._shelves.get(stream_id)


class LatestReleases:
    """ports.Releases. Hazard: before the topic has been read to its end, None means only that nobody knows yet."""

    def __init__(self, activations: LatestByKey[ReleaseActivation]) -> None:
        self._activations = activations

    def active(self) -> ReleaseActivation | None:
        return self._activations.get("active")

    def prepared(self) -> ReleaseActivation | None:
        return self._activations.get("prepared")
