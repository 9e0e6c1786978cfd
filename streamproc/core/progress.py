"""Which clips of a broadcast have come."""

from typing import Annotated, Literal

from msgspec import Meta

from streamproc.core.span import Value

Placed = Literal["next", "ahead", "late", "again"]

_HOLES = 64  # holes remembered; what would fill an older one counts as a repetition


class Hole(Value, frozen=True, kw_only=True):
    """Sequences that did not come, end exclusive."""

    first: int
    end: int


class Progress(Value, frozen=True, kw_only=True):
    """The next sequence awaited, and the holes before it."""

    awaited: Annotated[int, Meta(ge=0)] = 0
    holes: tuple[Hole, ...] = ()

    def place(self, sequence: int) -> Placed:
        """Where a clip falls: in turn, beyond a hole, into a hole, or where one has been already."""
        if sequence == self.awaited:
            return "next"
        if sequence > self.awaited:
            return "ahead"
        return "late" if any(hole.first <= sequence < hole.end for hole in self.holes) else "again"

    def having(self, sequence: int) -> "Progress":
        """After the clip with this number came."""
        if sequence >= self.awaited:
            opened = (Hole(first=self.awaited, end=sequence),) if sequence > self.awaited else ()
            return Progress(awaited=sequence + 1, holes=(*self.holes, *opened)[-_HOLES:])
        left: list[Hole] = []
        for hole in self.holes:
            if not hole.first <= sequence < hole.end:
                left.append(hole)
                continue
            if hole.first < sequence:
                left.append(Hole(first=hole.first, end=sequence))
            if sequence + 1 < hole.end:
                left.append(Hole(first=sequence + 1, end=hole.end))
        return Progress(awaited=self.awaited, holes=tuple(left[-_HOLES:]))
