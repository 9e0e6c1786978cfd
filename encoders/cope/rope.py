"""Reader for ROPE's text files (notes/cope.md section 4): nine per split, comma separated, no header, any order.

Titles and speech hold commas, so rows are cut at the first comma only (frame files at the first two). The files were
documented for training only; other splits are expected under the same names with another prefix. At the full size of
ROPE (9 M clips) this takes tens of GB of memory once: read it, write shards (encoders.cope.shards), train from those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from encoders.cope.samples import BadRows, DomainName, Place, Sample, Samples, collected
from encoders.errors import DataRefused

PAIRS: dict[DomainName, str] = {
    "page": "product_pages_pair",
    "video": "product_videos_pair",
    "live": "product_lives_pair",
}
WORDS: dict[DomainName, str] = {"page": "page_titles", "video": "video_asrs", "live": "live_asrs"}
PICTURES: dict[DomainName, str] = {"page": "page_images", "video": "video_frames", "live": "live_clips"}


def read_rope(root: Path, *, split: str = "training", images: str = "images", limit: float = 0.01) -> Samples:
    """The samples of `root/<split>_*.txt`, pictures in `root/images`. Bad rows are named and left out; a sample whose
    pictures are all missing counts as one. Raises DataRefused if a file is missing or too many rows are bad."""
    bad = BadRows(root, limit=limit)
    folder = root / images
    if not folder.is_dir():
        raise DataRefused(folder, "no such folder of pictures")
    there = {path.name for path in folder.iterdir()}
    samples: list[Sample] = []
    rows = 0
    for domain in PAIRS:
        owners, paired = _owners(root / f"{split}_{PAIRS[domain]}.txt", bad)
        words, told = _words(root / f"{split}_{WORDS[domain]}.txt", bad)
        pictures, shown = _pictures(root / f"{split}_{PICTURES[domain]}.txt", domain, there, bad)
        rows += paired + told + shown
        for sample_id in sorted(pictures.keys() - owners.keys()):
            bad.add(f"{domain} {sample_id}", "no product")
        for sample_id, product_id in owners.items():
            names = pictures.get(sample_id)
            if not names:
                bad.add(f"{domain} {sample_id}", "no picture")
                continue
            places = tuple(Place(folder / name) for name in names)
            samples.append(Sample(domain, sample_id, product_id, places, words.get(sample_id, "")))
    return collected(samples, bad, rows)


def _rows(path: Path, fields: int, bad: BadRows) -> Iterator[tuple[str, list[str]]]:
    """(file:line, fields) of every row that has them all; a bad one comes with no fields."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path.name}:{number}"
                row = [field.strip() for field in line.split(",", fields - 1)]
                if len(row) < fields or not row[0]:
                    bad.add(where, f"not {fields} fields")
                    row = []
                yield where, row
    except OSError as error:
        raise DataRefused(path, error.strerror or str(error)) from error


def _owners(path: Path, bad: BadRows) -> tuple[dict[str, str], int]:
    """The product of each sample, and how many rows there were. Of several products the first one stays."""
    owners: dict[str, str] = {}
    count = 0
    for where, row in _rows(path, 2, bad):
        count += 1
        if not row:
            continue
        product_id, sample_id = row
        if owners.setdefault(sample_id, product_id) != product_id:
            bad.add(where, "second product of a sample")
    return owners, count


def _words(path: Path, bad: BadRows) -> tuple[dict[str, str], int]:
    words: dict[str, str] = {}
    count = 0
    for _, row in _rows(path, 2, bad):
        count += 1
        if row:
            words[row[0]] = row[1]
    return words, count


def _pictures(path: Path, domain: DomainName, there: set[str], bad: BadRows) -> tuple[dict[str, tuple[str, ...]], int]:
    """Names of the pictures of each sample, in order of time (frame number or epoch milliseconds)."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    count = 0
    for where, row in _rows(path, 2 if domain == "page" else 3, bad):
        count += 1
        if not row:
            continue
        sample_id, *when, name = row
        try:
            moment = int(when[0]) if when else 0
        except ValueError:
            bad.add(where, "time is no number")
            continue
        if name not in there:
            bad.add(where, "missing picture")
            continue
        found[sample_id].append((moment, name))
    if domain == "page":
        return {sample_id: (frames[0][1],) for sample_id, frames in found.items()}, count
    return {sample_id: tuple(name for _, name in sorted(frames)) for sample_id, frames in found.items()}, count
