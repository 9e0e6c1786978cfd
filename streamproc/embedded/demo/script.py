"""Who shows and says what, when: the plan of a made-up stream, and hence its truth.

All times of a plan are whole frames of 40 ms, so the truth is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec
import numpy as np

from streamproc.embedded.demo.product import STRANGERS, DemoProduct

T = TypeVar("T")

FPS = 25
MS_PER_FRAME = 1000 // FPS

Kind = Literal["chatter", "both", "shown", "spoken", "unknown"]

# After a greeting the show goes round in this order: what a minute has to contain comes early.
ROUND: tuple[Kind, ...] = ("both", "shown", "unknown", "both", "spoken", "shown", "chatter")
SECONDS: dict[Kind, tuple[float, float]] = {"both": (9.5, 13), "shown": (7, 10), "unknown": (6, 9), "chatter": (4, 7)}
GREETING_SECONDS = 3.6
SHORTEST_SECONDS = 5.0

GREETINGS = ("Hello everyone and welcome to the show.", "Good evening, so nice to have you here.")
OPENERS = (
    "Next up, the {title}.",
    "Look at this, it is the {title}.",
    "Here it is, the {title}.",
    "Now I want to show you the {title}.",
)
REMINDERS = ("Before we go on, do not forget the {title}.", "Somebody in the chat just asked about the {title}.")
CLOSERS = ("The {title} is in the basket below.", "If you want the {title}, just tap the link.")
SMALL_TALK = (
    "Tell me in the chat where you are watching from.",
    "Thank you so much for all the hearts, you are amazing.",
    "We go live every evening at seven, so follow us.",
    "I can see a lot of new names tonight.",
    "Please share the stream with a friend.",
    "Give me one second, I will just move the camera a bit.",
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence at a place in its stream, in frames."""

    first: int
    end: int
    text: str
    about_product: bool


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a stream in which one thing happens, in frames of the stream."""

    kind: Kind
    first: int
    frames: int
    product: DemoProduct | None = None
    lines: tuple[Line, ...] = ()

    @property
    def end(self) -> int:
        return self.first + self.frames

    @property
    def shown(self) -> bool:
        return self.kind in ("both", "shown", "unknown")

    @property
    def spoken_spans_ms(self) -> list[list[int]]:
        return [[line.first * MS_PER_FRAME, line.end * MS_PER_FRAME] for line in self.lines if line.about_product]


class TruthRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of truth.jsonl: what is true from `start_ms` to `end_ms`; the rows of a stream tile it."""

    stream_id: str
    product_id: str | None
    start_ms: int
    end_ms: int
    shown: bool
    spoken: bool
    on_shelf: bool
    spoken_spans_ms: list[list[int]]


def stream_rng(stream_id: str, seed: int, *purpose: int) -> np.random.Generator:
    """Chance of one stream for one purpose, independent of all others."""
    return np.random.default_rng([zlib.crc32(stream_id.encode()), seed, *purpose])


def plan(
    shelf: Sequence[DemoProduct], frames: int, rng: np.random.Generator, speech_seconds: Callable[[str], float]
) -> tuple[Segment, ...]:
    """Segments that fill `frames`; `speech_seconds` says how long a sentence takes. Each product once per deal."""
    writer = Writer(shelf, rng, speech_seconds)
    segments = [writer.greeting(frames)]
    turn = 0
    while (left := frames - segments[-1].end) > 0:
        segments.append(writer.segment(ROUND[turn % len(ROUND)], segments[-1].end, left))
        turn += 1
    return tuple(segments)


