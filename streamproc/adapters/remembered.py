"""What a worker remembers of one key, as it stands in the agent's state topic."""

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


class NewestStates:
    """Fed with the records of a state partition in order: per key the one with the greatest `through` counts,
    whatever came last, since a worker that lost the partition may have written after its successor.

    A tombstone forgets what came before it; a change of the input topic starts afresh.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self._throughs: dict[str, _Through] = {}
        self._overtaken: set[str] = set()

    def apply(self, record: Record) -> None:
        """Raises msgspec.DecodeError (ValidationError) on what no agent of ours wrote."""
        key = (record.key or b"").decode()
        if record.value is None:
            self.values.pop(key, None)
            self._throughs.pop(key, None)
            self._overtaken.discard(key)
            return
        found = msgspec.json.decode(record.value, type=_Through)
        known = self._throughs.get(key)
        if known is not None and known.topic == found.topic and found.through < known.through:
            self._overtaken.add(key)
            return
        self.values[key], self._throughs[key] = record.value, found
        self._overtaken.discard(key)

    @property
    def overtaken(self) -> tuple[str, ...]:
        """Keys whose last record is not the one that counts: to be written again."""
        return tuple(sorted(self._overtaken))
