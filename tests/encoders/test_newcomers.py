"""Pages of products that training had photos of are known again; all others are moved by their titles and lifted."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from encoders.cli import main
from encoders.config import Advantage
from encoders.errors import DataRefused, ReleaseRefused
from encoders.evaluate import Gallery, unseen_figures
from encoders.grocery import read_products
from encoders.measure import Labelled, shares
from encoders.newcomers import FILE, NEAREST, RIDGE, Lesson, Newcomers, learnt, lifted, nearness, thumbnail
from encoders.pictures import read_picture
from encoders.pipeline import learn_newcomers
from encoders.release import forget_newcomers, load, read_manifest, write_newcomers
from tests.encoders.conftest import SHARED, folded_release, silent

DIM, WIDTH = 4, 3
ACROSS = np.eye(DIM, dtype=np.float32)
GREY = np.full((80, 80, 3), 128, np.uint8)
WHITE = np.full((80, 80, 3), 255, np.uint8)


def compressed(picture: NDArray[np.uint8], *, scale: float, quality: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    file = io.BytesIO()
    Image.fromarray(picture).resize((int(width * scale), int(height * scale))).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def packshots(data: Path) -> list[NDArray[np.uint8]]:
    return [read_picture(product.packshot) for product in read_products(data)]


def lesson_of(*pictures: NDArray[np.uint8], bank: NDArray[np.float32] = ACROSS[:0], usual: float = 0.0) -> Lesson:
    return Lesson(
        thumbnails=np.stack([thumbnail(picture) for picture in pictures]),
        titles=np.zeros((len(pictures), WIDTH), np.float32),
        moves=np.zeros((len(pictures), DIM), np.float32),
        bank=bank,
        usual=np.array([usual], np.float32),
    )


TITLE = np.array([1, 0, 0], np.float32)


def test_a_page_that_is_known_stays_as_it_is() -> None:
    newcomers = Newcomers(lesson_of(WHITE), 0.25)

    vector, lift = newcomers.placed(WHITE, ACROSS[0], TITLE)

    assert np.array_equal(ACROSS[0], vector)
    assert 0.0 == lift
    assert 0.25 == newcomers.placed(GREY, ACROSS[0], TITLE)[1]


def test_a_page_near_to_photos_of_anything_is_lifted_less() -> None:
    newcomers = Newcomers(lesson_of(WHITE, bank=np.repeat(ACROSS[:1], NEAREST, axis=0), usual=0.4), 0.25)

    _, of_hub = newcomers.placed(GREY, np.array([0.6, 0.8, 0, 0], np.float32), TITLE)
    _, of_other = newcomers.placed(GREY, ACROSS[3], TITLE)

    assert [0.05, 0.65] == pytest.approx([of_hub, of_other], abs=1e-5)


def test_titles_tell_where_photos_lie() -> None:
    titles = np.array([[1, 0, 0], [0, 1, 0], [0, 0.8, 0.6]], np.float32)
    pictures = [WHITE, GREY, np.zeros_like(GREY)]
    lesson = learnt(pictures, ACROSS[:3], titles, ACROSS[[0, 0, 1, 1, 1]], np.array([0, 0, 1, 1, 2]))
    newcomers = Newcomers(lesson, 0.0)

    picture = np.arange(80 * 80 * 3, dtype=np.uint32).reshape(80, 80, 3).astype(np.uint8)
    vector, _ = newcomers.placed(picture, ACROSS[3], np.array([0.1, 0.7, 0.7], np.float32))
    stranger, _ = newcomers.placed(picture, ACROSS[3], np.array([0.4, 0.4, -0.8], np.float32))

    assert vector[1] > 0.1 > 0 > vector[0]  # titles like this one belong to photos like the second
    assert 1.0 == pytest.approx(np.linalg.norm(vector), abs=1e-6)
    assert np.array_equal(ACROSS[3], stranger)  # a title like none of theirs tells nothing


def test_without_photos_nothing_is_moved_and_no_page_is_a_hub() -> None:
    lesson = learnt([WHITE, GREY], ACROSS[:2], np.eye(2, WIDTH, dtype=np.float32), ACROSS[:0], np.zeros(0, np.int64))

    vector, lift = Newcomers(lesson, 0.25).placed(np.zeros_like(GREY), ACROSS[2], TITLE)

    assert np.array_equal(ACROSS[2], vector)
    assert 0.25 == lift


def test_a_page_is_not_a_hub_for_photos_of_its_own_product() -> None:
    photos = np.concatenate([np.repeat(ACROSS[:1], 30, axis=0), np.repeat(ACROSS[1:2], 30, axis=0)])
    owners = np.repeat([0, 1], 30)

    lesson = learnt([WHITE, GREY], ACROSS[:2], np.eye(2, WIDTH, dtype=np.float32), photos, owners)

    assert 0.0 == lesson.usual[0]
    assert [1.0, 1.0] == nearness(ACROSS[:2], photos).tolist()


def test_a_packshot_is_known_again_when_it_was_scaled_and_compressed(shop: Path) -> None:
    first, second, *_ = packshots(shop)
    newcomers = Newcomers(lesson_of(first), 0.2)

    lifts = [newcomers.placed(one, ACROSS[0], TITLE)[1] for one in (first, compressed(first, scale=1.7, quality=60))]

    assert [0.0, 0.0] == lifts
    assert 0.2 == newcomers.placed(second, ACROSS[0], TITLE)[1]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_no_real_packshot_is_taken_for_another() -> None:
    pictures = packshots(SHARED / "data/grocery")

    for i, picture in enumerate(pictures):
        others = Newcomers(lesson_of(*(one for k, one in enumerate(pictures) if k != i)), 0.2)
        itself = Newcomers(lesson_of(picture), 0.2)
        assert 0.2 == others.placed(picture, ACROSS[0], TITLE)[1]
        assert 0.0 == itself.placed(compressed(picture, scale=0.6, quality=50), ACROSS[0], TITLE)[1]


def test_a_release_knows_the_pages_that_it_was_trained_on(run: Path, shop: Path) -> None:
    release = load(run / "release")

    page = release.encode_page("Box", "", [*packshots(shop), GREY])

    assert (0.0,) * 6 == page.lift[:6]
    assert 0.0 != page.lift[6]


def test_a_release_that_was_packed_without_learns_it_later(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    forget_newcomers(folder)
    bare = load(folder)

    assert FILE not in read_manifest(folder).files
    assert (0.0, 0.0) == bare.encode_page("Box", "", [packshots(shop)[0], GREY]).lift
    assert load(run / "release").digest == learn_newcomers(folder, shop, report=silent) != bare.digest
    assert 0 == main(["newcomers", "--quiet", "--release", str(folder), "--data", str(shop)])
    assert load(run / "release").digest == load(folder).digest


def test_other_data_than_a_release_was_trained_on_are_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    other = Path(shutil.copytree(shop, tmp_path / "shop"))
    next((other / "train").rglob("*.jpg")).unlink()

    with pytest.raises(DataRefused, match="data_sha256"):
        learn_newcomers(folder, other, report=silent)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lesson_of(WHITE)._replace(thumbnails=np.zeros((1, 8, 8, 3), np.uint8)), "thumbnails of shape"),
        (lesson_of(WHITE, bank=np.zeros((1, DIM + 1), np.float32)), "do not belong together"),
        (lesson_of(WHITE), "is for vectors of"),
    ],
)
def test_a_lesson_that_does_not_fit_is_refused(run: Path, tmp_path: Path, wrong: Lesson, told: str) -> None:
    folder = Path(shutil.copytree(run / "release", tmp_path / "release"))
    write_newcomers(folder, wrong, Advantage())

    with pytest.raises(ReleaseRefused, match=told):
        load(folder)


def test_titles_are_regressed_upon_as_by_the_primal_ridge() -> None:
    rng = np.random.default_rng(0)
    titles = rng.normal(size=(6, WIDTH)).astype(np.float32)
    photos, owners = rng.normal(size=(18, DIM)).astype(np.float32), np.arange(18) % 6
    lesson = learnt([WHITE] * 6, photos[:6], titles, photos, owners)

    means = np.stack([photos[owners == k].mean(axis=0) for k in range(6)])
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    gram = titles.T @ titles + RIDGE * np.eye(WIDTH)
    expected = np.linalg.solve(gram, titles.T @ (means - means.mean(axis=0)))

    assert np.allclose(expected, lesson.titles.T @ lesson.moves, atol=1e-4)


def test_a_lift_is_less_where_one_learnt_page_is_clearly_ahead_of_the_others() -> None:
    scores = np.array([[0.7, 0.68, 0.5], [0.7, 0.2, 0.5]])
    lifts = np.array([0.0, 0.0, 0.3])

    told = lifted(scores, lifts, clear=0.6)

    assert np.array_equal(scores[:, :2], told[:, :2])
    assert [0.788, 0.5] == pytest.approx(told[:, 2].tolist())


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([0.0, 0.1, 0.3])), min_size=1, max_size=12),
    st.floats(0, 2),
)
def test_events_are_made_of_the_shares_that_are_measured(pages: list[tuple[float, float]], clear: float) -> None:
    from streamproc.core.calibration import share_out

    scores, lifts = (np.array(column) for column in zip(*pages, strict=True))
    told = share_out(scores.tolist(), temperature=0.5, unknown_score=-100.0, lifts=lifts.tolist(), clear=clear)
    competing = lifted(scores[None], lifts, clear=clear) if (lifts == 0).any() else scores[None] + lifts

    assert shares(competing, temperature=0.5, unknown_score=-100.0)[0, :-1] == pytest.approx(told, abs=2e-6)


def test_a_lift_counts_in_the_mixed_gallery_and_nowhere_else() -> None:
    rows = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    names = np.array(["new", "trained"])
    query = Labelled(np.array([[0.8, 0.6, 0], [0, 1, 0]], np.float32), names)
    gallery = Gallery(image=Labelled(rows, names), text=Labelled(rows, names), lift=np.array([0.2, 0.0]))

    figures = unseen_figures(query, gallery, np.array(["new"]), clear=0.6)

    assert (1.0, 1.0, 1.0) == tuple(figures["mixed"].values())
    assert (0.0, 1.0) == tuple(figures["mixed without lift"].values())[:2]
    assert 1.0 == figures["unseen"]["R@1"] == figures["unseen without lift"]["R@1"]


def test_a_run_over_a_fold_learns_nothing_from_the_photos_that_it_is_measured_on(
    run: Path, shop: Path, tmp_path: Path
) -> None:
    from encoders.newcomers import read_lesson

    folder = folded_release(run, tmp_path)
    learn_newcomers(folder, shop, report=silent)

    assert 0 == len(read_lesson(folder / FILE).bank)
