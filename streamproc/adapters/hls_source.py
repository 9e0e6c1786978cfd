"""A live HLS playlist as runs of bytes that a demuxer reads: MPEG-TS or fMP4 segments one after another.

Own logic and not FFmpeg's demuxer, because that one hides what a chunk must tell: EXT-X-PROGRAM-DATE-TIME, and
segments that were missed. Not carried: encrypted segments and sound in a playlist of its own; both are Misconfigured
and named.
"""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urljoin, urlsplit

from streamproc.adapters.peekable import Peekable
from streamproc.errors import Misconfigured, Unavailable

TIMEOUT_S: Final = 10.0
MAX_PLAYLIST_BYTES: Final = 4 * 2**20
MAX_SEGMENT_BYTES: Final = 128 * 2**20
FROM_THE_END: Final = 3
"""Segments of a live playlist to begin with, as players do: fewer may vanish before they are read."""

ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One entry of a media playlist."""

    number: int  # media sequence number
    uri: str
    duration_s: float
    init_uri: str | None = None
    byte_range: tuple[int, int] | None = None  # first byte, length
    init_range: tuple[int, int] | None = None
    discontinuity: bool = False  # its clock or codec does not continue the one before
    captured_at: datetime | None = None  # EXT-X-PROGRAM-DATE-TIME


@dataclass(frozen=True, kw_only=True)
class Playlist:
    """A media playlist as it was at one moment."""

    segments: tuple[Segment, ...]
    target_s: float
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One entry of a master playlist."""

    uri: str
    bandwidth: int
    height: int  # 0 where it does not say
    own_sound: bool  # its sound lies in another playlist


def variants(text: str, url: str) -> tuple[Variant, ...]:
    """The variants of a master playlist; none for a media playlist."""
    renditions = {
        attributes["GROUP-ID"]
        for line in text.splitlines()
        if line.startswith("#EXT-X-MEDIA:") and (attributes := _attributes(line)).get("TYPE") == "AUDIO"
        and "URI" in attributes and "GROUP-ID" in attributes
    }  # fmt: skip
    found = []
    pending: dict[str, str] | None = None
    for line in text.splitlines():
        if line.startswith("#EXT-X-STREAM-INF:"):
            pending = _attributes(line)
        elif pending is not None and line.strip() and not line.startswith("#"):
            height = pending.get("RESOLUTION", "0x0").lower().partition("x")[2]
            found.append(
                Variant(
                    uri=urljoin(url, line.strip()),
                    bandwidth=int(pending.get("BANDWIDTH", "0")),
                    height=int(height or 0),
                    own_sound=pending.get("AUDIO") in renditions,
                )
            )
            pending = None
    return tuple(found)


def best_variant(found: tuple[Variant, ...], *, max_height: int) -> Variant:
    """The richest that is no higher than the towers profit from, else the poorest. Misconfigured: none with sound."""
    whole = [variant for variant in found if not variant.own_sound]
    if not whole:
        raise Misconfigured(
            "SOURCE", "every HLS variant has its sound in a playlist of its own; give one that has both"
        )
    fitting = [variant for variant in whole if variant.height <= max_height]
    return max(fitting, key=lambda v: v.bandwidth) if fitting else min(whole, key=lambda v: v.bandwidth)


