"""Preset `clip`: any CLIP-, SigLIP- or Chinese-CLIP-type checkpoint as backbone, tuned or frozen.

Read from a folder or a hub id, in the format of `transformers` (config.json) or of open_clip (open_clip_config.json).
Frames are seen one by one and their features averaged, so an image is a clip of one frame.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor, nn

from encoders.cope.look import CLIP_DEVIATION, CLIP_MEAN, Look
from encoders.cope.roberta import Tokens
from encoders.cope.titles import Tokenise
from encoders.cope.towers import Encoders
from encoders.cope.weights import checkpoint_folder, read_json
from encoders.errors import WeightsRefused

Library = Literal["transformers", "open_clip"]
CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
FILTERS = {one.name.lower(): one for one in Image.Resampling}
MASKED = ("clip", "chinese_clip")  # these leave padding out of attention; the SigLIPs were trained with it
KNOWN = (*MASKED, "siglip", "siglip2")


class Backbone(NamedTuple):
    """Encoders, and what they want to be given."""

    encoders: Encoders
    look: Look
    tokenise: Tokenise


class FrameMean(nn.Module):
    """Videos (B, T, 3, H, W) -> the mean of their frames' features, (B, width)."""

    def __init__(self, model: nn.Module, features: Callable[[nn.Module, Tensor], Tensor], *, frozen: bool) -> None:
        super().__init__()
        self.model, self.features, self.frozen = model.requires_grad_(not frozen), features, frozen
        self.width = 0

    def forward(self, videos: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.features(self.model, videos.flatten(0, 1))
            return features.reshape(*videos.shape[:2], -1).mean(dim=1)

    def train(self, mode: bool = True) -> FrameMean:
        """Frozen models stay as they are in use, without dropout."""
        super().train(mode and not self.frozen)
        return self


class TitleFeatures(nn.Module):
    """Tokens (B, n) -> (B, width)."""

    def __init__(self, model: nn.Module, features: Callable[[nn.Module, Tokens], Tensor], *, frozen: bool) -> None:
        super().__init__()
        self.model, self.features, self.frozen = model.requires_grad_(not frozen), features, frozen
        self.width = 0

    def forward(self, tokens: Tokens) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.features(self.model, tokens)

    def train(self, mode: bool = True) -> TitleFeatures:
        """Frozen models stay as they are in use, without dropout."""
        super().train(mode and not self.frozen)
        return self


def load_clip(source: str, *, frozen: bool = False, longest: int = 77) -> Backbone:
    """The backbone of a checkpoint; titles are cut at `longest` tokens or where it cuts them. Raises WeightsRefused,
    which says what is missing or foreign."""
    folder = checkpoint_folder(source)
    if library_of(folder) == "transformers":
        return _measured(_from_transformers(folder, frozen=frozen, longest=longest), folder)
    return _measured(_from_open_clip(folder, frozen=frozen), folder)


def rebuilt_clip(folder: Path, *, look: Look, longest: int) -> Backbone:
    """The backbone that a folder's config describes, with its tokenizer; the weights are still to come. Raises
    WeightsRefused."""
    if library_of(folder) == "transformers":
        backbone = _from_transformers(folder, frozen=True, longest=longest, weights=False)
    else:
        backbone = _from_open_clip(folder, frozen=True, weights=False)
    return _measured(backbone._replace(look=look), folder)


def library_of(folder: Path) -> Library:
    """Which library's format a checkpoint folder has. Raises WeightsRefused where it is neither's."""
    kind = _kind_of(folder)
    if kind in KNOWN:
        return "transformers"
    if (folder / OPEN_CLIP_CONFIG).exists():
        return "open_clip"
    if kind is None:
        raise WeightsRefused(folder, f"holds neither {CONFIG} nor {OPEN_CLIP_CONFIG}")
    raise WeightsRefused(folder / CONFIG, f"model_type is {kind!r}, not one of {', '.join(KNOWN)}")


def copy_description(folder: Path, to: Path) -> None:
    """Copies what `rebuilt_clip` needs of a checkpoint: its config, and its tokenizer in the library's own form. Raises
    WeightsRefused where the towers could not be built without a network."""
    if library_of(folder) == "transformers":
        shutil.copyfile(folder / CONFIG, to / CONFIG)
        _tokenizer_of(folder).save_pretrained(to)
        return
    text = read_json(folder / OPEN_CLIP_CONFIG).get("model_cfg", {}).get("text_cfg", {})
    if text.get("hf_model_name"):
        reason = f"builds its text tower from {text['hf_model_name']} on the hub each time; take one in CLIP's own form"
        raise WeightsRefused(folder / OPEN_CLIP_CONFIG, reason)
    shutil.copyfile(folder / OPEN_CLIP_CONFIG, to / OPEN_CLIP_CONFIG)
    if text.get("hf_tokenizer_name"):
        _tokenizer_of(folder).save_pretrained(to)


def _kind_of(folder: Path) -> str | None:
    told = read_json(folder / CONFIG).get("model_type") if (folder / CONFIG).exists() else None
    return None if told is None else str(told)


def _tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a dozen unrelated kinds; all mean the same to the caller
        raise WeightsRefused(folder, f"has no tokenizer that can be loaded: {_first_line(error)}") from error


def _from_transformers(folder: Path, *, frozen: bool, longest: int, weights: bool = True) -> Backbone:
    kind = _kind_of(folder)
    model = _transformers_model(folder, weights=weights)
    tokenizer = _tokenizer_of(folder)
    length = min(longest, int(model.config.text_config.max_position_embeddings))

    def tokenise(titles: Sequence[str]) -> Tokens:
        coded = tokenizer(
            list(titles), padding="max_length", truncation=True, max_length=length, return_tensors="pt",
            return_attention_mask=True,
        )  # fmt: skip
        return Tokens(coded["input_ids"], coded["attention_mask"].bool())

    def image_features(model: Any, pixels: Tensor) -> Tensor:
        return _pooled(model.get_image_features(pixel_values=pixels))

    def text_features(model: Any, tokens: Tokens) -> Tensor:
        mask = {"attention_mask": tokens.mask.long()} if kind in MASKED else {}
        return _pooled(model.get_text_features(input_ids=tokens.ids, **mask))

    visual, text = _without(model, "text"), _without(model, "vis")
    encoders = Encoders(
        FrameMean(visual, image_features, frozen=frozen), TitleFeatures(text, text_features, frozen=frozen)
    )
    return Backbone(encoders, _transformers_look(folder, kind, model.config.vision_config.image_size), tokenise)


def _transformers_model(folder: Path, *, weights: bool) -> Any:
    """In float32, whatever the checkpoint was saved in: so are the pictures."""
    from transformers import AutoConfig, AutoModel

    if weights and not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise WeightsRefused(folder, "holds no weights (model.safetensors)")
    try:
        if not weights:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            build: Any = AutoModel.from_config  # it has no types
            return build(config, dtype=torch.float32)
        model, told = AutoModel.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # a dozen unrelated kinds; all mean the same to the caller
        raise WeightsRefused(folder, f"cannot be loaded: {_first_line(error)}") from error
    if told["missing_keys"]:
        names = sorted(told["missing_keys"])
        raise WeightsRefused(folder, f"lacks {len(names)} tensors, such as {', '.join(names[:3])}")
    return model


def _from_open_clip(folder: Path, *, frozen: bool, weights: bool = True) -> Backbone:
    import open_clip

    name = f"local-dir:{folder.resolve()}"
    loading = {"require_pretrained": True} if weights else {"load_weights": False, "pretrained_text": False}
    try:
        model = open_clip.create_model(name, **loading)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # a dozen unrelated kinds; all mean the same to the caller
        raise WeightsRefused(folder, f"cannot be loaded by open_clip: {_first_line(error)}") from error
    told: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = told["size"]
    filter_ = FILTERS.get(str(told.get("interpolation", "bicubic")), Image.Resampling.BICUBIC)
    look = Look(
        pixels=int(size if isinstance(size, int) else size[0]),
        mean=tuple(told["mean"]),
        deviation=tuple(told["std"]),
        training_filter=filter_,
        test_filter=filter_,
        fit="squash" if told.get("resize_mode") == "squash" else "crop",
    )
    visual = model.visual
    del model.visual

    def tokenise(titles: Sequence[str]) -> Tokens:
        ids = tokenizer(list(titles))
        return Tokens(ids, ids != 0)

    def image_features(model: nn.Module, pixels: Tensor) -> Tensor:
        return cast(Tensor, model(pixels))

    def text_features(model: Any, tokens: Tokens) -> Tensor:
        return cast(Tensor, model.encode_text(tokens.ids))

    encoders = Encoders(
        FrameMean(visual, image_features, frozen=frozen), TitleFeatures(model, text_features, frozen=frozen)
    )
    return Backbone(encoders, look, tokenise)


def _measured(backbone: Backbone, folder: Path) -> Backbone:
    """The same, its widths found by trying."""
    visual, text = backbone.encoders
    side = backbone.look.pixels
    try:
        with torch.no_grad():
            visual.width = visual.eval()(torch.zeros(1, 1, 3, side, side)).shape[-1]
            text.width = text.eval()(backbone.tokenise([""])).shape[-1]
    except (RuntimeError, ValueError, IndexError) as error:
        raise WeightsRefused(folder, f"does not fit its own config or tokenizer: {_first_line(error)}") from error
    return backbone


def _without(model: nn.Module, prefix: str) -> nn.Module:
    """A copy without the parts whose names begin so: each tower keeps only what is its own."""
    alone = copy.deepcopy(model)
    for name, _ in [*alone.named_children(), *alone.named_parameters(recurse=False)]:
        if name.startswith((prefix, "logit")):
            delattr(alone, name)
    return alone


def _pooled(output: Any) -> Tensor:
    return cast(Tensor, getattr(output, "pooler_output", output))


def _transformers_look(folder: Path, kind: str | None, pixels: int) -> Look:
    """As the checkpoint's own image processor looks; what it leaves out is its family's habit."""
    told: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").exists():
        told = read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").exists():  # transformers 5 keeps it in there
        told = read_json(folder / "processor_config.json").get("image_processor", {})
    plain = (CLIP_MEAN, CLIP_DEVIATION) if kind in MASKED else ((0.5,) * 3, (0.5,) * 3)
    mean, deviation = (
        tuple(told.get(key) or default) for key, default in zip(("image_mean", "image_std"), plain, strict=True)
    )
    filter_ = Image.Resampling(told.get("resample", Image.Resampling.BICUBIC))
    return Look(
        pixels=pixels,
        mean=mean,
        deviation=deviation,
        training_filter=filter_,
        test_filter=filter_,
        fit="crop" if told.get("do_center_crop", kind == "clip") else "squash",
    )


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
