"""Any media to chunks that decode alone, cut on key frames, without re-encoding.

**Sound is continuous over borders.** A decoder needs packets before the first one whose sound is right (AAC and
AC-3 overlap with the packet before, Opus converges within 80 ms, MP3 borrows bits from earlier packets). So a chunk
carries the audio packets of its own time and `AUDIO_LEAD_S` before and `AUDIO_TAIL_S` after it; the opener cuts what
it decodes to the span. Cost: about 0.26 s of audio packets per chunk, 4 KB at 128 kbit/s.

**Times inside a chunk** start at `BASE_S`: the first picture lies exactly there and sound relative to it, so that
stream time = start_ms + (pts - BASE_S). `start_ms` is rounded to a millisecond; pictures move by that half a
millisecond at most, sound does not move at all.

**Open GOP.** Pictures that are shown before the key frame they follow need the chunk before; they are left out
(two or three frames per border), which no other picture depends on.

Container: MP4 stays MP4 (display rotation lives in it); anything else becomes MPEG-TS where its codecs may live
there, else MP4 (Opus, VP9, AV1, MJPEG), else WebM or Matroska, whose clock of 1 ms moves sound by as much at borders.
One picture and one sound track are carried. The same file gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import av
import structlog
from av.packet import Packet

from streamproc.adapters.media_plan import Timeline

MIN_CHUNK_S: Final = 1.0
MAX_CHUNK_S: Final = 10.0
AUDIO_LEAD_S: Final = 0.2
AUDIO_TAIL_S: Final = 0.06
BASE_S: Final = 1
"""Seconds at which a chunk's own clock starts: room for the sound before it and for decode times."""

TICKS_HZ: Final = 90_000

LATE_S: Final = 1.5
"""How far one track may run ahead of the other before a chunk goes out without the rest of that one: sound that comes
too late for a chunk that is due, or pictures that have stopped while a chunk is as long as it may be."""

STEP_S: Final = 0.04

KEY_SLACK_S: Final = 0.02
"""A key frame this much before the target is on it: stamps are rounded."""

FIRST_KEY_WAIT_S: Final = 10.0
"""How much sound is kept while no key frame has come; after that the chunks begin with it, without pictures."""

MAX_EARLY: Final = 5_000
"""Packets kept meanwhile at most."""

MAX_PENDING_BYTES: Final = 256 * 2**20

TS_CODECS: Final = frozenset({"h264", "hevc", "mpeg2video", "aac", "mp3", "mp2", "ac3", "eac3"})
MP4_CODECS: Final = frozenset({"h264", "hevc", "av1", "vp9", "mjpeg", "mpeg4", "aac", "opus", "mp3", "ac3", "flac"})
WEBM_CODECS: Final = frozenset({"vp8", "vp9", "av1", "opus", "vorbis"})
CONTENT_TYPES: Final = {
    "mpegts": "video/mp2t",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "matroska": "video/x-matroska",
}

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One chunk's bytes and its place in stream time."""

    media: bytes
    content_type: str
    start_ms: int
    duration_ms: int
    last: bool  # the input, or this part of it, ended here
    part: int = 0  # rises where the input's clock was set anew; stream time is then 0 again


@dataclass(slots=True)
class _Packet:
    """A packet and its place, seconds from the first key frame of the input."""

    packet: Packet[Any]
    at_s: float
    dts_s: float | None  # Matroska has none for the first packets of a reordered stream
    duration_s: float


class _SoundClock:
    """The time of each sound packet by counting samples, drawn slowly to its stamps.

    Stamps may be rounded to a millisecond (Matroska, FLV): placed by them, chunks would not join. A clock that
    drifts is followed within seconds; a step over `STEP_S` is a hole and is kept.
    """

    def __init__(self, stream: av.AudioStream | None) -> None:
        context = None if stream is None else stream.codec_context
        rate_hz = context.sample_rate if context is not None else 0
        self._frame_s = context.frame_size / rate_hz if context is not None and rate_hz else 0.0
        self._next_s = 0.0
        self._count = 0

    def smoothed_s(self, at_s: float, duration_s: float) -> float:
        """Call once per packet, in order."""
        if self._count == 0 or abs(at_s - self._next_s) > STEP_S:
            self._count, self._next_s = 0, at_s
        self._next_s += (at_s - self._next_s) * max(0.02, 1 / (self._count + 1))
        self._count += 1
        smoothed_s = self._next_s
        exact = abs(self._frame_s - duration_s) < 0.002
        self._next_s += self._frame_s if exact else duration_s
        return smoothed_s


