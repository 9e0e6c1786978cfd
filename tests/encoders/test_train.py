"""Training in miniature: it learns, it repeats itself, it goes on where it stopped, it stops at nonsense."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from encoders import train as training
from encoders.config import TrainingConfig
from encoders.errors import TrainingStopped, WeightsRefused
from encoders.grocery import read_grocery
from encoders.sampler import Draw
from encoders.train import begin, compare, learn, new_tower, train, training_album, training_photos, warm
from encoders.views import swapped_caches, view_cache
from tests.encoders.conftest import silent


def test_one_batch_is_learnt_by_heart(tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        tiny, optimiser=msgspec.structs.replace(tiny.optimiser, steps=1000, backbone_rate=1e-4, head_rate=2e-3)
    )
    grocery, tower = read_grocery(shop), new_tower(config)
    album = training_album(config, grocery, view_cache(config, grocery, tower.backbone, cache, silent))
    warm(config, tower, album, tmp_path / "warm.safetensors", silent)
    run = begin(config, tower, album)
    draw = Draw(np.array([0, 1, 2]), np.array([np.nonzero(album.labels.numpy() == k)[0][:2] for k in range(3)]), False)
    losses = [learn(config, run, album, draw, step)["loss"] for step in range(50)]

    assert np.mean(losses[-10:]) < 0.8 * losses[0]


def test_the_same_seed_gives_the_same_weights(tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path) -> None:
    first, again = (
        load_file(train(tiny, shop, tmp_path / name, cache=cache, report=silent)) for name in ("first", "again")
    )

    assert all(torch.equal(first[name], again[name]) for name in first)


def test_another_seed_gives_other_weights(tiny: TrainingConfig, shop: Path, run: Path, tmp_path: Path) -> None:
    other = msgspec.structs.replace(tiny, seed=1)
    weights = load_file(train(other, shop, tmp_path, report=silent))
    expected = load_file(run / "image.safetensors")

    assert not torch.equal(expected["project.weight"], weights["project.weight"])


def test_a_run_that_was_killed_goes_on_exactly(
    tiny: TrainingConfig, shop: Path, cache: Path, run: Path, tmp_path: Path
) -> None:
    train(tiny, shop, tmp_path, cache=cache, steps=2, report=silent)
    (tmp_path / "checkpoint.pt.1234.part").write_bytes(b"half a checkpoint")
    resumed = load_file(train(tiny, shop, tmp_path, cache=cache, report=silent))
    whole = load_file(run / "image.safetensors")

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [(folder / "losses.jsonl").read_text("utf-8") for folder in (run, tmp_path)]
    assert losses[0] == losses[1]


def test_a_loss_that_is_no_number_stops_and_names_the_batch(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training, "supervised_contrast", lambda vectors, labels, *, temperature, left_out: vectors.sum() * float("nan")
    )
    (tmp_path / "warm.safetensors").write_bytes(_warm_weights(tiny))

    with pytest.raises(TrainingStopped) as stopped:
        train(tiny, shop, tmp_path, cache=cache, report=silent)
    told = msgspec.json.decode(stopped.value.path.read_bytes())
    assert 0 == told["step"]
    assert 6 == len(told["photos"])
    assert all(key.startswith("train/Box/") for key in told["photos"])


def test_a_foreign_checkpoint_is_refused(tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path) -> None:
    torch.save({"step": 3, "tower": {"stem": torch.zeros(1)}}, tmp_path / "checkpoint.pt")

    with pytest.raises(WeightsRefused, match=r"checkpoint\.pt: not a checkpoint of this config"):
        train(tiny, shop, tmp_path, cache=cache, report=silent)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"config": 3}, {"config": "{}", "tower": 3}])
def test_what_is_no_checkpoint_is_refused(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")

    with pytest.raises(WeightsRefused, match=r"checkpoint\.pt"):
        train(tiny, shop, tmp_path, cache=cache, report=silent)


def test_warmed_up_weights_that_are_none_are_refused(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "warm.safetensors").write_bytes(b"not weights at all")

    with pytest.raises(WeightsRefused, match=r"warm\.safetensors: not the warmed up weights"):
        train(tiny, shop, tmp_path, cache=cache, report=silent)


def test_a_run_of_another_config_is_not_gone_on_with(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path
) -> None:
    train(tiny, shop, tmp_path, cache=cache, steps=2, report=silent)
    faster = msgspec.structs.replace(tiny, optimiser=msgspec.structs.replace(tiny.optimiser, head_rate=0.5))

    with pytest.raises(WeightsRefused, match="another config: give another --out"):
        train(faster, shop, tmp_path, cache=cache, report=silent)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_run_changes_nothing(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(tiny, optimiser=msgspec.structs.replace(tiny.optimiser, steps=60))
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "encoders", "train", "--quiet", "--config", str(tmp_path / "config.json")]
    command += ["--data", str(shop), "--out", str(tmp_path / "killed"), "--cache", str(cache)]
    diary = tmp_path / "killed" / "losses.jsonl"

    killed = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while killed.poll() is None and time.monotonic() < deadline:
        if diary.exists() and diary.read_text("utf-8").count("\n") > 20:
            break
        time.sleep(0.002)
    killed.kill()
    assert -signal.SIGKILL == killed.wait()
    at = diary.read_text("utf-8").count("\n")
    resumed = load_file(train(config, shop, tmp_path / "killed", cache=cache, report=silent))
    whole = load_file(train(config, shop, tmp_path / "whole", cache=cache, report=silent))

    assert 20 < at < 60
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole" / "losses.jsonl").read_text("utf-8") == diary.read_text("utf-8")


def test_a_pickled_checkpoint_is_refused(tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path) -> None:
    torch.save({"step": Path("/")}, tmp_path / "checkpoint.pt")

    with pytest.raises(WeightsRefused, match=r"checkpoint\.pt"):
        train(tiny, shop, tmp_path, cache=cache, report=silent)


def test_photos_of_unseen_products_and_held_out_ones_are_never_trained_on(tiny: TrainingConfig, shop: Path) -> None:
    data = msgspec.structs.replace(tiny.data, unseen=("grocery-002",), holdout=0.34)
    config = msgspec.structs.replace(tiny, data=data)
    kept, held = training_photos(config, read_grocery(shop))

    assert (20, 10) == (len(kept), len(held))
    assert "grocery-002" not in {photo.product_id for photo in (*kept, *held)}


def test_a_product_without_photos_is_learnt_from_its_page(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path
) -> None:
    data = msgspec.structs.replace(tiny.data, unseen=("grocery-002",))
    config = msgspec.structs.replace(tiny, data=data, batch=msgspec.structs.replace(tiny.batch, products=6))

    assert train(config, shop, tmp_path, cache=cache, report=silent).exists()


def test_a_batch_in_other_colours_leaves_the_learnt_pages_alone(
    tiny: TrainingConfig, shop: Path, cache: Path, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(tiny, batch=msgspec.structs.replace(tiny.batch, swapped=1.0))
    grocery, tower = read_grocery(shop), new_tower(config)
    views = view_cache(config, grocery, tower.backbone, cache, silent)
    swapped = swapped_caches(config, grocery, tower.backbone, cache, silent)
    album = training_album(config, grocery, views, swapped)
    warm(config, tower, album, tmp_path / "warm.safetensors", silent)
    run = begin(config, tower, album)
    before, weights = run.bank.clone(), run.tower.project.weight.detach().clone()
    draw = Draw(np.array([0, 1, 2]), np.array([np.nonzero(album.labels.numpy() == k)[0][:2] for k in range(3)]), False)
    learn(config, run, album, draw, 0)

    assert torch.equal(before, run.bank)
    assert not torch.equal(weights, run.tower.project.weight)
    assert not np.array_equal(swapped[0].gallery, views.gallery)


@pytest.mark.parametrize("alone", [False, True])
def test_alone_in_their_world_only_the_pages_of_a_step_count(
    tiny: TrainingConfig, shop: Path, cache: Path, alone: bool
) -> None:
    grocery, tower = read_grocery(shop), new_tower(tiny)
    album = training_album(tiny, grocery, view_cache(tiny, grocery, tower.backbone, cache, silent))
    vectors, drawn = torch.eye(len(grocery.products), tiny.dim), torch.tensor([0, 1, 2])
    alike = torch.cat([vectors[:3], vectors[:1].expand(len(vectors) - 3, -1)])  # all others look like the first photo
    unlike, other = (
        compare(tiny, album, vectors[:3], drawn, torch.ones(3).bool(), vectors[:3], drawn, pages, alone=alone)["loss"]
        for pages in (vectors, alike)
    )

    assert alone == bool(torch.equal(unlike, other))


def _warm_weights(config: TrainingConfig) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in new_tower(config).state_dict().items()})
