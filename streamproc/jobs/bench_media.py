"""What media costs, and what hostile media can do. Two commands:

python -m streamproc.jobs.bench_media cost [--size 1280x720] [--seconds 20]
python -m streamproc.jobs.bench_media hostile [--mutated 3000] [--crafted 300] [FILE...]
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from streamproc.adapters import av_media
from streamproc.adapters.dali_media import DaliMediaOpener
from streamproc.adapters.decoder_pool import DecoderPool
from streamproc.adapters.media_cutter import Cut, MediaCutter
from streamproc.core.clip import ClipFrames, ClipMedia
from streamproc.core.span import Span
from streamproc.errors import BadMessage, Misconfigured
from streamproc.jobs.model_costs import model_costs
from streamproc.ports import MediaOpener

MADE: Final = {  # container and codecs of the chunks that are mutated
    "ts h264 aac": ("mpegts", "libx264", "aac", {"preset": "ultrafast"}),
    "ts hevc mp3": (
        "mpegts",
        "libx265",
        "libmp3lame",
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "mp4 h264 aac": ("mp4", "libx264", "aac", {"preset": "veryfast", "bf": "2"}),
    "fmp4 h264 opus": ("fmp4", "libx264", "libopus", {"preset": "ultrafast"}),
    "webm vp9 opus": ("webm", "libvpx-vp9", "libopus", {"deadline": "realtime", "cpu-used": "8"}),
    "mkv mjpeg ac3": ("matroska", "mjpeg", "ac3", {}),
    "mkv av1 flac": ("matroska", "libsvtav1", "flac", {"preset": "12", "svtav1-params": "lp=1"}),
}
NESTING: Final = (b"moov", b"trak", b"udta", b"meta")
TABLES: Final = (b"stsz", b"stts", b"stco", b"stsc")
FRAGMENT: Final = (b"trun", b"tfhd", b"tfdt", b"mfhd")
GOOD_EVERY: Final = 20
"""After so many hostile chunks comes a good one, which must give what it always gives."""

OPENED: Final = "opened"
REASONS: Final = frozenset({"undecodable_media", "unsupported_media", "media_limits", "killed_decoder"})
NOTHING: Final = frozenset({"undecodable_media"})
REFUSED: Final = frozenset({"media_limits"})
TOO_LARGE: Final = REFUSED | NOTHING  # FFmpeg forgets a size that it refuses, so that nothing is left to decode
MAY_OPEN: Final = TOO_LARGE | {"unsupported_media", OPENED}  # as far as the damage goes
DAMAGED: Final = MAY_OPEN | {
    "killed_decoder"
}  # FFmpeg itself crashes on some: SIGSEGV on 0 to 2 of 3,000, not each time


class Hostile(NamedTuple):
    """A chunk that is made when its turn comes, so that the pile is not in memory."""

    name: str
    may: frozenset[str]  # reasons that are right for it, or OPENED
    make: Callable[[], bytes]


@click.group()
def bench() -> None:
    """What media costs, and what hostile media can do."""


def made_media(
    container: str,
    video: str,
    audio: str,
    options: dict[str, str],
    *,
    size: tuple[int, int] = (320, 180),
    seconds: float = 2.0,
    fps: int = 25,
    bit_rate: int | None = None,
) -> bytes:
    """A key frame every two seconds of moving texture, and a warbling tone."""
    file = io.BytesIO()
    form = {"movflags": "frag_keyframe+delay_moov+default_base_moof"} if container == "fmp4" else {}
    with av.open(file, "w", format="mp4" if container == "fmp4" else container, options=form) as output:
        pictures: Any = output.add_stream(video, rate=fps, options=options)
        pictures.width, pictures.height = size
        pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        pictures.gop_size = 2 * fps
        pictures.codec_context.thread_count = 1
        if bit_rate is not None:
            pictures.bit_rate = bit_rate
        sound: Any = output.add_stream(audio, rate=48_000, layout="stereo")
        texture = np.random.default_rng(7).integers(0, 255, (size[1] // 8 + 64, size[0] // 8 + 64, 3), dtype=np.uint8)
        large = np.kron(texture, np.ones((8, 8, 1), dtype=np.uint8))
        packets = []
        for number in range(int(seconds * fps)):
            x, y = (number * 3) % 256, (number * 2) % 256
            pixels = np.ascontiguousarray(large[y : y + size[1], x : x + size[0]])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pictures.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        at_s = np.arange(int(seconds * 48_000)) / 48_000
        tone = (0.4 * np.sin(2 * np.pi * (300 * at_s + 5 * np.sin(2 * np.pi * 3 * at_s)))).astype(np.float32)
        whole = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
        whole.sample_rate, whole.pts, whole.time_base = 48_000, 0, Fraction(1, 48_000)
        cut = av.AudioResampler(
            format=sound.format.name, layout="stereo", rate=48_000, frame_size=sound.codec_context.frame_size or 1024
        )
        for part in [*cut.resample(whole), *cut.resample(None), None]:
            packets += sound.encode(part)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            output.mux(packet)
    # SVT-AV1, run by root, makes its caller real time: every other process on the machine would wait for us
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return file.getvalue()


# --- cost -------------------------------------------------------------------------------------------------------


@bench.command()
@click.option("--size", default="1280x720", show_default=True, help="Picture size.")
@click.option("--seconds", default=20, show_default=True, help="Length of the stream that is made.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def cost(size: str, seconds: int, form: str) -> None:
    """CPU per live stream by stage, in per cent of a core: process time of one thread, median of the chunks; and of
    what follows: voice activity, speech, towers, evidence, match."""
    width, _, height = size.partition("x")
    figures: dict[str, dict[str, float]] = {}
    made_bit_rate, media = 3_000_000, b""
    for name, options in {
        "live-like (zerolatency)": {"preset": "ultrafast", "tune": "zerolatency"},
        "CABAC and B-frames": {"preset": "veryfast", "bf": "3", "x264-params": "scenecut=0"},
    }.items():
        media = made_media(
            "mpegts", "libx264", "aac", options, size=(int(width), int(height)), seconds=seconds, bit_rate=made_bit_rate
        )
        figures[f"H.264 {size}, {name}, {made_bit_rate / 1e6:g} Mbit/s"] = stage_costs(media)
    figures["what follows"] = model_costs(first_frames(media))
    if form == "table":
        for title, stages in figures.items():
            click.echo(f"\n{title}: % of a core per stream")
            for stage, percent in stages.items():
                click.echo(f"  {stage:<44}{percent:6.2f}")
    click.echo(msgspec.json.encode(figures).decode())


def stage_costs(media: bytes) -> dict[str, float]:
    """Per cent of a core by stage, for a stream of this media at its own pace."""
    with av.open(io.BytesIO(media), "r") as source:
        began = time.process_time()
        pieces = list(MediaCutter(source).chunks())
        cutting_s = time.process_time() - began
    total_s = sum(piece.duration_ms for piece in pieces) / 1000
    whole = [piece for piece in pieces if piece.duration_ms >= 2000]

    def spent(work: Callable[[Cut], object]) -> float:
        """Median over chunks of the best of three."""
        found = []
        for piece in whole:
            tries = []
            for _ in range(3):
                before = time.process_time()
                work(piece)
                tries.append(time.process_time() - before)
            found.append(min(tries) / (piece.duration_ms / 1000))
        return 100 * float(np.median(found))

    def opened(piece: Cut) -> None:
        with av_media.open_container(io.BytesIO(piece.media), "mpegts"):
            pass

    def demuxed(piece: Cut) -> None:
        with av_media.open_container(io.BytesIO(piece.media), "mpegts") as container:
            for _ in container.demux():
                pass

    opening, demuxing = spent(opened), spent(demuxed)
    sound_only = spent(lambda piece: _decode(piece, frame_interval_ms=2000, max_frames=0))
    keys = spent(lambda piece: _decode(piece, frame_interval_ms=2000, max_frames=8))
    filled = spent(lambda piece: _decode(piece, frame_interval_ms=1000, max_frames=8))
    return {
        "cut (ingest)": 100 * cutting_s / total_s,
        "open (probe)": opening,
        "demux and plan": max(0.0, demuxing - opening),
        "sound: decode, downmix, resample": max(0.0, sound_only - demuxing),
        "key frames (one per 2 s): decode, scale": max(0.0, keys - sound_only),
        "filled in to one per 1 s: more": max(0.0, filled - keys),
        "all, key frames": keys,
        "all, one per 1 s": filled,
    }


def first_frames(media: bytes) -> ClipFrames:
    """Of the first chunk, one a second."""
    with av.open(io.BytesIO(media), "r") as source:
        return _decode(next(iter(MediaCutter(source).chunks())), frame_interval_ms=1000, max_frames=8).frames


def _decode(piece: Cut, *, frame_interval_ms: int, max_frames: int) -> ClipMedia:
    return av_media.decode(
        io.BytesIO(piece.media),
        size_bytes=len(piece.media),
        span=Span(start_ms=0, end_ms=piece.duration_ms),
        frame_interval_ms=frame_interval_ms,
        max_frames=max_frames,
    )


# --- hostile ----------------------------------------------------------------------------------------------------


@bench.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--mutated", default=3000, show_default=True, help="Chunks with random damage.")
@click.option("--crafted", default=300, show_default=True, help="Chunks that lie on purpose.")
@click.option("--seed", default=1, show_default=True)
@click.option("--pictures", type=click.Choice(["av", "dali"]), default="av", show_default=True, help="What decodes.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def hostile(files: tuple[Path, ...], mutated: int, crafted: int, seed: int, pictures: str, form: str) -> None:
    """Feeds damaged and lying chunks to one decoding child; exit 1 if a reason was wrong or a good chunk changed. How
    often the child died, and was replaced, is told: a decoder may crash on damaged data, and costs that chunk alone."""
    try:
        figures = asyncio.run(_hostile(files, mutated=mutated, crafted=crafted, seed=seed, pictures=pictures))
    except Misconfigured as wrong:
        raise click.ClickException(str(wrong)) from wrong
    if form == "table":
        for name, value in figures.items():
            click.echo(f"{name:<28}{value}")
    click.echo(msgspec.json.encode(figures).decode())
    if figures["good_wrong"] or figures["reasons_wrong"]:
        raise SystemExit(1)


async def _hostile(files: tuple[Path, ...], *, mutated: int, crafted: int, seed: int, pictures: str) -> dict[str, Any]:
    dice = random.Random(seed)  # noqa: S311  # repeatable damage, no secret
    good = [made_media(*made) for made in MADE.values()]
    for path in files:
        with av.open(str(path), "r") as source:
            good += [piece.media for piece in MediaCutter(source).chunks()][:4]
    outcomes: Counter[str] = Counter()
    surprises: list[str] = []
    worst_ms, worst = 0.0, ""
    wrong = checked = 0
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(DecoderPool(children=1))
        opener: MediaOpener = pool
        if pictures == "dali":  # its CPU variant, in this process
            opener = await stack.enter_async_context(DaliMediaOpener(pool, device_id=None))

        async def outcome(media: bytes) -> str:
            try:
                clip = await opener.open(media, span=Span(start_ms=0, end_ms=2000), frame_interval_ms=500, max_frames=8)
            except BadMessage as bad:
                return bad.reason
            return f"{len(clip.frames.at_ms)} frames" if clip.frames.at_ms else "sound only"

        truth = [await outcome(media) for media in good]
        prints = [await _print_of(opener, media) for media in good]
        start_rss, worker_rss = pool.stats.rss_bytes, [resident_mib()]
        every: list[Hostile] = [
            *(Hostile(f"mutated {n}", DAMAGED, partial(damaged, good[n % len(good)], dice)) for n in range(mutated)),
            *crafted_chunks(good, crafted, dice),
        ]
        dice.shuffle(every)
        began = time.monotonic()
        for number, chunk in enumerate(every):
            before = pool.stats.cpu_ms
            found = await outcome(chunk.make())
            outcomes[found] += 1
            if (found if found in REASONS else OPENED) not in chunk.may:
                surprises.append(f"{chunk.name}: {found}")
            if pool.stats.cpu_ms - before > worst_ms:
                worst_ms, worst = pool.stats.cpu_ms - before, chunk.name
            if number % GOOD_EVERY == 0:
                which = checked % len(good)
                checked += 1
                wrong += await _print_of(opener, good[which]) != prints[which]
                worker_rss.append(resident_mib())
        return {
            "chunks": len(every),
            "outcomes": dict(sorted(outcomes.items(), key=lambda item: -item[1])),
            "reasons_wrong": surprises,
            "good_checked": checked,
            "good_wrong": wrong,
            "good_outcomes": truth,
            "decoder_deaths": pool.stats.deaths,
            "worker_rss_mib_before": worker_rss[0],
            "worker_rss_mib_largest": max(worker_rss),
            "decoder_rss_mib_before": round(start_rss / 2**20),
            "decoder_rss_mib_largest": round(pool.stats.rss_bytes / 2**20),
            "decoder_rss_mib_peak": round(pool.stats.peak_rss_bytes / 2**20),
            "worst_cpu_ms": round(worst_ms),
            "worst_chunk": worst,
            "seconds": round(time.monotonic() - began, 1),
        }


def resident_mib() -> int:
    """Of this process, which stands for the worker."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


