"""What a run writes down step by step, one JSON object a line: each step once, also where the run was killed."""

from __future__ import annotations

import json
from pathlib import Path

from encoders.whole_file import write_atomically


def forget_after(path: Path, first: int) -> None:
    """Drops the lines of a diary that are of step `first` or later, and one that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n") and told["step"] < first:
            kept.append(line)
    write_atomically(path, "".join(kept).encode())
