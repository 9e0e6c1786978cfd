"""Preset `clip` takes checkpoints of every CLIP family, and says what is wrong with those it cannot take."""

import importlib
import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from encoders.cope.clip import Backbone, load_clip
from encoders.cope.look import CLIP_MEAN, IMAGENET_MEAN
from encoders.cope.towers import Batch, Towers
from encoders.cope.weights import checkpoint_folder
from encoders.errors import WeightsRefused
from tests.encoders.tiny_clips import FAMILIES, SIDE, write_clip, write_open_clip

filterwarnings = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def library() -> Any:
    return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random checkpoint of each family."""
    return {family: write_clip(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_open_clip(tmp_path_factory.mktemp("open_clip"))


def embedded(backbone: Backbone) -> torch.Tensor:
    """Pages of two titles and images through towers on this backbone."""
    torch.manual_seed(0)
    towers = Towers(backbone.encoders, 8)
    images, clips = torch.rand(2, 1, 3, SIDE, SIDE), torch.rand(2, 3, 3, SIDE, SIDE)
    batch = Batch(images, backbone.tokenise(["red box", "green 杯"]), clips, clips, torch.arange(2))
    rows = torch.stack(list(towers.train()(batch)))
    torch.autograd.backward(rows[:, :, 0].sum())
    tuned = [p for p in towers.visual.parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0]
    assert bool(tuned) != backbone.encoders.visual.frozen
    assert not {name for name, _ in towers.text.named_parameters() if "vis" in name}
    return rows.detach()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [True, False])
def test_each_family_becomes_a_backbone(family: str, frozen: bool, folders: dict[str, Path]) -> None:
    backbone = load_clip(str(folders[family]), frozen=frozen)
    rows = embedded(backbone)

    assert SIDE == backbone.look.pixels
    assert torch.allclose(torch.ones(5, 2), rows.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(rows[3, 0], rows[3, 1], atol=1e-5)  # titles differ


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_library(family: str, folders: dict[str, Path], library: Any) -> None:
    backbone = load_clip(str(folders[family]))
    model = getattr(library, f"{family}Model").from_pretrained(folders[family]).eval()
    videos, tokens = torch.rand(2, 3, 3, SIDE, SIDE), backbone.tokenise(["red box", "box"])
    mask = {} if family == "Siglip" else {"attention_mask": tokens.mask.long()}  # SigLIP was trained without
    visual, text = (part.eval() for part in backbone.encoders)
    with torch.no_grad():
        images = model.get_image_features(videos.flatten(0, 1)).pooler_output.reshape(2, 3, -1).mean(dim=1)
        titles = model.get_text_features(input_ids=tokens.ids, **mask).pooler_output

    assert torch.allclose(images, visual(videos), atol=1e-5)
    assert torch.allclose(titles, text(tokens), atol=1e-5)


@pytest.mark.parametrize("name", ["model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_are_asked_of_the_hub_under_the_names_of_both_libraries(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(source: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(folders["CLIP"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    assert folders["CLIP"] == checkpoint_folder("some/clip")
    assert any(fnmatch(name, pattern) for pattern in asked)


def test_a_picture_is_looked_at_as_the_checkpoint_says(folders: dict[str, Path], tmp_path: Path) -> None:
    looks = {family: load_clip(str(folder)).look for family, folder in folders.items()}
    v5 = copied(folders["ChineseCLIP"], tmp_path)
    told = json.loads((v5 / "preprocessor_config.json").read_text("utf-8"))
    (v5 / "preprocessor_config.json").unlink()
    (v5 / "processor_config.json").write_text(json.dumps({"image_processor": told}), "utf-8")

    assert (CLIP_MEAN, "crop") == (looks["CLIP"].mean, looks["CLIP"].fit)
    assert Image.Resampling.BICUBIC == looks["CLIP"].test_filter
    assert ((0.5, 0.5, 0.5), "squash") == (looks["Siglip"].mean, looks["Siglip"].fit)
    assert (IMAGENET_MEAN, "squash") == (looks["ChineseCLIP"].mean, looks["ChineseCLIP"].fit)
    assert Image.Resampling.BILINEAR == looks["ChineseCLIP"].test_filter
    assert looks["ChineseCLIP"] == load_clip(str(v5)).look


def test_a_checkpoint_in_half_precision_becomes_a_whole_one(tmp_path: Path) -> None:
    backbone = load_clip(str(write_clip(tmp_path, half=True)), frozen=True)

    assert {torch.float32} == {value.dtype for value in backbone.encoders.visual.parameters()}
    embedded(backbone)


@filterwarnings
def test_open_clip_folders_are_read_too(open_clip_folder: Path) -> None:
    backbone = load_clip(str(open_clip_folder), frozen=True)

    assert (12, 12) == backbone.encoders.widths
    embedded(backbone)


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_folder_without_weights_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (copied(folders["CLIP"], tmp_path) / "model.safetensors").unlink()

    with pytest.raises(WeightsRefused, match="holds no weights"):
        load_clip(str(tmp_path))


def test_missing_tensors_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    weights = copied(folders["CLIP"], tmp_path) / "model.safetensors"
    save_file({name: v for name, v in load_file(weights).items() if name != "visual_projection.weight"}, weights)

    with pytest.raises(WeightsRefused, match=r"lacks 1 tensors, such as visual_projection\.weight"):
        load_clip(str(tmp_path))


def test_damaged_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (copied(folders["CLIP"], tmp_path) / "model.safetensors").write_bytes(b"\x00" * 64)

    with pytest.raises(WeightsRefused, match="cannot be loaded"):
        load_clip(str(tmp_path))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@filterwarnings
@pytest.mark.parametrize("family", ["CLIP", "open_clip"])
def test_a_pickle_is_refused_and_not_executed(
    family: str, folders: dict[str, Path], open_clip_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint").mkdir()
    folder = copied(open_clip_folder if family == "open_clip" else folders[family], tmp_path / "checkpoint")
    weights = next(folder.glob("*.safetensors"))
    weights.unlink()
    name = "open_clip_pytorch_model.bin" if family == "open_clip" else "pytorch_model.bin"
    torch.save({"weight": Trap(tmp_path / "sprung")}, folder / name)

    with pytest.raises(WeightsRefused, match="cannot be loaded"):
        load_clip(str(folder))
    assert not (tmp_path / "sprung").exists()


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")

    with pytest.raises(WeightsRefused, match="'llama', not one of clip"):
        load_clip(str(tmp_path))


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="holds neither"):
        load_clip(str(tmp_path))
    with pytest.raises(WeightsRefused, match="no such folder, and no hub id"):
        load_clip("no-such-thing")


@filterwarnings
def test_open_clip_weights_of_another_size_are_refused(open_clip_folder: Path, tmp_path: Path) -> None:
    config = copied(open_clip_folder, tmp_path) / "open_clip_config.json"
    config.write_text(config.read_text("utf-8").replace('"width": 64', '"width": 128'), "utf-8")

    with pytest.raises(WeightsRefused, match="cannot be loaded by open_clip"):
        load_clip(str(tmp_path))
