"""Which painter draws which product."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from streamproc.embedded.demo import flat_things, round_things, stranger_things
from streamproc.embedded.demo.shape import finished

if TYPE_CHECKING:
    from PIL import Image

    Painter = Callable[[float, np.random.Generator], Image.Image]

PAINTERS: dict[str, Painter] = {
    "demo-orange-soda": round_things.orange_soda,
    "demo-sardines": flat_things.sardines,
    "demo-olive-oil": round_things.olive_oil,
    "demo-water": round_things.water,
    "demo-cereal": flat_things.cereal,
    "demo-tea": flat_things.tea,
    "demo-jam": round_things.jam,
    "demo-peanut-butter": round_things.peanut_butter,
    "demo-chips": flat_things.chips,
    "demo-coffee": flat_things.coffee,
    "demo-yogurt": round_things.yogurt,
    "demo-apple-juice": flat_things.apple_juice,
    "stranger-clock": stranger_things.clock,
    "stranger-cactus": stranger_things.cactus,
}


def picture_of(product_id: str, *, turn: float = 0.0, seed: int = 0) -> Image.Image:
    """RGBA of a product, about 560 pixels high, turned by `turn` radians; the same arguments give the same pixels."""
    return finished(PAINTERS[product_id](turn, np.random.default_rng(seed)))