@dataclass
class _Pending:
    """What was read and not yet cut off."""

    pictures: list[_Packet] = field(default_factory=list)  # in decode order, from the key frame of the open chunk on
    sound: deque[_Packet] = field(default_factory=deque)
    size_bytes: int = 0
    video_end_s: float = 0.0
    audio_end_s: float = 0.0


class MediaCutter:
    """Cuts one open input. Iterate `chunks` once; it reads on as it is asked for more."""

    def __init__(self, container: av.container.InputContainer, *, target_ms: int = 2_000) -> None:
        """Raises ValueError where there is neither picture nor sound that can be carried."""
        self._container = container
        self._target_s = target_ms / 1000
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        self._video = min(pictures, key=_preference, default=None)
        self._audio = min(container.streams.audio, key=_preference, default=None)
        if self._video is None and self._audio is None:
            raise ValueError("holds neither picture nor sound")
        self.format = self._container_for()
        self.failure: av.FFmpegError | None = None  # why reading ended before the input's end
        self._origin_s: float | None = None
        self._start_s = 0.0
        self._part = 0
        self._pending = _Pending()

    @property
    def read_s(self) -> float:
        """How far the input was read, in the time of its chunks."""
        return max(self._pending.video_end_s, self._pending.audio_end_s)

    def chunks(self) -> Iterator[Cut]:
        """Chunks in order, without holes in time. Each waits for the key frame that ends it, and the last for the
        end of the input. Where the input cannot be read on, it ends there and `failure` says why."""
        for found in self._packets():
            if found is None:
                yield from self._rest()
                self._pending, self._start_s = _Pending(), 0.0
                self._part += 1
                continue
            item, is_picture = found
            pending = self._pending
            pending.size_bytes += item.packet.size
            if pending.size_bytes > MAX_PENDING_BYTES:
                raise ValueError(f"over {MAX_PENDING_BYTES >> 20} MiB without a place to cut")
            if is_picture:
                opens = item.packet.is_keyframe and self._may_open(item.at_s)
                # Without sound a chunk of what nobody can decode is still one that takes its time.
                if opens or pending.pictures or self._audio is None:
                    pending.pictures.append(item)
                pending.video_end_s = max(pending.video_end_s, item.at_s + item.duration_s)
            else:
                pending.sound.append(item)
                pending.audio_end_s = max(pending.audio_end_s, item.at_s + item.duration_s)
            while (end_s := self._next_cut_s()) is not None:
                yield self._cut(end_s, last=False)
        yield from self._rest()

    # --- reading ---

    def _demuxed(self) -> Iterator[Packet[Any]]:
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        try:
            packets = (packet for packet in self._container.demux(*streams) if packet.size)
            yield from packets if self._video is None else with_first_stamped(packets, self._video)
        except av.FFmpegError as failure:
            self.failure = failure

    def _packets(self) -> Iterator[tuple[_Packet, bool] | None]:
        """Packets, and whether each is a picture, on one clock that is 0 at the first key frame; nothing from before
        it. None where the input's clock was set anew: what follows begins at 0 again."""
        timeline = Timeline()
        sound_clock = _SoundClock(self._audio)
        early: list[_Packet] = []  # sound read before the first key frame shows where 0 is
        resets = 0
        for packet in self._demuxed():
            time_base = float(packet.stream.time_base or packet.time_base)
            is_picture = packet.stream is self._video or packet.stream_index == getattr(self._video, "index", -1)
            dts = packet.dts
            stamp = dts if packet.pts is None else packet.pts
            if stamp is None:
                continue
            duration_s = (packet.duration or 0) * time_base
            if is_picture and duration_s == 0 and self._video is not None:
                duration_s = float(1 / (self._video.average_rate or 25))
            dts_s = None if dts is None else dts * time_base
            offset_s = timeline.offset_s(packet.stream_index, dts_s, duration_s)
            at_s = stamp * time_base + offset_s
            if not is_picture:
                at_s = sound_clock.smoothed_s(at_s, duration_s)
            item = _Packet(packet, at_s, None if dts_s is None else dts_s + offset_s, duration_s)
            if timeline.resets > resets:
                resets = timeline.resets
                if self._origin_s is not None:
                    yield None
                self._origin_s, early = None, []
            if self._origin_s is None:
                origin_s = at_s
                if not is_picture and self._video is not None:
                    early.append(item)
                    if at_s - early[0].at_s < FIRST_KEY_WAIT_S and len(early) < MAX_EARLY:
                        continue
                    log.warning("no_key_frame", waited_s=round(at_s - early[0].at_s, 1))
                    origin_s = early[0].at_s
                    early.pop()
                elif not packet.is_keyframe:
                    continue
                self._origin_s = origin_s
                for sound in early:
                    yield _moved(sound, -origin_s), False
            yield _moved(item, -self._origin_s), is_picture

    # --- where to cut ---

    def _next_cut_s(self) -> float | None:
        """Where the open chunk ends, once that is known and its sound is there."""
        pending = self._pending
        if self._video is None:
            ready = pending.audio_end_s >= self._start_s + self._target_s + AUDIO_TAIL_S
            return self._start_s + self._target_s if ready else None
        limit_s = self._start_s + MAX_CHUNK_S
        keys = [item.at_s for item in pending.pictures if item.packet.is_keyframe and item.at_s > self._start_s]
        end_s = next((key for key in keys if key >= self._soonest_s()), None)
        if end_s is None and max(pending.video_end_s, pending.audio_end_s - LATE_S) <= limit_s:
            return None
        if end_s is None or end_s > limit_s:  # key frames are rarer than a chunk may be long
            early = [key for key in keys if self._start_s + MIN_CHUNK_S <= key <= limit_s]
            end_s = early[-1] if early else limit_s
        sound_waits = (
            self._audio is not None
            and pending.audio_end_s < end_s + AUDIO_TAIL_S
            and pending.video_end_s < end_s + LATE_S
        )
        return None if sound_waits else end_s

    def _has_pictures(self) -> bool:
        """Whether the open chunk begins with a key frame: one that does not has no picture that can be decoded."""
        first = next(iter(self._pending.pictures), None)
        return first is not None and first.packet.is_keyframe and first.at_s < self._start_s + KEY_SLACK_S

    def _soonest_s(self) -> float:
        """Where the open chunk may end at a key frame: one without pictures ends where there are some again."""
        return self._start_s - KEY_SLACK_S + (self._target_s if self._has_pictures() else MIN_CHUNK_S)

    def _may_open(self, key_s: float) -> bool:
        """Whether a key frame here opens this chunk or, as far behind its start as a chunk must be long, the next."""
        into_s = key_s - self._start_s
        return abs(into_s) < KEY_SLACK_S or into_s >= MIN_CHUNK_S - KEY_SLACK_S

    def _rest(self) -> Iterator[Cut]:
        """What is left when the input has ended."""
        pending = self._pending
        if self._origin_s is None:
            return
        end_s = max(pending.video_end_s, min(pending.audio_end_s, pending.video_end_s + MAX_CHUNK_S))
        if self._video is None:
            end_s = pending.audio_end_s
        while True:
            keys = [item.at_s for item in pending.pictures if item.packet.is_keyframe]
            due = [key for key in keys if key >= self._soonest_s()]
            limit_s = self._start_s + MAX_CHUNK_S
            cut_s = min(due[0] if due else end_s, limit_s, end_s)
            if self._video is None:
                cut_s = min(self._start_s + self._target_s, end_s)
            if round(cut_s * 1000) >= round(end_s * 1000):
                break
            yield self._cut(cut_s, last=False)
        if round(end_s * 1000) > round(self._start_s * 1000):
            yield self._cut(end_s, last=True)

    def _cut(self, end_s: float, *, last: bool) -> Cut:
        """Writes the open chunk, [start, end), and opens the next one."""
        pending, start_s, has_pictures = self._pending, self._start_s, self._has_pictures()
        self._start_s = end_s
        following = next(
            (
                index
                for index, item in enumerate(pending.pictures)
                if item.packet.is_keyframe and item.at_s >= end_s - 1e-6 and self._may_open(item.at_s)
            ),
            len(pending.pictures),
        )
        pictures = [item for item in pending.pictures[:following] if item.at_s < end_s or last]
        if has_pictures:
            pictures = _without_leading(pictures)
        else:
            pictures = list(itertools.takewhile(lambda item: not item.packet.is_keyframe, pictures))
        # A chunk cut for its length in the middle of a GOP leaves pictures that no chunk can decode.
        pending.pictures = pending.pictures[following:]
        # Who opens a chunk takes its first picture as its start, else its first sound: then nothing may lie before it.
        sound = [
            item
            for item in pending.sound
            if item.at_s < end_s + AUDIO_TAIL_S
            and (
                item.at_s + item.duration_s > start_s - AUDIO_LEAD_S
                if pictures
                else item.at_s + item.duration_s / 2 > start_s
            )
        ]
        start_ms, end_ms = round(start_s * 1000), round(end_s * 1000)
        media = self._mux(pictures, sound, start_ms / 1000)
        while pending.sound and pending.sound[0].at_s + pending.sound[0].duration_s < end_s - AUDIO_LEAD_S:
            pending.sound.popleft()
        pending.size_bytes = sum(item.packet.size for item in pending.pictures) + sum(
            item.packet.size for item in pending.sound
        )
        return Cut(
            media=media,
            content_type=CONTENT_TYPES[self.format],
            start_ms=start_ms,
            duration_ms=end_ms - start_ms,
            last=last,
            part=self._part,
        )

    # --- writing ---

    def _container_for(self) -> str:
        """FFmpeg's name of the muxer that carries these codecs, the input's own where it can."""
        names = {stream.codec_context.codec.canonical_name for stream in (self._video, self._audio) if stream}
        if names <= TS_CODECS and "mp4" not in self._container.format.name:
            return "mpegts"
        if names <= MP4_CODECS:
            return "mp4"
        return "webm" if names <= WEBM_CODECS else "matroska"

    def _mux(self, pictures: list[_Packet], sound: list[_Packet], start_s: float) -> bytes:
        file = io.BytesIO()
        options = {"fflags": "+bitexact"}
        if self.format == "mpegts":
            # One PAT and PMT at the start is all that a chunk needs; times are ours.
            options |= {"mpegts_copyts": "1", "pat_period": "60"}
        if self.format == "mp4":
            # Edit lists place sound against pictures in this unit; the default of 1 ms would be heard at borders.
            options |= {"movie_timescale": str(TICKS_HZ)}
        with av.open(file, "w", format=self.format, options=options) as output:
            tracks = [(self._video, pictures), (self._audio, sound)]
            # A chunk from the middle of a GOP that is too long has no picture track at all.
            carried = [(stream, items) for stream, items in tracks if stream is not None and items]
            if not carried:
                carried = [(stream, items) for stream, items in tracks if stream is not None][-1:]
            queue: list[tuple[float, Packet[Any]]] = []
            for stream, items in carried:
                theirs = output.add_stream_from_template(
                    stream, opaque=True
                )  # AV1 is read by a decoder that cannot write
                first_s = items[0].at_s if items and stream is self._video else start_s
                extradata = stream.codec_context.extradata if stream is self._video else None
                for item, dts_s in zip(items, decode_times_s(items), strict=True):
                    data = bytes(item.packet)
                    if item.packet.is_keyframe and extradata and self.format == "mpegts":
                        data = with_parameter_sets(data, extradata, stream.codec_context.codec.canonical_name)
                    queue.append((dts_s, _copy(item, data, theirs, first_s, dts_s)))
            for _, packet in sorted(queue, key=lambda entry: entry[0]):
                output.mux_one(packet)
        return file.getvalue()


