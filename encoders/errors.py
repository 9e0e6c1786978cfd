"""What can be wrong with what the encoders are given.

EncodersError
|-- ConfigRefused     a training config: unknown key, wrong type, impossible value
|-- DataRefused       a data set: missing folder, too many bad rows
|-- WeightsRefused    a checkpoint or weight file: missing, foreign, not plain tensors
|-- ReleaseRefused    a release folder: changed, incomplete, or not one of ours
|-- DeviceRefused     a device that the towers of a release cannot run on
`-- TrainingStopped   a loss that is no number; the batch's ids are saved
"""

from __future__ import annotations

from pathlib import Path


class EncodersError(Exception):
    """The root; catch it to tell a refusal by this package from a fault in it."""


class _Refused(EncodersError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[_Refused], tuple[Path, str]]:
        """Made again from what it was made of, where it comes from another process."""
        return type(self), (self.path, self.reason)


class ConfigRefused(_Refused):
    """A training config that cannot be followed; the reason names the key."""


class DataRefused(_Refused):
    """A data set that cannot be read; the reason names the row or the folder."""


class WeightsRefused(_Refused):
    """A weight file that is missing, foreign or not made of plain tensors."""


class ReleaseRefused(_Refused):
    """A release that is incomplete, changed since it was made, or not a release."""


class DeviceRefused(_Refused):
    """A release whose towers do not run on the device that was asked for."""


class TrainingStopped(EncodersError):
    """Training met a loss that is no number; `path` is where the ids of that batch were written."""

    def __init__(self, step: int, path: Path) -> None:
        super().__init__(f"step {step}: the loss is not a number; the ids of the batch are in {path}")
        self.step, self.path = step, path

    def __reduce__(self) -> tuple[type[TrainingStopped], tuple[int, Path]]:
        """Made again from what it was made of, where it comes from another process."""
        return type(self), (self.step, self.path)
