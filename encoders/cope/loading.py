"""Draws become tensors: pictures are read, cut and scaled here, in worker processes if there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoders.cope.draws import Choice, ProductDraws
from encoders.cope.look import Look, seen, uniform
from encoders.cope.ranks import rank, world
from encoders.cope.roberta import Tokens
from encoders.cope.samples import Place, Sample
from encoders.cope.titles import Tokenise
from encoders.cope.towers import Batch
from encoders.errors import DataRefused

Pixels = NDArray[np.uint8]


class StepData(NamedTuple):
    """What one rank learns from in one step, in parts; the ids (product, page, video, live) of all of it; pictures
    that could not be read."""

    step: int
    parts: tuple[Batch, ...]
    ids: tuple[tuple[str, str, str, str], ...]
    unreadable: tuple[str, ...]


class StepDataset(Dataset[StepData]):
    """The data of step i is item i, whoever asks."""

    def __init__(
        self, draws: ProductDraws, look: Look, tokenise: Tokenise, *, frames: int, parts: int, seed: int
    ) -> None:
        self.draws, self.look, self.tokenise = draws, look, tokenise
        self.frames, self.parts, self.seed = frames, parts, seed
        self.rank, self.world = rank(), world()  # of the process that made it: its workers know of no group

    def __getitem__(self, step: int) -> StepData:
        choices = self.draws.draw(step)
        share = len(choices) // self.world
        mine = range(self.rank * share, (self.rank + 1) * share)
        unreadable: list[str] = []
        batch = self._batch(step, [(place, choices[place]) for place in mine], unreadable)
        return StepData(step, split(batch, self.parts), tuple(choices[place].ids for place in mine), tuple(unreadable))

    def _batch(self, step: int, choices: Sequence[tuple[int, Choice]], unreadable: list[str]) -> Batch:
        images, videos, lives, titles = [], [], [], []
        for place, choice in choices:
            rng = np.random.default_rng([self.seed, 3, step, place])
            siblings = self.draws.samples.by_product[choice.page.product_id]
            page, image = readable(choice.page, siblings.page, 1, unreadable)
            images.append(seen(image, self.look, rng))
            titles.append(page.words)
            videos.append(seen(readable(choice.video, siblings.video, self.frames, unreadable)[1], self.look, rng))
            lives.append(seen(readable(choice.live, siblings.live, self.frames, unreadable)[1], self.look, rng))
        labels = torch.tensor([choice.label for _, choice in choices])
        return Batch(torch.stack(images), self.tokenise(titles), torch.stack(videos), torch.stack(lives), labels)


def readable(
    sample: Sample, siblings: Sequence[Sample], frames: int, unreadable: list[str]
) -> tuple[Sample, list[Pixels]]:
    """The sample with its pictures, or its next sibling in the same product and domain if none of them can be read.
    Raises DataRefused if no sibling can either."""
    first = siblings.index(sample)
    for candidate in (*siblings[first:], *siblings[:first]):
        pictures = pictures_of(candidate, frames, unreadable)
        if pictures:
            return candidate, pictures
    where = sample.pictures[0].path
    raise DataRefused(where, f"no {sample.domain} of product {sample.product_id} can be read")


def pictures_of(sample: Sample, frames: int, unreadable: list[str]) -> list[Pixels]:
    """`frames` pictures over the clip; for one that cannot be read the last good one, or the first. Maybe none."""
    read: dict[Place, Pixels | None] = {}
    chosen = [sample.pictures[index] for index in uniform(len(sample.pictures), frames)]
    for place in dict.fromkeys(chosen):
        try:
            read[place] = place.picture()
        except OSError:
            read[place] = None
            unreadable.append(f"{place.path}:{place.start}")
    good = next((picture for picture in read.values() if picture is not None), None)
    pictures: list[Pixels] = []
    for place in chosen:
        found = read[place]
        good = good if found is None else found
        if good is None:
            return []
        pictures.append(good)
    return pictures


def split(batch: Batch, parts: int) -> tuple[Batch, ...]:
    """Equal parts of a batch."""
    size = len(batch.labels) // parts

    def part(i: int, rows: Tensor) -> Tensor:
        return rows[i * size : (i + 1) * size]

    return tuple(
        Batch(
            part(i, batch.images),
            Tokens(part(i, batch.titles.ids), part(i, batch.titles.mask)),
            part(i, batch.videos),
            part(i, batch.lives),
            part(i, batch.labels),
        )
        for i in range(parts)
    )


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    titles = Tokens(batch.titles.ids.to(device), batch.titles.mask.to(device))
    pixels = (rows.to(device, non_blocking=True) for rows in (batch.images, batch.videos, batch.lives))
    images, videos, lives = pixels
    return Batch(images, titles, videos, lives, batch.labels.to(device))


def steps_of(dataset: StepDataset, first: int, last: int, *, workers: int) -> Iterator[StepData]:
    """Steps [first, last) in order."""
    loader = DataLoader(dataset, batch_size=None, sampler=range(first, last), num_workers=workers)
    yield from loader
