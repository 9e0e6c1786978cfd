"""One message as a record, and back."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from streamproc.core.chunk import LiveChunk
from streamproc.core.mention import ProductMention
from streamproc.errors import BadMessage
from streamproc.ports import Delivery, Origin, Record
from streamproc.topics import CARRIES, LIVE_CHUNKS, TOMBSTONES
from streamproc.wire.chunk import chunk_from_wire, chunk_to_wire
from streamproc.wire.cloudevent import TIME, Attributes, attributes_of, instant, to_record
from streamproc.wire.registry import FOLDED, KEY_FIELD, NOUNS, STAGES, ce_type, message_types
from streamproc.wire.values import from_json, to_json

JSON_TYPE: Final = "application/json"
NO_CLOCK: Final[Mapping[str, str]] = MappingProxyType({})

_ORIGIN: Final = re.compile(r"([a-zA-Z0-9._-]{1,249})/(-1|[0-9]{1,10})/(-1|[0-9]{1,18})/([0-9]{1,10})", re.ASCII)


def encode(
    message: Struct,
    *,
    topic: str,
    key: str,
    origin: Origin | None = None,
    clock: Mapping[str, str] = NO_CLOCK,
    source: str = "streamproc",
) -> Record:
    """The record of `message`, not yet on a partition.

    Value, key and ce_id are functions of message, key and origin alone; the clock is in headers only, and ce_time is
    its `emitted` (left out where there is none). Raises ValueError where the caller is wrong (topic, key, origin or
    stage that cannot be), BadMessage (invalid_field) where the message holds what `decode` would refuse.
    """
    _check_call(message, topic=topic, key=key, origin=origin, clock=clock)
    if isinstance(message, LiveChunk):
        fields, value = chunk_to_wire(message)
    else:
        fields, value = {"datacontenttype": JSON_TYPE}, to_json(message)
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "type": ce_type(type(message)),
        "source": source,
        "id": _id(message, key=key, origin=origin, value=value),
    }
    if subject := getattr(message, "stream_id", None):
        attributes["subject"] = subject
    if emitted := clock.get("emitted"):
        attributes[TIME] = msgspec.convert(emitted, datetime)
    attributes |= fields
    if origin is not None:
        attributes["origin"] = f"{origin.topic}/{origin.partition}/{origin.offset}/{origin.n}"
    attributes |= {stage: clock[stage] for stage in STAGES if stage in clock}
    return to_record(topic, attributes | {"partitionkey": key}, value)


def decode(record: Record) -> Delivery:
    """The message of `record`, with its origin and clock. Without ce_origin the origin is the record itself.

    A tombstone is a message of its own on the topics of TOMBSTONES; on other compacted topics look at `record.value`
    first. Raises BadMessage and nothing else: undecodable_message (headers or value are not a message of ours, a
    tombstone on another topic among them), unknown_type (type or version not known, or not one
    that this topic carries), invalid_field (missing, of the wrong type, out of bounds, not the record's key).
    """
    if record.value is None:
        return _tombstone(record)
    attributes = attributes_of(record)
    message_type = message_types(record.topic).get(attributes["type"])
    if message_type is None:
        raise BadMessage("unknown_type", f"header ce_type {attributes['type'][:80]!r} is not known on {record.topic}")
    if message_type is LiveChunk:
        message: Struct = chunk_from_wire(attributes, record.value)
    else:
        _check_json_type(attributes)
        message = from_json(record.value, message_type)
    _check_key(message, record.topic, attributes["partitionkey"])
    return Delivery(
        message=message,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        origin=_origin(attributes, record),
        clock=_clock(attributes),
    )


def _tombstone(record: Record) -> Delivery:
    """Headers are optional: any Kafka client may have sent it."""
    deleted = TOMBSTONES.get(record.topic)
    if deleted is None:
        raise BadMessage("undecodable_message", "the record has no value: a tombstone, not a message")
    try:
        message = msgspec.convert({KEY_FIELD[record.topic]: (record.key or b"").decode()}, deleted)
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadMessage("invalid_field", f"the key of the tombstone names nothing: {error}") from error
    own = Origin(topic=record.topic, partition=record.partition, offset=record.offset, n=0)
    return Delivery(message=message, topic=record.topic, partition=record.partition, offset=record.offset, origin=own)


def _check_call(message: Struct, *, topic: str, key: str, origin: Origin | None, clock: Mapping[str, str]) -> None:
    if type(message) not in CARRIES.get(topic, ()):
        raise ValueError(f"{topic} does not carry {type(message).__name__}")
    field = KEY_FIELD[topic]
    if field is not None and getattr(message, field) != key:
        raise ValueError(f"{topic} is keyed by {field}, {getattr(message, field)!r}; got the key {key!r}")
    if origin is None and topic in FOLDED:
        raise ValueError(f"{topic} is folded by origin: {type(message).__name__} needs one")
    if origin is not None and not _ORIGIN.fullmatch(f"{origin.topic}/{origin.partition}/{origin.offset}/{origin.n}"):
        raise ValueError(f"no origin that can be written: {origin}")
    for stage, stamp in clock.items():
        if stage not in STAGES or msgspec.convert(stamp, datetime).tzinfo is None:
            raise ValueError(f"clock stage {stage!r} at {stamp!r}: stages are {STAGES}, times have a zone")


def _id(message: Struct, *, key: str, origin: Origin | None, value: bytes) -> str:
    """From data alone, so that a record written twice is known to be one."""
    noun = NOUNS[type(message)]
    if isinstance(message, ProductMention):
        return f"{message.mention_id}/{message.revision}"
    if isinstance(message, LiveChunk):
        return f"{message.stream_id}/{message.broadcast_id}/{message.sequence}"
    if origin is not None:  # with the noun: agents count n each for themselves
        return f"{noun}/{origin.topic}/{origin.partition}/{origin.offset}/{origin.n}"
    return f"{noun}/{key}/{hashlib.sha256(value).hexdigest()}"


def _check_json_type(attributes: Attributes) -> None:
    content_type = attributes.get("datacontenttype", JSON_TYPE)  # CloudEvents: JSON where nothing is said
    if content_type.split(";")[0].strip().lower() != JSON_TYPE:
        raise BadMessage("undecodable_message", f"header content-type is {content_type[:80]!r}, not {JSON_TYPE}")


def _check_key(message: Struct, topic: str, key: str) -> None:
    field = KEY_FIELD[topic]
    if field is not None and getattr(message, field) != key:
        detail = f"key {key[:128]!r} is not {field} {getattr(message, field)!r}, which {topic} is keyed by"
        raise BadMessage("invalid_field", detail)


def _origin(attributes: Attributes, record: Record) -> Origin:
    own = Origin(topic=record.topic, partition=record.partition, offset=record.offset, n=0)
    written = attributes.get("origin")
    if record.topic == LIVE_CHUNKS or (written is None and record.topic not in FOLDED):
        return own
    if written is None:
        raise BadMessage("undecodable_message", f"header ce_origin is missing; {record.topic} is folded by it")
    found = _ORIGIN.fullmatch(written)
    if found is None:
        raise BadMessage("undecodable_message", f"header ce_origin {written[:80]!r} is not topic/partition/offset/n")
    topic, partition, offset, n = found.groups()
    return Origin(topic=topic, partition=int(partition), offset=int(offset), n=int(n))


def _clock(attributes: Attributes) -> dict[str, str]:
    clock: dict[str, str] = {stage: attributes[stage] for stage in STAGES if stage in attributes}
    for stage, stamp in clock.items():
        instant(f"ce_{stage}", stamp)
    return clock