async def _print_of(opener: MediaOpener, media: bytes) -> tuple[int, ...]:
    clip = await opener.open(media, span=Span(start_ms=0, end_ms=2000), frame_interval_ms=500, max_frames=8)
    sound = b"" if clip.waveform is None else clip.waveform.samples.tobytes()
    return (hash(clip.frames.pixels.tobytes()), hash(sound), *clip.frames.at_ms)


def damaged(media: bytes, dice: random.Random) -> bytes:
    """One to four kinds of damage: flipped bits, noise, zeros, holes, doubled or moved pieces, a cut end."""
    data = bytearray(media)
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(max(1, len(data))), dice.choice((1, 4, 16, 188, 1000, 20_000))
        kind = dice.randrange(8)
        if kind == 0:
            for _ in range(dice.choice((1, 5, 50, 500))):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at : at + length] = dice.randbytes(len(data[at : at + length]))
        elif kind == 2:
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            piece = data[at : at + length]
            del data[at : at + length]
            other = dice.randrange(max(1, len(data)))
            data[other:other] = piece
        elif kind == 6:  # the headers are where damage tells
            for _ in range(8):
                data[dice.randrange(min(len(data), 2000))] = dice.randrange(256)
        elif len(data) > 1000:
            del data[dice.randrange(400, len(data)) :]
        if len(data) < 400:
            break
    return bytes(data)


