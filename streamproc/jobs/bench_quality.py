"""The bench of ../shared/bench in one go: makes streams of photos, recognises them, scores the mentions.

The bench stays where it is: its programs are run, not copied. Who has other photos in the same layout gets their
figures with the same command.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from streamproc.errors import Misconfigured

SIDES: Final = {"both": None, "no_audio": "audio", "no_video": "video"}  # and what is left out


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What to make: the arguments of make_streams.py."""

    bench: Path  # the folder of make_streams.py and score_mentions.py
    data: Path  # the folder of grocery/, clothing/ and speech/
    work: Path  # streams are made below it, once
    split: str = "val"
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    streams: int = 6
    minutes: int = 3
    products: int = 20


class BenchFigures(Struct, frozen=True, kw_only=True):
    """The figures that are promised; everything else is in the scorer's own output beside the mentions."""

    hours: float
    f1: float
    f1_low: float  # 95 % interval over streams
    f1_high: float
    precision: float
    recall_shown_only: float | None  # at tIoU 0.5
    recall_spoken_only: float | None  # at tIoU 0.3
    time_to_recognise_p50_ms: float | None
    false_per_hour: float
    ece: float | None
    violations: int

    def told(self, name: str) -> str:
        """For people."""
        shown, spoken = _percent(self.recall_shown_only), _percent(self.recall_spoken_only)
        return (
            f"{name:<8} F1@0.5 {self.f1:.3f} ({self.f1_low:.3f} to {self.f1_high:.3f}), shown-only recall@0.5 {shown}, "
            f"spoken-only recall@0.3 {spoken}, time to recognise p50 {self.time_to_recognise_p50_ms} ms, "
            f"{self.false_per_hour:.1f} false an hour, ECE {self.ece}, {self.violations} violations, {self.hours:.2f} h"
        )


def made_streams(plan: BenchPlan, say: Callable[[str], None]) -> tuple[Path, ...]:
    """A folder per seed, made where it is not there yet. Misconfigured where the bench or its data is missing."""
    program = plan.bench / "make_streams.py"
    if not program.is_file():
        raise Misconfigured("--bench", f"there is no {program}")
    folders = []
    for seed in plan.seeds:
        folder = plan.work / f"{plan.split}-{seed}-{plan.streams}x{plan.minutes}-{plan.products}"
        folders.append(folder)
        if (folder / "manifest.json").is_file():
            continue
        say(f"making {plan.streams} streams of {plan.minutes} min, seed {seed}")
        command: list[str | Path] = [sys.executable, program, "--grocery", plan.data / "grocery"]
        command += ["--clothing", plan.data / "clothing", "--speech", plan.data / "speech", "--split", plan.split]
        command += ["--seed", str(seed), "--streams", str(plan.streams), "--minutes", str(plan.minutes)]
        command += ["--products", str(plan.products), "--out", folder]
        _run(command)
    return tuple(folders)


def scored(plan: BenchPlan, truths: Sequence[Path], mentions: Sequence[Path], name: str) -> BenchFigures:
    """All seeds together against their truth, by the bench's own scorer."""
    truth, said = plan.work / "truth.jsonl", plan.work / f"mentions-{name}.jsonl"
    truth.write_bytes(b"".join(path.read_bytes() for path in truths))
    said.write_bytes(b"".join(path.read_bytes() for path in mentions))
    command: list[str | Path] = [
        sys.executable,
        plan.bench / "score_mentions.py",
        "--truth",
        truth,
        "--mentions",
        said,
        "--json",
    ]
    output = _run(command)
    (plan.work / f"scores-{name}.json").write_bytes(output)
    return figures_of(msgspec.json.decode(output))


def figures_of(scores: dict[str, Any]) -> BenchFigures:
    """The promised figures of what the scorer says."""
    return BenchFigures(
        hours=scores["hours"],
        f1=scores["f1@0.5"],
        f1_low=scores["f1@0.5.low"],
        f1_high=scores["f1@0.5.high"],
        precision=scores["precision@0.5"],
        recall_shown_only=scores["recall@0.5.shown"],
        recall_spoken_only=scores["recall@0.3.spoken"],
        time_to_recognise_p50_ms=scores["time_to_recognise_ms.p50"],
        false_per_hour=scores["false_per_hour"],
        ece=scores["ece"],
        violations=scores["violations"],
    )


def _run(command: Sequence[str | Path]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Misconfigured("--bench", f"{Path(command[1]).name} ended with {done.returncode}: {' '.join(said[-3:])}")
    return done.stdout


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
