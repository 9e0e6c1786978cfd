"""Weight files as they come from elsewhere: safetensors, or plain tensors in a .bin / .pth; a folder or a hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from encoders.errors import WeightsRefused

FILES = ("model.safetensors", "pytorch_model.bin")
WANTED = ("*.json", "*.txt", "*.model", "*.safetensors", "*pytorch_model*.bin")  # of a hub id; open_clip's names too


def checkpoint_folder(source: str) -> Path:
    """The folder of a checkpoint: `source` itself if there is such a folder, else the files of that Hugging Face hub
    id, from the cache or the network. Raises WeightsRefused, which says what was looked for where."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") != 1:
        raise WeightsRefused(folder, "no such folder, and no hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(source, allow_patterns=list(WANTED)))
    except Exception as error:  # the hub raises its own kinds, the network others; all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsRefused(folder, f"no such folder, and not to be had from the hub: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object beside the weights. Raises WeightsRefused."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsRefused(path, f"unreadable: {error}") from error
    if not isinstance(value, dict):
        raise WeightsRefused(path, "is not a JSON object")
    return value


def refuse_other(path: Path, config: Mapping[str, Any], built: Mapping[str, object], *, below: str = "") -> None:
    """Raises WeightsRefused where a config asks for what is not `built` here: such a checkpoint would load without a
    word and give other vectors. Keys that it leaves out mean what is built; `below` is where they stand."""
    for key, value in built.items():
        if config.get(key, value) != value:
            raise WeightsRefused(path, f"{below}{key} is {config[key]!r}, but only {value!r} is built here")


def read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, on the CPU. A pickle is read as plain tensors or not at all. Raises
    WeightsRefused."""
    for name in FILES:
        path = folder / name
        if not path.exists():
            continue
        try:
            return load_file(path) if path.suffix == ".safetensors" else _plain(path)
        except (SafetensorError, OSError) as error:
            raise WeightsRefused(path, f"unreadable: {error}") from error
    raise WeightsRefused(folder, f"holds none of {', '.join(FILES)}")


def _plain(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated kinds here; all mean the same to the caller
        raise WeightsRefused(path, "not a state dict of plain tensors; nothing else is loaded from a pickle") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsRefused(path, "not a state dict")
    return state


def fill(module: nn.Module, state: Mapping[str, Tensor], source: Path, *, may_lack: str = "") -> tuple[str, ...]:
    """Loads `state` into the module; what it has besides is left alone. Raises WeightsRefused, which names the
    tensors that are missing (unless their names contain `may_lack`) or have another shape; returns what it lacked."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state]
    wrong = [name for name in missing if not may_lack or may_lack not in name]
    if wrong:
        raise WeightsRefused(source, f"lacks {len(wrong)} of {len(wanted)} tensors, such as {', '.join(wrong[:3])}")
    for name in wanted:
        if name in state and wanted[name].shape != state[name].shape:
            had, want = tuple(state[name].shape), tuple(wanted[name].shape)
            raise WeightsRefused(source, f"{name} has shape {had}, but this tower needs {want}")
    module.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    return tuple(missing)


def transformer_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state dict below `prefix`, without it; all of it if nothing is there."""
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inner or dict(state)
