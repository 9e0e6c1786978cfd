"""Pages of products that training saw no live photo of: what is done for them when all there is is the page.

Beside pages that were learnt, such a page is at three disadvantages, each met by a number that needs no photo of it:

- Its packshot may show the product otherwise than hands do (a melon cut open). Products of like names look alike, so
  its vector moves by what its title tells: a ridge regression from the titles of photographed products to the mean of
  their photos, away from the mean of all (semantic prototypes; Xing et al. 2019, arXiv 1902.07104, mix the two so). A
  title that is like none of theirs tells nothing.
- Some pages are near to photos of anything (hubs; Radovanovic et al. 2010). Its cosines are lowered by how much nearer
  it is to its `NEAREST` photos of a bank than pages usually are, as CSLS does (Conneau et al. 2018, arXiv 1710.04087).
- Training drew photos to learnt pages, and these draw photos of new products too: its cosines get a lift, the less the
  clearer one learnt page is ahead of the other learnt ones (`lifted`): photos of new products fall between them.

Lifts count where pages compete with each other, never against the unknown. A page is known again by a thumbnail of its
picture, since the same packshot comes back scaled and compressed anew: over the 81 packshots of GroceryStoreDataset one
that was scaled and compressed differs from itself by 1.0 of 255 at most, and no two products by less than 4.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.fusion import unit
from encoders.pictures import Pixels, fitted

FILE = "newcomers.safetensors"
SIDE = 16  # pixels of a thumbnail
ALIKE = 2.0  # mean difference of the same picture, of 255
NEAREST = 20  # photos of the bank that tell how much of a hub a page is
RIDGE = 1.0
FAR, NEAR = 0.45, 0.6  # cosine of a title to the nearest known one: below it tells nothing, from there on all it can

Rows = NDArray[np.float32]


class Lesson(NamedTuple):
    """What a release learnt from photographed products for pages that come later."""

    thumbnails: NDArray[np.uint8]  # (K, SIDE, SIDE, 3) of the page pictures that are known
    titles: Rows  # (K, W) sentence vectors of the known pages' titles, of unit length
    moves: Rows  # (K, dim): where photos lie, away from the mean of all, is the sum of these by likeness of titles
    bank: Rows  # (N, dim) photos of photographed products, not trained on
    usual: Rows  # (1,) the mean cosine of a known page to its NEAREST photos of other products


class Newcomers:
    """Moves and lifts the pictures of pages that are not known."""

    def __init__(self, lesson: Lesson, lift: float) -> None:
        """Raises ValueError where the parts of the lesson do not fit each other."""
        if lesson.thumbnails.shape[1:] != (SIDE, SIDE, 3) or not len(lesson.thumbnails):
            raise ValueError(f"{FILE}: thumbnails of shape {lesson.thumbnails.shape}, not (K, {SIDE}, {SIDE}, 3)")
        whole = len(lesson.titles) == len(lesson.moves) == len(lesson.thumbnails)
        if not whole or lesson.moves.shape[1:] != lesson.bank.shape[1:] or lesson.usual.shape != (1,):
            raise ValueError(f"{FILE}: titles, moves, bank and usual do not belong together")
        self.sizes = lesson.titles.shape[1], lesson.moves.shape[1]  # of a sentence vector, and of a page's
        self._lesson, self._lift = lesson, lift
        self._thumbnails = lesson.thumbnails.astype(np.int16)

    def placed(self, picture: Pixels, vector: Rows, title: Rows) -> tuple[Rows, float]:
        """(vector, lift) of a page's picture, uint8 (H, W, 3), with `vector` (dim,) of unit length, whose title has the
        sentence vector `title` (W,): as they are where the picture is known."""
        apart = np.abs(self._thumbnails - thumbnail(picture).astype(np.int16)).mean(axis=(1, 2, 3))
        if float(apart.min()) <= ALIKE:
            return vector, 0.0
        likeness = self._lesson.titles.astype(np.float64) @ title.astype(np.float64)
        told = np.clip((likeness.max() - FAR) / (NEAR - FAR), 0.0, 1.0)
        moved = vector.astype(np.float64) + told * (likeness @ self._lesson.moves.astype(np.float64))
        placed: Rows = (moved / np.linalg.norm(moved)).astype(np.float32)
        hub = nearness(placed[None], self._lesson.bank)[0] - float(self._lesson.usual[0])
        return placed, round(self._lift - hub, 6)


def lifted(scores: NDArray[np.float64], lifts: NDArray[np.float64], *, clear: float) -> NDArray[np.float64]:
    """Cosines of queries with products, (N, P), as pages compete with them: `lifts` (P,) are 0 for learnt pages."""
    new = lifts != 0.0
    learnt_ones = np.sort(scores[:, ~new], axis=1)
    ahead = learnt_ones[:, -1] - learnt_ones[:, -2] if learnt_ones.shape[1] > 1 else np.zeros(len(scores))
    return scores + np.where(new, lifts - clear * ahead[:, None], 0.0)


def nearness(pages: Rows, bank: Rows) -> NDArray[np.float64]:
    """(P,) the mean cosine of each page, (P, dim), to its NEAREST photos of the bank (N, dim); 0 where it is empty."""
    if not len(bank):
        return np.zeros(len(pages))
    cosines = np.sort(pages.astype(np.float64) @ bank.astype(np.float64).T, axis=1)
    return np.asarray(cosines[:, -NEAREST:].mean(axis=1))


def learnt(pictures: Sequence[Pixels], pages: Rows, titles: Rows, photos: Rows, owners: NDArray[np.int64]) -> Lesson:
    """The lesson of photographed products: their page pictures, page vectors (K, dim), sentence vectors of their titles
    (K, W), and photos (N, dim) that were not trained on, of the products `owners` (N,), each 0 .. K - 1.

    Without photos titles move nothing and no page is a hub.
    """
    dim = pages.shape[1]
    moves, usual = np.zeros((len(pages), dim)), 0.0
    present = np.unique(owners)
    if len(present) > 1:
        means = np.stack([unit(photos[owners == product].mean(axis=0).astype(np.float64)) for product in present])
        told = titles[present].astype(np.float64)
        gram = told @ told.T + RIDGE * np.eye(len(told))
        moves[present] = np.linalg.solve(gram, means - means.mean(axis=0))
        others = [nearness(pages[page : page + 1], photos[owners != page])[0] for page in range(len(pages))]
        usual = float(np.mean(others))
    return Lesson(
        thumbnails=np.stack([thumbnail(picture) for picture in pictures]),
        titles=titles.astype(np.float32),
        moves=moves.astype(np.float32),
        bank=photos.astype(np.float32).reshape(-1, dim),
        usual=np.array([usual], np.float32),
    )


def write_lesson(path: Path, lesson: Lesson) -> None:
    """Keeps a lesson."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in lesson._asdict().items()}, path)
    path.chmod(0o644)  # safetensors makes it private


def read_lesson(path: Path) -> Lesson:
    """Raises KeyError or SafetensorError for another file."""
    from safetensors.numpy import load_file

    rows = load_file(path)
    return Lesson(*(rows[name] for name in Lesson._fields))


def thumbnail(picture: Pixels) -> NDArray[np.uint8]:
    """uint8 (SIDE, SIDE, 3) of a picture (H, W, 3)."""
    return fitted(picture, (SIDE, SIDE))
