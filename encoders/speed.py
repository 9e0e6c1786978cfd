"""How many pictures a second the image path of a release takes on one core, by engine, in one run.

Engines take turns, round by round, so that whatever else the machine does hits both alike; time is that of the CPU,
not of the clock. `openvino` is what production calls, with the resizing of the picture; `network` is the same without
the resizing; `torch` is the tower that the release was made from, without it too. A release of kind `clip` has one
engine: what production calls is its `torch`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from encoders.config import TrainingConfig, Vision
from encoders.errors import ReleaseRefused
from encoders.export import load_tower
from encoders.pictures import Shape
from encoders.release import MANIFEST, Manifest, Release, load, verified, verified_clip

Report = Callable[[str, int, int, dict[str, float]], None]
Take = Callable[[], object]
SOURCES: dict[Shape, tuple[int, int]] = {"square": (348, 348), "wide": (360, 640)}
"""(height, width) of the pictures that are taken: phone photos, and the usual size of a stream."""
BATCHES = 4  # of the release's fixed size, per engine and round


def speed(folder: Path, *, rounds: int, report: Report) -> dict[str, Any]:
    """Pictures per CPU second by shape and engine: medians over rounds, and how many times faster than torch.

    One thread. Raises ReleaseRefused where the release cannot be loaded or does not say how it was trained.
    """
    torch.set_num_threads(1)
    manifest = verified_clip(folder) or verified(folder)
    lite = manifest if isinstance(manifest, Manifest) else None
    release = load(folder)
    result: dict[str, Any] = {"release": release.digest, "rounds": rounds, "engine": release.engine}
    for done, (shape, size) in enumerate(SOURCES.items(), 1):
        rng = np.random.default_rng(0)
        count = BATCHES * manifest.image_batch
        pictures = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
        engines: dict[str, Take] = {"openvino" if lite else "torch": partial(release.encode_frames, pictures)}
        if lite:
            engines |= _without_resizing(folder, lite, release, shape, rng, count)
        taken = _in_turns(engines, rounds)
        result[shape] = {name: round(count / statistics.median(times), 1) for name, times in taken.items()}
        if lite:
            ratios = [slow / fast for slow, fast in zip(taken["torch"], taken["network"], strict=True)]
            result[shape]["network / torch"] = round(statistics.median(ratios), 2)
        report("shapes", done, len(SOURCES), {})
    return result


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = []
    for shape in SOURCES:
        told = ", ".join(f"{name} {value:g}" for name, value in result[shape].items())
        lines.append(f"{shape:<7} pictures per CPU second: {told}")
    return "\n".join(lines)


def _without_resizing(
    folder: Path, manifest: Manifest, release: Release, shape: Shape, rng: np.random.Generator, count: int
) -> dict[str, Take]:
    """The network, and the tower that it was made from, on `count` pictures of its own size."""
    ready = rng.integers(0, 256, (count, *manifest.preprocessing.size(shape), 3), dtype=np.uint8)
    return {"network": partial(release.encode_frames, ready), "torch": _torch(folder, manifest, ready)}


def _torch(folder: Path, manifest: Manifest, pictures: NDArray[np.uint8]) -> Take:
    """The trained tower on pictures of its own size, in batches as large as the release's."""
    try:
        vision = msgspec.convert(manifest.training["config"]["vision"], Vision)
    except (KeyError, msgspec.ValidationError) as error:
        raise ReleaseRefused(folder / MANIFEST, f"does not say how its towers were trained: {error}") from error
    tower = load_tower(TrainingConfig(dim=manifest.dim, vision=vision), folder / "image.safetensors")
    batch, told = manifest.image_batch, manifest.preprocessing

    @torch.inference_mode()
    def take() -> None:
        for start in range(0, len(pictures), batch):
            pixels = torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2)  # channels last in memory
            tower((pixels.float() - told.mean) / told.scale)

    return take


def _in_turns(engines: dict[str, Take], rounds: int) -> dict[str, Sequence[float]]:
    """CPU seconds of every round by engine, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, take in engines.items():
            start = time.process_time()
            take()
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: tuple(times) for name, times in taken.items()}
