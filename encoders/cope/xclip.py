"""X-CLIP's video encoder (Ni et al. 2022, arXiv 2208.02816): a ViT whose frames send each other messages, and a
transformer over the frames. Equal to `transformers`' XCLIP vision tower and MIT to 1e-4 (a test compares them), and
unlike that one it takes any number of frames, so one image is a video of one frame.

Parameters of ViT-B/16 with 4 integration layers: 134 M.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from encoders.cope.attention import Block, SelfAttention
from encoders.cope.weights import checkpoint_folder, fill, read_json, read_state, refuse_other
from encoders.errors import WeightsRefused


class VideoShape(NamedTuple):
    """Sizes. The defaults are those of ViT-B/16 as COPE uses it; pixels are square."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    pixels: int = 224
    frames: int = 8
    out: int = 512
    integration_layers: int = 1
    integration_heads: int = 8
    integration_hidden: int = 2048


class MessageBlock(Block):
    """A ViT block in which the frames of a video talk: each frame's class token becomes a message, messages attend to
    each other, and each frame's tokens attend to its own message too."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__(width, heads, hidden)
        self.message_fc = nn.Linear(width, width)
        self.message_ln = nn.LayerNorm(width)
        self.message_attn = SelfAttention(width, heads)

    def forward(self, x: Tensor, frames: int = 1) -> Tensor:
        """(B * frames, n, width) -> the same; rows of one video lie together."""
        message = self.message_fc(x[:, 0]).unflatten(0, (-1, frames))  # (B, frames, width)
        message = message + self.message_attn(self.message_ln(message))
        tokens = torch.cat([x, message.flatten(0, 1)[:, None]], dim=1)
        x = x + self.self_attn(self.layer_norm1(tokens))[:, :-1]  # the message itself is dropped again
        return cast(Tensor, x + self.mlp(self.layer_norm2(x)))


class FrameViT(nn.Module):
    """Frames to class tokens: (B * frames, 3, pixels, pixels) -> (B * frames, width)."""

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        self.embeddings = PatchEmbedding(shape)
        self.pre_layernorm, self.post_layernorm = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        blocks = [MessageBlock(shape.width, shape.heads, shape.hidden) for _ in range(shape.layers)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.recompute = False

    def forward(self, pixels: Tensor, frames: int) -> Tensor:
        x = self.pre_layernorm(self.embeddings(pixels))
        for block in cast(nn.ModuleList, self.encoder["layers"]):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, frames, use_reentrant=False)
            else:
                x = block(x, frames)
        return cast(Tensor, self.post_layernorm(x[:, 0]))


class PatchEmbedding(nn.Module):
    """Patches and a class token with their positions: (N, 3, pixels, pixels) -> (N, 1 + patches, width)."""

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(shape.width) * shape.width**-0.5)
        self.patch_embedding = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=False)
        self.position_embedding = nn.Embedding((shape.pixels // shape.patch) ** 2 + 1, shape.width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class FrameIntegration(nn.Module):
    """The multi-frame integration transformer: (B, T, out) -> (B, out), the mean over positions. The residual goes
    round the whole of it and leaves the positions out.

    One frame is spread over all positions, as in the published code: its feature passes once per position, and the
    results are averaged. Otherwise T must be the number of positions.
    """

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.randn(1, shape.frames, shape.out) * 0.02)
        blocks = [
            Block(shape.out, shape.integration_heads, shape.integration_hidden) for _ in range(shape.integration_layers)
        ]
        for block in blocks:
            for name, weight in block.named_parameters():
                if weight.ndim > 1:
                    nn.init.trunc_normal_(weight, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(weight)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})

    def forward(self, frames: Tensor) -> Tensor:
        x = frames + self.position_embedding
        for block in cast(nn.ModuleList, self.encoder["layers"]):
            x = block(x)
        return (x.to(frames.dtype) + frames).mean(dim=1)


class XClip(nn.Module):
    """Videos (B, T, 3, pixels, pixels), float32 and normalised, to features (B, out) without unit norm. T is the
    shape's number of frames, or 1 for an image."""

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        self.shape, self.width = shape, shape.out
        self.vision_model = FrameViT(shape)
        self.visual_projection = nn.Linear(shape.width, shape.out, bias=False)
        self.mit = FrameIntegration(shape)

    def forward(self, videos: Tensor) -> Tensor:
        count = videos.shape[1]
        if count not in (1, self.shape.frames):
            raise ValueError(f"{count} frames, but this tower takes 1 or {self.shape.frames}")
        features = self.visual_projection(self.vision_model(videos.flatten(0, 1), count))
        return cast(Tensor, self.mit(features.unflatten(0, (-1, count))))

    def recompute(self, on: bool) -> None:
        """Whether the backward pass computes activations anew: a third slower, a fraction of the memory."""
        self.vision_model.recompute = on


def load_xclip(source: str, *, integration_layers: int | None = None) -> XClip:
    """The video encoder of a Hugging Face X-CLIP checkpoint (folder or hub id), text tower and prompts left out.

    More `integration_layers` than it has (COPE takes 4, the public ones have 1) begin at random. Raises
    WeightsRefused.
    """
    folder = checkpoint_folder(source)
    shape = _shape(folder)
    if integration_layers is not None:
        shape = shape._replace(integration_layers=integration_layers)
    tower = XClip(shape)
    lacked = fill(tower, read_state(folder), folder, may_lack="mit.encoder.layers.")
    if any(name.startswith("mit.encoder.layers.0.") for name in lacked):
        raise WeightsRefused(folder, "lacks the frame integration, such as mit.encoder.layers.0.self_attn")
    return tower


def _shape(folder: Path) -> VideoShape:
    path = folder / "config.json"
    config = read_json(path)
    if config.get("model_type") != "xclip":
        raise WeightsRefused(path, f"model_type is {config.get('model_type')!r}, not 'xclip'")
    vision = config.get("vision_config") or {}

    def told(key: str, default: int) -> int:
        value = vision.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise WeightsRefused(path, f"vision_config.{key} is {value!r}, not a positive whole number")
        return value

    refuse_other(path, vision, {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}, below="vision_config.")
    plain = VideoShape()
    return VideoShape(
        width=told("hidden_size", plain.width),
        layers=told("num_hidden_layers", plain.layers),
        heads=told("num_attention_heads", plain.heads),
        hidden=told("intermediate_size", plain.hidden),
        patch=told("patch_size", 32),
        pixels=told("image_size", plain.pixels),
        frames=told("num_frames", plain.frames),
        out=told("mit_hidden_size", plain.out),
        integration_layers=told("mit_num_hidden_layers", plain.integration_layers),
        integration_heads=told("mit_num_attention_heads", plain.integration_heads),
        integration_hidden=told("mit_intermediate_size", plain.integration_hidden),
    )