def _preference(stream: av.VideoStream | av.AudioStream) -> tuple[bool, int]:
    """The track marked as default first, else the first."""
    return not stream.disposition & av.stream.Disposition.default, stream.index


def with_first_stamped(packets: Iterator[Packet[Any]], video: av.VideoStream) -> Iterator[Packet[Any]]:
    """The packets as they come, but the first picture always has a time.

    FFmpeg's parser loses that one where packets have no place in a file, as in RTSP, and it is the key frame that
    servers begin with. So what comes is held until a picture has a decode time: by then all pictures that are shown
    before that one are here, and the first picture is shown one frame before the earliest of them.
    """
    held: list[Packet[Any]] = []
    pictures: list[Packet[Any]] = []
    for packet in packets:
        held.append(packet)
        if packet.stream_index == video.index:
            pictures.append(packet)
        if len(held) == MAX_EARLY or (pictures and pictures[0].pts is not None):
            break
        if pictures and packet is pictures[-1] and packet.dts is not None:
            frame = packet.duration or round(1 / (video.average_rate or 25) / packet.time_base)
            pictures[0].pts = min(later.pts for later in pictures[1:] if later.pts is not None) - frame
            break
    yield from held
    yield from packets


def _moved(item: _Packet, by_s: float) -> _Packet:
    dts_s = None if item.dts_s is None else item.dts_s + by_s
    return _Packet(item.packet, item.at_s + by_s, dts_s, item.duration_s)


