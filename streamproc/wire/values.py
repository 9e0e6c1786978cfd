"""Message values as JSON: equal values give equal bytes, and what is read is right or refused."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from streamproc.core.span import Span
from streamproc.errors import BadMessage

S = TypeVar("S", bound=Struct)

GREATEST_INTEGER: Final = 2**53 - 1  # the largest that every JSON reader keeps

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")  # fields as declared, mappings sorted by key


def to_json(message: Struct) -> bytes:
    """The value of `message`. Raises BadMessage (invalid_field) where `from_json` would refuse it: values are not
    checked when they are built, and a consumer must never be the first to find out."""
    check_bounds(message)  # before encoding, which writes NaN as null
    try:
        written = _ENCODER.encode(message)
    except (UnicodeEncodeError, TypeError) as exc:  # a lone surrogate; a NumPy number
        raise BadMessage("invalid_field", f"{type(message).__name__}: {exc}") from exc
    # Written from what a reader gets, so that equal values give equal bytes: a probability of int 1 would be `1` now
    # and `1.0` when the message is read and written again.
    return _ENCODER.encode(from_json(written, type(message)))


def from_json(value: bytes, message_type: type[S]) -> S:
    """The message in `value`; unknown fields are passed over. Raises BadMessage: undecodable_message where it is no
    JSON, invalid_field where it is not this message."""
    try:
        message = msgspec.json.decode(value, type=message_type)
    except msgspec.ValidationError as exc:
        raise BadMessage("invalid_field", f"{message_type.__name__}: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        if constant := _constant_in(value):
            raise BadMessage("invalid_field", f"{message_type.__name__}: {constant} is no number") from exc
        raise BadMessage("undecodable_message", f"{message_type.__name__}: {exc}") from exc
    except RecursionError as exc:
        raise BadMessage("undecodable_message", f"{message_type.__name__}: nested too deeply") from exc
    check_bounds(message)
    return message


def check_bounds(message: Struct) -> None:
    """Raises BadMessage (invalid_field) for what the types let pass and the code behind them could not bear:
    integers beyond 2**53, NaN and infinity, times without a zone or outside the calendar."""
    name = type(message).__name__
    _check(message, name)
    captured_at, span = getattr(message, "captured_at", None), getattr(message, "span", None)
    if isinstance(captured_at, datetime) and isinstance(span, Span):
        try:
            captured_at.astimezone(UTC) + timedelta(milliseconds=span.end_ms)
        except OverflowError as exc:
            detail = f"{name}: captured_at plus {span.end_ms} ms lies outside the calendar - at `$.captured_at`"
            raise BadMessage("invalid_field", detail) from exc


def _check(node: object, name: str, path: str = "$") -> None:
    # By hand, not through msgspec.to_builtins: that would copy every vector to base64.
    fault: str | None = None
    match node:
        case bool() | str() | bytes() | None:
            return
        case int():
            if abs(node) > GREATEST_INTEGER:
                fault = "integer beyond 2**53 - 1"
        case float():
            if not abs(node) < float("inf"):
                fault = f"{node} is no number"
        case datetime():
            fault = _calendar_fault(node)
        case Struct():
            for field in node.__struct_fields__:
                _check(getattr(node, field), name, f"{path}.{field}")
        case tuple() | list():
            for index, item in enumerate(node):
                _check(item, name, f"{path}[{index}]")
        case Mapping():
            for key, item in node.items():
                _check(item, name, f"{path}[{key!r}]")
    if fault:
        raise BadMessage("invalid_field", f"{name}: {fault} - at `{path}`")


def _calendar_fault(moment: datetime) -> str | None:
    if moment.utcoffset() is None:
        return "time without a zone"
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return "time outside the calendar"
    return None


def _constant_in(value: bytes) -> str | None:
    """NaN, Infinity or -Infinity where that is all that keeps `value` from being JSON: the most frequent slip of
    other producers deserves its name."""
    seen: list[str] = []

    def note(constant: str) -> Any:
        seen.append(constant)

    try:
        json.loads(value, parse_constant=note)
    except (ValueError, RecursionError):  # not JSON for another reason, which msgspec has told
        return None
    return seen[0] if seen else None
