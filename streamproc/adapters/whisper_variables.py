"""The numbers in CTranslate2's file of Whisper weights, read by its own header (notes on weights, section 4)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

_DTYPES: Final = {0: np.float32, 4: np.float16}  # the only ones that are plain numbers, not quantised


def whisper_variables(directory: Path) -> dict[str, NDArray[Any]]:
    """Every variable of model.bin in that directory by its name, float16 or float32, in the order of the file.

    OSError where it cannot be read; struct.error, ValueError where it is no such file or is quantised.
    """
    with (directory / "model.bin").open("rb") as file:
        return dict(_variables(file))


def _variables(file: BinaryIO) -> Iterator[tuple[str, NDArray[Any]]]:
    version, spec, _revision, count = _number(file, "I"), _text(file), _number(file, "I"), _number(file, "I")
    if version != 6 or spec != "WhisperSpec":
        raise ValueError(f"version {version} of {spec or 'nothing'}, expected 6 of WhisperSpec")
    for _ in range(count):
        name = _text(file)
        shape = [_number(file, "I") for _ in range(_number(file, "B"))]
        kind, size = _number(file, "B"), _number(file, "I")
        content = file.read(size)
        if kind in _DTYPES:
            yield name, np.frombuffer(content, _DTYPES[kind]).reshape(shape)
        elif name.endswith("/weight"):
            raise ValueError(f"{name} is quantised")


def _number(file: BinaryIO, code: str) -> int:
    size = struct.calcsize("<" + code)
    return int(struct.unpack("<" + code, file.read(size))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()
