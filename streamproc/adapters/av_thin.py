"""A chunk thinned to the packets that its wanted frames need, for a decoder that is not FFmpeg's (dali_media).

Such decoders select by frame index and time from 0, and read MPEG-TS badly or not at all (notes/media.md 2): hence a
fresh MP4 (WebM for VP8) that holds nothing but what the plan wants.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av

from streamproc.adapters.av_media import (
    Readable,
    Track,
    codec_names,
    display_size,
    open_container,
    read_tracks,
    sniff,
    sound_of,
)
from streamproc.adapters.media_plan import MediaLimits, choose_frames, refuse_beyond
from streamproc.core.clip import Waveform
from streamproc.core.span import Span
from streamproc.errors import BadMessage

TICKS_HZ: Final = 90_000


@dataclass(frozen=True, kw_only=True)
class Thinned:
    """What another decoder needs to make a chunk's frames, and its sound, which needs no other decoder."""

    media: bytes  # MP4 or WebM with video only; empty where no frame is wanted
    frames: tuple[int, ...]  # (F,) indices into it, in the order of presentation
    at_ms: tuple[int, ...]  # (F,) stream time of each
    width: int  # of the upright frames
    height: int
    quarter_turns: int  # counter-clockwise, to be done after scaling
    waveform: Waveform | None
    codecs: tuple[str, ...]


def thin(
    source: Readable,
    *,
    size_bytes: int,
    span: Span,
    frame_interval_ms: int,
    max_frames: int,
    limits: MediaLimits | None = None,
) -> Thinned:
    """The chunk's plan carried out as far as it goes without decoding pictures. Arguments and errors as of
    av_media.decode."""
    limits = limits or MediaLimits()
    refuse_beyond("bytes", size_bytes, limits.max_bytes)
    container_format = sniff(source.read(400))
    source.seek(0)
    with open_container(source, container_format, limits) as container:
        video, audio = read_tracks(container, limits)
        samples = sound_of(audio, span.duration_ms)
        waveform = None if samples is None else Waveform(samples=samples, start_ms=span.start_ms)
        codecs = codec_names(video, audio)
        kept, wanted = _chosen(video, span, frame_interval_ms, max_frames)
        if video is None or not wanted:
            if waveform is None:
                raise BadMessage("undecodable_media", f"nothing in this {container_format} decodes")
            return Thinned(
                media=b"", frames=(), at_ms=(), width=0, height=0, quarter_turns=0, waveform=waveform, codecs=codecs
            )
        rank = {index: place for place, index in enumerate(sorted(kept, key=lambda index: video.at_s[index]))}
        in_order = sorted(wanted, key=lambda index: video.at_s[index])
        try:
            media = _written(video, kept)
        except (av.FFmpegError, ValueError) as error:  # a picture without a size, times that do not rise
            raise BadMessage("undecodable_media", f"{codecs[0]} does not go into MP4: {error}") from error
        rotation = _rotation(video, kept[0]) if container_format == "mp4" else 0
        context = video.stream.codec_context
        width, height = display_size(context.width, context.height, rotation, video.pixel_aspect())
        return Thinned(
            media=media,
            frames=tuple(rank[index] for index in in_order),
            at_ms=tuple(span.start_ms + round(video.at_s[index] * 1000) for index in in_order),
            width=width,
            height=height,
            quarter_turns=round(rotation / 90) % 4,
            waveform=waveform,
            codecs=codecs,
        )


def _chosen(
    video: Track[av.VideoStream] | None, span: Span, frame_interval_ms: int, max_frames: int
) -> tuple[list[int], list[int]]:
    """Packet indices to keep, in decode order, and those of the wanted frames."""
    if video is None or max_frames < 1:
        return [], []
    segments = choose_frames(
        video.infos(), duration_ms=span.duration_ms, frame_interval_ms=frame_interval_ms, max_frames=max_frames
    )
    kept = [
        index
        for segment in segments
        for index in range(segment.first, segment.last + 1)
        if video.at_s[index] >= video.at_s[segment.first]
    ]
    return kept, [index for segment in segments for index in segment.wanted]


def _written(video: Track[av.VideoStream], kept: list[int]) -> bytes:
    """These packets in a container of their own, shown from 0 on, decode times made up."""
    file = io.BytesIO()
    codec = video.stream.codec_context.codec.canonical_name
    shown = sorted(video.at_s[index] for index in kept)
    ahead_s = max(at_s - video.at_s[index] for at_s, index in zip(shown, kept, strict=True))
    with av.open(file, "w", format="webm" if codec == "vp8" else "mp4", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream_from_template(video.stream, opaque=True)
        for decode_s, index in zip(shown, kept, strict=True):
            packet: Any = av.Packet(bytes(video.packets[index]))
            packet.stream, packet.time_base = stream, Fraction(1, TICKS_HZ)
            packet.pts = round((video.at_s[index] - shown[0]) * TICKS_HZ)
            packet.dts = min(packet.pts, round((decode_s - shown[0] - ahead_s) * TICKS_HZ))
            packet.duration = TICKS_HZ // 25  # without one, MP4's edit list cuts the last frame off
            packet.is_keyframe = video.packets[index].is_keyframe
            output.mux_one(packet)
    return file.getvalue()


def _rotation(video: Track[av.VideoStream], key: int) -> int:
    """Degrees counter-clockwise; the decoder says it with a frame, so the first key frame is decoded."""
    try:
        context = video.stream.codec_context
        frames = [*context.decode(video.packets[key]), *context.decode(None)]
    except Exception:  # noqa: BLE001  # a corrupt packet gives any of a dozen kinds; the other decoder will say so too
        return 0
    return frames[0].rotation if frames else 0
