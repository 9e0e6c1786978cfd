"""A plain list of samples for data that is not ROPE: one JSON object a line.

    {"domain": "page", "id": "p1", "product_id": "mug", "pictures": ["p1.jpg"], "words": "Blue mug"}
    {"domain": "live", "id": "l7", "product_id": "mug", "pictures": ["l7/0.jpg", "l7/1.jpg"], "words": "look at this"}

Domains are page, video and live; paths are relative to the file; `words` may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from encoders.cope.samples import BadRows, DomainName, Place, Sample, Samples, collected
from encoders.errors import DataRefused

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line."""

    domain: DomainName
    id: Text
    product_id: Text
    pictures: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    words: str = ""


def read_manifest(path: Path, *, limit: float = 0.01) -> Samples:
    """The samples of a JSONL file. Bad lines (not JSON, an unknown key, an id twice, no picture there) are named and
    left out; a sample that lacks some of its pictures is named and goes on with the others. Raises
    DataRefused if the file is missing or too many are bad."""
    bad = BadRows(path, limit=limit)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataRefused(path, error.strerror or str(error)) from error
    samples = list(_samples(path, lines, bad))
    return collected(samples, bad, sum(1 for line in lines if line.strip()))


def _samples(path: Path, lines: list[bytes], bad: BadRows) -> Iterator[Sample]:
    known: set[tuple[str, str]] = set()
    decoder = msgspec.json.Decoder(Row)
    for number, line in enumerate(lines, 1):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            bad.add(where, str(error))
            continue
        places = tuple(Place(path.parent / name) for name in row.pictures)
        there = tuple(place for place in places if place.path.is_file())
        if (row.domain, row.id) in known:
            bad.add(where, "an id twice in its domain")
        elif not there:
            bad.add(where, "missing picture")
        else:
            if len(there) < len(places):
                bad.add(where, "missing picture")
            known.add((row.domain, row.id))
            yield Sample(row.domain, row.id, row.product_id, there, row.words)