class Writer:
    """Writes segments one after another, dealing products and sentences from shuffled decks."""

    def __init__(
        self, shelf: Sequence[DemoProduct], rng: np.random.Generator, speech_seconds: Callable[[str], float]
    ) -> None:
        self._shelf, self._rng, self._speech_seconds = tuple(shelf), rng, speech_seconds
        self._decks: dict[str, list[int]] = {}

    def greeting(self, frames: int) -> Segment:
        lines = self._lines([(self._deal("greeting", GREETINGS), False)], 8, 8 * FPS)
        length = max(round(GREETING_SECONDS * FPS), lines[-1].end + 8)
        return Segment(kind="chatter", first=0, frames=min(length, frames), lines=lines if length <= frames else ())

    def segment(self, kind: Kind, first: int, left: int) -> Segment:
        """The next one, of this kind if it fits: without leaving a rest that is too short for another."""
        if left < SHORTEST_SECONDS * FPS:
            kind = "chatter"
        product = self._product(kind)
        wanted: list[tuple[str, bool]] = []
        if product is not None:
            wanted = self._pitch(kind, product)
        elif kind != "spoken":
            wanted = [(self._deal("talk", SMALL_TALK), False) for _ in range(2)]
        start = first + int(self._rng.integers(8, 20))
        if kind == "spoken":
            lines = self._lines(wanted[:3], start, first + left)
            if len(lines) < 2:
                return self.segment("chatter", first, left)
            length = self._fitted(lines[-1].end - first + int(self._rng.integers(8, 25)), left)
        else:
            low, high = SECONDS[kind]
            length = self._fitted(round(FPS * self._rng.uniform(low, high)), left)
            lines = self._lines(wanted, start, first + length - 6)
        return Segment(kind=kind, first=first, frames=length, product=product, lines=lines)

    def _product(self, kind: Kind) -> DemoProduct | None:
        if kind == "chatter":
            return None
        return self._deal("stranger", STRANGERS) if kind == "unknown" else self._deal("product", self._shelf)

    def _pitch(self, kind: Kind, product: DemoProduct) -> list[tuple[str, bool]]:
        """Sentences, and whether each is about the product."""
        if kind == "shown":
            return [(self._deal("talk", SMALL_TALK), False)] if self._rng.random() < 0.5 else []
        if kind == "unknown":
            return [(fact, True) for fact in product.facts] if self._rng.random() < 0.5 else []
        opener = self._deal(kind, OPENERS if kind == "both" else REMINDERS).format(title=product.title)
        closer = self._deal("closer", CLOSERS).format(title=product.title)
        return [(text, True) for text in (opener, *product.facts, closer)]

    def _lines(self, wanted: Sequence[tuple[str, bool]], first: int, limit: int) -> tuple[Line, ...]:
        """Places sentences with pauses between them; one that would end after `limit` is left out."""
        placed: list[Line] = []
        for text, about in wanted:
            end = first + int(np.ceil(self._speech_seconds(text) * FPS))
            if end <= limit:
                placed.append(Line(first=first, end=end, text=text, about_product=about))
                first = end + int(self._rng.integers(8, 20))
        return tuple(placed)

    def _fitted(self, frames: int, left: int) -> int:
        return frames if left - frames >= SHORTEST_SECONDS * FPS else left

    def _deal(self, name: str, cards: Sequence[T]) -> T:
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(int(i) for i in self._rng.permutation(len(cards)))
        return cards[deck.pop()]


def truth_of(stream_id: str, segments: Sequence[Segment]) -> list[TruthRow]:
    """What a perfect recogniser would say. A product that is only spoken of is true while it is spoken of."""
    rows = []

    def row(start: int, end: int, segment: Segment | None) -> None:
        product = segment.product if segment is not None else None
        spans = segment.spoken_spans_ms if segment is not None and product is not None else []
        if end > start:
            rows.append(
                TruthRow(
                    stream_id=stream_id,
                    product_id=product.product_id if product is not None else None,
                    start_ms=start,
                    end_ms=end,
                    shown=product is not None and segment is not None and segment.shown,
                    spoken=bool(spans),
                    on_shelf=product is not None and product.has_page,
                    spoken_spans_ms=spans,
                )
            )

    for segment in segments:
        start, end = segment.first * MS_PER_FRAME, segment.end * MS_PER_FRAME
        if segment.kind == "spoken":
            spans = segment.spoken_spans_ms
            row(start, spans[0][0], None)
            row(spans[0][0], spans[-1][1], segment)
            row(spans[-1][1], end, None)
        else:
            row(start, end, segment if segment.product is not None else None)
    return rows
