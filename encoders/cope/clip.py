"""Preset `clip`: any CLIP-, SigLIP- or Chinese-CLIP-type checkpoint as backbone, tuned or frozen.

Read from a folder or a hub id, in the format of `transformers` (config.json) or of open_clip (open_clip_config.json).
Frames are seen one by one and their features averaged, so an image is a clip of one frame.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from encoders.cope.look import CLIP_DEVIATION, CLIP_MEAN, Look
from encoders.cope.roberta import Tokens
from encoders.cope.titles import Tokenise
from encoders.cope.towers import Encoders
from encoders.cope.weights import checkpoint_folder, read_json
from encoders.errors import WeightsRefused

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
    kind = read_json(folder / "config.json").get("model_type") if (folder / "config.json").exists() else None
    if kind in KNOWN:
        backbone = _from_transformers(folder, str(kind), frozen, longest)
    elif (folder / "open_clip_config.json").exists():
        backbone = _from_open_clip(folder, frozen)
    elif kind is None:
        raise WeightsRefused(folder, "holds neither config.json nor open_clip_config.json")
    else:
        raise WeightsRefused(folder / "config.json", f"model_type is {kind!r}, not one of {', '.join(KNOWN)}")
    return _measured(backbone, folder)


def _from_transformers(folder: Path, kind: str, frozen: bool, longest: int) -> Backbone:
    from transformers import AutoModel, AutoTokenizer

    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise WeightsRefused(folder, "holds no weights (model.safetensors)")
    try:
        model, told = AutoModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    except Exception as error:  # a dozen unrelated kinds; all mean the same to the caller
        raise WeightsRefused(folder, f"cannot be loaded: {_first_line(error)}") from error
    if told["missing_keys"]:
        names = sorted(told["missing_keys"])
        raise WeightsRefused(folder, f"lacks {len(names)} tensors, such as {', '.join(names[:3])}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise WeightsRefused(folder, f"has no tokenizer that can be loaded: {_first_line(error)}") from error
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


def _from_open_clip(folder: Path, frozen: bool) -> Backbone:
    import open_clip

    name = f"local-dir:{folder.resolve()}"
    try:
        model = open_clip.create_model(name, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # a dozen unrelated kinds; all mean the same to the caller
        raise WeightsRefused(folder, f"cannot be loaded by open_clip: {_first_line(error)}") from error
    told: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = told["size"]
    look = Look(
        pixels=int(size if isinstance(size, int) else size[0]), mean=tuple(told["mean"]), deviation=tuple(told["std"])
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


def _transformers_look(folder: Path, kind: str, pixels: int) -> Look:
    plain = (CLIP_MEAN, CLIP_DEVIATION) if kind in MASKED else ((0.5,) * 3, (0.5,) * 3)
    path = folder / "preprocessor_config.json"
    told = read_json(path) if path.exists() else {}
    mean, deviation = (
        tuple(told.get(key, default)) for key, default in zip(("image_mean", "image_std"), plain, strict=True)
    )
    return Look(pixels=pixels, mean=mean, deviation=deviation)


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
