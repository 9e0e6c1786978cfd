"""Stream time: integer milliseconds since the start of the broadcast."""

from typing import Annotated, Self

from msgspec import Meta, Struct

Ms = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""A point in stream time, or a length of it. 2**53 - 1 is the largest integer every JSON reader keeps."""

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
"""An id that others chose: any text of 1 to 128 characters."""


class Value(Struct, frozen=True, kw_only=True):
    """What every value of the core is: frozen, strict in its types, open to fields that a newer producer adds
    (streamproc/decisions/0001-unknown-fields.md). kw_only counts per class, so each says it."""


class Span(Value, frozen=True, kw_only=True):
    """A piece of stream time, end exclusive. Raises ValueError where the end comes before the start."""

    start_ms: Ms
    end_ms: Ms

    def __post_init__(self) -> None:
        if self.end_ms < self.start_ms:
            raise ValueError(f"span ends at {self.end_ms} before it starts at {self.start_ms}")

    @property
    def duration_ms(self) -> int:
        return self.end_ms - self.start_ms

    def overlap_ms(self, other: Self) -> int:
        """Milliseconds that both cover."""
        return max(0, min(self.end_ms, other.end_ms) - max(self.start_ms, other.start_ms))

    def gap_to_ms(self, later: Self) -> int:
        """Milliseconds from the end of this one to the start of a later one; 0 where they touch or overlap."""
        return max(0, later.start_ms - self.end_ms)
