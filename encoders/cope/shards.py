"""WebDataset shards: tar files of which every sample is a run of members, `<key>.json` and `<key>.000.jpg` onwards.

Any WebDataset reader can stream them. Training reads them at random through an index of where each picture lies, so
that product-balanced sampling and exact resume are the same as with loose files, on few large files instead of many
small ones.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from PIL import Image

from encoders.cope.look import uniform
from encoders.cope.samples import BadRows, DomainName, Place, Sample, Samples, collected
from encoders.errors import DataRefused


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON member of a sample."""

    domain: DomainName
    id: str
    product_id: str
    words: str = ""


def write_shards(
    samples: Samples,
    out: Path,
    *,
    bytes_each: int = 256 << 20,
    frames: int = 8,
    side: int | None = 256,
    unreadable: list[str] | None = None,
) -> tuple[Path, ...]:
    """Writes `out/00000.tar` and so on, about `bytes_each` long, with the `frames` of each clip that training would
    look at. Pictures are scaled until their shorter side is `side`, or copied as they are (None). Pictures that cannot
    be read are left out and told in `unreadable`, samples without any too."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    shard: tarfile.TarFile | None = None
    for count, (sample, pictures) in enumerate(_pictures(samples, frames, side, unreadable)):
        if shard is None or shard.offset >= bytes_each:
            if shard is not None:
                shard.close()
            written.append(out / f"{len(written):05d}.tar")
            shard = tarfile.open(written[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  closed when full
        told = Told(domain=sample.domain, id=sample.sample_id, product_id=sample.product_id, words=sample.words)
        _member(shard, f"{count:09d}.json", msgspec.json.encode(told))
        for place, picture in enumerate(pictures):
            _member(shard, f"{count:09d}.{place:03d}.jpg", picture)
    if shard is not None:
        shard.close()
    return tuple(written)


def _pictures(
    samples: Samples, frames: int, side: int | None, unreadable: list[str] | None
) -> Iterator[tuple[Sample, list[bytes]]]:
    for domain in ("page", "video", "live"):
        for sample in samples.of(domain):
            chosen = uniform(len(sample.pictures), frames) if domain != "page" else (0,)
            pictures = []
            for index in sorted(set(chosen)):
                try:
                    pictures.append(_scaled(sample.pictures[index], side))
                except OSError:
                    if unreadable is not None:
                        unreadable.append(str(sample.pictures[index].path))
            if pictures:
                yield sample, pictures


def _scaled(place: Place, side: int | None) -> bytes:
    image = Image.fromarray(place.picture())
    if side is None:
        return place.read()
    scale = side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def _member(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def read_shards(folder: Path, *, limit: float = 0.01) -> Samples:
    """The samples of all .tar files of a folder. A shard that is cut short loses its last samples, as bad rows. Raises
    DataRefused if there is none, or too many are bad."""
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise DataRefused(folder, "holds no shards (.tar)")
    bad = BadRows(folder, limit=limit)
    samples: list[Sample] = []
    rows = 0
    for path in paths:
        for where, found in _read(path):
            rows += 1
            if isinstance(found, Sample):
                samples.append(found)
            else:
                bad.add(where, found)
    return collected(samples, bad, rows)


def _read(path: Path) -> Iterator[tuple[str, Sample | str]]:
    """(where, sample or what is wrong with it)."""
    told: Told | None = None
    key, places = "", list[Place]()
    fault = ""

    def done() -> Iterator[tuple[str, Sample | str]]:
        if key:
            where = f"{path.name}:{key}"
            if told is None or not places:
                yield where, fault or "no picture"
            else:
                yield where, Sample(told.domain, told.id, told.product_id, tuple(places), told.words)

    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                name, _, ending = member.name.partition(".")
                if name != key:
                    yield from done()
                    key, told, places, fault = name, None, [], ""
                if ending == "json":
                    content = shard.extractfile(member)
                    try:
                        told = msgspec.json.decode(content.read() if content else b"", type=Told)
                    except msgspec.MsgspecError as error:
                        fault = str(error)
                else:
                    places.append(Place(path, member.offset_data, member.size))
    except (tarfile.TarError, OSError) as error:
        yield path.name, f"unreadable: {error}"
        return
    yield from done()
