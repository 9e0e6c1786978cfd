"""What an hour does to a stream: whether its sound, its utterances and its pictures keep their time, and memory.

python -m streamproc.jobs.bench_hour [--minutes 60] [--only "MPEG-TS"]

Streams whose truth is known are made, cut by the cutter of `ingest`, opened in a decoding child and listened to by
voice activity. In the sound a chirp sounds every 7.3 s and a sentence every 20.004 s; each picture is its own number.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.adapters.media_cutter import MediaCutter
from streamproc.adapters.voice_activity import SileroVoiceActivity
from streamproc.core.clip import SAMPLE_RATE_HZ, Waveform, sound_in
from streamproc.core.span import Span
from streamproc.embedded.demo.voice import RATE, Voice
from streamproc.jobs.bench_media import resident_mib
from streamproc.jobs.resampled import resampled

CHIRP_EVERY_S: Final = 7.3
CHIRP_S: Final = 0.05
SENTENCE_EVERY_S: Final = 20.004  # no multiple of the windows of voice activity, so that rounding evens out
SENTENCE: Final = "Look at these golden apples, they came in this morning."
QUIET_S: Final = 1.0  # around a sentence: no chirp, which voice activity might take for a part of it
LOOK_S: Final = 0.3  # how far from its place a chirp is looked for
NEAR_S: Final = 0.5  # an utterance that begins so near to a sentence is that sentence

COLUMNS: Final = 6
ROWS: Final = 3
BLOCK: Final = 32  # pixels of one bit of a picture's number
KEY_EVERY_S: Final = 2
MOST_DRIFT_MS: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """What an encoder sends."""

    name: str
    container: str
    sound: str
    rate_hz: int
    fps: Fraction
    late_ppm: int = 0
    """How much slower the sound card's clock is than the one of the stamps: sound is then later than its samples."""

    def sound_s(self, samples: float) -> float:
        """Stream time at which so many samples have passed."""
        return samples / self.rate_hz * (1 + self.late_ppm / 1e6)


SOURCES: Final = (
    Source(
        name="MPEG-TS, AAC 44.1 kHz, 29.97 fps",
        container="mpegts",
        sound="aac",
        rate_hz=44_100,
        fps=Fraction(30_000, 1001),
    ),
    Source(
        name="MPEG-TS, AAC 48 kHz, clock 100 ppm slow",
        container="mpegts",
        sound="aac",
        rate_hz=48_000,
        fps=Fraction(25),
        late_ppm=100,
    ),
    Source(
        name="Matroska, Opus, stamps of 1 ms", container="matroska", sound="libopus", rate_hz=48_000, fps=Fraction(30)
    ),
    Source(
        name="MP4, AAC 22.05 kHz, 23.98 fps", container="mp4", sound="aac", rate_hz=22_050, fps=Fraction(24_000, 1001)
    ),
)


@dataclass(frozen=True, kw_only=True)
class HourFigures:
    """Times in ms, how late; drift is the last tenth's mean less the first tenth's."""

    name: str
    minutes: float
    chirps: int
    chirps_missed: int
    sound_drift_ms: float
    sound_widest_ms: float  # the latest chirp less the earliest
    sentences: int
    sentences_missed: int
    utterances_drift_ms: float
    pictures: int
    pictures_drift_ms: float
    pictures_widest_ms: float
    worker_growth_mib: int  # from a quarter of the time on
    worker_mib: int
    decoder_growth_mib: int
    decoder_mib: int

    @property
    def keeps_time(self) -> bool:
        """Within the 20 ms an hour that we promise, with nothing missed."""
        drifts = (self.sound_drift_ms, self.utterances_drift_ms, self.pictures_drift_ms)
        return not (self.chirps_missed or self.sentences_missed) and all(abs(d) < MOST_DRIFT_MS for d in drifts)


