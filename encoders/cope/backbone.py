"""The encoders that a config asks for, with what they want to be given."""

from __future__ import annotations

import torch

from encoders.cope.clip import Backbone, load_clip
from encoders.cope.config import CopeConfig, look_of, quirks_of
from encoders.cope.roberta import ShallowRoberta, TextShape, load_roberta
from encoders.cope.titles import hashed_characters, word_pieces
from encoders.cope.towers import Encoders, Towers
from encoders.cope.weights import checkpoint_folder
from encoders.cope.xclip import VideoShape, XClip, load_xclip


def build_towers(config: CopeConfig) -> tuple[Towers, Backbone]:
    """New towers, the same for the same seed. Raises WeightsRefused."""
    torch.manual_seed(config.seed)
    backbone = build_backbone(config)
    return Towers(backbone.encoders, config.dim, kind=config.fusion), backbone


def build_backbone(config: CopeConfig) -> Backbone:
    """X-CLIP with shallow RoBERTa, or a CLIP. Raises WeightsRefused."""
    if config.preset == "clip":
        return load_clip(config.clip.weights, frozen=config.clip.frozen, longest=config.clip.longest)
    quirks, told, text = quirks_of(config), config.visual, config.text
    if told.weights:
        visual = load_xclip(told.weights, integration_layers=quirks.integration_layers)
    else:
        names = [name for name in VideoShape._fields if name != "integration_layers"]
        sizes = {name: getattr(told, name) for name in names}
        visual = XClip(VideoShape(**sizes, integration_layers=quirks.integration_layers))
    if text.weights:
        titles = load_roberta(text.weights, layers=text.layers)
        tokenise = word_pieces(checkpoint_folder(text.weights), longest=text.longest)
    else:
        sizes = {name: getattr(text, name) for name in ("width", "heads", "hidden", "vocabulary", "dropout")}
        titles = ShallowRoberta(TextShape(**sizes, layers=quirks.text_layers))
        tokenise = hashed_characters(text.vocabulary, longest=text.longest)
    visual.recompute(told.recompute)
    visual.requires_grad_(not told.frozen)
    titles.requires_grad_(not text.frozen)
    return Backbone(Encoders(visual, titles), look_of(config, visual.shape.pixels), tokenise)
