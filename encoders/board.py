"""TensorBoard events of a run: `tensorboard --logdir OUT` shows the terms of every step as they come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Board:
    """Writes to OUT/tensorboard. A run that goes on at step `first` hides what an earlier one wrote from there on: it
    had gone further than its last checkpoint."""

    def __init__(self, out: Path, *, first: int) -> None:
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=first or None)

    def write(self, step: int, terms: Mapping[str, float]) -> None:
        """The terms of one step, a curve each."""
        for name, value in terms.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is still held back."""
        self._writer.close()