@click.command()
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(min=1), help="Length of each stream.")
@click.option("--only", default="", help="Sources with this in their names.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def hour(minutes: float, only: str, form: str) -> None:
    """Whether an hour-long stream keeps its time and its memory; exit 1 if it drifts by 20 ms or loses anything."""
    chosen = [source for source in SOURCES if only in source.name]
    if not chosen:
        raise click.BadParameter(f"one of {', '.join(source.name for source in SOURCES)}", param_hint="--only")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for source in chosen:
            click.echo(f"{source.name}: making {minutes:g} min", err=True)
            path = made(source, Path(folder), minutes=minutes)
            click.echo(f"{source.name}: cutting, decoding, listening", err=True)
            found.append(asyncio.run(measured(source, path, minutes=minutes)))
            path.unlink()
    for figures in found:
        if form == "json":
            click.echo(msgspec.json.encode(figures).decode())
        else:
            click.echo(table(figures))
    if not all(figures.keeps_time for figures in found):
        raise SystemExit(1)


def table(figures: HourFigures) -> str:
    """For people."""
    f = figures
    return "\n".join(
        (
            f"{f.name}, {f.minutes:g} min",
            f"  sound       drift {f.sound_drift_ms:+.2f} ms, all within {f.sound_widest_ms:.2f} ms"
            f" ({f.chirps} chirps, {f.chirps_missed} missed)",
            f"  utterances  drift {f.utterances_drift_ms:+.2f} ms"
            f" ({f.sentences} sentences, {f.sentences_missed} missed)",
            f"  pictures    drift {f.pictures_drift_ms:+.2f} ms, all within {f.pictures_widest_ms:.2f} ms"
            f" ({f.pictures} pictures)",
            f"  memory      worker {f.worker_mib} MiB, {f.worker_growth_mib:+d} from a quarter on;"
            f" decoder {f.decoder_mib} MiB, {f.decoder_growth_mib:+d}",
        )
    )


# --- what is sent -----------------------------------------------------------------------------------------------


def chirp(rate_hz: int) -> NDArray[np.float32]:
    """(N,): 400 to 3,000 Hz, softly begun and ended, so that its place is sharp."""
    at_s = np.arange(round(CHIRP_S * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * (400 * at_s + 1_300 * at_s**2 / CHIRP_S)) * np.sin(np.pi * at_s / CHIRP_S)
    return np.asarray(0.5 * tone, np.float32)


def marks(minutes: float, said_s: float) -> tuple[list[float], list[float]]:
    """Stream times of chirps and of sentences, of those that are over before the end."""
    end_s = 60 * minutes - 2
    sentences = list(_every(SENTENCE_EVERY_S, end_s - said_s))
    chirps = [
        at_s
        for at_s in _every(CHIRP_EVERY_S, end_s)
        if not any(start_s - QUIET_S < at_s < start_s + said_s + QUIET_S for start_s in sentences)
    ]
    return chirps, sentences


def _every(step_s: float, end_s: float) -> Iterator[float]:
    number = 1
    while number * step_s < end_s:
        yield number * step_s
        number += 1


def made(source: Source, folder: Path, *, minutes: float) -> Path:
    """A file as the source would send it: one second after the other, so that an hour is never in memory."""
    path = folder / "hour"
    said = sentence(source.rate_hz)
    chirps, sentences = marks(minutes, len(said) / source.rate_hz)
    sounds = sorted(
        [(at_s, chirp(source.rate_hz)) for at_s in chirps] + [(at_s, said) for at_s in sentences], key=lambda s: s[0]
    )
    with av.open(path, "w", format=source.container) as output:
        pictures: Any = output.add_stream("libx264", rate=source.fps, options={"preset": "ultrafast", "crf": "35"})
        pictures.width, pictures.height, pictures.pix_fmt = COLUMNS * BLOCK, ROWS * BLOCK, "yuv420p"
        pictures.gop_size = round(KEY_EVERY_S * source.fps)
        pictures.codec_context.thread_count = 1
        track: Any = output.add_stream(source.sound, rate=source.rate_hz, layout="mono")
        pieces = av.AudioResampler(
            format=track.format.name,
            layout="mono",
            rate=source.rate_hz,
            frame_size=track.codec_context.frame_size or 1024,
        )
        number = 0
        for second in range(round(60 * minutes)):
            while number < (second + 1) * source.fps:
                output.mux(pictures.encode(numbered(number, source.fps)))
                number += 1
            block = av.AudioFrame.from_ndarray(sound_of(sounds, source, second), format="flt", layout="mono")
            block.sample_rate, block.pts, block.time_base = (
                source.rate_hz,
                second * source.rate_hz,
                Fraction(1, source.rate_hz),
            )
            for part in pieces.resample(block):
                output.mux(stamped(track.encode(part), source))
        for rest in [*pieces.resample(None), None]:
            output.mux(stamped(track.encode(rest), source))
        output.mux(pictures.encode(None))
    return path


def sentence(rate_hz: int) -> NDArray[np.float32]:
    """(N,) at that rate."""
    return resampled(Voice().say(SENTENCE), RATE, rate_hz)


def sound_of(sounds: list[tuple[float, NDArray[np.float32]]], source: Source, second: int) -> NDArray[np.float32]:
    """(1, rate_hz) samples from that second of the sound card's on, with what sounds at its places in stream time."""
    first = second * source.rate_hz
    out = np.zeros(source.rate_hz, np.float32)
    for at_s, samples in sounds:
        at = round(at_s / source.sound_s(1)) - first
        left, right = max(0, at), min(len(out), at + len(samples))
        if right > left:
            out[left:right] += samples[left - at : right - at]
    return out[np.newaxis]


def stamped(packets: list[Any], source: Source) -> list[Any]:
    """With the stamps of a clock that is not the sound card's."""
    for packet in packets:
        packet.pts = packet.dts = round(packet.pts * (1 + source.late_ppm / 1e6))
    return packets


def numbered(number: int, fps: Fraction) -> av.VideoFrame:
    """A picture of its number in black and white."""
    bits = [(number >> bit) & 1 for bit in range(ROWS * COLUMNS)]
    small = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 255
    luma = np.kron(small, np.ones((BLOCK, BLOCK), np.uint8))
    planes = np.full((ROWS * BLOCK * 3 // 2, COLUMNS * BLOCK), 128, np.uint8)
    planes[: ROWS * BLOCK] = luma
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = number, 1 / fps
    return frame


def number_of(pixels: NDArray[np.uint8]) -> int:
    """What `numbered` drew, of (H, W, 3) of any size."""
    height, width = pixels.shape[0] / ROWS, pixels.shape[1] / COLUMNS
    return sum(
        int(pixels[round((row + 0.5) * height), round((column + 0.5) * width)].mean() > 127) << (row * COLUMNS + column)
        for row in range(ROWS)
        for column in range(COLUMNS)
    )


# --- what arrives -----------------------------------------------------------------------------------------------


@dataclass
class _Arrived:
    """How late everything was, by its place in stream time."""

    chirps_s: list[float]
    sentences_s: list[float]
    chirps: dict[float, float] = field(default_factory=dict)
    utterances: dict[float, float] = field(default_factory=dict)
    pictures: dict[float, float] = field(default_factory=dict)
    pieces: list[Waveform] = field(default_factory=list)  # the last ones: a chirp may lie across a border
    looked_for: int = 0

    def hear(self, piece: Waveform) -> None:
        """The sound goes on with `piece`."""
        self.pieces = [*self.pieces[-3:], piece]
        template = chirp(SAMPLE_RATE_HZ)
        while self.looked_for < len(self.chirps_s):
            at_s = self.chirps_s[self.looked_for]
            near = Span(start_ms=round(1000 * (at_s - LOOK_S)), end_ms=round(1000 * (at_s + CHIRP_S + LOOK_S)))
            if near.end_ms > piece.end_ms:
                break
            likeness = np.correlate(sound_in(self.pieces, near).samples, template, "valid")
            best = int(likeness.argmax())
            if likeness[best] > 0.5 * float(template @ template):
                self.chirps[at_s] = near.start_ms + 1000 * best / SAMPLE_RATE_HZ - 1000 * at_s
            self.looked_for += 1

    def speak(self, span: Span) -> None:
        """Voice activity heard an utterance."""
        start_s = span.start_ms / 1000
        near = min(self.sentences_s, key=lambda at_s: abs(at_s - start_s), default=None)
        if near is not None and abs(near - start_s) < NEAR_S:
            self.utterances.setdefault(near, 1000 * (start_s - near))


async def measured(source: Source, path: Path, *, minutes: float) -> HourFigures:
    """The file through cutter, decoding child and voice activity."""
    chirps, sentences = marks(minutes, len(sentence(source.rate_hz)) / source.rate_hz)
    arrived = _Arrived(chirps_s=chirps, sentences_s=sentences)
    voice, state = SileroVoiceActivity(), None
    quarter: tuple[int, int] | None = None
    with av.open(str(path), "r", options={"threads": "1"}) as container:
        async with DecoderPool(children=1) as pool:
            for cut in MediaCutter(container).chunks():
                span = Span(start_ms=cut.start_ms, end_ms=cut.start_ms + cut.duration_ms)
                clip = await pool.open(cut.media, span=span, frame_interval_ms=1_000, max_frames=8)
                for at_ms, pixels in zip(clip.frames.at_ms, clip.frames.pixels, strict=True):
                    true_s = float(number_of(pixels) / source.fps)
                    arrived.pictures[true_s] = at_ms - 1000 * true_s
                silent = Waveform(samples=np.zeros(0, np.float32), start_ms=cut.start_ms)
                heard = clip.waveform or silent
                arrived.hear(heard)
                found = voice.advance(state, heard, last=cut.last)
                state = found.state
                for utterance in found.closed:
                    arrived.speak(utterance)
                if quarter is None and cut.start_ms > 15_000 * minutes:
                    quarter = resident_mib(), pool.stats.rss_bytes
            worker, decoder = resident_mib(), pool.stats.rss_bytes
    quarter = quarter or (worker, decoder)
    return HourFigures(
        name=source.name,
        minutes=minutes,
        chirps=len(chirps),
        chirps_missed=len(chirps) - len(arrived.chirps),
        sound_drift_ms=drift(arrived.chirps),
        sound_widest_ms=widest(arrived.chirps),
        sentences=len(sentences),
        sentences_missed=len(sentences) - len(arrived.utterances),
        utterances_drift_ms=drift(arrived.utterances),
        pictures=len(arrived.pictures),
        pictures_drift_ms=drift(arrived.pictures),
        pictures_widest_ms=widest(arrived.pictures),
        worker_growth_mib=worker - quarter[0],
        worker_mib=worker,
        decoder_growth_mib=round((decoder - quarter[1]) / 2**20),
        decoder_mib=round(decoder / 2**20),
    )


def drift(late_ms: dict[float, float]) -> float:
    """Mean of the last tenth in stream time, less that of the first."""
    late = [late_ms[at_s] for at_s in sorted(late_ms)]
    tenth = max(1, len(late) // 10)
    return round(float(np.mean(late[-tenth:]) - np.mean(late[:tenth])), 3) if late else float("nan")


def widest(late_ms: dict[float, float]) -> float:
    """The latest less the earliest."""
    return round(max(late_ms.values()) - min(late_ms.values()), 3) if late_ms else float("nan")


if __name__ == "__main__":
    hour()
