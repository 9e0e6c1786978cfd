"""A made-up live stream: planned first, then filmed, spoken and encoded chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from streamproc.embedded.demo.catalog import DemoCatalog
from streamproc.embedded.demo.media import DemoChunk, encode
from streamproc.embedded.demo.script import FPS, Segment, TruthRow, plan, stream_rng, truth_of
from streamproc.embedded.demo.voice import RATE, Voice, room_tone

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES_PER_FRAME = RATE // FPS


class DemoStream:
    """One stream of a catalogue. `truth` and `segments` are known at once; `chunks` renders as it is read."""

    def __init__(self, stream_id: str, segments: tuple[Segment, ...], seed: int, voice: Voice) -> None:
        self.stream_id = stream_id
        self.segments = segments
        self.truth: list[TruthRow] = truth_of(stream_id, segments)
        self._seed = seed
        self._voice = voice

    @property
    def duration_ms(self) -> int:
        return self.truth[-1].end_ms

    def chunks(self) -> Iterator[DemoChunk]:
        """Chunks of 2 s (the last may be shorter), several times faster than real time; each call starts anew."""
        return self._render(None)

    def write_ts(self, path: Path) -> None:
        """The whole stream as one MPEG-TS file."""
        with path.open("wb") as file:
            for _ in self._render(file):
                pass

    def _render(self, whole: BinaryIO | None) -> Iterator[DemoChunk]:
        from streamproc.embedded.demo.scene import HEIGHT, WIDTH

        frames = self.segments[-1].end
        return encode(self._frames(), self._sound(), (WIDTH, HEIGHT), frames, whole)

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        from streamproc.embedded.demo.scene import Studio

        studio = Studio(stream_rng(self.stream_id, self._seed, 3))
        for number, segment in enumerate(self.segments):
            yield from studio.film(segment, stream_rng(self.stream_id, self._seed, 4, number))

    def _sound(self) -> Iterator[NDArray[np.float32]]:
        """(2, 1920) samples for each frame."""
        for number, segment in enumerate(self.segments):
            tone = room_tone(segment.frames * SAMPLES_PER_FRAME, stream_rng(self.stream_id, self._seed, 5, number))
            for line in segment.lines:
                said = self._voice.say(line.text)
                start = (line.first - segment.first) * SAMPLES_PER_FRAME
                tone[:, start : start + len(said)] += said[: tone.shape[1] - start]
            yield from np.split(np.clip(tone, -1, 1), segment.frames, axis=1)


def make_stream(
    catalog: DemoCatalog, stream_id: str, seconds: float, seed: int = 0, voice: Voice | None = None
) -> DemoStream:
    """A stream of `seconds`, the same for the same arguments; give streams one `voice` to share what it has said."""
    voice = voice or Voice()
    frames = max(1, round(seconds * FPS))
    segments = plan(catalog.shelf_of[stream_id], frames, stream_rng(stream_id, seed, 2), voice.seconds)
    return DemoStream(stream_id, segments, seed, voice)
