"""One vector of frames and words: what it is made of, what is learnt for it, and that either side stands alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.cli import main
from encoders.config import TrainingConfig
from encoders.errors import DataRefused, ReleaseRefused
from encoders.fuse import Pages, learn_weights
from encoders.fusion import FILE, Fusion, Weights
from encoders.pictures import read_picture
from encoders.pipeline import learn_fusion, pack
from encoders.release import forget_fusion, load, read_manifest, write_fusion
from encoders.text import Utterances
from tests.encoders.conftest import folded_release, silent

Rows = NDArray[np.float32]
DIM, PRODUCTS = 64, 8
NOTHING = np.zeros((0, DIM), np.float32)


def unit(rows: NDArray[np.floating]) -> Rows:
    made: Rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return made


def near(rows: Rows, *, each: int, noise: float, rng: np.random.Generator) -> Rows:
    """`each` rows around each row."""
    return unit(np.repeat(rows, each, axis=0) + noise * rng.normal(size=(len(rows) * each, DIM)) / DIM**0.5)


class World:
    """Pages whose pictures and texts have a half of the numbers each; small talk is away from all texts."""

    def __init__(self) -> None:
        self.rng = rng = np.random.default_rng(3)
        zero = np.zeros((PRODUCTS, DIM // 2))
        self.images = unit(np.concatenate([rng.normal(size=zero.shape), zero], axis=1))
        self.texts = unit(np.concatenate([zero, rng.normal(size=zero.shape)], axis=1))
        ranks = np.arange(PRODUCTS)
        self.pages = Pages(self.images, ranks, self.texts, ranks)
        self.photos, self.owners = near(self.images, each=4, noise=1.0, rng=rng), np.repeat(ranks, 4)
        self.said = near(self.texts, each=6, noise=0.7, rng=rng)
        self.talk = unit(-self.texts.sum(axis=0) + 0.3 * rng.normal(size=(20, DIM)))

    def learnt(self, seed: int = 0) -> Weights:
        labels = np.concatenate([np.repeat(np.arange(PRODUCTS), 6), np.full(len(self.talk), -1)])
        said = Utterances(np.concatenate([self.said, self.talk]), labels)
        return learn_weights(self.pages, self.photos, self.owners, said, seed, silent)

    def found(self, fusion: Fusion, clips: list[tuple[Rows, Rows]], owners: NDArray[np.int64]) -> float:
        """R@1 of clips."""
        pages = [fusion.page(self.images[i : i + 1], self.texts[i : i + 1]) for i in range(PRODUCTS)]
        vectors = [fusion.clip(*clip) for clip in clips]
        whole, asked = (np.stack([row for row in rows if row is not None]) for rows in (pages, vectors))
        return float(np.mean((asked @ whole.T).argmax(axis=1) == owners))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def weights(world: World) -> Weights:
    return world.learnt()


@pytest.fixture(scope="module")
def fusion(weights: Weights) -> Fusion:
    return Fusion(weights)


def test_the_same_seed_learns_the_same_and_another_one_something_else(world: World, weights: Weights) -> None:
    again, other = world.learnt(), world.learnt(seed=1)

    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, again, strict=True))
    assert weights.page.tobytes() != other.page.tobytes()


def test_both_sides_find_more_than_either_and_neither_loses_alone(world: World, fusion: Fusion) -> None:
    rng, ranks = np.random.default_rng(5), np.repeat(np.arange(PRODUCTS), 40)
    shown = near(world.images, each=40, noise=1.6, rng=rng)
    said = near(world.texts, each=40, noise=1.6, rng=rng)
    seen_alone = float(np.mean((shown @ world.images.T).argmax(axis=1) == ranks))
    said_alone = float(np.mean((said @ world.texts.T).argmax(axis=1) == ranks))

    frames = world.found(fusion, [(row[None], NOTHING) for row in shown], ranks)
    words = world.found(fusion, [(NOTHING, row[None]) for row in said], ranks)
    both = world.found(fusion, [(a[None], b[None]) for a, b in zip(shown, said, strict=True)], ranks)

    assert both > max(frames, words)
    assert frames >= seen_alone - 0.1
    assert words >= said_alone - 0.1


def test_without_dropout_words_alone_would_be_neglected(
    world: World, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.fuse.NO_WORDS", 0.0)
    monkeypatch.setattr("encoders.fuse.NO_FRAMES", 0.0)

    assert weights.page[0] > world.learnt().page[0] + 0.02


def test_small_talk_hardly_moves_what_is_seen(world: World, fusion: Fusion) -> None:
    frame, said, talk = world.photos[:1], world.said[:1], world.talk[:1]
    alone, with_talk, with_words = (fusion.clip(frame, words) for words in (NOTHING, talk, said))
    assert alone is not None and with_talk is not None and with_words is not None  # noqa: PT018

    assert alone @ with_talk > alone @ with_words + 0.05


def test_of_several_utterances_the_one_nearest_to_a_page_counts(world: World, fusion: Fusion) -> None:
    said, talk = world.said[:1], world.talk[:2]
    one = fusion.clip(world.photos[:1], said)
    among = fusion.clip(world.photos[:1], np.concatenate([talk, said]))
    assert one is not None and among is not None  # noqa: PT018

    assert one == pytest.approx(among, abs=1e-6)


def test_no_sound_is_the_mean_of_the_frames_and_no_picture_the_words(world: World, fusion: Fusion) -> None:
    silent_clip, dark_clip = fusion.clip(world.photos[:3], NOTHING), fusion.clip(NOTHING, world.said[:1])

    assert unit(world.photos[:3].mean(axis=0)) == pytest.approx(silent_clip, abs=1e-6)
    assert world.said[0] == pytest.approx(dark_clip, abs=1e-6)
    assert fusion.clip(NOTHING, NOTHING) is None
    assert fusion.page(NOTHING, NOTHING) is None


@given(st.integers(0, 8), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_a_vector_has_unit_length_and_the_same_bytes_each_time(frames: int, words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pages = unit(rng.normal(size=(4, DIM)))
    bias, most, page = (np.array([value], np.float32) for value in (0.1, 0.6, 0.5))
    fusion = Fusion(Weights(pages, pages, np.ones(3, np.float32), bias, most, page))
    seen, spoken = unit(rng.normal(size=(frames, DIM))), unit(rng.normal(size=(words, DIM)))

    for one, again in ((fusion.clip, fusion.clip), (fusion.page, fusion.page)):
        vector, twin = one(seen, spoken), again(seen.copy(), spoken.copy())
        assert (vector is None) == (frames + words == 0)
        if vector is not None and twin is not None:
            assert vector.tobytes() == twin.tobytes()
            assert 1.0 == pytest.approx(float(np.linalg.norm(vector)), abs=1e-5)


def test_a_trained_release_fuses_clips_and_pages(run: Path, shop: Path) -> None:
    release = load(run / "release")
    picture = read_picture(next((shop / "val").rglob("*.jpg")))
    page = release.encode_page("Red Box", "A red box.", [picture])
    seen, spoken = release.encode_frames(picture[None]), release.encode_utterances(["the red box"])

    fused = release.fuse(seen, spoken)

    assert fused is not None
    assert page.fused is not None
    assert (release.dim,) == fused.shape == page.fused.shape
    assert release.fuse(seen[:0], spoken[:0]) is None
    again = load(run / "release").fuse(seen, spoken)
    assert again is not None
    assert fused.tobytes() == again.tobytes()


@pytest.mark.slow
def test_a_release_that_was_packed_without_learns_it_later(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    bare = forget_fusion(folder)
    release = load(folder)
    page = release.encode_page("Box", "", [np.zeros((80, 80, 3), np.uint8)])

    assert FILE not in read_manifest(folder).files
    assert b"fusion" not in (folder / "release.json").read_bytes()
    assert bare == forget_fusion(folder) == release.digest
    assert page.fused is None
    assert release.fuse(page.image, page.text) is None
    assert load(run / "release").digest == learn_fusion(folder, shop, report=silent) != bare
    assert 0 == main(["fuse", "--quiet", "--release", str(folder), "--data", str(shop)])
    assert load(run / "release").digest == load(folder).digest


def test_packing_again_drops_the_fusion_of_other_weights(
    run: Path, shop: Path, tiny: TrainingConfig, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    assert (folder / FILE).exists()

    pack(tiny, run, folder)

    assert not (folder / FILE).exists()
    assert load(folder).fuse(np.ones((1, 32), np.float32), np.ones((0, 32), np.float32)) is None


def test_other_data_than_a_release_was_trained_on_are_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    other = Path(shutil.copytree(shop, tmp_path / "shop"))
    next((other / "train").rglob("*.jpg")).unlink()

    with pytest.raises(DataRefused, match="data_sha256"):
        learn_fusion(folder, other, report=silent)


def test_a_run_over_a_fold_learns_none_from_the_photos_that_it_is_measured_on(
    run: Path, shop: Path, tmp_path: Path
) -> None:
    folder = folded_release(run, tmp_path)
    learn_fusion(folder, shop, report=silent)

    assert FILE not in read_manifest(folder).files


def test_a_fusion_that_does_not_fit_is_refused(run: Path, weights: Weights, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))

    write_fusion(folder, weights)
    with pytest.raises(ReleaseRefused, match=f"is of dim {DIM}, the release of 32"):
        load(folder)
    write_fusion(folder, weights._replace(gate=np.ones(2, np.float32)))
    with pytest.raises(ReleaseRefused, match="gate of shape"):
        load(folder)
