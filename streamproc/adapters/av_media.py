"""One chunk's bytes to frames and sound in stream time, by PyAV: demux once, plan, decode only what the plan wants.

Runs inside the decoding child (decoder_child.py); call it elsewhere for bytes that you made yourself.

Frames come upright, with square pixels, full-range RGB, the shorter side `SHORTER_SIDE` (towers take 224 or 256 and
crop; larger frames would cross the process border for nothing), never enlarged. Colours: BT.709 from 720 lines up
and BT.601 below where the stream does not say. Interlaced frames are not split: scaling down averages both fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from streamproc.adapters.av_sound import SoundTrack
from streamproc.adapters.media_plan import MediaLimits, PacketInfo, Segment, Timeline, choose_frames, refuse_beyond
from streamproc.core.clip import ClipFrames, ClipMedia, Waveform
from streamproc.core.span import Span
from streamproc.errors import BadMessage

SHORTER_SIDE: Final = 256
MAX_ASPECT: Final = 4.0
"""A frame longer than this is squeezed to it: no camera makes one, and it would cost memory."""

VIDEO_CODECS: Final = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "mpeg4", "mpeg2video"})
AUDIO_CODECS: Final = frozenset({"aac", "opus", "mp3", "mp2", "ac3", "eac3", "vorbis", "flac"})
DECODERS: Final = ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS | {"libdav1d", "mp3float", "mp2float"}))
"""FFmpeg's names of the decoders that may ever be opened, the probe included."""

RECOGNISED: Final = (
    (b"FLV", "FLV"),
    (b"OggS", "Ogg"),
    (b"RIFF", "RIFF (AVI, WAV)"),
    (b"#EXTM3U", "a playlist"),
    (b"\x30\x26\xb2\x75", "ASF"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"ID3", "MP3"),
    (b"fLaC", "FLAC"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x00\x00\x01\xba", "MPEG-PS"),
)
MP4_BOXES: Final = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"mdat", b"free", b"skip", b"emsg", b"prft"})
TS_PACKET: Final = 188

UNSPECIFIED_MATRIX: Final = 2  # of AVColorSpace

AROUND_S: Final = 0.5
"""Sound this far outside the span is still decoded: what a decoder and a resampler warm up on."""


