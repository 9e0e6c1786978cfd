"""The shallow text encoder: a BERT of three or six layers (rbt3 in the paper, rbt6 in its code; Chinese RoBERTa-wwm by
HFL), pooled as BERT does. Reads Hugging Face BERT checkpoints; equal to `transformers`' BertModel to 1e-4."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.cope.weights import checkpoint_folder, fill, read_json, read_state, refuse_other, transformer_state
from encoders.errors import WeightsRefused

EPSILON = 1e-12  # BERT's layer norm


class Tokens(NamedTuple):
    """Titles as numbers: ids int64 (B, n) and mask bool (B, n), true where there is a token."""

    ids: Tensor
    mask: Tensor


class TextShape(NamedTuple):
    """Sizes. The defaults are those of rbt3."""

    width: int = 768
    layers: int = 3
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 21128
    positions: int = 512
    kinds: int = 2
    dropout: float = 0.1


class ShallowRoberta(nn.Module):
    """Tokens (B, n) to the pooled first token, (B, width)."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape, self.width = shape, shape.width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(shape.vocabulary, shape.width),
                "position_embeddings": nn.Embedding(shape.positions, shape.width),
                "token_type_embeddings": nn.Embedding(shape.kinds, shape.width),
                "LayerNorm": nn.LayerNorm(shape.width, eps=EPSILON),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(shape) for _ in range(shape.layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.width)})
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)

    def forward(self, tokens: Tokens) -> Tensor:
        part = self.embeddings
        place = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
        x = part["word_embeddings"](tokens.ids) + part["position_embeddings"](place)
        x = x + part["token_type_embeddings"](torch.zeros_like(tokens.ids))
        x = functional.dropout(part["LayerNorm"](x), self.shape.dropout, self.training)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            x = layer(x, tokens.mask)
        return torch.tanh(self.pooler["dense"](x[:, 0]))


class Layer(nn.Module):
    """A post-norm transformer layer under BERT's names."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, shape.dropout
        mix = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(mix), "output": _output(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, shape.hidden)})
        self.output = _output(shape.hidden, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mix = cast(nn.ModuleDict, self.attention["self"])
        query, key, value = (
            mix[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        dropout = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :], dropout_p=dropout
        )
        x = self._add(cast(nn.ModuleDict, self.attention["output"]), attended.transpose(1, 2).flatten(2), x)
        return self._add(self.output, functional.gelu(self.intermediate["dense"](x)), x)

    def _add(self, part: nn.ModuleDict, news: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, part["LayerNorm"](functional.dropout(part["dense"](news), self.dropout, self.training) + x))


def _output(inputs: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, width), "LayerNorm": nn.LayerNorm(width, eps=EPSILON)})


def load_roberta(source: str, *, layers: int | None = None) -> ShallowRoberta:
    """A BERT checkpoint (folder or hub id), or its first `layers`. Raises WeightsRefused."""
    folder = checkpoint_folder(source)
    shape = _shape(folder / "config.json")
    if layers is not None and layers > shape.layers:
        raise WeightsRefused(folder, f"has {shape.layers} layers, but {layers} are wanted")
    encoder = ShallowRoberta(shape._replace(layers=layers or shape.layers))
    state = transformer_state(read_state(folder), "bert.")
    old = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}  # checkpoints of 2019
    for ending, now in old.items():
        state = {name.removesuffix(ending) + now if name.endswith(ending) else name: v for name, v in state.items()}
    fill(encoder, state, folder)
    return encoder


def _shape(path: Path) -> TextShape:
    config: dict[str, Any] = read_json(path)
    if config.get("model_type", "bert") != "bert":
        raise WeightsRefused(path, f"model_type is {config['model_type']!r}, not 'bert'")
    refuse_other(path, config, {"hidden_act": "gelu", "layer_norm_eps": EPSILON, "position_embedding_type": "absolute"})
    try:
        return TextShape(
            width=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            kinds=int(config.get("type_vocab_size", 2)),
            dropout=float(config.get("hidden_dropout_prob", 0.1)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsRefused(path, f"not the config of a BERT: {error}") from error
