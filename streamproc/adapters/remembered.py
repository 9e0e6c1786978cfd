"""What a worker remembers of one key, as it stands in the agent's state topic."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import msgspec
from msgspec import Struct

from streamproc.ports import AnyAgent, Origin, Record

S = TypeVar("S", bound=Struct)


class OriginValue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Origin as JSON."""

    topic: str
    partition: int
    offset: int
    n: int

    @classmethod
    def of(cls, origin: Origin) -> Self:
        return cls(topic=origin.topic, partition=origin.partition, offset=origin.offset, n=origin.n)

    def origin(self) -> Origin:
        return Origin(topic=self.topic, partition=self.partition, offset=self.offset, n=self.n)


class Remembered(Struct, Generic[S], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of one key together with all that makes a repeated input recognisable."""

    topic: str  # of the input that `through` counts
    through: int  # offset of the newest input that the state contains
    folded: OriginValue | None  # origin of that input
    emitted: OriginValue | None  # the newest origin given to an output: where counting n goes on
    at_ms: int  # wall clock of the fold; for forgetting what nobody streams to any more
    state: S


class _Through(Struct):
    """The two fields that decide which of several records of a key counts; the rest is the agent's business."""

    topic: str
    through: int


def to_bytes(remembered: Remembered[Any]) -> bytes:
    """JSON, small; the value of a state record."""
    return msgspec.json.encode(remembered)


def from_bytes(agent: AnyAgent, value: bytes) -> Remembered[Any]:
    """Raises msgspec.ValidationError where another version of the agent wrote something that this one cannot read:
    nobody may go on as if the key had never been seen."""
    remembered: Remembered[Any] = msgspec.json.decode(value, type=Remembered[agent.state_type])  # type: ignore[name-defined]
    return remembered


@dataclass(frozen=True, kw_only=True)
class Newest:
    """What a state partition says, key by key."""

    values: dict[str, bytes]
    overtaken: tuple[str, ...]  # keys whose last record is not the one that counts: to be written again


def newest(records: Iterable[Record]) -> Newest:
    """Per key the record with the greatest `through`, whatever came last: a worker that lost the partition may have
    written after its successor. A tombstone forgets what came before it; a change of the input topic starts afresh."""
    values: dict[str, bytes] = {}
    throughs: dict[str, _Through] = {}
    overtaken: dict[str, None] = {}
    for record in records:
        if record.key is None:
            continue
        key = record.key.decode()
        if record.value is None:
            values.pop(key, None)
            throughs.pop(key, None)
            overtaken.pop(key, None)
            continue
        found = msgspec.json.decode(record.value, type=_Through)
        known = throughs.get(key)
        if known is not None and known.topic == found.topic and found.through < known.through:
            overtaken[key] = None
            continue
        values[key], throughs[key] = record.value, found
        overtaken.pop(key, None)
    return Newest(values=values, overtaken=tuple(overtaken))