class Readable(Protocol):
    """A seekable binary file; `len` is not needed."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


Allocate = Callable[[tuple[int, ...], type[np.generic]], NDArray[np.generic]]
"""Where results are written: the child hands out shared memory."""


S = TypeVar("S", av.VideoStream, av.AudioStream)


@dataclass(frozen=True, kw_only=True)
class Track(Generic[S]):
    """One stream of the container and its packets, in file order, times from the first key frame on."""

    stream: S
    packets: list[Packet[Any]] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def infos(self) -> list[PacketInfo]:
        """What choose_frames looks at."""
        return [PacketInfo(at_s=at_s, key=p.is_keyframe) for at_s, p in zip(self.at_s, self.packets, strict=True)]

    def pixel_aspect(self) -> float:
        """The container's word, else the decoder's, which has one only once it has decoded; 1 without either."""
        stream: Any = self.stream
        return float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)


def sniff(head: bytes) -> str:
    """FFmpeg's name of the only demuxer that may see these bytes; the first 400 are enough.

    BadMessage: unsupported_media for a format that is known but not opened, undecodable_media for none at all.
    Nothing is probed by trying: playlists and other formats that open further files must never be reached.
    """
    if head[4:8] in MP4_BOXES:
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head[:1] == b"\x47" and (len(head) <= TS_PACKET or head[TS_PACKET : TS_PACKET + 1] == b"\x47"):
        return "mpegts"
    for magic, name in RECOGNISED:
        if head.startswith(magic):
            raise BadMessage("unsupported_media", f"{name} is not opened; send MPEG-TS, MP4 or WebM")
    raise BadMessage("undecodable_media", f"neither MPEG-TS, MP4 nor WebM: starts with {head[:8].hex() or 'nothing'}")


def decode(
    source: Readable,
    *,
    size_bytes: int,
    span: Span,
    frame_interval_ms: int,
    max_frames: int,
    limits: MediaLimits | None = None,
    allocate: Allocate = np.zeros,
) -> ClipMedia:
    """Frames and sound of one chunk. The first key frame (or sample where there is no video) is `span.start_ms`;
    what lies outside the span is left out. The waveform covers the span exactly, silence where the chunk has none.

    BadMessage: unsupported_media, undecodable_media, media_limits.
    """
    limits = limits or MediaLimits()
    refuse_beyond("bytes", size_bytes, limits.max_bytes)
    head = source.read(400)
    source.seek(0)
    container_format = sniff(head)
    with open_container(source, container_format, limits) as container:
        video, audio = read_tracks(container, limits)
        frames = _frames(video, span, frame_interval_ms, max_frames, limits, allocate)
        samples = sound_of(audio, span.duration_ms)
        if len(frames.at_ms) == 0 and samples is None:
            raise BadMessage("undecodable_media", f"nothing in this {container_format} decodes")
        return ClipMedia(
            frames=frames,
            waveform=None if samples is None else Waveform(samples=samples, start_ms=span.start_ms),
            codecs=codec_names(video, audio),
        )


def codec_names(*tracks: Track[av.VideoStream] | Track[av.AudioStream] | None) -> tuple[str, ...]:
    """The codecs of those that are there."""
    return tuple(track.stream.codec_context.codec.canonical_name for track in tracks if track is not None)


def open_container(
    source: Readable, container_format: str, limits: MediaLimits | None = None
) -> av.container.InputContainer:
    """The container behind these bytes, probed within limits; the caller closes it. BadMessage: undecodable_media."""
    limits = limits or MediaLimits()
    try:
        return av.open(
            source,
            "r",
            format=container_format,
            buffer_size=2**17,
            options={
                "max_pixels": str(limits.max_pixels),
                "codec_whitelist": DECODERS,
                "max_streams": str(limits.max_streams),
                "threads": "1",
                # What a plan needs is in the parsers' hands: no frame is decoded, no rate guessed (13 ms become 3).
                "skip_frame": "all",
                "fpsprobesize": "0",
            },
        )
    except (av.FFmpegError, ValueError, LookupError, AttributeError, OSError, MemoryError) as error:
        raise BadMessage("undecodable_media", f"{container_format} cannot be opened: {error}") from error


# --- demux --------------------------------------------------------------------------------------------------------


def read_tracks(
    container: av.container.InputContainer, limits: MediaLimits
) -> tuple[Track[av.VideoStream] | None, Track[av.AudioStream] | None]:
    """The chosen video and audio track with their packets, one of them at least; times in seconds from the first key
    frame. BadMessage: unsupported_media, undecodable_media, media_limits."""
    refuse_beyond("streams", len(container.streams), limits.max_streams)
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    video = _best(pictures)
    audio = _best(list(container.streams.audio))
    if video is None and audio is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
        raise BadMessage("undecodable_media", f"holds neither video nor sound: {kinds}")
    tracks: dict[int, Track[av.VideoStream] | Track[av.AudioStream]] = {}
    if video is not None:
        _refuse_unknown("video", video.stream, VIDEO_CODECS)
        context = video.stream.codec_context
        refuse_beyond("pixels", context.width * context.height, limits.max_pixels)
        context.options = {"max_pixels": str(limits.max_pixels)}  # a picture may claim another size than its container
        tracks[video.stream.index] = video
    if audio is not None:
        _refuse_unknown("audio", audio.stream, AUDIO_CODECS)
        tracks[audio.stream.index] = audio
    wanted = [track.stream for track in tracks.values()]
    timeline = Timeline()
    count = 0
    try:
        for packet in container.demux(*wanted):
            if packet.size == 0:  # PyAV's mark for the end of a stream
                continue
            count += 1
            refuse_beyond("packets", count, limits.max_packets)
            track = tracks[packet.stream_index]
            time_base = float(track.stream.time_base or 0)
            dts_s = None if packet.dts is None else packet.dts * time_base
            offset_s = timeline.offset_s(packet.stream_index, dts_s, (packet.duration or 0) * time_base)
            stamp = packet.dts if packet.pts is None else packet.pts
            previous_s = track.at_s[-1] if track.at_s else 0.0
            track.at_s.append(previous_s if stamp is None else stamp * time_base + offset_s)
            track.packets.append(packet)
    except (av.FFmpegError, ValueError, LookupError, AttributeError, MemoryError) as error:
        # A container that ends in the middle or lies further on: what came before is still good.
        if not any(track.packets for track in tracks.values()):
            raise BadMessage("undecodable_media", f"no packet can be read: {error}") from error
    for track in tracks.values():
        if track.at_s:
            refuse_beyond("seconds of media", max(track.at_s) - min(track.at_s), limits.max_duration_s)
    if video is not None and not video.packets:
        video = None
    if audio is not None and not audio.packets:
        audio = None
    if video is None and audio is None:
        raise BadMessage("undecodable_media", "not a single video or audio packet")
    origin_s = _origin_s(video or audio)
    for track in tracks.values():
        track.at_s[:] = [at_s - origin_s for at_s in track.at_s]
    return video, audio


def _best(streams: Sequence[S]) -> Track[S] | None:
    """The one marked as default, else the first."""
    best = min(streams, key=lambda s: (not s.disposition & av.stream.Disposition.default, s.index), default=None)
    return None if best is None else Track(stream=best)


def _refuse_unknown(kind: str, stream: av.VideoStream | av.AudioStream, known: frozenset[str]) -> None:
    # PyAV gives no context, against its stubs, for a codec that FFmpeg has no decoder of.
    context: Any = stream.codec_context
    name = "unknown" if context is None else context.codec.canonical_name
    if name not in known:
        raise BadMessage("unsupported_media", f"{kind} codec {name} is not opened")


def _origin_s(track: Track[av.VideoStream] | Track[av.AudioStream] | None) -> float:
    """The time of the first key frame, or of the first packet where there is none."""
    if track is None:
        return 0.0
    keys = (at_s for at_s, packet in zip(track.at_s, track.packets, strict=True) if packet.is_keyframe)
    return next(keys, track.at_s[0])


# --- pictures -----------------------------------------------------------------------------------------------------


def _frames(
    video: Track[av.VideoStream] | None,
    span: Span,
    frame_interval_ms: int,
    max_frames: int,
    limits: MediaLimits,
    allocate: Allocate,
) -> ClipFrames:
    if video is None or max_frames < 1:
        return ClipFrames(pixels=np.zeros((0, 0, 0, 3), dtype=np.uint8), at_ms=())
    segments = choose_frames(
        video.infos(), duration_ms=span.duration_ms, frame_interval_ms=frame_interval_ms, max_frames=max_frames
    )
    canvas = _Canvas(sum(len(segment.wanted) for segment in segments), video, allocate)
    budget = limits.max_decoded_frames
    for segment in segments:
        budget -= _decode_segment(video, segment, canvas, budget)
    order = sorted(range(len(canvas.at_s)), key=canvas.at_s.__getitem__)
    at_ms = tuple(span.start_ms + round(canvas.at_s[index] * 1000) for index in order)
    pixels = canvas.pixels[: len(order)]
    if order != sorted(order):
        pixels[:] = pixels[order]
    return ClipFrames(pixels=pixels, at_ms=at_ms)


def _decode_segment(video: Track[av.VideoStream], segment: Segment, canvas: _Canvas, budget: int) -> int:
    """Feeds one segment to a clean decoder and draws the wanted frames; says how many packets it fed.

    Where a wanted frame does not come out whole, the last good one before it stands in for it.
    """
    context, packets = video.stream.codec_context, video.packets
    wanted = {packets[index].pts if packets[index].pts is not None else packets[index].dts for index in segment.wanted}
    at_s_of = {
        packets[index].pts if packets[index].pts is not None else packets[index].dts: video.at_s[index]
        for index in range(segment.first, segment.last + 1)
    }
    key_s = video.at_s[segment.first]
    targets = set(segment.wanted)
    spare: av.VideoFrame | None = None
    drawn = fed = 0
    for index in [*range(segment.first, segment.last + 1), None]:
        if index is not None:
            if video.at_s[index] < key_s or fed >= budget:
                continue  # a leading picture of an open GOP
            context.skip_frame = "DEFAULT" if index in targets else "NONREF"
            fed += 1
        for frame in _decoded(context, None if index is None else packets[index]):
            if frame.is_corrupt:
                continue
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp in wanted:
                canvas.draw(frame, at_s_of.get(stamp, key_s))
                drawn += 1
                spare = None
            else:
                spare = frame
    if drawn < len(wanted) and spare is not None:
        canvas.draw(spare, at_s_of.get(spare.pts if spare.pts is not None else spare.dts, key_s))
    context.flush_buffers()
    return fed


def _decoded(context: av.VideoCodecContext, packet: Packet[Any] | None) -> Iterable[av.VideoFrame]:
    try:
        return context.decode(packet)
    except Exception:  # noqa: BLE001  # a corrupt packet gives any of a dozen kinds (notes/media.md 4): it costs itself
        return ()


class _Canvas:
    """Draws frames of any size, shape and rotation into one array (F, H, W, 3)."""

    def __init__(self, capacity: int, video: Track[av.VideoStream], allocate: Allocate) -> None:
        self._capacity = capacity
        self._video = video
        self._allocate = allocate
        self._reformatter = VideoReformatter()
        self.pixels: NDArray[np.uint8] = np.zeros((0, 0, 0, 3), dtype=np.uint8)
        self.at_s: list[float] = []

    def draw(self, frame: av.VideoFrame, at_s: float) -> None:
        """The first frame sets the size; one of another shape is fitted into it with black bars."""
        if len(self.at_s) >= max(self._capacity, 1) or at_s in self.at_s:
            return
        width, height = display_size(frame.width, frame.height, frame.rotation, self._video.pixel_aspect())
        if len(self.pixels) == 0:
            allocated = self._allocate((self._capacity, height, width, 3), np.uint8)
            self.pixels = allocated.view(np.uint8)
        full_height, full_width = self.pixels.shape[1:3]
        scale = min(full_width / width, full_height / height)
        width, height = min(full_width, round(width * scale)), min(full_height, round(height * scale))
        upright = self._upright(frame, width, height)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        target = self.pixels[len(self.at_s)]
        if (height, width) != (full_height, full_width):
            target[:] = 0
        target[top : top + height, left : left + width] = upright
        self.at_s.append(at_s)

    def _upright(self, frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
        """(height, width, 3): scaled first, since turning the small picture is cheaper."""
        quarter_turns = round(frame.rotation / 90) % 4
        coded = (height, width) if quarter_turns % 2 else (width, height)
        rgb = self._reformatter.reformat(
            frame,
            width=coded[0],
            height=coded[1],
            format="rgb24",
            interpolation="BICUBIC",
            src_colorspace=_colour_matrix(frame),
            dst_color_range="JPEG",
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)[: coded[1], : coded[0] * 3]
        return np.rot90(rows.reshape(coded[1], coded[0], 3), quarter_turns)


def display_size(width: int, height: int, rotation: int, pixel_aspect: float) -> tuple[int, int]:
    """(width, height) to show it at: square pixels, upright, the shorter side at most `SHORTER_SIDE`.

    `pixel_aspect` is how much wider than high one pixel is; nonsense counts as 1.
    """
    aspect = pixel_aspect if 0.2 < pixel_aspect < 5 else 1.0
    wide, high = width * max(aspect, 1.0), height / min(aspect, 1.0)
    if round(rotation / 90) % 2:
        wide, high = high, wide
    scale = min(1.0, SHORTER_SIDE / min(wide, high))
    longest = MAX_ASPECT * min(wide, high) * scale
    return max(1, round(min(wide * scale, longest))), max(1, round(min(high * scale, longest)))


def _colour_matrix(frame: av.VideoFrame) -> Colorspace | None:
    if frame.colorspace != UNSPECIFIED_MATRIX:
        return None
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


# --- sound --------------------------------------------------------------------------------------------------------


def sound_of(audio: Track[av.AudioStream] | None, duration_ms: int) -> NDArray[np.float32] | None:
    """(16 * duration_ms,) float32, None without a single decodable frame in the span."""
    if audio is None or duration_ms <= 0:
        return None
    stream = audio.stream
    track = SoundTrack()
    time_base = float(stream.time_base or 0)
    for index, packet in enumerate([*audio.packets, None]):
        if packet is not None and not -AROUND_S < audio.at_s[index] < duration_ms / 1000 + AROUND_S:
            continue
        try:
            frames = stream.codec_context.decode(packet)
        except Exception:  # noqa: BLE001, S112  # as for pictures: the packet is lost, the silence shows it
            continue
        for frame in frames:
            at_s = None
            if packet is not None and packet.pts is not None and frame.pts is not None:
                at_s = audio.at_s[index] + (frame.pts - packet.pts) * time_base
            track.add(frame, at_s)
    return track.between(duration_ms)
