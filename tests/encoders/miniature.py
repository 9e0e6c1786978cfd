"""ROPE in miniature: one colour per product, and everything that may go wrong with its files."""

from pathlib import Path

import numpy as np
from PIL import Image

from encoders.cope.samples import Sample, Samples

COLOURS = ((230, 30, 30), (30, 220, 40), (40, 50, 230), (225, 220, 40), (200, 40, 210), (30, 210, 215))
SIDE, EACH, FRAMES = 16, 3, 10


def write_rope(root: Path, *, split: str = "training", name: str = "product", missing: bool = True) -> Path:
    """Six products with three pages, videos and lives each; rows shuffled, titles and speech with commas, a video of
    three frames, a page without a title and, if `missing`, one without its picture."""
    rng = np.random.default_rng(0)
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {}

    def row(file: str, *fields: object) -> None:
        files.setdefault(file, []).append(",".join(str(field) for field in fields))

    def picture(colour: tuple[int, int, int], label: str) -> str:
        noise = rng.integers(-20, 20, (SIDE, SIDE + 4, 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{label}.jpg", quality=95)
        return f"{label}.jpg"

    for i, colour in enumerate(COLOURS):
        product = f"{name}{i}"
        for n in range(EACH):
            key = f"{split[:2]}{i}{n}"  # page, video and live ids are spaces of their own
            row("product_pages_pair", product, key)
            row("product_videos_pair", product, key)
            row("product_lives_pair", product, f" {key} ")
            if (i, n) != (0, 0):
                row("page_titles", key, f"Box {i}, red, or not")
            row("page_images", key, picture(colour, f"{split}-p{i}{n}"))
            row("video_asrs", key, "look, this is nice, 好的")
            row("live_asrs", key, "now, this one")
            for frame in range(3 if (i, n) == (1, 1) else FRAMES):
                row("video_frames", key, frame, picture(colour, f"{split}-v{i}{n}-{frame}"))
            for frame in range(FRAMES):
                row("live_clips", key, 1_700_000_000_000 + 1000 * frame, picture(colour, f"{split}-l{i}{n}-{frame}"))
    for file, rows in files.items():
        rng.shuffle(rows)
        (root / f"{split}_{file}.txt").write_text("\n".join(rows) + "\n", "utf-8")
    if missing:
        (images / f"{split}-p22.jpg").unlink()
    return root


def colour_means(samples: Samples, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour of each sample as a unit vector around grey, and its product."""
    chosen: tuple[Sample, ...] = samples.of(domain)  # type: ignore[arg-type]
    rows = [
        np.mean([place.picture().mean(axis=(0, 1)) for place in sample.pictures], axis=0) - 127 for sample in chosen
    ]
    vectors = np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)
    return vectors, np.array([sample.product_id for sample in chosen])
