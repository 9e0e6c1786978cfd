"""Files that are written whole or not at all, whenever the process dies."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside it and puts that in its place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    write(partial)
    partial.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """These bytes, as `replace_file` does it."""
    replace_file(path, lambda partial: partial.write_bytes(content))
