"""CloudEvents 1.0 in Kafka binary mode, through the `cloudevents` package."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from cloudevents.core.base import BaseCloudEvent, EventFactory
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.v1.event import CloudEvent

from streamproc.errors import BadMessage
from streamproc.ports import Record

Attributes = dict[str, str]
"""CloudEvents attributes by name, without `ce_`; `datacontenttype` is the content-type header."""

TIME: Final = "time"


class _Bytes:
    """Leaves the value alone. The package's own JSON format would parse each value a second time with the standard
    library, and turn media that happen to be UTF-8 into str."""

    def read_data(self, body: bytes, datacontenttype: str | None) -> bytes:
        return body

    def write_data(self, data: dict[str, Any] | str | bytes | None, datacontenttype: str | None) -> bytes:
        if not isinstance(data, bytes):
            raise TypeError(f"value must be bytes, got {type(data).__name__}")
        return data

    def read(self, event_factory: EventFactory | None, data: str | bytes) -> BaseCloudEvent:
        raise NotImplementedError("structured mode is not spoken")

    def write(self, event: BaseCloudEvent) -> bytes:
        raise NotImplementedError("structured mode is not spoken")

    def get_content_type(self) -> str:
        raise NotImplementedError("structured mode is not spoken")


_FORMAT: Final = _Bytes()


def to_record(topic: str, attributes: Mapping[str, Any], value: bytes) -> Record:
    """The record, not yet on a partition; its key is the attribute `partitionkey`. Raises BadMessage where the
    attributes are none that may travel."""
    try:
        event = CloudEvent(dict(attributes), value)
        if TIME not in attributes:
            event.get_attributes().pop(TIME)  # the package would stamp now, and equal input give unequal records
        message = to_binary(event, _FORMAT)
        key = message.key.encode() if isinstance(message.key, str) else message.key
    except (BaseCloudEventException, UnicodeEncodeError) as exc:
        raise BadMessage("invalid_field", f"headers: {exc}") from exc
    return Record(topic=topic, key=key, value=message.value, headers=tuple(message.headers.items()))


def attributes_of(record: Record) -> Attributes:
    """The attributes of a binary-mode record. Raises BadMessage (undecodable_message) that names the header."""
    event_headers = _event_headers(record)
    if event_headers.get("ce_specversion") != b"1.0":
        found = event_headers.get("ce_specversion")
        raise BadMessage("undecodable_message", f"header ce_specversion is {_shown(found)}, not 1.0")
    if record.key is None:
        raise BadMessage("undecodable_message", "the record has no key")
    try:
        record.key.decode()
    except UnicodeDecodeError as exc:
        raise BadMessage("undecodable_message", f"the key is not UTF-8: {exc}") from exc
    if (stamp := event_headers.pop("ce_time", None)) is not None:
        instant("ce_time", stamp.decode())  # ours to read: dateutil lets more pass than RFC 3339
    try:
        event = from_binary(KafkaMessage(headers=event_headers, key=record.key, value=b""), _FORMAT, CloudEvent)
    except (BaseCloudEventException, ValueError) as exc:
        raise BadMessage("undecodable_message", f"headers: {exc}") from exc
    return {name: text for name, text in event.get_attributes().items() if name != TIME}


def instant(header: str, text: str) -> datetime:
    """The RFC 3339 time in a header. Raises BadMessage (undecodable_message) that names it."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError as exc:
        raise BadMessage("undecodable_message", f"header {header}: {exc}") from exc
    if moment.tzinfo is None:
        raise BadMessage("undecodable_message", f"header {header}: time without a zone")
    return moment


def _event_headers(record: Record) -> dict[str, bytes]:
    """Those that are CloudEvents'; what tracing or a mirror adds is none of our business."""
    found: dict[str, bytes] = {}
    for written_name, content in record.headers:
        name = written_name.lower()
        if not name.startswith("ce_") and name != "content-type":
            continue
        if name in found:
            raise BadMessage("undecodable_message", f"header {name[:80]} comes twice")
        if not isinstance(content, bytes):  # Kafka has headers without a value
            raise BadMessage("undecodable_message", f"header {name[:80]} has no value")
        try:
            content.decode()
        except UnicodeDecodeError as exc:
            raise BadMessage("undecodable_message", f"header {name[:80]} is not UTF-8") from exc
        found[name] = content
    return found


def _shown(content: bytes | None) -> str:
    return "missing" if content is None else repr(content[:40].decode(errors="replace"))
