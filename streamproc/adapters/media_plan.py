"""What a chunk holds, and which of it is worth decoding: decided from packets alone, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.errors import BadMessage

SAME_STREAM_JUMP_S = 10.0
"""A chunk lasts 10 s at most, so a longer step between neighbours is another clock, not a gap."""

BACKWARD_SLACK_S = 0.1
KNOWN_CLOCKS = 8
"""Clocks that a late track may still be on. Few: a hostile chunk may set its clock anew with every packet."""

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
        self.resets = 0  # a wrap is none

    def offset_s(self, track: int, dts_s: float | None, duration_s: float) -> float:
        """What to add to this packet's times. Call once per packet, in file order; without a decode time the
        packet is taken to be on the newest clock. A track that comes back after a pause is where the others are."""
        if dts_s is None:
            return self._offsets[-1]
        expected = self._next.get(track)
        if expected is None:
            offset = self._offsets[-1]
        else:
            offset = min(self._offsets, key=lambda known: abs(dts_s + known - expected))
            step = dts_s + offset - expected
            others = (at_s for other, at_s in self._next.items() if other != track)
            paused = step > 0 and any(abs(dts_s + offset - at_s) < SAME_STREAM_JUMP_S for at_s in others)
            if not paused and (step < -BACKWARD_SLACK_S or step > SAME_STREAM_JUMP_S):
                wrapped = offset + WRAP_S if abs(step + WRAP_S) < SAME_STREAM_JUMP_S else None
                offset = expected - dts_s if wrapped is None else wrapped
                self._offsets = [*self._offsets[1 - KNOWN_CLOCKS :], offset]
                self.resets += wrapped is None
        end_s = dts_s + offset + duration_s
        self._next[track] = end_s if expected is None else max(end_s, expected)
        return offset


def choose_frames(
    packets: Sequence[PacketInfo], *, duration_ms: int, frame_interval_ms: int, max_frames: int
) -> tuple[Segment, ...]:
    """One frame for each `frame_interval_ms` of the chunk: the key frame nearest to it, or where that is further than
    half an interval the nearest other frame. Wider intervals where they would be more than `max_frames`.

    A remainder under a quarter of an interval is left to the next chunk. Pictures shown before their key frame (open
    GOP) need the chunk before this one and are never chosen.
    """
    duration_s = duration_ms / 1000
    interval_s = max(frame_interval_ms / 1000, duration_s / max_frames)
    key_of = _key_frames(packets)  # of every packet that can be decoded from within this chunk
    wanted: dict[int, set[int]] = {}  # key index -> frames of its GOP
    number = 0
    while (target_s := number * interval_s) < duration_s and (number == 0 or target_s < duration_s - interval_s / 4):
        number += 1
        near = [
            (index != key_of[index], abs(packets[index].at_s - target_s), index)
            for index in key_of
            if target_s - interval_s / 2 <= packets[index].at_s < min(target_s + interval_s / 2, duration_s)
        ]
        if near:
            _, _, best = min(near)
            wanted.setdefault(key_of[best], set()).add(best)
    return tuple(Segment(first=key, wanted=tuple(sorted(wanted[key]))) for key in sorted(wanted))


def _key_frames(packets: Sequence[PacketInfo]) -> dict[int, int]:
    """For each packet from the first key frame on, without leading pictures, the key frame it is decoded from."""
    key_of: dict[int, int] = {}
    key = -1
    for index, packet in enumerate(packets):
        if packet.key:
            key = index
        if key >= 0 and packet.at_s >= packets[key].at_s:
            key_of[index] = key
    return key_of


def refuse_beyond(what: str, amount: float, limit: float) -> None:
    """Raises BadMessage(media_limits) where `amount` is over `limit`."""
    if amount > limit:
        raise BadMessage("media_limits", f"{what}: {amount:g}, at most {limit:g}")
