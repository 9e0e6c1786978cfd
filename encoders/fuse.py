"""Learns how a clip's frames and words, and a page's pictures and texts, become one vector each (encoders.fusion).

Clips are made up: one to three photos that training left out, at times one of another product among them, and sentences
about their product as encoders.text makes them (named, told, misheard), small talk, or both. Each is compared with all
pages and with a constant for the unknown. Words are left out of some clips and frames of others (modality dropout,
Neverova et al. 2016, arXiv 1501.00102), so that neither side learns to lean on the other; a clip that has neither a
picture nor a word about a product is of the unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoders.fusion import SIGHTS, Rows, Weights, looked_at
from encoders.text import Utterances

Report = Callable[[str, int, int, dict[str, float]], None]

EACH = 20  # sentences about each product
CLIPS, STEPS, BATCH, RATE = 4000, 400, 256, 0.1
NO_WORDS, NO_FRAMES = 0.4, 0.15
STRAY = 0.2  # of the clips have a frame of another product
ABOUT, SMALL_TALK = 0.75, 0.4  # have a sentence about the product; have small talk, up to two sentences of it
SCALE, UNKNOWN = 15.0, 0.4  # to begin with


class Pages(NamedTuple):
    """The pages that are known: pictures and texts, unit rows, and the rank of the page of each row."""

    pictures: Rows
    picture_of: NDArray[np.int64]
    texts: Rows
    text_of: NDArray[np.int64]


class Clips(NamedTuple):
    """Made-up clips, what a gate looks at of each, and the rank of the page it is of: one past the last if of none."""

    frames: Tensor  # (C, dim) mean frames, 0 where there are none
    words: Tensor  # (C, dim) best utterances, likewise
    sights: Tensor  # (C, SIGHTS)
    has: Tensor  # (C, 2) bool: frames, words
    labels: Tensor  # (C,)


def learn_weights(
    pages: Pages, photos: Rows, owners: NDArray[np.int64], said: Utterances, seed: int, report: Report
) -> Weights:
    """The weights of a Fusion from photos (N, dim) that were not trained on, with the ranks of their pages (N,), and
    utterances. The same arguments give the same weights on one kind of machine."""
    count = int(pages.text_of.max()) + 1
    clips = made_up(pages, photos, owners, said, count, np.random.default_rng(seed))
    images, texts = (_means(*side, count) for side in (pages[:2], pages[2:]))
    middle, spread = clips.sights.mean(dim=0), clips.sights.std(dim=0) + 1e-3
    clips = clips._replace(sights=(clips.sights - middle) / spread)
    gate, bias, most, page = torch.zeros(SIGHTS), torch.zeros(1), torch.ones(1), torch.zeros(1)
    scale, unknown = torch.tensor([float(np.log(SCALE))]), torch.tensor([UNKNOWN])
    learnt = [gate, bias, most, page, scale, unknown]
    optimiser = torch.optim.Adam([value.requires_grad_() for value in learnt], lr=RATE)
    draws = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        rows = torch.randint(len(clips.labels), (BATCH,), generator=draws)
        some = Clips(*(part[rows] for part in clips))
        words = most.sigmoid() * (some.sights @ gate + bias).sigmoid()
        words = torch.where(some.has.all(dim=1), words, some.has[:, 1].float())[:, None]
        vectors = functional.normalize((1 - words) * some.frames + words * some.words, dim=1)
        whole = functional.normalize((1 - page.sigmoid()) * images + page.sigmoid() * texts, dim=1)
        scores = torch.cat([vectors @ whole.T, unknown.expand(BATCH, 1)], dim=1)
        loss = functional.cross_entropy(scale.exp() * scores, some.labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        report("fusion", step + 1, STEPS, {"loss": float(loss.detach())})
    steep = gate / spread
    kept = (steep, bias - steep @ middle, most.sigmoid(), page.sigmoid())
    return Weights(pages.pictures, pages.texts, *(value.detach().numpy().astype(np.float32) for value in kept))


def made_up(
    pages: Pages,
    photos: Rows,
    owners: NDArray[np.int64],
    said: Utterances,
    count: int,
    rng: np.random.Generator,
) -> Clips:
    """CLIPS clips of `count` pages."""
    known = pages.pictures.astype(np.float64), pages.texts.astype(np.float64)
    photos_of = [np.flatnonzero(owners == product) for product in range(count)]
    about = [np.flatnonzero(said.labels == product) for product in range(count)]
    small = np.flatnonzero(said.labels < 0)
    parts, labels = [], []
    for _ in range(CLIPS):
        product = int(owners[rng.integers(len(owners))])
        shown = [*rng.choice(photos_of[product], int(rng.integers(1, 4)))]
        if rng.random() < STRAY:
            shown.append(int(rng.integers(len(photos))))
        heard = [int(rng.choice(about[product]))] if rng.random() < ABOUT else []
        told = bool(heard)
        if rng.random() < SMALL_TALK or not heard:
            heard += rng.choice(small, int(rng.integers(1, 3))).tolist()
        dropped = rng.random()
        if dropped < NO_WORDS:
            heard = []
        elif dropped < NO_WORDS + NO_FRAMES:
            shown = []
        looks = looked_at(photos[shown], said.vectors[heard], *known)
        parts.append((*looks, [bool(shown), bool(heard)]))
        labels.append(product if shown or told else count)
    frames, words, sights = (torch.from_numpy(np.stack([part[i] for part in parts])).float() for i in range(3))
    return Clips(frames, words, sights, torch.tensor([part[3] for part in parts]), torch.tensor(labels))


def _means(rows: Rows, owners: NDArray[np.int64], count: int) -> Tensor:
    """(count, dim) unit means of the rows of each page."""
    means = np.stack([rows[owners == page].mean(axis=0, dtype=np.float64) for page in range(count)])
    return functional.normalize(torch.from_numpy(means), dim=1).float()
