"""Runs whose weights are averaged."""

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from encoders.config import Member, TrainingConfig
from encoders.soup import averaged, members, train_soup
from tests.encoders.conftest import silent


def test_a_soup_is_the_mean_of_its_runs(tiny: TrainingConfig, shop: Path, tmp_path: Path) -> None:
    steps = tiny.optimiser.steps
    soup = msgspec.structs.replace(tiny, soup=(Member(swapped=0.0, steps=steps), Member(swapped=1.0, steps=2)))
    mean = load_file(train_soup(soup, shop, tmp_path, report=silent))
    first, second = (load_file(tmp_path / str(k) / "image.safetensors") for k in range(2))

    assert not torch.equal(first["project.weight"], second["project.weight"])
    assert all(torch.allclose((first[name] + second[name]) / 2, mean[name]) for name in mean)
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