def crafted_chunks(good: list[bytes], count: int, dice: random.Random) -> Iterator[Hostile]:
    """Chunks that lie: huge pictures, a bomb of frames, boxes without end, nesting, sizes, durations and times."""
    mp4, fmp4, ts, webm = good[2], good[3], good[0], good[4]
    makers: list[tuple[str, frozenset[str], Callable[[], bytes]]] = [
        ("16k x 8k", TOO_LARGE, _once(lambda: _still("mjpeg", (16_384, 8_192), 1, "mp4"))),
        ("8k x 4k", TOO_LARGE, _once(lambda: _still("mjpeg", (8_192, 4_320), 1, "matroska"))),
        (
            "16k x 8k in the container only",
            MAY_OPEN,
            lambda: _box_patched(mp4, b"avc1", 24, struct.pack(">HH", 16_384, 8_192)),
        ),
        ("bomb of frames", REFUSED, _once(lambda: _still("mpeg4", (16, 16), 120_000, "mp4"))),
        ("bomb of frames in MPEG-TS", REFUSED, _once(lambda: _still("mpeg2video", (16, 16), 30_000, "mpegts"))),
        (
            "moov without end",
            NOTHING,
            lambda: _ftyp() + struct.pack(">I4s", 2**31 - 1, b"moov") + dice.randbytes(50_000),
        ),
        ("64-bit moov", NOTHING, lambda: _ftyp() + struct.pack(">I4sQ", 1, b"moov", 2**62) + dice.randbytes(5_000)),
        ("nested boxes", NOTHING, lambda: _ftyp() + _nested(dice.choice((100, 5_000, 60_000)), dice.choice(NESTING))),
        ("empty boxes", NOTHING, lambda: _ftyp() + struct.pack(">I4s", 8, b"free") * 200_000),
        ("many tracks", NOTHING, lambda: _ftyp() + _many_tracks(dice.choice((100, 3_000)))),
        ("lying duration", MAY_OPEN, lambda: _box_patched(mp4, b"mvhd", 12, dice.randbytes(8))),
        ("lying track duration", MAY_OPEN, lambda: _box_patched(mp4, b"mdhd", 12, dice.randbytes(8))),
        ("lying sample counts", MAY_OPEN, lambda: _box_patched(mp4, dice.choice(TABLES), 8, b"\x7f\xff\xff\xff")),
        (
            "lying sample sizes",
            MAY_OPEN,
            lambda: _box_patched(mp4, b"stsz", 4, dice.choice((b"\0\0\0\1", b"\x7f\xff\xff\xff"))),
        ),
        ("lying fragment", MAY_OPEN, lambda: _box_patched(fmp4, dice.choice(FRAGMENT), 4, dice.randbytes(12))),
        ("lying EBML sizes", MAY_OPEN, lambda: _ebml_lie(webm, dice)),
        ("clock set anew every packet", MAY_OPEN, lambda: _ts_times(ts, dice, wild=True)),
        ("times of years", MAY_OPEN, lambda: _ts_times(ts, dice, wild=False)),
        ("only PAT and PMT", NOTHING, lambda: ts[:376] * 200),
        ("many programmes", NOTHING, lambda: b"".join(_ts_packet(dice.randrange(8192), dice) for _ in range(5_000))),
    ]
    for number in range(count):
        name, may, make = makers[number % len(makers)]
        yield Hostile(f"{name} ({number})", may, make)


