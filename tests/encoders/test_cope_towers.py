"""The towers of preset `cope`: equal to the libraries whose checkpoints they read, and strict about those."""

import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.cope.fusion import Kind
from encoders.cope.roberta import ShallowRoberta, TextShape, Tokens, load_roberta
from encoders.cope.towers import Batch, Encoders, Towers
from encoders.cope.xclip import VideoShape, XClip, load_xclip
from encoders.errors import WeightsRefused

VIDEO = VideoShape(
    width=16, layers=2, heads=2, hidden=24, patch=8, pixels=16, frames=4, out=12, integration_heads=2,
    integration_hidden=20,
)  # fmt: skip
TEXT = TextShape(width=16, layers=2, heads=2, hidden=24, vocabulary=40, positions=20, dropout=0.0)


@pytest.fixture(scope="module")
def library() -> Any:
    return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def xclip(library: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny random X-CLIP of the library, and the folder it is saved in."""
    torch.manual_seed(0)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8,
        "image_size": 16, "num_frames": 4, "mit_hidden_size": 12, "mit_num_attention_heads": 2,
        "mit_intermediate_size": 20, "mit_num_hidden_layers": 1,
    }  # fmt: skip
    config = library.XCLIPConfig(
        text_config=text | {"vocab_size": 30}, vision_config=vision, projection_dim=12, prompt_num_attention_heads=2
    )
    model = library.XCLIPModel(config).eval()
    folder = tmp_path_factory.mktemp("xclip")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def bert(library: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    torch.manual_seed(0)
    config = library.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40,
        max_position_embeddings=20,
    )  # fmt: skip
    model = library.BertModel(config).eval()
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return model, folder


def videos(count: int = 3, frames: int = 4) -> Tensor:
    return torch.randn(count, frames, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def titles(count: int = 3) -> Tokens:
    ids = torch.randint(1, 40, (count, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(7)[None, :] < torch.tensor([7, 4, 2] * count)[:count, None]
    return Tokens(ids, mask)


def towers(kind: Kind = "linear") -> Towers:
    torch.manual_seed(0)
    return Towers(Encoders(XClip(VIDEO), ShallowRoberta(TEXT)), 8, kind=kind).eval()


def test_videos_come_out_as_from_the_transformers_library(xclip: tuple[Any, Path]) -> None:
    model, folder = xclip
    with torch.no_grad():
        expected = model.get_video_features(videos()).pooler_output
        found = load_xclip(str(folder)).eval()(videos())

    assert float((expected - found).abs().max()) < 1e-4


def test_titles_come_out_as_from_the_transformers_library(bert: tuple[Any, Path]) -> None:
    model, folder = bert
    tokens = titles()
    with torch.no_grad():
        expected = model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).pooler_output
        found = load_roberta(str(folder)).eval()(tokens)

    assert float((expected - found).abs().max()) < 1e-4


def test_more_integration_layers_than_the_checkpoint_has_begin_at_random(xclip: tuple[Any, Path]) -> None:
    loaded, four = load_xclip(str(xclip[1])), load_xclip(str(xclip[1]), integration_layers=4)
    mine, theirs = loaded.state_dict(), four.state_dict()

    assert 4 == four.shape.integration_layers
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_fewer_text_layers_are_the_first_ones(bert: tuple[Any, Path]) -> None:
    assert 1 == load_roberta(str(bert[1]), layers=1).shape.layers
    with pytest.raises(WeightsRefused, match="has 2 layers, but 3"):
        load_roberta(str(bert[1]), layers=3)


def test_one_image_is_spread_over_all_positions() -> None:
    tower = towers().visual.eval()
    assert isinstance(tower, XClip)
    image = videos(frames=1)
    with torch.no_grad():
        feature = tower.visual_projection(tower.vision_model(image[:, 0], 1))
        expected = tower.mit(feature[:, None].expand(-1, VIDEO.frames, -1))

    assert torch.allclose(expected, tower(image), atol=1e-6)


def test_frames_hear_each_other() -> None:
    tower = XClip(VIDEO).eval()
    other = videos()
    other[:, 3] = 0.0
    with torch.no_grad():
        first = tower.vision_model(videos().flatten(0, 1), 4).unflatten(0, (-1, 4))[:, 0]
        again = tower.vision_model(other.flatten(0, 1), 4).unflatten(0, (-1, 4))[:, 0]

    assert not torch.allclose(first, again, atol=1e-5)


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="3 frames, but this tower takes 1 or 4"):
        XClip(VIDEO)(videos(frames=3))


def test_recomputing_activations_changes_no_gradient() -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        tower = XClip(VIDEO)
        tower.recompute(on)
        torch.autograd.backward(tower(videos()).square().sum())
        gradients.append(torch.cat([p.grad.flatten() for p in tower.parameters() if p.grad is not None]))

    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "weighted", "gate", "transformer"])
def test_every_domain_lands_on_the_unit_sphere_of_one_space(kind: Kind) -> None:
    batch = Batch(videos(frames=1), titles(), videos(), videos(), torch.arange(3))
    with torch.no_grad():
        embedded = towers(kind)(batch)

    for rows in embedded:
        assert (3, 8) == tuple(rows.shape)
        assert torch.allclose(torch.ones(3), rows.norm(dim=1), atol=1e-5)
    assert torch.allclose(embedded.page, towers(kind).page(batch.images, batch.titles), atol=1e-5)


def test_encoders_are_shared_and_kept_once() -> None:
    model = towers()
    names = list(model.state_dict())

    assert model.page.encoders.visual is model.visual is model.live.encoders.visual
    assert len(names) == len({name.split("visual.")[-1] for name in names})
    assert not torch.equal(model.video(videos()), model.live(videos()))


def test_the_full_size_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        visual, text = XClip(VideoShape(integration_layers=4)), ShallowRoberta(TextShape())

    assert 134.3 == pytest.approx(sum(p.numel() for p in visual.parameters()) / 1e6, abs=0.2)
    assert 38.48 == pytest.approx(sum(p.numel() for p in text.parameters()) / 1e6, abs=0.05)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="nowhere: no such folder"):
        load_xclip(str(tmp_path / "nowhere"))


def test_a_checkpoint_of_another_kind_is_refused(bert: tuple[Any, Path], xclip: tuple[Any, Path]) -> None:
    with pytest.raises(WeightsRefused, match="model_type is 'bert', not 'xclip'"):
        load_xclip(str(bert[1]))
    with pytest.raises(WeightsRefused, match="model_type is 'xclip', not 'bert'"):
        load_roberta(str(xclip[1]))


def test_missing_and_misshapen_tensors_are_named(xclip: tuple[Any, Path], tmp_path: Path) -> None:
    config = json.loads((xclip[1] / "config.json").read_text("utf-8"))
    state = load_file(xclip[1] / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(
        {name: value for name, value in state.items() if "message_fc" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsRefused, match=r"lacks 4 of .*message_fc"):
        load_xclip(str(tmp_path))

    config["vision_config"]["num_frames"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsRefused, match=r"mit.position_embedding has shape \(1, 4, 12\)"):
        load_xclip(str(tmp_path))


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "gelu"), ("layer_norm_eps", 1e-3)])
def test_a_video_checkpoint_that_would_give_other_vectors_here_is_refused(
    xclip: tuple[Any, Path], tmp_path: Path, key: str, value: Any
) -> None:
    config = json.loads((xclip[1] / "config.json").read_text("utf-8"))
    config["vision_config"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "model.safetensors").write_bytes((xclip[1] / "model.safetensors").read_bytes())

    with pytest.raises(WeightsRefused, match=f"vision_config.{key} is {value!r}, but only"):
        load_xclip(str(tmp_path))


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 1e-5)])
def test_a_text_checkpoint_that_would_give_other_vectors_here_is_refused(
    bert: tuple[Any, Path], tmp_path: Path, key: str, value: Any
) -> None:
    config = json.loads((bert[1] / "config.json").read_text("utf-8")) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "model.safetensors").write_bytes((bert[1] / "model.safetensors").read_bytes())

    with pytest.raises(WeightsRefused, match=f"{key} is {value!r}, but only"):
        load_roberta(str(tmp_path))


def test_a_pickle_is_not_executed(xclip: tuple[Any, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((xclip[1] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Path("/")))

    with pytest.raises(WeightsRefused, match="not a state dict of plain tensors"):
        load_xclip(str(tmp_path))