def parse(text: str, url: str) -> Playlist:
    """A media playlist. Misconfigured for what is not carried; ValueError for what is no playlist."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        raise ValueError(f"{url} is no HLS playlist")
    number, target_s, ended = 0, 6.0, False
    duration_s, discontinuity, captured_at = 0.0, False, None
    init: tuple[str, tuple[int, int] | None] | None = None
    byte_range: tuple[int, int] | None = None
    next_byte: dict[str, int] = {}
    segments: list[Segment] = []
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name == "#EXT-X-MEDIA-SEQUENCE":
            number = int(value)
        elif name == "#EXT-X-TARGETDURATION":
            target_s = float(value)
        elif name == "#EXTINF":
            duration_s = float(value.partition(",")[0])
        elif name == "#EXT-X-DISCONTINUITY":
            discontinuity = True
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            captured_at = datetime.fromisoformat(value)
            captured_at = captured_at if captured_at.tzinfo else captured_at.replace(tzinfo=UTC)
        elif name == "#EXT-X-MAP":
            attributes = _attributes(line)
            init = urljoin(url, attributes["URI"]), _range(attributes.get("BYTERANGE", ""), 0)
        elif name == "#EXT-X-BYTERANGE":
            byte_range = _range(value, next_byte.get("", 0))
            next_byte[""] = sum(byte_range) if byte_range else 0
        elif name == "#EXT-X-KEY" and _attributes(line).get("METHOD", "NONE") != "NONE":
            raise Misconfigured("SOURCE", f"{url} is encrypted; encrypted HLS is not carried")
        elif name == "#EXT-X-ENDLIST":
            ended = True
        elif line and not line.startswith("#"):
            segments.append(
                Segment(
                    number=number,
                    uri=urljoin(url, line),
                    duration_s=duration_s,
                    init_uri=init[0] if init else None,
                    init_range=init[1] if init else None,
                    byte_range=byte_range,
                    discontinuity=discontinuity,
                    captured_at=captured_at,
                )
            )
            number, byte_range, discontinuity, captured_at = number + 1, None, False, None
    return Playlist(segments=tuple(segments), target_s=target_s, ended=ended)


def _attributes(line: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in ATTRIBUTE.findall(line.partition(":")[2])}


def _range(text: str, default_start: int) -> tuple[int, int] | None:
    if not text:
        return None
    length, _, start = text.partition("@")
    return int(start) if start else default_start, int(length)


Fetch = Callable[[str, tuple[int, int] | None, int], bytes]


def fetch(url: str, byte_range: tuple[int, int] | None, limit: int) -> bytes:
    """What the URL answers. FileNotFoundError for 404 and 410, else Unavailable."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise Misconfigured("SOURCE", f"{url}: HLS is read over http and https only")
    request = urllib.request.Request(url, headers={"User-Agent": "streamproc"})  # noqa: S310  # scheme checked above
    if byte_range is not None:
        request.add_header("Range", f"bytes={byte_range[0]}-{byte_range[0] + byte_range[1] - 1}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # same
            content: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {404, 410}:
            raise FileNotFoundError(url) from error
        raise Unavailable("source", f"{url}: HTTP {error.code}") from error
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise Unavailable("source", f"{url}: {error}") from error
    if len(content) > limit:
        raise Unavailable("source", f"{url}: over {limit >> 20} MiB")
    if byte_range is not None and answer.status == 200:  # the server does not know ranges
        content = content[byte_range[0] : byte_range[0] + byte_range[1]]
    return content


@dataclass
class Run(Peekable):
    """Segments that one demuxer may read one after another: a file object that ends where they end.

    `captured_at` (of the first byte) and what was missed hold once something was read; `why` once it has ended.
    """

    captured_at: datetime | None
    content: Iterator[bytes]
    missed: int = 0  # segments lost between the run before and this one
    missed_s: float = 0.0  # and how long they were
    why: str = ""  # discontinuity, missed, ended


class HlsSource:
    """Follows one playlist. `runs` blocks and belongs in a thread; `stop` ends it from another."""

    def __init__(self, url: str, *, max_height: int = 720, fetch_with: Fetch = fetch) -> None:
        self.url = url
        self._max_height = max_height
        self._fetch = fetch_with
        self._stopped = threading.Event()
        self._next: Segment | None = None  # fetched by the run before, but not its own
        self._number = -1  # of the segment read last
        self._missed, self._missed_s = 0, 0.0

    def stop(self) -> None:
        """The current run ends, and no other begins."""
        self._stopped.set()

    def runs(self) -> Iterator[Run]:
        """One run after another until the playlist has ended. Unavailable where it has not changed or could not be
        read for a minute."""
        segments = self._segments(self._media_playlist())
        first = next(segments, None)
        while first is not None and not self._stopped.is_set():
            run = Run(captured_at=first.captured_at, content=iter(()), missed=self._missed, missed_s=self._missed_s)
            self._next = None
            run.content = self._content(first, segments, run)
            yield run
            for _ in run.content:  # a reader may give up early
                pass
            first = self._next

    def _look(self) -> str:
        return self._fetch(self.url, None, MAX_PLAYLIST_BYTES).decode("utf-8", "replace")

    def _media_playlist(self) -> str | None:
        """Settles on a variant; the media playlist's text where that was had on the way."""
        text = self._look()
        found = variants(text, self.url)
        if not found:
            return text
        self.url = best_variant(found, max_height=self._max_height).uri
        return None

    def _segments(self, text: str | None) -> Iterator[Segment]:
        """Each new segment once, in order, as they appear; `text` is what the playlist said last."""
        patience_s, waited_s = 60.0, 0.0
        began = False
        while not self._stopped.is_set():
            try:
                playlist = parse(self._look() if text is None else text, self.url)
                text = None
            except (Unavailable, FileNotFoundError, ValueError) as why:
                text = None
                if waited_s >= patience_s:
                    raise Unavailable("source", f"{self.url}: {why}") from why
                waited_s += 1.0
                self._stopped.wait(1.0)
                continue
            if not began and not playlist.ended and len(playlist.segments) > FROM_THE_END:
                self._number = playlist.segments[-FROM_THE_END - 1].number
            if began and playlist.segments and playlist.segments[-1].number < self._number - len(playlist.segments):
                self._number = playlist.segments[0].number - 1  # the origin began to count anew
            fresh = [segment for segment in playlist.segments if segment.number > self._number]
            began = began or bool(fresh)
            yield from fresh
            if playlist.ended:
                return
            waited_s = 0.0 if fresh else waited_s + playlist.target_s / 2
            if waited_s >= patience_s:
                raise Unavailable("source", f"{self.url}: no new segment for {patience_s:.0f} s")
            self._stopped.wait(0.0 if len(fresh) > 1 else max(0.1, playlist.target_s / 2))

    def _content(self, first: Segment, segments: Iterator[Segment], run: Run) -> Iterator[bytes]:
        segment: Segment | None = first
        self._missed, self._missed_s = 0, 0.0
        init: tuple[str | None, tuple[int, int] | None] = (None, None)
        began = False
        while segment is not None and not self._stopped.is_set():
            missed = segment.number - self._number - 1 if self._number >= 0 and began else 0
            new_init = began and (segment.init_uri, segment.init_range) != init
            if began and (segment.discontinuity or missed or new_init or self._missed):
                self._missed += missed
                self._missed_s += missed * segment.duration_s
                run.why = "missed" if self._missed and not segment.discontinuity else "discontinuity"
                self._next = segment
                return
            self._number = segment.number
            content = self._whole(segment)
            if content is not None:
                if not began:
                    run.captured_at = segment.captured_at
                    if segment.init_uri is not None:
                        init = (segment.init_uri, segment.init_range)
                        yield self._fetch(segment.init_uri, segment.init_range, MAX_SEGMENT_BYTES)
                began = True
                yield content
            elif began:
                self._missed, self._missed_s = self._missed + 1, self._missed_s + segment.duration_s
            else:
                run.missed, run.missed_s = run.missed + 1, run.missed_s + segment.duration_s
            segment = next(segments, None)
        run.why = "ended"

    def _whole(self, segment: Segment) -> bytes | None:
        """Its bytes, tried three times; None where it is gone."""
        for attempt in range(3):
            try:
                return self._fetch(segment.uri, segment.byte_range, MAX_SEGMENT_BYTES)
            except FileNotFoundError:
                return None
            except Unavailable:
                self._stopped.wait(0.3 * 2**attempt)
        return None
