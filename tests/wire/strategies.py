"""Hypothesis strategies for every message, derived from its type, so that a new field is covered on its first day."""

from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any, Final, Literal

import msgspec
import numpy as np
from hypothesis import strategies as st
from msgspec import Struct
from msgspec import inspect as shape

from streamproc.core.chunk import LiveChunk, MediaRef
from streamproc.core.embedding import pack

LATEST_MS = 2**42  # 139 years of stream: captured_at plus that still lies in the calendar
GREATEST_INTEGER = 2**53 - 1

SURROGATES: Final[tuple[Literal["Cs"], ...]] = ("Cs",)
TEXT = st.characters(exclude_categories=SURROGATES)  # a lone surrogate cannot be written as UTF-8
MOMENTS = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001  (Hypothesis adds the zone)
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))) | st.just(UTC),
)
VECTORS = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=4).map(
    lambda numbers: pack(np.array(numbers, dtype=np.float32))
)


@cache  # a strategy is built once, not for each example
def messages_of(message_type: type[Struct]) -> st.SearchStrategy[Any]:
    """Values of that type that may travel."""
    if message_type is LiveChunk:
        return _values(shape.type_info(LiveChunk)).map(_with_type_of_reference)
    return _values(shape.type_info(message_type))


def _with_type_of_reference(chunk: LiveChunk) -> LiveChunk:
    if isinstance(chunk.media, MediaRef):
        return msgspec.structs.replace(chunk, content_type=chunk.media.content_type)
    return chunk if chunk.content_type else msgspec.structs.replace(chunk, content_type="video/mp4")


def _values(node: shape.Type, *, field: str = "") -> st.SearchStrategy[Any]:
    match node:
        case shape.StructType():
            return st.fixed_dictionaries({part.name: _values(part.type, field=part.name) for part in node.fields}).map(
                lambda fields: node.cls(**_in_order(fields))
            )
        case shape.UnionType():
            return st.one_of([_values(part, field=field) for part in node.types])
        case shape.IntType():
            most = LATEST_MS if field in ("start_ms", "end_ms") else GREATEST_INTEGER
            least = node.ge if node.ge is not None else -GREATEST_INTEGER
            return st.integers(least, min(most, node.le if node.le is not None else most))
        case shape.FloatType():
            return st.floats(
                node.ge if node.ge is not None else node.gt,
                node.le if node.le is not None else node.lt,
                exclude_min=node.gt is not None,
                exclude_max=node.lt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case shape.StrType(pattern=str() as pattern):
            return st.from_regex(pattern.rstrip("$") + r"\Z", fullmatch=True)
        case shape.StrType():
            longest = min(node.max_length or 40, 40)
            return st.text(TEXT, min_size=node.min_length or 0, max_size=longest)
        case shape.BytesType():
            return VECTORS if node.min_length else st.binary(max_size=64)
        case shape.VarTupleType():
            return st.lists(_values(node.item_type), max_size=min(node.max_length or 3, 3)).map(tuple)
        case shape.DictType():
            return st.dictionaries(_values(node.key_type), _values(node.value_type), max_size=3)
        case shape.LiteralType():
            return st.sampled_from(sorted(node.values, key=str))
        case shape.DateTimeType():
            return MOMENTS
        case shape.BoolType():
            return st.booleans()
        case shape.NoneType():
            return st.none()
        case _:
            raise NotImplementedError(f"{field}: {node}")


def _in_order(fields: dict[str, Any]) -> dict[str, Any]:
    """Spans do not end before they start."""
    if fields.get("end_ms") is not None and fields["end_ms"] < fields["start_ms"]:
        return fields | {"start_ms": fields["end_ms"], "end_ms": fields["start_ms"]}
    return fields
