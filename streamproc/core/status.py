"""How a stream is doing, in public."""

from typing import Literal

from streamproc.core.span import Id, Ms, Value

StreamStatus = Literal["live", "degraded", "gap", "stalled", "ended"]


class LiveStatus(Value, frozen=True, kw_only=True):
    """A change of a stream's condition."""

    stream_id: Id
    broadcast_id: Id
    status: StreamStatus
    at_ms: Ms  # stream time up to which it is known
    reason: str = ""
