"""The page pictures of the products that training saw live photos of.

A page whose product was never photographed is at a disadvantage in a gallery that holds both: training drew photos to
the other pages, and they draw new products' photos too. So a page that is not known here gets a `lift` on its cosines
wherever pages compete with each other, never against the unknown.

What is compared are thumbnails, since the same packshot comes back scaled and compressed anew: over the 81 packshots of
GroceryStoreDataset, one that was scaled and compressed differs from itself by 1.0 of 255 at most, and no two products
by less than 4.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.pictures import Pixels, fitted

SIDE = 16  # pixels of a thumbnail
ALIKE = 2.0  # mean difference of the same picture, of 255
FILE = "known.safetensors"


class KnownPages:
    """Thumbnails, uint8 (K, SIDE, SIDE, 3), and the lift of pages that are not among them. None known: no lift, for
    then no page has an advantage over another."""

    def __init__(self, thumbnails: NDArray[np.uint8], lift: float) -> None:
        self._thumbnails = thumbnails.astype(np.int16)
        self._lift = lift if len(thumbnails) else 0.0

    def lift_of(self, picture: Pixels) -> float:
        """What is added to cosines with this page picture, uint8 (H, W, 3), where pages compete."""
        if not self._lift:
            return 0.0
        apart = np.abs(self._thumbnails - thumbnail(picture).astype(np.int16)).mean(axis=(1, 2, 3))
        return 0.0 if float(apart.min()) <= ALIKE else self._lift


def thumbnail(picture: Pixels) -> NDArray[np.uint8]:
    """uint8 (SIDE, SIDE, 3) of a picture (H, W, 3)."""
    return fitted(picture, (SIDE, SIDE))


def write_known(path: Path, pictures: Sequence[Pixels]) -> None:
    """Keeps these pictures as known."""
    from safetensors.numpy import save_file

    rows = np.stack([thumbnail(picture) for picture in pictures]) if pictures else _none()
    save_file({"thumbnails": rows}, path)
    path.chmod(0o644)  # safetensors makes it private


def read_known(path: Path, lift: float) -> KnownPages:
    """Raises KeyError or SafetensorError for another file, ValueError for thumbnails of another size."""
    from safetensors.numpy import load_file

    rows: NDArray[np.uint8] = load_file(path)["thumbnails"]
    if rows.shape[1:] != (SIDE, SIDE, 3) or rows.dtype != np.uint8:
        raise ValueError(f"{path.name}: thumbnails of shape {rows.shape[1:]}, not {(SIDE, SIDE, 3)}")
    return KnownPages(rows, lift)


def nothing_known() -> KnownPages:
    """Of a release that does not say what it was trained on."""
    return KnownPages(_none(), 0.0)


def _none() -> NDArray[np.uint8]:
    return np.zeros((0, SIDE, SIDE, 3), np.uint8)
