"""The commands that print what media costs and what hostile media can do."""

import subprocess
import sys

import msgspec
import pytest

from tests.media.dali import DALI


def figures(*arguments: str) -> dict[str, object]:
    """In a process of its own: its memory is one of the figures."""
    command = [sys.executable, "-m", "streamproc.jobs.bench_media", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout[-2000:] + result.stderr
    return msgspec.json.decode(result.stdout.splitlines()[-1], type=dict[str, object])


@pytest.mark.slow  # the fast part of it: test_bad_chunks, test_media_opener's limits, test_decoder_pool
@pytest.mark.parametrize("pictures", ["av", pytest.param("dali", marks=DALI)])
def test_hostile_chunks_cost_themselves_only(pictures: str) -> None:
    found = figures("hostile", "--mutated", "3000", "--crafted", "300", "--pictures", pictures)

    assert (0, []) == (found["good_wrong"], found["reasons_wrong"])
    deaths = found["decoder_deaths"]
    assert isinstance(deaths, int)
    # Of FFmpeg on damaged data: 0 to 2 in 7 runs with AVX-512, none with AVX2. DALI's thinning dies of the same chunk.
    assert deaths <= (8 if pictures == "av" else 16)
    decoder, before, worker = (
        found["decoder_rss_mib_peak"],
        found["worker_rss_mib_before"],
        found["worker_rss_mib_largest"],
    )
    assert isinstance(decoder, int)
    assert decoder < 400
    assert isinstance(before, int)
    assert isinstance(worker, int)
    assert worker - before < 200


@pytest.mark.slow
def test_cost_is_printed_by_stage() -> None:
    found = figures("cost", "--seconds", "6", "--size", "640x360")
    *media, models = found.values()

    assert all(isinstance(stages, dict) and stages["all, key frames"] > 0 for stages in media)
    assert isinstance(models, dict)
    assert all(share > 0 for share in models.values())
