"""LiveChunk on the wire: the value is the media itself, the fields are headers.

With a claim check the value is the MediaRef as JSON, and the media's own type stands in it.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.errors import BadMessage
from streamproc.wire.cloudevent import Attributes
from streamproc.wire.values import check_bounds, from_json, to_json

MEDIAREF_TYPE: Final = "application/vnd.streamproc.mediaref+json"

_INTEGER: Final = re.compile(r"(0|[1-9][0-9]{0,15})", re.ASCII)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("not a decimal integer of at most 16 digits")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("neither true nor false")
    return text == "true"


FIELDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "stream_id": ("streamid", str),
    "broadcast_id": ("broadcastid", str),
    "sequence": ("sequence", _integer),
    "start_ms": ("startms", _integer),
    "duration_ms": ("durationms", _integer),
    "captured_at": ("capturedat", str),  # read as a time by msgspec below
    "last": ("last", _boolean),
    "shop_id": ("shopid", str),
}
"""Field -> extension attribute (CloudEvents allows lower case letters and digits only), and how it is read. Not
msgspec's lax mode: that reads the shop `null` as no shop."""


def chunk_to_wire(chunk: LiveChunk) -> tuple[Attributes, bytes]:
    """Attributes (with datacontenttype) and value. Raises BadMessage (invalid_field)."""
    attributes: Attributes = {}
    for name, (attribute, _) in FIELDS.items():
        content = getattr(chunk, name)
        if content is not None:
            attributes[attribute] = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    attributes["capturedat"] = attributes["capturedat"].strip('"')
    if isinstance(chunk.media, MediaRef):
        if chunk.content_type != chunk.media.content_type:
            detail = f"content_type {chunk.content_type!r} is not that of the reference, {chunk.media.content_type!r}"
            raise BadMessage("invalid_field", f"LiveChunk: {detail}")
        attributes["datacontenttype"] = MEDIAREF_TYPE
        value = to_json(chunk.media)
    else:
        attributes["datacontenttype"] = chunk.content_type
        value = chunk.media
    chunk_from_wire(attributes, value)  # values are not checked when they are built
    return attributes, value


def chunk_from_wire(attributes: Attributes, value: bytes) -> LiveChunk:
    """Raises BadMessage that names the header (or the field of the MediaRef)."""
    content_type = attributes.get("datacontenttype")
    if content_type is None:
        raise BadMessage("undecodable_message", "header content-type is missing: it names the media's container")
    fields: dict[str, Any] = {}
    for name, (attribute, read) in FIELDS.items():
        if attribute not in attributes:
            continue  # msgspec says whether it may be missing
        try:
            fields[name] = read(attributes[attribute])
        except ValueError as exc:
            raise BadMessage("invalid_field", f"header ce_{attribute}: {exc}") from exc
    if is_claim_check(content_type):
        ref = from_json(value, MediaRef)
        fields |= {"content_type": ref.content_type, "media": ref}
    else:
        fields |= {"content_type": content_type, "media": value}
    try:
        chunk = msgspec.convert(fields, LiveChunk)
    except msgspec.ValidationError as exc:
        raise BadMessage("invalid_field", f"LiveChunk: {_in_headers(str(exc))}") from exc
    check_bounds(chunk)
    return chunk


def is_claim_check(content_type: str) -> bool:
    return content_type.split(";")[0].strip().lower() == MEDIAREF_TYPE


def _in_headers(message: str) -> str:
    """msgspec speaks of fields; who reads a dead letter looks at headers."""
    for name, (attribute, _) in FIELDS.items():
        message = message.replace(f"`$.{name}`", f"header ce_{attribute}").replace(
            f"required field `{name}`", f"required header ce_{attribute}"
        )
    return message
