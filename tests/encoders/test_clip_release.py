"""A CLIP checkpoint as a release: what goes in comes out, with the checkpoint gone, and nothing changed is loaded."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.cli import main as encoders_main
from encoders.cope.clip import load_clip
from encoders.cope.clip_release import pack_checkpoint, pack_run
from encoders.cope.command import main
from encoders.cope.evaluate import embed, load_run
from encoders.cope.look import seen
from encoders.cope.rope import read_rope
from encoders.cope.train import train
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.release import FIRST_JUDGEMENTS, MANIFEST, ClipManifest, load, verified_clip, write_hint, write_judgements
from tests.encoders.miniature import write_rope
from tests.encoders.test_cope_train import silent, tiny
from tests.encoders.tiny_clips import FAMILIES, readme_commands, write_clip, write_open_clip

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 40, 64, 3), dtype=np.uint8)
LICENCES = {"checkpoint": "MIT"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of a checkpoint as it is. Not to be changed."""
    source = write_clip(tmp_path_factory.mktemp("clip"))
    out = tmp_path_factory.mktemp("packed") / "clip"
    pack_checkpoint(str(source), out, licences=LICENCES)
    shutil.rmtree(source)
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A release folder that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("family", [*FAMILIES, "open_clip"])
def test_a_checkpoint_as_it_is_keeps_its_space(family: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = tmp_path / "source"
    write_open_clip(source) if family == "open_clip" else write_clip(source, family)
    backbone = load_clip(str(source), frozen=True)
    with torch.no_grad():
        features = [backbone.encoders.visual.eval()(seen([frame], backbone.look)[None])[0].numpy() for frame in FRAMES]
        words = [backbone.encoders.text.eval()(backbone.tokenise([text]))[0].numpy() for text in ("red box", "杯")]
    expected = np.stack([row / np.linalg.norm(row) for row in features])
    read = np.stack([row / np.linalg.norm(row) for row in words])
    pack_checkpoint(str(source), tmp_path / "out", licences=LICENCES)
    shutil.rmtree(source)
    release = load(tmp_path / "out")
    page = release.encode_page("red box", "", list(FRAMES[:2]))
    both = 0.7 * expected[:2] + 0.3 * read[0]

    assert np.allclose(expected, release.encode_frames(FRAMES), atol=1e-5)
    assert np.allclose(read, release.encode_utterances(["red box", "杯"]), atol=1e-5)
    assert np.allclose(read[0], page.text[0], atol=1e-5)
    assert np.allclose(both / np.linalg.norm(both, axis=1, keepdims=True), page.image, atol=1e-5)
    assert not np.array_equal(read[0], read[1])


@pytest.mark.parametrize("frozen", [True, False])
def test_a_release_gives_the_vectors_of_its_run(frozen: bool, tmp_path: Path) -> None:
    source = write_clip(tmp_path)
    rope = write_rope(tmp_path / "rope")
    config = tiny(preset="clip", clip={"weights": str(source), "frozen": frozen, "frames": 1})
    train(config, rope, tmp_path / "run", steps=1, report=silent)
    samples = read_rope(rope)
    told, towers, backbone = load_run(tmp_path / "run")
    expected = embed(told, towers, backbone, samples, silent)
    export = ["export", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--licence", "checkpoint=MIT"]
    assert 0 == main(export)
    release = load(tmp_path / "out")
    page, live = samples.of("page")[1], samples.of("live")[0]
    middle = live.pictures[len(live.pictures) // 2].picture()

    packed = release.encode_page(page.words, "", [page.pictures[0].picture()])
    assert np.allclose(expected["P"].vectors[1], packed.image[0], atol=1e-5)
    assert np.allclose(expected["L"].vectors[0], release.encode_frames(middle[None])[0], atol=1e-5)
    assert {"checkpoint": "MIT"} == release.licences


def test_a_release_says_what_it_is(folder: Path) -> None:
    told = verified_clip(folder)
    assert isinstance(told, ClipManifest)

    assert ("identity", "transformers", 12, 12) == (told.heads, told.library, told.dim, told.longest)
    assert (16, "crop", "bicubic") == (told.preprocessing.pixels, told.preprocessing.fit, told.preprocessing.filter)
    assert {"model.safetensors"} == set(told.training["weights"])
    assert "1x16x16x3 text:1x12" == load(folder).engine["shapes"]


def test_a_release_packed_twice_has_one_digest(folder: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / folder.name)
    name = verified_clip(folder)
    assert name is not None

    digests = [pack_checkpoint(str(source), tmp_path / out, name="x", licences=LICENCES) for out in ("one", "two")]
    assert digests[0] == digests[1] == load(tmp_path / "one").digest
    assert load(folder).digest != digests[0]  # another name


@pytest.mark.parametrize("batch", [1, 3])
def test_a_row_does_not_depend_on_what_else_is_asked(batch: int, tmp_path: Path) -> None:
    pack_checkpoint(str(write_clip(tmp_path)), tmp_path / "out", licences={}, batch=batch)
    release = load(tmp_path / "out")
    together = release.encode_frames(FRAMES)

    for i in range(len(FRAMES)):
        assert np.array_equal(together[i], release.encode_frames(FRAMES[i : i + 1])[0])
    assert np.array_equal(release.encode_utterances(["red", "box"])[1:], release.encode_utterances(["box"]))
    assert (0, 12) == release.encode_frames(FRAMES[:0]).shape == release.encode_page("red", "", []).image.shape
    assert {"checkpoint": "not told"} == release.licences


def test_pixels_of_another_kind_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        load(folder).encode_frames(FRAMES.astype(np.float32))
    with pytest.raises(ValueError, match="picture"):
        load(folder).encode_page("red", "", [FRAMES[0, :, :, 0]])


@pytest.mark.parametrize("name", ["towers.safetensors", "config.json", "tokenizer.json", "calibration.json"])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(ReleaseRefused, match=rf"{name}: was changed"):
        load(copy)


def test_a_pickle_and_weights_of_another_size_are_refused(copy: Path) -> None:
    from encoders.release import file_sha256, write_manifest

    manifest = verified_clip(copy)
    assert manifest is not None
    weights, name = copy / "towers.safetensors", "live.project.weight"
    state = {key: value.clone() for key, value in load_file(weights).items()}  # the file is mapped, and written below
    smaller = state | {name: state[name][:3].clone()}
    spoils: dict[str, Callable[[], object]] = {
        "do not make a release": lambda: torch.save({"a": 1}, weights),
        rf"{name} has shape \(3, 12\)": lambda: save_file(smaller, weights),
    }
    for reason, spoil in spoils.items():
        spoil()
        files = manifest.files | {weights.name: file_sha256(weights)}
        write_manifest(copy, msgspec.structs.replace(manifest, files=files))
        with pytest.raises(ReleaseRefused, match=reason):
            load(copy)


def test_a_release_says_that_its_calibration_is_a_guess_until_one_is_fitted(copy: Path) -> None:
    before = load(copy)
    assert not before.calibration_fitted
    hinted = write_hint(copy, "Red Box.")
    changed = msgspec.structs.replace(before.calibration, threshold=0.7)
    digest = write_judgements(copy, msgspec.structs.replace(FIRST_JUDGEMENTS, calibration=changed))
    after = load(copy)

    assert 3 == len({before.digest, hinted, digest})
    assert (digest, 0.7, True, "Red Box.") == (
        after.digest, after.calibration.threshold, after.calibration_fitted, after.hint
    )  # fmt: skip


def test_a_release_is_calibrated_and_measured_as_readme_says(
    copy: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"releases/clip": str(copy), "CATALOGUE": str(shop)}
    calibrate, evaluate = (
        [places.get(word, word) for word in shlex.split(line)[3:]] for line in readme_commands()[1:3]
    )

    assert ["calibrate", "evaluate"] == [calibrate[0], evaluate[0]]
    assert 0 == encoders_main([*calibrate, "--quiet", "--holdout", "0.34"])  # of so few photos
    assert load(copy).calibration_fitted
    assert 0 == encoders_main([*evaluate, "--quiet"])
    assert "36 photos of 6 products, 6 pages" in capsys.readouterr().out
    assert 0 == encoders_main(["speed", "--release", str(copy), "--rounds", "1", "--quiet"])
    assert {"torch"} == set(json.loads(capsys.readouterr().out.splitlines()[-1])["wide"])


def test_adapt_needs_towers_trained_here_and_says_so(
    folder: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == encoders_main(["adapt", "--release", str(folder), "--data", str(shop), "--out", str(tmp_path)])
    assert "'streamproc-clip-release/1'; this takes a release of kind lite only" in capsys.readouterr().err


def test_a_card_is_refused_before_anything_is_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere")

    assert 2 == encoders_main(["evaluate", "--release", str(folder), "--data", nowhere, "--card", "--quiet"])
    assert "kind lite only" in capsys.readouterr().err


def test_a_folder_in_use_and_a_foreign_checkpoint_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_clip(tmp_path / "source")
    assert 2 == main(["export", "--checkpoint", str(source), "--out", str(folder)])
    assert "is not empty" in capsys.readouterr().err
    with pytest.raises(WeightsRefused, match="holds neither"):
        pack_checkpoint(str(tmp_path), tmp_path / "out", licences={})
    with pytest.raises(WeightsRefused, match="no such folder, and no hub id"):
        pack_checkpoint("no-such-thing", tmp_path / "out", licences={})
    assert not (tmp_path / "out").exists()


def test_towers_that_would_need_the_hub_each_time_are_refused(tmp_path: Path) -> None:
    from encoders.cope.clip import copy_description

    config = {"model_cfg": {"text_cfg": {"hf_model_name": "roberta-base"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), "utf-8")

    with pytest.raises(WeightsRefused, match="roberta-base on the hub"):
        copy_description(tmp_path, tmp_path / "out")


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    config = tiny(preset="clip", clip={"weights": str(write_clip(tmp_path)), "frozen": True})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes(msgspec.json.encode(config))

    with pytest.raises(WeightsRefused, match=r"towers\.safetensors"):
        pack_run(tmp_path / "run", tmp_path / "out", licences={})


def test_an_unknown_key_is_refused(copy: Path) -> None:
    content = msgspec.json.decode((copy / MANIFEST).read_bytes()) | {"dimension": 3}
    (copy / MANIFEST).write_bytes(msgspec.json.encode(content))

    with pytest.raises(ReleaseRefused, match="dimension"):
        load(copy)
