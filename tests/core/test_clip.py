import numpy as np
from numpy.typing import NDArray

from streamproc.core.clip import ClipFrames, still_frames

Picture = NDArray[np.uint8]


def picture(seed: int = 1, size: tuple[int, int] = (256, 456)) -> Picture:
    """Large patches of colour, as rooms have."""
    patches = np.random.default_rng(seed).integers(40, 215, (8, 8, 3), dtype=np.uint8)
    return np.kron(patches, np.ones((size[0] // 8, size[1] // 8, 1), np.uint8))


def noisy(of: Picture, seed: int) -> Picture:
    """The same seen through a sensor and an encoder."""
    grain = np.random.default_rng(seed).integers(-6, 7, of.shape)
    return (of.astype(np.int16) + grain).astype(np.uint8)


def with_product(of: Picture, *, left: int, side: int = 40) -> Picture:
    changed = of.copy()
    changed[100 : 100 + side, left : left + side] = 240
    return changed


def stands_for(*pictures: Picture) -> tuple[int, ...]:
    return still_frames(ClipFrames(pixels=np.stack(pictures), at_ms=tuple(range(len(pictures)))))


def test_a_still_room_is_one_frame_whatever_the_noise() -> None:
    room = picture()

    assert (0, 0, 0, 0) == stands_for(*(noisy(room, seed) for seed in range(4)))


def test_a_small_product_that_comes_in_makes_a_new_frame_and_so_does_its_leaving() -> None:
    room = picture()
    held = with_product(room, left=200)

    assert (0, 1, 1, 3) == stands_for(room, held, noisy(held, 1), room)


def test_a_cut_makes_a_new_frame() -> None:
    assert (0, 1, 1) == stands_for(picture(1), picture(2), picture(2))


def test_a_slow_change_adds_up_until_it_is_a_new_frame() -> None:
    room = picture()
    brighter = [room + np.uint8(2 * step) for step in range(6)]  # 2 of 255 each: never much from one to the next

    assert (0, 0, 0, 0, 4, 4) == stands_for(*brighter)


def test_a_frame_alone_and_none_at_all_stand_for_themselves() -> None:
    assert (0,) == stands_for(picture())
    assert () == still_frames(ClipFrames(pixels=np.zeros((0, 1, 1, 3), np.uint8), at_ms=()))


def test_frames_of_a_few_pixels_are_compared_too() -> None:
    dark, light = np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 200, np.uint8)

    assert (0, 1, 1) == stands_for(dark, light, light)
