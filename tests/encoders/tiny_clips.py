"""CLIP checkpoints in miniature: random weights in the very files that real ones have."""

import importlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from encoders.cope.look import IMAGENET_MEAN

README = Path(__file__).resolve().parents[2] / "README.md"
SIDE = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "box", "杯"]
FAMILIES = ("CLIP", "Siglip", "ChineseCLIP")


def readme_commands() -> tuple[str, ...]:
    """The lines of README's part about checkpoints."""
    part = README.read_text("utf-8").split("## Take a CLIP checkpoint", 1)[1]
    return tuple(part.split("```sh\n", 1)[1].split("```", 1)[0].splitlines())


def write_clip(folder: Path, family: str = "CLIP", *, half: bool = False) -> Path:
    """A checkpoint of a family in the format of `transformers`, with a tokenizer; `half`: saved in float16."""
    library = importlib.import_module("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": 30, "max_position_embeddings": 12, "eos_token_id": 3}
    vision = small | {"patch_size": 8, "image_size": SIDE}
    size = {} if family == "Siglip" else {"projection_dim": 12}
    config = getattr(library, f"{family}Config")(text_config=text, vision_config=vision, **size)
    model = getattr(library, f"{family}Model")(config).eval()
    (model.half() if half else model).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    library.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    if family == "ChineseCLIP":
        told = {"image_mean": list(IMAGENET_MEAN), "image_std": [0.2, 0.2, 0.2], "do_center_crop": False, "resample": 2}
        (folder / "preprocessor_config.json").write_text(json.dumps(told), "utf-8")
    return folder


def write_open_clip(folder: Path) -> Path:
    """A checkpoint in the format of open_clip."""
    open_clip = importlib.import_module("open_clip")
    sizes = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 1, "width": 64},
        "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    state = open_clip.CLIP(**sizes).state_dict()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": {}}), "utf-8")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    return folder
