"""The packshots of pages."""

import asyncio
import io
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from streamproc.errors import BadMessage

MAX_PIXELS: Final = 40_000_000  # a packshot of 8000 x 5000
LONGEST_SIDE: Final = 1024  # larger packshots are scaled down: towers take 224 to 260 px


class Objects(Protocol):
    """What is needed of an object store."""

    async def read(self, uri: str) -> bytes: ...


class StoredPageImages:
    """Images by absolute path or URI, from under the allowed prefixes of an object store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def load(self, uri: str) -> NDArray[np.uint8]:
        """(H, W, C) RGB, transparent parts on white. BadMessage: unusable_page, forbidden_reference. Raises
        Unavailable for the store."""
        absolute = uri if "://" in uri else f"file://{uri}"
        try:
            content = await self._objects.read(absolute)
        except BadMessage as bad:
            if bad.reason == "claim_expired":
                raise BadMessage("unusable_page", f"there is no image at {uri}") from bad
            raise
        return await asyncio.to_thread(decode_image, content, uri)


def decode_image(content: bytes, name: str) -> NDArray[np.uint8]:
    """(H, W, C) RGB, at most LONGEST_SIDE wide and high. BadMessage(unusable_page) for what is no picture."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadMessage("unusable_page", f"{name} has {image.width} x {image.height} pixels")
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            rgba = image.convert("RGBA")
    except UnidentifiedImageError as error:  # its text names the address of our buffer
        raise BadMessage("unusable_page", f"{name} is no picture that Pillow knows") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadMessage("unusable_page", f"{name} is no picture: {error}") from error
    ground: Any = Image.new("RGBA", rgba.size, "white")
    ground.alpha_composite(rgba)
    return np.asarray(ground.convert("RGB"))
