"""The fixed recipe from pictures to the tower's input."""

import numpy as np
import pytest

from encoders.pictures import VIEWS, cut_out, fitted, page_view, shape_of


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(348, 348, "square"), (464, 348, "square"), (360, 640, "wide"), (1280, 720, "tall"), (1, 1, "square")],
)
def test_each_picture_goes_to_the_input_of_its_shape(height: int, width: int, shape: str) -> None:
    assert shape == shape_of(height, width)


def test_the_middle_of_a_picture_is_kept_and_nothing_is_stretched() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 90:210] = 200

    assert np.all(200 == fitted(picture, (50, 50)))


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    assert np.array_equal(picture, fitted(picture, (64, 96)))


def test_a_packshot_is_cut_out_of_its_ground_but_keeps_its_own_white() -> None:
    packshot = np.full((60, 60, 3), 255, np.uint8)
    packshot[15:45, 15:45] = (200, 0, 0)
    packshot[25:35, 25:35] = 255
    alpha = cut_out(packshot)[..., 3]

    assert (0, 255, 255) == (alpha[2, 2], alpha[20, 20], alpha[30, 30])


def test_a_photo_stays_whole() -> None:
    photo = np.random.default_rng(0).integers(0, 200, (40, 40, 3), dtype=np.uint8)

    assert np.all(255 == cut_out(photo)[..., 3])


@pytest.mark.parametrize("view", ["plain", *VIEWS])
def test_page_views_have_the_size_that_is_asked_for_and_never_vary(view: str) -> None:
    packshot = np.full((60, 80, 3), 255, np.uint8)
    packshot[20:40, 30:50] = (10, 120, 60)
    first = page_view(packshot, view, (64, 64))

    assert (64, 64, 3) == first.shape
    assert np.array_equal(first, page_view(packshot, view, (64, 64)))


def test_an_unknown_page_view_is_refused() -> None:
    with pytest.raises(ValueError, match="upside-down"):
        page_view(np.zeros((8, 8, 3), np.uint8), "upside-down", (32, 32))
