"""What a chunk holds, and which of it is worth decoding: decided from packets alone, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.errors import BadMessage

SAME_STREAM_JUMP_S = 10.0
"""A chunk lasts 10 s at most, so a longer step between neighbours is another clock, not a gap."""

BACKWARD_SLACK_S = 0.1
WRAP_S = 2**33 / 90_000
"""MPEG-TS counts 33 bits of 90 kHz: 26.5 hours."""


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """What one chunk may cost. Each is checked before the cost arises."""

    max_bytes: int = 64 * 2**20
    max_packets: int = 30_000
    max_streams: int = 16
    max_duration_s: float = 30.0  # of media inside, whatever its headers claim
    max_pixels: int = 4096 * 2304  # of one coded frame
    max_decoded_frames: int = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketInfo:
    """One video packet in decode order."""

    at_s: float  # presentation time from the first key frame on, the chunk's clock already made continuous
    key: bool


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Packets to feed to a fresh decoder: from a key frame to the last wanted frame, in decode order."""

    first: int  # index of the key packet
    wanted: tuple[int, ...]  # indices of the packets whose frames are kept, ascending

    @property
    def last(self) -> int:
        return self.wanted[-1]


class Timeline:
    """Makes the clock of a chunk continuous over a wrap or a reset of its timestamps, for all its tracks alike."""

    def __init__(self) -> None:
        self._offsets = [0.0]
        self._next: dict[int, float] = {}  # track -> where its next packet is expected
        self.resets = 0

    def offset_s(self, track: int, dts_s: float, duration_s: float) -> float:
        """What to add to this packet's times. Call once per packet, in file order."""
        expected = self._next.get(track)
        if expected is None:
            offset = self._offsets[-1]
        else:
            offset = min(self._offsets, key=lambda known: abs(dts_s + known - expected))
            step = dts_s + offset - expected
            if step < -BACKWARD_SLACK_S or step > SAME_STREAM_JUMP_S:
                wrapped = offset + WRAP_S if abs(step + WRAP_S) < SAME_STREAM_JUMP_S else None
                offset = expected - dts_s if wrapped is None else wrapped
                self._offsets.append(offset)
                self.resets += 1
        self._next[track] = max(dts_s + offset + duration_s, -BACKWARD_SLACK_S if expected is None else expected)
        return offset


def choose_frames(
    packets: Sequence[PacketInfo], *, duration_ms: int, frame_interval_ms: int, max_frames: int
) -> tuple[Segment, ...]:
    """Key frames at least `frame_interval_ms` apart, filled in with other frames where they are rarer.

    Frames lie in [0, duration_ms) from the first key frame on; at most `max_frames`, spread evenly. Pictures shown
    before their key frame (open GOP) need the chunk before this one and are never chosen.
    """
    duration_s = duration_ms / 1000
    interval_s = max(frame_interval_ms / 1000, duration_s / max_frames)
    gops: list[tuple[int, list[int]]] = []  # (key index, indices of frames that it alone makes decodable)
    for index, packet in enumerate(packets):
        if packet.key:
            gops.append((index, [index]))
        elif gops and packet.at_s >= packets[gops[-1][0]].at_s:
            gops[-1][1].append(index)
    segments: list[Segment] = []
    next_s = 0.0
    for number, (key, members) in enumerate(gops):
        start_s = packets[key].at_s
        end_s = min(duration_s, packets[gops[number + 1][0]].at_s if number + 1 < len(gops) else duration_s)
        if not -0.001 <= start_s < duration_s:
            continue
        in_time = [index for index in members if packets[index].at_s < end_s]
        wanted: list[int] = []
        target_s = next_s
        nearer_key = number + 1 < len(gops) and end_s <= next_s
        if start_s >= next_s - interval_s / 4 and not nearer_key:  # a little early is cheaper than from inside a GOP
            wanted.append(key)
            target_s = start_s + interval_s
        while target_s < end_s - interval_s / 4:  # one that falls shortly before the next key frame is left to that
            best = min(in_time, key=lambda index: (abs(packets[index].at_s - target_s), index))
            if best not in wanted:
                wanted.append(best)
            target_s = max(target_s, packets[best].at_s) + interval_s
        next_s = target_s
        if wanted:
            segments.append(Segment(first=key, wanted=tuple(sorted(wanted))))
    return _at_most(segments, max_frames)


def _at_most(segments: list[Segment], max_frames: int) -> tuple[Segment, ...]:
    """The same segments with evenly chosen frames left, where rounding gave a frame or two too many."""
    every = [(segment.first, index) for segment in segments for index in segment.wanted]
    if len(every) <= max_frames:
        return tuple(segments)
    kept = {every[number * len(every) // max_frames] for number in range(max_frames)}
    return tuple(
        Segment(first=segment.first, wanted=wanted)
        for segment in segments
        if (wanted := tuple(index for index in segment.wanted if (segment.first, index) in kept))
    )


def refuse_beyond(what: str, amount: float, limit: float) -> None:
    """Raises BadMessage(media_limits) where `amount` is over `limit`."""
    if amount > limit:
        raise BadMessage("media_limits", f"{what}: {amount:g}, at most {limit:g}")
