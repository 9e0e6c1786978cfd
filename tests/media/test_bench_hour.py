"""An hour of a stream keeps its time and the worker's memory, and the bench that says so can say no."""

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from streamproc.jobs.bench_hour import SOURCES, Source, made, measured

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_minute_of_every_source_keeps_its_time(source: Source, tmp_path: Path) -> None:
    figures = asyncio.run(measured(source, made(source, tmp_path, minutes=1), minutes=1))

    assert figures.chirps > 3
    assert figures.sentences == 2
    assert figures.pictures == 60
    assert figures.keeps_time
    assert figures.sound_widest_ms < 1
    assert figures.pictures_widest_ms <= 1


class Drifting(Source):
    """Its stamps are later and later for its sound."""

    def sound_s(self, samples: float) -> float:
        return samples / self.rate_hz


def test_sound_that_drifts_is_told(tmp_path: Path) -> None:
    source = Drifting(name="drifts", container="mpegts", sound="aac", rate_hz=48_000, fps=Fraction(25), late_ppm=500)
    figures = asyncio.run(measured(source, made(source, tmp_path, minutes=1), minutes=1))

    assert not figures.keeps_time
    assert 15 < figures.sound_drift_ms < 30  # half a millisecond a second
    assert figures.pictures_widest_ms <= 1


def test_an_hour_keeps_its_time_and_its_memory(tmp_path: Path) -> None:
    source = SOURCES[0]
    figures = asyncio.run(measured(source, made(source, tmp_path, minutes=60), minutes=60))

    assert figures.keeps_time
    assert figures.sound_widest_ms < 1
    assert figures.pictures > 3590  # one a second of 3,600, by 29.97 frames a second
    assert figures.worker_growth_mib < 16
    assert figures.decoder_growth_mib < 16
