"""Runs whose weights are averaged."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from encoders.config import Member, TrainingConfig
from encoders.errors import TrainingStopped
from encoders.soup import averaged, members, train_soup
from encoders.train import train
from tests.encoders.conftest import silent


@pytest.mark.slow
def test_a_soup_is_the_mean_of_its_runs(tiny: TrainingConfig, shop: Path, tmp_path: Path) -> None:
    steps = tiny.optimiser.steps
    soup = msgspec.structs.replace(tiny, soup=(Member(swapped=0.0, steps=steps), Member(swapped=1.0, steps=2)))
    told: list[tuple[int, int]] = []

    def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if what == "train":
            told.append((done, total))

    mean = load_file(train_soup(soup, shop, tmp_path, report=report))
    first, second = (load_file(tmp_path / str(k) / "image.safetensors") for k in range(2))

    assert not torch.equal(first["project.weight"], second["project.weight"])
    assert all(torch.allclose((first[name] + second[name]) / 2, mean[name]) for name in mean)
    assert [(done, steps + 2) for done in range(1, steps + 3)] == told  # one bar for both
    alone = load_file(train(members(soup)[1], shop, tmp_path / "alone", cache=tmp_path / "views", report=silent))
    assert all(torch.equal(second[name], alone[name]) for name in alone)  # with the first one beside it or not
    assert [steps, 2] == [len((tmp_path / str(k) / "losses.jsonl").read_text().splitlines()) for k in range(2)]


def test_without_a_soup_there_is_one_run(tiny: TrainingConfig) -> None:
    assert (tiny,) == members(tiny)


def test_what_a_run_does_in_its_own_way(tiny: TrainingConfig) -> None:
    soup = msgspec.structs.replace(tiny, soup=(Member(swapped=0.25, steps=7),))
    only = members(soup)[0]

    assert (0.25, 7, ()) == (only.batch.swapped, only.optimiser.steps, only.soup)
    assert tiny.optimiser.head_rate == only.optimiser.head_rate


def test_weights_of_two_networks_have_no_mean() -> None:
    with pytest.raises(ValueError, match="not of one network"):
        averaged([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])


@pytest.mark.slow
def test_what_stops_a_run_stops_the_soup_and_is_told(tiny: TrainingConfig, shop: Path, tmp_path: Path) -> None:
    diverging = msgspec.structs.replace(tiny.optimiser, backbone_rate=1e30, head_rate=1e30, clip=1e30, rise=1)
    both = (Member(swapped=0.0, steps=4), Member(swapped=0.0, steps=4))
    soup = msgspec.structs.replace(tiny, optimiser=diverging, soup=both)

    with pytest.raises(TrainingStopped, match="the loss is not a number") as stopped:
        train_soup(soup, shop, tmp_path, report=silent)
    assert stopped.value.path.is_file()


@pytest.mark.slow
def test_a_run_whose_parent_was_killed_ends_with_its_next_step(
    shop: Path, tiny: TrainingConfig, tmp_path: Path
) -> None:
    long = msgspec.structs.replace(tiny, soup=(Member(swapped=0.0, steps=5_000),) * 2)
    config = tmp_path / "long.json"
    config.write_bytes(msgspec.json.encode(long))
    command = [sys.executable, "-m", "encoders", "train", "--config", str(config), "--data", str(shop)]
    parent = subprocess.Popen([*command, "--out", str(tmp_path / "run"), "--quiet"])
    logs = [tmp_path / "run" / str(k) / "losses.jsonl" for k in range(2)]
    wait_for(lambda: all(log.is_file() and log.stat().st_size for log in logs))
    runs = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.kill()
    parent.wait()

    assert len(runs) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in runs))


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
