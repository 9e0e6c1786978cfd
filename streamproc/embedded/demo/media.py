"""Frames and sound become MPEG-TS: one stream, cut on its key frames into chunks that each decode alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np

from streamproc.embedded.demo.script import FPS, MS_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 48_000
CHUNK_FRAMES = 2 * FPS
AAC_PRIMING = 1024  # samples that the encoder puts before the first one
CONTAINER = {"fflags": "+bitexact", "max_delay": "0"}
H264 = {"preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0", "crf": "25"}
AAC = {"aac_coder": "fast", "aac_tns": "0", "aac_is": "0", "aac_pns": "0"}


class DemoChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Two seconds of a stream; its timestamps go on from the chunk before."""

    sequence: int
    start_ms: int
    duration_ms: int
    last: bool
    data: bytes


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """An encoded picture or piece of sound, before it is put in a container."""

    track: int  # 0 video, 1 audio
    data: bytes
    pts: int
    dts: int
    duration: int
    time_base: Fraction
    key: bool

    @property
    def seconds(self) -> Fraction:
        return self.pts * self.time_base


def encode(
    frames: Iterable[NDArray[np.uint8]],
    sound: Iterable[NDArray[np.float32]],
    size: tuple[int, int],
    total: int,
    whole: BinaryIO | None = None,
) -> Iterator[DemoChunk]:
    """Chunks of 2 s, each as soon as its last frame is there; into `whole` goes the stream as one file.

    `frames` are yuv420p arrays, `total` of them; for each `sound` has (2, 1920) samples. H.264 with a key frame every
    2 s and no B-frames, AAC 48 kHz stereo. Frame n is at 40 n ms in the container too. One thread: the same input
    gives the same bytes.
    """
    import av

    with av.open(whole or Discard(), "w", format="mpegts", options=dict(CONTAINER)) as box:
        video = box.add_stream("libx264", rate=FPS, options=dict(H264))
        video.width, video.height, video.pix_fmt, video.gop_size = *size, "yuv420p", CHUNK_FRAMES
        video.codec_context.thread_count = 1
        audio = box.add_stream("aac", rate=RATE, layout="stereo", options=dict(AAC))
        audio.bit_rate = 64_000
        box.start_encoding()
        tracks = (video, audio)
        held: list[Packet] = []
        sequence = 0

        def keep(packets: Iterable[Any], track: int) -> None:
            for packet in packets:
                if packet.size:
                    held.append(copied(packet, track))
                    box.mux(packet)

        position = 0
        for n, (picture, heard) in enumerate(zip(frames, sound, strict=True)):
            if n and n % CHUNK_FRAMES == 0 and ready(held, sequence + 1):
                yield take(held, tracks, sequence, total)
                sequence += 1
            frame = av.VideoFrame.from_numpy_buffer(picture, format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            keep(video.encode(frame), 0)
            samples = heard
            if n == 0:  # the priming takes the place of the first samples, which are quiet
                samples, position = heard[:, AAC_PRIMING:], AAC_PRIMING
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = RATE, position, Fraction(1, RATE)
            position += samples.shape[1]
            keep(audio.encode(block), 1)
            while (sequence + 1) * CHUNK_FRAMES <= n and ready(held, sequence + 1):
                yield take(held, tracks, sequence, total)
                sequence += 1
        keep(video.encode(None), 0)
        keep(audio.encode(None), 1)
        while sequence * CHUNK_FRAMES < total:
            yield take(held, tracks, sequence, total)
            sequence += 1


def ready(held: list[Packet], sequence: int) -> bool:
    """True when both tracks have reached the chunk `sequence`, so that the one before it is complete."""
    start = Fraction(sequence * CHUNK_FRAMES, FPS)
    return all(any(p.track == track and p.seconds >= start for p in held) for track in (0, 1))


def take(held: list[Packet], tracks: tuple[Any, Any], sequence: int, total: int) -> DemoChunk:
    """Removes the packets of one chunk from `held` and puts them in a container of their own."""
    import av

    first = sequence * CHUNK_FRAMES
    frames = min(CHUNK_FRAMES, total - first)
    last = first + frames >= total
    end = Fraction(first + frames, FPS)
    mine = [packet for packet in held if last or packet.seconds < end]
    held[:] = [packet for packet in held if not last and packet.seconds >= end]
    data = io.BytesIO()
    with av.open(data, "w", format="mpegts", options=dict(CONTAINER)) as box:
        outs = [box.add_stream_from_template(track) for track in tracks]
        box.start_encoding()
        for packet in mine:
            out = av.Packet(packet.data)
            out.pts, out.dts, out.duration, out.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
            out.is_keyframe = packet.key
            out.stream = outs[packet.track]
            box.mux(out)
    return DemoChunk(
        sequence=sequence,
        start_ms=first * MS_PER_FRAME,
        duration_ms=frames * MS_PER_FRAME,
        last=last,
        data=data.getvalue(),
    )


def copied(packet: Any, track: int) -> Packet:
    """What muxing would take away."""
    return Packet(
        track=track,
        data=bytes(packet),
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration,
        time_base=packet.time_base,
        key=packet.is_keyframe,
    )


class Discard(io.RawIOBase):
    """A file that keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)
