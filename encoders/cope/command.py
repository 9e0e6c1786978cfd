"""The verbs of presets `cope` and `clip`: `python -m encoders.cope VERB`; `train` also as `python -m encoders train`.

Exit codes: 0 done, 1 the answer is no (training stopped), 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.cli import Progress, positive
from encoders.cope.config import CopeConfig, read_cope_config
from encoders.errors import EncodersError, TrainingStopped


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 2
    progress = Progress(quiet=args.quiet)
    try:
        _say(args.run(args, progress))
    except EncodersError as error:
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, TrainingStopped) else 2
    finally:
        progress.close()
    return 0


def train_command(config: Path, data: Path, out: Path, *, steps: int | None, progress: Progress) -> dict[str, Any]:
    """Trains by a config file; what `python -m encoders train` says in the end."""
    from encoders.cope.train import train

    weights = train(read_cope_config(config), data, out, steps=steps, report=progress)
    progress.close()
    return {"weights": str(weights)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m encoders.cope", description=(__doc__ or "").split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=text, description=text, epilog=f"example: python -m encoders.cope {name} {example}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        made.add_argument("--quiet", action="store_true", help="no progress bars")
        made.set_defaults(run=run)
        return made

    train = verb("train", "train towers; also under torchrun", "--config cope.toml --data ROPE --out runs/cope", _train)
    train.add_argument("--config", type=Path, required=True, help="training config, .json or .toml")
    train.add_argument("--data", type=Path, required=True, help="data set in the layout that the config names")
    train.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run there goes on")
    train.add_argument("--max-steps", type=int, help="stop before the schedule ends")

    text = "six-direction retrieval, one-shot classification, live clips to pages of seen and unseen products"
    evaluate = verb("evaluate", text, "--run runs/cope --data ROPE --split test", _evaluate)
    evaluate.add_argument("--run", dest="folder", type=Path, required=True, help="folder that train wrote")
    evaluate.add_argument("--data", type=Path, required=True, help="data set in the layout that the config names")
    evaluate.add_argument("--split", default="test", help="prefix of ROPE's files")
    evaluate.add_argument(
        "--trained", action="store_true", help="also measure products that were trained on (refused otherwise)"
    )
    evaluate.add_argument("--json", type=Path, help="also write the figures here")
    evaluate.add_argument("--plots", type=Path, help="folder to draw the figures into")

    text = "pack a run, or a CLIP checkpoint as it is, as a release"
    export = verb("export", text, "--checkpoint openai/clip-vit-base-patch16 --out releases/clip", _export)
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", dest="folder", type=Path, help="folder that train wrote")
    source.add_argument("--checkpoint", metavar="FOLDER|ID", help="a CLIP, untrained: folder or Hugging Face hub id")
    export.add_argument("--out", type=Path, required=True, help="folder of the release")
    export.add_argument("--release", metavar="NAME", help="name of the release (default: of the config or checkpoint)")
    export.add_argument(
        "--licence", action="append", default=[], metavar="PART=LICENCE", help="of weights or data it was made from"
    )
    export.add_argument("--batch", type=positive, default=1, help="pictures that the towers see at once; a CLIP's only")

    shards = verb("shards", "pack a data set into WebDataset shards", "--data ROPE --out shards", _shards)
    shards.add_argument("--config", type=Path, help="training config that says how --data is read")
    shards.add_argument("--data", type=Path, required=True, help="data set")
    shards.add_argument("--out", type=Path, required=True, help="folder of the shards")
    shards.add_argument("--side", type=int, default=256, help="shorter side of the pictures, pixels")

    step = verb("step", "one optimisation step at full size: its time and memory", "--products 2", _step)
    step.add_argument("--config", type=Path, help="training config (default: preset cope from random weights)")
    step.add_argument("--products", type=int, default=2, help="products in the batch")
    step.add_argument("--classes", type=int, default=187_431, help="products of the classifier")
    step.add_argument("--threads", type=int, help="threads on the CPU")
    return parser


def _train(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    return train_command(args.config, args.data, args.out, steps=args.max_steps, progress=progress)


def _evaluate(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    from encoders.cope.evaluate import embed, load_run, to_pages, to_pages_table, trained_products
    from encoders.cope.samples import refuse_shared_products
    from encoders.cope.train import read_samples
    from encoders.directions import directions, directions_table

    config, towers, backbone = load_run(args.folder)
    samples = read_samples(config, args.data, split=args.split)
    trained = trained_products(args.folder)
    if not args.trained:
        refuse_shared_products(trained, samples.by_product, args.data)
    vectors = embed(config, towers, backbone, samples, progress)
    pages = to_pages(vectors, trained)  # refuses data in which no clip has a page
    result = directions(vectors) | {"live to pages": pages}
    result["trained products"] = len(trained & set(samples.by_product))
    result["bad rows"] = dict(samples.bad)
    progress.close()
    sys.stdout.write(f"{directions_table(result)}\n{to_pages_table(result['live to pages'])}\n")
    if args.plots:
        from encoders.plots import write_direction_plot

        write_direction_plot(result, args.plots)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return {name: value for name, value in result.items() if name not in ("directions", "live to pages")}


def _export(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    licences = {part: licence for part, _, licence in (told.partition("=") for told in args.licence)}
    if args.folder is not None and read_cope_config(args.folder / "config.json").preset == "cope":
        from encoders.cope.release import pack_cope

        digest = pack_cope(args.folder, args.out, name=args.release, licences=licences)
        return {"release": str(args.out), "digest": digest}
    from encoders.cope.clip_release import pack_checkpoint, pack_run

    if args.checkpoint is not None:
        digest = pack_checkpoint(args.checkpoint, args.out, name=args.release, licences=licences, batch=args.batch)
    else:
        digest = pack_run(args.folder, args.out, name=args.release, licences=licences, batch=args.batch)
    unfitted = f"not fitted: python -m encoders calibrate --release {args.out} --data CATALOGUE"
    return {"release": str(args.out), "digest": digest, "calibration": unfitted}


def _shards(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    from encoders.cope.shards import write_shards
    from encoders.cope.train import read_samples

    config = read_cope_config(args.config) if args.config else CopeConfig()
    samples = read_samples(config, args.data)
    unreadable: list[str] = []
    written = write_shards(samples, args.out, frames=config.frames, side=args.side, unreadable=unreadable)
    for where in unreadable:
        sys.stderr.write(f"{where}: cannot be read, left out\n")
    bad = {"bad rows": dict(samples.bad), "unreadable pictures": len(unreadable)}
    return {"shards": len(written), "products": len(samples.products)} | bad


def _step(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    import torch

    from encoders.cope.full_step import full_step

    if args.threads:
        torch.set_num_threads(args.threads)
    config = read_cope_config(args.config) if args.config else CopeConfig()
    return full_step(config, products=args.products, classes=args.classes)


def _say(figures: dict[str, Any]) -> None:
    """The last line of stdout is one JSON object."""
    sys.stdout.write(json.dumps(figures) + "\n")
