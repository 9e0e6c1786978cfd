"""Media whose truth is known: every picture shows its number and four colours, the sound is a chirp.

Each codec is encoded once per run and then written into every container.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 176
FPS = 25
SECONDS = 3
GOP = 25
COLOURS: Final = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (128, 128, 128))
BITS = 8

VIDEO: Final[dict[str, tuple[str, str, dict[str, str]]]] = {  # name: encoder, pixel format, options
    "h264": ("libx264", "yuv420p", {"preset": "ultrafast", "bf": "0"}),
    "h264-b": ("libx264", "yuv420p", {"preset": "veryfast", "bf": "3", "x264-params": "b-pyramid=normal:scenecut=0"}),
    "h264-interlaced": ("libx264", "yuv420p", {"preset": "ultrafast", "flags": "+ildct+ilme"}),
    "h264-full-range": ("libx264", "yuvj420p", {"preset": "ultrafast"}),
    "h264-10bit": ("libx264", "yuv420p10le", {"preset": "ultrafast"}),
    "h264-444": ("libx264", "yuv444p", {"preset": "ultrafast"}),
    "h264-open": ("libx264", "yuv420p", {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "hevc": (
        "libx265",
        "yuv420p",
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0"},
    ),
    "hevc-open": (
        "libx265",
        "yuv420p",
        {
            "preset": "ultrafast",
            "x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0:open-gop=1:bframes=3",
        },
    ),
    "hevc-10bit": (
        "libx265",
        "yuv420p10le",
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0"},
    ),
    "vp8": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "16"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9-444": ("libvpx-vp9", "yuv444p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "yuv420p", {"preset": "8", "crf": "20", "svtav1-params": "lp=1"}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "mpeg2": ("mpeg2video", "yuv420p", {}),
}
AUDIO: Final = {
    "aac": "aac",
    "opus": "libopus",
    "mp3": "libmp3lame",
    "ac3": "ac3",
    "eac3": "eac3",
    "flac": "flac",
    "mp2": "mp2",
    "pcm": "pcm_s16le",
}


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.uint8]:
    """(H, W, 3): `number` modulo 256 as black and white stripes above, four colours below."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        pixels[: height // 2, left:right] = 255 if number >> bit & 1 else 0
    for index, colour in enumerate(COLOURS):
        pixels[height // 2 :, index * width // 4 : (index + 1) * width // 4] = colour
    return pixels


def number_in(pixels: NDArray[np.uint8]) -> int:
    """The number that a picture shows, whatever its size."""
    height, width = pixels.shape[:2]
    row = pixels[height // 8 : height * 3 // 8].mean(axis=(0, 2))
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, at in enumerate(centres) if row[max(0, at - 3) : at + 4].mean() > 128)


def colours_in(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(4, 3): the mean of each colour's middle."""
    height, width = pixels.shape[:2]
    found = []
    for index in range(4):
        left, right = int((index + 0.3) * width / 4), int((index + 0.7) * width / 4)
        found.append(pixels[height * 5 // 8 : height * 7 // 8, left:right].mean(axis=(0, 1)))
    return np.array(found)


def chirp(at_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sound at these times: 200 Hz rising by 240 Hz a second, amplitude 0.4; nothing before 0."""
    tone = 0.4 * np.sin(2 * np.pi * (200 * at_s + 120 * at_s * at_s))
    return np.where(at_s < 0, 0.0, tone)


def lag_ms(samples: NDArray[np.float32], start_s: float, *, within_ms: int = 60) -> tuple[float, float]:
    """(how late the sound is, its level against the truth in dB), by correlation; 16 kHz."""
    reach = within_ms * 16
    truth = chirp((np.arange(len(samples) + 2 * reach) - reach) / 16_000 + start_s)
    size = 1 << (len(truth) + len(samples)).bit_length()
    spectrum = np.fft.rfft(truth, size) * np.conj(np.fft.rfft(samples, size))
    best = int(np.fft.irfft(spectrum, size)[: 2 * reach + 1].argmax())
    truth_rms = np.sqrt(np.mean(truth[best : best + len(samples)] ** 2))
    level = 20 * np.log10(max(1e-9, float(np.sqrt(np.mean(samples**2)))) / truth_rms)
    return -(best - reach) / 16, float(level)


@dataclass(frozen=True, kw_only=True)
class Elementary:
    """One encoded track inside a container of its own, ready to be copied into others."""

    file: bytes
    codec: str


@functools.cache
def encoded_video(
    name: str,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    fps: Fraction = Fraction(FPS),
    seconds: float = SECONDS,
    gop: int = GOP,
    aspect: Fraction = Fraction(1),
    rotation: int = 0,
    pts: tuple[int, ...] | None = None,
    first: int = 0,
    colorspace: int | None = None,
    tagged: bool = True,
) -> Elementary:
    """`pts` in frames stands in for 0, 1, 2…; pictures are numbered from `first` by their pts."""
    encoder, pixel_format, options = VIDEO[name]
    file = io.BytesIO()
    with av.open(file, "w", format="matroska" if name == "vp8" else "mp4") as output:
        stream: Any = output.add_stream(encoder, rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.gop_size = gop
        stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.thread_count = 1
        if colorspace is not None and tagged:
            stream.codec_context.colorspace = colorspace
        if rotation:
            stream.set_display_rotation(rotation)
        for number in pts or range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(picture(first + number, size), format="rgb24")
            kwargs: dict[str, Any] = {} if colorspace is None else {"dst_colorspace": colorspace}
            frame = frame.reformat(format=pixel_format, **kwargs)
            frame.pts, frame.time_base = number, 1 / fps
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    # SVT-AV1, run by root, makes its caller real time: every other process on the machine would wait for the tests
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return Elementary(file=file.getvalue(), codec=name)


@functools.cache
def encoded_audio(
    name: str,
    *,
    rate: int = 48_000,
    layout: str = "stereo",
    seconds: float = SECONDS,
    gain: float = 1.0,
    holes: tuple[tuple[float, float], ...] = (),
) -> Elementary:
    """The chirp in every channel, `gain` times as loud; packets whose time lies in `holes` are missing."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska" if name == "pcm" else "mp4") as output:
        stream: Any = output.add_stream(AUDIO[name], rate=rate, layout=layout)
        channels = len(stream.layout.channels)
        mono = (gain * chirp(np.arange(int(seconds * rate)) / rate)).astype(np.float32)
        whole = av.AudioFrame.from_ndarray(np.repeat(mono[None], channels, axis=0), format="fltp", layout=layout)
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=stream.format.name, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or 1024
        )
        for frame in [*resampler.resample(whole), *resampler.resample(None), None]:
            for packet in stream.encode(frame):
                at_s = float((packet.pts or 0) * packet.time_base)
                if not any(start <= at_s < end for start, end in holes):
                    output.mux(packet)
    return Elementary(file=file.getvalue(), codec=name)


@dataclass
class Written:
    """One packet on its way into a container; change it to make an accident."""

    packet: Packet[Any]
    track: int
    pts_s: float
    dts_s: float


def write(
    container: str,
    tracks: Sequence[Elementary],
    *,
    offset_s: float = 0.0,
    options: dict[str, str] | None = None,
    change: Callable[[list[Written]], list[Written]] | None = None,
    cover: bool = False,
) -> bytes:
    """These tracks in one container, copied. `container` is FFmpeg's name, or `fmp4`."""
    options = dict(options or {})
    if container == "fmp4":
        container = "mp4"
        options |= {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
    if container == "mpegts":
        options |= {"mpegts_copyts": "1"}
    file = io.BytesIO()
    written: list[Written] = []
    with av.open(file, "w", format=container, options=options) as output:
        inputs: list[Any] = [av.open(io.BytesIO(track.file)) for track in tracks]
        for index, source in enumerate(inputs):
            stream = source.streams[0]
            theirs = output.add_stream_from_template(stream, opaque=True)
            for packet in source.demux(stream):
                if packet.size == 0:
                    continue
                pts, dts = packet.pts or 0, packet.dts or 0
                copy: Packet[Any] = Packet(bytes(packet))
                copy.stream, copy.is_keyframe = theirs, packet.is_keyframe
                copy.time_base = packet.time_base
                copy.duration = packet.duration
                base = float(packet.time_base)
                written.append(Written(copy, index, pts * base + offset_s, dts * base + offset_s))
        if cover and container == "matroska":
            output.add_attachment("cover.jpg", "image/jpeg", _jpeg())
        elif cover:
            art: Any = output.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            copy = Packet(_jpeg())
            copy.stream, copy.pts, copy.dts, copy.is_keyframe = art, 0, 0, True
            output.mux_one(copy)
        written.sort(key=lambda item: item.dts_s)
        for item in change(written) if change else written:
            packet = item.packet
            packet.pts = round(item.pts_s / float(packet.time_base))
            packet.dts = min(packet.pts, round(item.dts_s / float(packet.time_base)))
            output.mux_one(packet)
        for source in inputs:
            source.close()
    return file.getvalue()


@functools.cache
def _jpeg() -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 64, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
