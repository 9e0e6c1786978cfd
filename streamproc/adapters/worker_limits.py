"""What a stream worker may have open at once, how long it waits, and what it counts."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

_DAY_MS: Final = 24 * 60 * 60 * 1000
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """Bounds of one worker. What is taken and not served yet is memory, and is done again after a kill."""

    in_flight: int = 16  # inputs worked on at once, each of another key; proven in the soaks of notes/streaming.md
    taken: int = 128  # inputs accepted and not acknowledged yet, those in flight among them
    taken_bytes: int = 64 * _MIB
    taken_per_key: int = 32  # a slow stream piles up this far before it holds the others of its worker back
    deadline_s: float | None = 30.0  # one call to agent, outbox or state topic: half the rebalance time-out
    settle_s: float = 10.0  # how long work in progress may finish when its partition goes
    first_retry_s: float = 0.2
    last_retry_s: float = 5.0
    idle_after_ms: int = 5_000  # silence after which `tick` asks the agent
    forget_after_ms: int = 7 * _DAY_MS  # after it, the state of a silent key gets its tombstone


@dataclass(frozen=True, kw_only=True)
class DeadLetterLimit:
    """Where setting messages aside stops being an answer.

    A bad message costs one message. But where every message turns out bad, it is our fault or the producer's (a bad
    deploy, another schema), and a worker that goes on drains the topic into dead.letters within minutes. It stops
    instead, acknowledging nothing more, and whoever is called finds the rest in place. Far above what one broken
    encoder does: 500 in a row are 17 minutes of a single stream on which not one chunk works.
    """

    in_a_row: int = 500
    of_last: int = 5_000
    share: float = 0.5


class TooManyDeadLetters(Exception):
    """The worker's DeadLetterLimit was reached."""


@dataclass(kw_only=True)
class WorkerCounters:
    """What a worker has done since it started. Read by health and metrics; only the worker writes."""

    taken: int = 0
    served: int = 0  # acknowledged
    repeated: int = 0  # known already: written again, not folded
    sent: int = 0
    dead_letters: int = 0
    retries: int = 0
    forgotten: int = 0
    last_served_at: datetime = field(default=datetime.fromtimestamp(0, UTC))