def _without_leading(pictures: list[_Packet]) -> list[_Packet]:
    """Without the pictures that follow the first key frame and are shown before it."""
    return [item for item in pictures if item.at_s >= pictures[0].at_s - 1e-6]


def decode_times_s(items: list[_Packet]) -> list[float]:
    """When to decode each: as stamped, and made up so that they rise and none is shown before where they are not."""
    stamped = [item.dts_s for item in items]
    if all(dts_s is None for dts_s in stamped):
        shown = sorted(item.at_s for item in items)
        ahead_s = max((at_s - item.at_s for at_s, item in zip(shown, items, strict=True)), default=0.0)
        return [at_s - ahead_s for at_s in shown]
    times: list[float] = []
    next_s = float("inf")
    for item, dts_s in zip(reversed(items), reversed(stamped), strict=True):
        next_s = min(item.at_s, next_s - 1 / TICKS_HZ) if dts_s is None else dts_s
        times.append(next_s)
    return times[::-1]


def _copy(
    item: _Packet, data: bytes, theirs: av.VideoStream | av.AudioStream, first_s: float, dts_s: float
) -> Packet[Any]:
    """The packet again with the chunk's own times: the source's stay as they are for the chunk that shares it."""
    packet: Packet[Any] = Packet(data)
    packet.stream = theirs
    packet.time_base = Fraction(1, TICKS_HZ)
    packet.pts = round((item.at_s - first_s + BASE_S) * TICKS_HZ)
    packet.dts = min(packet.pts, round((dts_s - first_s + BASE_S) * TICKS_HZ))
    packet.duration = round(item.duration_s * TICKS_HZ)
    packet.is_keyframe = item.packet.is_keyframe
    return packet


def with_parameter_sets(data: bytes, extradata: bytes, codec: str) -> bytes:
    """A key frame that a decoder can start on: with the stream's parameter sets where it has none of its own.

    Only for Annex B, the form inside MPEG-TS; where the input has another form its muxer adds them itself.
    """
    if not extradata.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")):
        return data
    types = [match[1][0] for match in re.finditer(rb"\x00\x00\x01(.)", data[:4096], re.DOTALL)]
    if codec == "h264" and all(kind & 0x1F != 7 for kind in types):
        return extradata + data
    if codec == "hevc" and all((kind >> 1) & 0x3F != 33 for kind in types):
        return extradata + data
    return data
