"""README's table of what media goes in, made of the fixture matrix that the tests open.

python -m tests.media.what_goes_in [--write README.md]
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

BEGIN: Final = "<!-- media:begin -->"
END: Final = "<!-- media:end -->"
MATRIX: Final = "tests.contract.test_media_opener"

CONTAINERS: Final = {
    "mpegts": "MPEG-TS",
    "mp4": "MP4",
    "fmp4": "fragmented MP4, init inside",
    "webm": "WebM",
    "matroska": "Matroska",
}
CODECS: Final = {
    "h264": "H.264",
    "h264-b": "H.264 with B-frames",
    "hevc": "HEVC",
    "mpeg2": "MPEG-2",
    "vp8": "VP8",
    "vp9": "VP9",
    "av1": "AV1",
    "mjpeg": "MJPEG",
    "aac": "AAC",
    "opus": "Opus",
    "mp3": "MP3",
    "mp2": "MP2",
    "ac3": "AC-3",
    "eac3": "E-AC-3",
    "flac": "FLAC",
}


def said(words: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = [str(word) for word in words]
    return f"{', '.join(first)} and {last}" if first else last


def table(matrix: ModuleType) -> str:
    """Markdown: containers by codecs, then what the marks `goes_in` say, by what they are about."""
    video_in: Mapping[str, Sequence[str]] = matrix.VIDEO_IN
    audio_in: Mapping[str, Sequence[str]] = matrix.AUDIO_IN
    pairs = sum(len(video_in[container]) * len(audio_in[container]) for container in video_in)
    lines = [f"| container | video | audio ({pairs} pairs, each opened by a test) |", "|---|---|---|"]
    for container, videos in video_in.items():
        names = [[CODECS[codec] for codec in codecs] for codecs in (videos, audio_in[container])]
        lines.append(f"| {CONTAINERS[container]} | {', '.join(names[0])} | {', '.join(names[1])} |")
    lines += ["", "| about | also right |", "|---|---|"]
    told: dict[str, list[str]] = {}
    for about, what in _marks(matrix):
        told.setdefault(about, []).append(what)
    lines += [f"| {about} | {'; '.join(whats)} |" for about, whats in told.items()]
    return "\n".join(lines) + "\n"


def rewritten(page: str, matrix: ModuleType) -> str:
    """`page` with the table between its markers made anew; it is up to date where that changes nothing. ValueError
    where it has no markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END} where the table goes")
    return f"{before}{begin}\n{table(matrix)}{end}{after}"


def _marks(matrix: ModuleType) -> Iterator[tuple[str, str]]:
    """What the tests' marks say, in the order of the module."""
    for test in vars(matrix).values():
        for mark in getattr(test, "pytestmark", ()):
            if mark.name == "goes_in":
                about, what = mark.args
                yield about, what


def main() -> None:
    """Prints the table, or writes it into a page."""
    parser = argparse.ArgumentParser(description="What media goes in, as the tests open it.")
    parser.add_argument("--write", type=Path, help="the page whose table is made anew")
    page: Path | None = parser.parse_args().write
    matrix = importlib.import_module(MATRIX)  # it names its own parts by `said`, so it cannot be imported above
    if page is None:
        print(table(matrix))  # noqa: T201
    else:
        page.write_text(rewritten(page.read_text(), matrix))


if __name__ == "__main__":
    main()
