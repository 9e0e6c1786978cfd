"""A run of preset `cope` as a release: what goes in comes out, and nothing that was changed is loaded."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from encoders.cope.command import main
from encoders.cope.config import CopeConfig
from encoders.cope.evaluate import embed, load_run
from encoders.cope.release import load_cope, pack_cope
from encoders.cope.rope import read_rope
from encoders.cope.train import train
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.release import load
from tests.encoders.miniature import write_rope
from tests.encoders.test_cope_train import silent, tiny


@pytest.fixture(scope="module")
def rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rope(tmp_path_factory.mktemp("rope"))


@pytest.fixture(scope="module")
def run(rope: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Not to be changed."""
    out = tmp_path_factory.mktemp("run")
    train(tiny(), rope, out, steps=2, report=silent)
    return out


def test_a_release_gives_the_vectors_of_its_run(run: Path, rope: Path, tmp_path: Path) -> None:
    assert 0 == main(["export", "--run", str(run), "--out", str(tmp_path), "--licence", "ROPE=by signed form"])
    release = load_cope(tmp_path)
    config, towers, backbone = load_run(run)
    samples = read_rope(rope)
    expected = embed(config, towers, backbone, samples, silent)

    page, live = samples.of("page")[1], samples.of("live")[0]
    assert np.allclose(expected["P"].vectors[1], release.encode_page(page.words, page.pictures[0].picture()), atol=1e-5)
    frames = np.stack([place.picture() for place in live.pictures])
    assert np.allclose(expected["L"].vectors[0], release.encode_clip(frames), atol=1e-5)
    assert pytest.approx(1.0, abs=1e-5) == float(np.linalg.norm(release.encode_clip(frames[:1], domain="video")))
    with pytest.raises(ValueError, match="uint8"):
        release.encode_clip(frames.astype(np.float32))


def test_a_release_packed_twice_has_one_digest(run: Path, tmp_path: Path) -> None:
    assert pack_cope(run, tmp_path / "one") == pack_cope(run, tmp_path / "two") == load_cope(tmp_path / "one").digest
    assert load_cope(tmp_path / "one").digest != pack_cope(run, tmp_path / "one", name="other")


def test_what_was_changed_is_named(run: Path, tmp_path: Path) -> None:
    pack_cope(run, tmp_path)
    content = bytearray((tmp_path / "towers.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "towers.safetensors").write_bytes(content)

    with pytest.raises(ReleaseRefused, match=r"towers\.safetensors: was changed"):
        load_cope(tmp_path)


def test_each_kind_of_release_refuses_the_other(run: Path, tmp_path: Path) -> None:
    pack_cope(run, tmp_path)

    with pytest.raises(ReleaseRefused, match="streamproc-cope-release/1"):
        load(tmp_path)
    with pytest.raises(ReleaseRefused, match=r"release\.json"):
        load_cope(tmp_path / "none")


def test_an_unfinished_run_and_preset_clip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(tiny()))
    with pytest.raises(WeightsRefused, match="not finished"):
        pack_cope(tmp_path, tmp_path / "out")

    clip = msgspec.convert({"preset": "clip", "clip": {"weights": "some/clip"}}, CopeConfig)
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(clip))
    with pytest.raises(ReleaseRefused, match="is of preset clip"):
        pack_cope(tmp_path, tmp_path / "out")


def test_titles_keep_their_vocabulary_when_the_checkpoint_is_gone(rope: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers")
    source = tmp_path / "bert"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "box", "red", "not", "or", ","]
    library.BertModel(library.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(source)
    (source / "vocab.txt").write_text("\n".join(words), "utf-8")
    config = tiny(text={"weights": str(source), "longest": 8})
    train(config, rope, tmp_path / "run", steps=1, report=silent)
    pack_cope(tmp_path / "run", tmp_path / "out")
    image = np.zeros((20, 20, 3), np.uint8)
    before = load_cope(tmp_path / "out").encode_page("box, red", image)
    shutil.rmtree(source)

    release = load_cope(tmp_path / "out")
    assert np.array_equal(before, release.encode_page("box, red", image))
    assert not np.allclose(before, release.encode_page("not red", image))


def test_loading_needs_no_random_numbers(run: Path, tmp_path: Path) -> None:
    """Every weight comes from the file: what a new tower would draw decides nothing."""
    pack_cope(run, tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    vectors = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        vectors.append(load_cope(tmp_path).encode_clip(frames))

    assert np.array_equal(vectors[0], vectors[1])
