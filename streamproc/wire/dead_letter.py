"""Dead letters: the original bytes, and in the headers all that is needed to understand them and to send them again.

A dead letter is a CloudEvent as well; what the source record had as headers stands behind `original_`, so that
nothing of it is lost or mistaken, whatever it was. A dead letter may itself be set aside: nesting works.
"""

from dataclasses import dataclass
from typing import Final, cast, get_args

from streamproc.errors import BadMessage, Reason
from streamproc.ports import Record
from streamproc.topics import DEAD_LETTERS

CE_TYPE: Final = "io.streamproc.deadletter.v1"
ORIGINAL: Final = "original_"
LONGEST_DETAIL: Final = 1_000  # characters: hostile text may be in it, and headers share the broker's size limit

_TYPE, _SPEC, _SOURCE, _ID = "ce_type", "ce_specversion", "ce_source", "ce_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A dead letter as people and `redrive` see it."""

    reason: Reason
    detail: str
    attempts: int
    agent: str
    original: Record


def dead_letter(record: Record, bad: BadMessage, *, attempts: int, agent: str) -> Record:
    """What is written to dead.letters in place of `record`. Never fails, whatever the record holds."""
    detail = bad.detail[:LONGEST_DETAIL].encode(errors="replace")
    own = (
        (_SPEC, b"1.0"),
        (_TYPE, CE_TYPE.encode()),
        (_SOURCE, f"streamproc/{agent}".encode()),
        (_ID, f"{agent}/{record.topic}/{record.partition}/{record.offset}".encode()),
        ("content-type", b"application/octet-stream"),
        ("ce_reason", bad.reason.encode()),
        ("ce_detail", detail),
        ("ce_attempts", str(attempts).encode()),
        ("ce_agent", agent.encode()),
        ("ce_fromtopic", record.topic.encode()),
        ("ce_frompartition", str(record.partition).encode()),
        ("ce_fromoffset", str(record.offset).encode()),
        ("ce_fromtimestampms", str(record.timestamp_ms).encode()),
    )
    kept = tuple((ORIGINAL + name, content) for name, content in record.headers)
    return Record(topic=DEAD_LETTERS, key=record.key, value=record.value, headers=own + kept)


def read_dead_letter(record: Record) -> DeadLetter:
    """Raises BadMessage (undecodable_message) where `record` is not one that `dead_letter` wrote."""
    headers = cast("tuple[tuple[str, bytes | None], ...]", record.headers)  # Kafka has headers without a value
    own = {name: content for name, content in headers if content is not None and not name.startswith(ORIGINAL)}
    try:
        if own[_TYPE] != CE_TYPE.encode():
            raise ValueError(f"header ce_type is {own[_TYPE]!r}")
        reason = own["ce_reason"].decode()
        if reason not in get_args(Reason):
            raise ValueError(f"header ce_reason is {reason!r}")
        source = Record(
            topic=own["ce_fromtopic"].decode(),
            key=record.key,
            value=record.value,
            headers=tuple(
                (name.removeprefix(ORIGINAL), content) for name, content in record.headers if name.startswith(ORIGINAL)
            ),
            partition=int(own["ce_frompartition"]),
            offset=int(own["ce_fromoffset"]),
            timestamp_ms=int(own["ce_fromtimestampms"]),
        )
        return DeadLetter(
            reason=cast(Reason, reason),
            detail=own["ce_detail"].decode(),
            attempts=int(own["ce_attempts"]),
            agent=own["ce_agent"].decode(),
            original=source,
        )
    except KeyError as exc:
        raise BadMessage("undecodable_message", f"not a dead letter: header {exc} is missing") from exc
    except ValueError as exc:
        raise BadMessage("undecodable_message", f"not a dead letter: {exc}") from exc


def original(record: Record) -> Record:
    """The record that was set aside, with its own topic, coordinates, headers and bytes."""
    return read_dead_letter(record).original
