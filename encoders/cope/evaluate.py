"""The vectors of a run of preset `cope` or `clip`, to be measured in six directions (encoders.directions).

Pages count with title and image together, videos and clips by their frames; unit vectors, dot product.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from encoders.cope.backbone import build_towers
from encoders.cope.clip import Backbone
from encoders.cope.config import CopeConfig, read_cope_config
from encoders.cope.loading import pictures_of
from encoders.cope.look import seen
from encoders.cope.roberta import Tokens
from encoders.cope.samples import DomainName, Samples
from encoders.cope.towers import Towers
from encoders.cope.weights import fill
from encoders.errors import DataRefused, WeightsRefused
from encoders.measure import Labelled

Report = Callable[[str, int, int, dict[str, float]], None]

PRODUCTS = "products.txt"  # of a run: ids, one a line
LETTERS: dict[str, DomainName] = {"P": "page", "V": "video", "L": "live"}


def load_run(run: Path) -> tuple[CopeConfig, Towers, Backbone]:
    """The towers that `train` left in a folder, ready for use. Raises ConfigRefused and WeightsRefused."""
    config = read_cope_config(run / "config.json")
    towers, backbone = build_towers(config)
    path = run / "towers.safetensors"
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsRefused(path, f"unreadable: {error}") from error
    fill(towers, state, path)
    return config, towers.eval(), backbone


def trained_products(run: Path) -> frozenset[str]:
    """The products that a run was trained on. Raises WeightsRefused where it does not say."""
    path = run / PRODUCTS
    try:
        return frozenset(path.read_text("utf-8").splitlines())
    except OSError as error:
        raise WeightsRefused(path, f"unreadable: {error}") from error


@torch.inference_mode()
def embed(
    config: CopeConfig, towers: Towers, backbone: Backbone, samples: Samples, report: Report, *, batch: int = 32
) -> dict[str, Labelled]:
    """Unit vectors of all samples by domain letter. A sample without a readable picture is left out."""
    device = next(towers.parameters()).device
    found = {}
    for letter, domain in LETTERS.items():
        rows, labels = [], []
        everything = samples.of(domain)
        for start in range(0, len(everything), batch):
            frames = 1 if domain == "page" else config.frames
            some = [(one, pictures_of(one, frames, [])) for one in everything[start : start + batch]]
            some = [(one, pictures) for one, pictures in some if pictures]
            if some:
                pixels = torch.stack([seen(pictures, backbone.look) for _, pictures in some]).to(device)
                if domain == "page":
                    ids, mask = backbone.tokenise([one.words for one, _ in some])
                    vectors = towers.page(pixels, Tokens(ids.to(device), mask.to(device)))
                else:
                    vectors = (towers.video if domain == "video" else towers.live)(pixels)
                rows.append(vectors.cpu().numpy())
                labels += [one.product_id for one, _ in some]
            report(domain, min(start + batch, len(everything)), len(everything), {})
        if not rows:
            raise DataRefused(Path(domain), f"no {domain} that can be read")
        found[letter] = Labelled(np.concatenate(rows), np.array(labels))
    return found