def _once(make: Callable[[], bytes]) -> Callable[[], bytes]:
    kept: list[bytes] = []

    def cached() -> bytes:
        if not kept:
            kept.append(make())
        return kept[0]

    return cached


def _still(codec: str, size: tuple[int, int], frames: int, container: str) -> bytes:
    """The same picture over and over, encoded once and muxed many times."""
    file = io.BytesIO()
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=60)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.max_b_frames = 0
        black: NDArray[np.uint8] = np.zeros((size[1] * 3 // 2, size[0]), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(black, format=pixel_format)
        frame.pts, frame.time_base = 0, Fraction(1, 60)
        first = bytes([*stream.encode(frame), *stream.encode(None)][0])
        for number in range(frames):
            packet: Any = av.Packet(first)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 60), True
            packet.pts = packet.dts = number
            output.mux_one(packet)
    return file.getvalue()


def _ftyp() -> bytes:
    return struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")


def _nested(depth: int, name: bytes) -> bytes:
    return b"".join(struct.pack(">I4s", 8 * (depth - level), name) for level in range(depth))


def _many_tracks(count: int) -> bytes:
    track = struct.pack(">I4s", 8, b"trak")
    return struct.pack(">I4s", 8 + len(track) * count, b"moov") + track * count


def _box_patched(media: bytes, name: bytes, offset: int, content: bytes) -> bytes:
    """Overwrites `content` at `offset` after the name of the first such box; other damage where there is none."""
    at = media.find(name)
    if at < 0:
        return media[: len(media) // 2]
    at += 4 + offset
    return media[:at] + content + media[at + len(content) :]


def _ebml_lie(media: bytes, dice: random.Random) -> bytes:
    data = bytearray(media)
    for _ in range(dice.randint(1, 3)):
        at = data.find(dice.choice((b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\xa3")), 40)
        if at > 0:
            data[at + 4 : at + 12] = dice.choice(
                (b"\x01\xff\xff\xff\xff\xff\xff\xfe", b"\x08\x7f\xff\xff\xff\x00\x00\x00")
            )
    return bytes(data)


def _ts_packet(pid: int, dice: random.Random) -> bytes:
    return struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + dice.randbytes(184)


def _ts_times(media: bytes, dice: random.Random, *, wild: bool) -> bytes:
    """Every PES packet gets another time: anywhere in 26 hours, or a little more than the one before."""
    data = bytearray(media)
    clock = dice.randrange(2**33)
    at = data.find(b"\x00\x00\x01\xe0")
    while 0 <= at < len(data) - 20:
        if data[at + 7] & 0x80:
            clock = dice.randrange(2**33) if wild else (clock + 900_000_000) % 2**33
            high, middle, low = clock >> 29 & 0x0E, clock >> 14 & 0xFFFE, clock << 1 & 0xFFFE
            data[at + 9 : at + 14] = struct.pack(">BHH", 0x21 | high, 1 | middle, 1 | low)
        at = data.find(b"\x00\x00\x01\xe0", at + 10)
    return bytes(data)


if __name__ == "__main__":
    bench()
