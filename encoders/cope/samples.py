"""What training looks at: pages, short videos and live clips by product, wherever their pictures lie."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from encoders.errors import DataRefused

DomainName = Literal["page", "video", "live"]
NAMED = 5  # bad rows that a refusal spells out


class Place(NamedTuple):
    """Where the bytes of a picture are: a whole file, or `size` bytes of it from `start` (a member of a shard)."""

    path: Path
    start: int = 0
    size: int = -1

    def read(self) -> bytes:
        """Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def picture(self) -> NDArray[np.uint8]:
        """RGB (H, W, 3). Raises OSError if it is missing or no picture."""
        try:
            with Image.open(io.BytesIO(self.read())) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise OSError(f"{self.path}: not a picture") from error


class Sample(NamedTuple):
    """A page (one picture; `words` is its title), a short video or a live clip (frames in order of time; `words` is
    what was said). Ids are unique within a domain."""

    domain: DomainName
    sample_id: str
    product_id: str
    pictures: tuple[Place, ...]
    words: str = ""


class BadRows:
    """Rows that could not be used, each by name; too many of them and the data set is refused."""

    def __init__(self, root: Path, *, limit: float) -> None:
        self.root, self.limit = root, limit
        self.rows: list[tuple[str, str]] = []
        self.kinds: Counter[str] = Counter()

    def add(self, where: str, kind: str) -> None:
        """`where` is a file with its line, `kind` what is wrong in words that do not vary from row to row."""
        self.rows.append((where, kind))
        self.kinds[kind] += 1

    def settle(self, of: int) -> None:
        """Raises DataRefused if more than the limit's share `of` all rows are bad, or none is left."""
        if of == 0:
            raise DataRefused(self.root, "no rows")
        if len(self.rows) > self.limit * of:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in self.kinds.most_common())
            first = "; ".join(f"{where}: {kind}" for where, kind in self.rows[:NAMED])
            raise DataRefused(
                self.root,
                f"{len(self.rows)} of {of} rows are bad, over the limit of {self.limit:.2%} ({kinds}): {first}",
            )


class ByDomain(NamedTuple):
    """The samples of one product."""

    page: tuple[Sample, ...]
    video: tuple[Sample, ...]
    live: tuple[Sample, ...]


class Samples(msgspec.Struct, frozen=True, dict=True):
    """A data set. `bad` counts the rows that were left out, by kind; `bad_rows` names each, with what is wrong."""

    by_product: Mapping[str, ByDomain]
    bad: Mapping[str, int] = {}
    bad_rows: tuple[tuple[str, str], ...] = ()

    @cached_property
    def products(self) -> tuple[str, ...]:
        """Ids of the products that have all three domains, sorted; only these are trained on."""
        return tuple(sorted(product for product, parts in self.by_product.items() if all(parts)))

    def of(self, domain: DomainName) -> tuple[Sample, ...]:
        """All samples of a domain, by product and id."""
        return tuple(
            sample
            for product in sorted(self.by_product)
            for sample in sorted(getattr(self.by_product[product], domain), key=lambda one: one.sample_id)
        )


def collected(samples: Iterable[Sample], bad: BadRows, of: int) -> Samples:
    """Samples put in order. Raises DataRefused if too many rows `of` all were bad."""
    found: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        domains = found.setdefault(sample.product_id, {"page": [], "video": [], "live": []})
        domains[sample.domain].append(sample)
    bad.settle(of)
    ordered = {
        product: ByDomain(*(tuple(sorted(domains[name], key=lambda one: one.sample_id)) for name in ByDomain._fields))
        for product, domains in sorted(found.items())
    }
    return Samples(by_product=ordered, bad=dict(bad.kinds), bad_rows=tuple(bad.rows))


def refuse_shared_products(train: Iterable[str], test: Iterable[str], root: Path) -> None:
    """Raises DataRefused if a product is in both: the test would measure memory."""
    shared = sorted(set(train) & set(test))
    if shared:
        raise DataRefused(
            root,
            f"{len(shared)} products were trained on too, such as {', '.join(shared[:NAMED])}; "
            "--trained measures them all the same",
        )
