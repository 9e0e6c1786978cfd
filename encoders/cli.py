"""Train, measure and pack tower releases: `python -m encoders VERB`.

Exit codes: 0 done, 1 the answer is no (a figure is under its gate, training stopped), 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import ConfigRefused, DataRefused, EncodersError, TrainingStopped
from encoders.process import tune_process

if TYPE_CHECKING:
    from encoders.config import TrainingConfig


class Progress:
    """One bar per piece of work on a terminal; without one, a line every half minute. Of several ranks the first one
    tells."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet or os.environ.get("RANK", "0") != "0"
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Told by the work itself: (what, done, of how many, figures)."""
        from tqdm import tqdm

        if self._quiet:
            return
        if what != self._what:
            self.close()
            interval = 0.2 if sys.stderr.isatty() else 30.0
            self._bar = tqdm(total=total, desc=what, unit="", mininterval=interval, file=sys.stderr)
            self._what = what
        self._bar.update(done - self._bar.n)
        if figures:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)

    def close(self) -> None:
        """Ends the bar that is open, if one is."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.command = shlex.join(["python", "-m", "encoders", *(sys.argv[1:] if argv is None else argv)])
    if args.verb is None:
        parser.print_help()
        return 2
    progress = Progress(quiet=args.quiet)
    verb: Callable[[argparse.Namespace, Progress], int] = args.run
    try:
        return verb(args, progress)
    except TrainingStopped as error:
        return _fail(error, 1)
    except EncodersError as error:
        return _fail(error, 2)
    finally:
        progress.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m encoders", description=(__doc__ or "").split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, text: str, example: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python -m encoders {name} {example}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        made.add_argument("--quiet", action="store_true", help="no progress bars")
        made.set_defaults(run=run)
        return made

    grocery = "../shared/data/grocery"
    train = verb(
        "train", "train towers and pack them as a release", f"--preset lite --data {grocery} --out runs/lite", _train
    )
    _config_arguments(train)
    train.add_argument("--data", type=Path, required=True, help="folder in the grocery layout")
    train.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run there goes on")
    train.add_argument("--release", metavar="NAME", help="name of the release (default: that of the config)")
    train.add_argument("--cache", type=Path, help="folder of the views, shared between runs (default OUT/views)")
    train.add_argument("--max-steps", type=positive, help="stop before the schedule ends")
    train.add_argument("--unseen", type=Path, help="file of product ids whose photos are left out")

    adapt = verb(
        "adapt",
        "teach a release new pages, without photos of them",
        f"--data {grocery} --new new-products.txt --out runs/adapted",
        _adapt,
    )
    _release_argument(adapt)
    adapt.add_argument("--data", type=Path, required=True, help="folder in the grocery layout, new pages included")
    adapt.add_argument("--new", type=Path, help="file of product ids to treat as new (those without photos are)")
    adapt.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run there goes on")
    adapt.add_argument("--name", metavar="NAME", help="name of the release (default: that of the one adapted)")
    adapt.add_argument("--cache", type=Path, help="folder of the views, shared between runs (default OUT/views)")
    adapt.add_argument("--steps", type=positive, help="how many (default: adaptation.steps of the release's config)")

    evaluate = verb(
        "evaluate", "measure a release on photos", f"--data {grocery} --split val --json figures.json", _evaluate
    )
    _release_argument(evaluate)
    evaluate.add_argument("--data", "--grocery", type=Path, required=True, help="folder in the grocery layout")
    evaluate.add_argument("--split", default="val", help="folder of photos below it")
    evaluate.add_argument("--photos", type=Path, help="another folder of photos instead")
    evaluate.add_argument("--holdout", type=_share, help="only this held-out share of the split")
    evaluate.add_argument("--clothing", type=Path, help="folder of photos that are on no page")
    evaluate.add_argument("--unseen", type=Path, help="file of product ids that were never trained on")
    evaluate.add_argument("--json", type=Path, help="also write the figures here")
    evaluate.add_argument("--plots", type=Path, help="also draw them into this folder")
    evaluate.add_argument("--card", action="store_true", help="also write figures and model card into the release")
    evaluate.add_argument("--vectors", type=Path, help="also write query.npz and gallery.npz for the bench here")
    evaluate.add_argument(
        "--fail-under",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="exit 1 if a retrieval figure, such as R@1, is lower",
    )

    folds = verb(
        "folds",
        "train and measure once per fold of the photos; mean and each",
        f"--preset lite --data {grocery} --out runs/folds",
        _folds,
    )
    _config_arguments(folds)
    folds.add_argument("--data", type=Path, required=True, help="folder in the grocery layout")
    folds.add_argument("--out", type=Path, required=True, help="folder of the runs; unfinished ones there go on")
    folds.add_argument("--cache", type=Path, help="folder of the views, shared between runs (default OUT/views)")
    folds.add_argument("--count", type=positive, default=5, help="how many folds")

    card = verb("card", "write the model card of a release from its figures", "--release runs/lite/release", _card)
    _release_argument(card)
    card.add_argument("--figures", type=Path, help="what evaluate --json wrote (default: figures.json of the release)")
    card.add_argument(
        "--beside",
        type=_beside,
        action="append",
        default=[],
        metavar="NAME=FIGURES",
        help="also tell what another release showed of products it was not trained on (evaluate --unseen)",
    )

    speed = verb("speed", "pictures a second of the image path on one core", "--rounds 20", _speed)
    _release_argument(speed)
    speed.add_argument("--rounds", type=positive, default=20, help="how often each engine has its turn")
    speed.add_argument("--json", type=Path, help="also write the figures here")

    calibrate = verb(
        "calibrate",
        "fit score -> probability on held-out photos, in place",
        f"--release encoders/releases/lite --data {grocery}",
        _calibrate,
    )
    calibrate.add_argument("--release", type=Path, required=True, help="folder of the release")
    source = calibrate.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder in the grocery layout")
    source.add_argument(
        "--fitted", type=Path, help="calibration and rule as `streamproc.jobs.fit_rule --out` wrote them"
    )
    calibrate.add_argument(
        "--without-shelf", action="store_true", help="what was fitted is for streams without a shelf (with --fitted)"
    )
    calibrate.add_argument("--split", default="train", help="folder of photos below it")
    calibrate.add_argument("--holdout", type=_share, default=0.12, help="the share that training left out")
    calibrate.add_argument("--clothing", type=Path, help="folder of photos that are on no page (a third is used)")

    export = verb(
        "export", "pack the weights of a run as a release", "--run runs/lite --out encoders/releases/lite", _export
    )
    _config_arguments(export)
    export.add_argument("--run", dest="run_folder", type=Path, required=True, help="folder that train wrote")
    export.add_argument("--out", type=Path, required=True, help="folder of the release")
    export.add_argument("--release", metavar="NAME", help="name of the release (default: that of the config)")
    export.add_argument("--blend", type=_share, help="share of the fine-tuned weights (default: that of the config)")

    hint = verb(
        "hint",
        "write the words of a catalogue's titles into a release, for speech recognition, in place",
        f"--release encoders/releases/lite --data {grocery}",
        _hint,
    )
    _in_place_arguments(hint, "folder in the grocery layout")

    newcomers = verb(
        "newcomers",
        "teach a release which pages it knows and what to do for others, in place; `train` does it, `export` does not",
        f"--release encoders/releases/lite --data {grocery}",
        _newcomers,
    )
    _in_place_arguments(newcomers, "the data it was trained on, in the grocery layout")

    fuse = verb(
        "fuse",
        "teach a release one vector of frames and words, in place; `train` does it, `export` does not",
        f"--release encoders/releases/lite --data {grocery}",
        _fuse,
    )
    _in_place_arguments(fuse, "the data it was trained on, in the grocery layout")

    holdout = verb(
        "holdout",
        "copy the held-out photos into folders that the bench's --photos takes",
        f"--grocery {grocery} --out /tmp/held-out",
        _holdout,
    )
    _config_arguments(holdout)
    holdout.add_argument("--grocery", "--data", type=Path, required=True, help="folder in the grocery layout")
    holdout.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


def _in_place_arguments(parser: argparse.ArgumentParser, data: str) -> None:
    """Of a verb that writes into a release what it finds in data."""
    parser.add_argument("--release", type=Path, required=True, help="folder of the release")
    parser.add_argument("--data", type=Path, required=True, help=data)


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--config", type=Path, help="training config, .json or .toml")
    group.add_argument("--preset", default="lite", help="a config that is shipped")


def _release_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", type=Path, help="folder of the release (default: the shipped one)")


def _train(args: argparse.Namespace, progress: Progress) -> int:
    if args.config is not None and args.config.exists():
        from encoders.cope.config import preset_named

        if preset_named(args.config) in ("cope", "clip"):
            from encoders.cope.command import train_command

            _say(train_command(args.config, args.data, args.out, steps=args.max_steps, progress=progress))
            return 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigRefused(args.out, "preset lite trains in one process, not under torchrun: all would write there")
    tune_process()
    import msgspec

    from encoders.pipeline import train_release

    config = _config(args)
    if args.unseen is not None:
        unseen = tuple(_products(args.unseen, args.data))
        config = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, unseen=unseen))
    digest = train_release(
        config, args.data, args.out, cache=args.cache, steps=args.max_steps, name=args.release, report=progress
    )
    progress.close()
    _say({"release": str(args.out / "release"), "digest": digest})
    return 0


def _adapt(args: argparse.Namespace, progress: Progress) -> int:
    tune_process()
    from encoders.adapt import adapt_release

    digest = adapt_release(
        _release_folder(args),
        args.data,
        args.out,
        new=_products(args.new, args.data) if args.new else (),
        cache=args.cache,
        steps=args.steps,
        name=args.name,
        report=progress,
    )
    progress.close()
    _say({"release": str(args.out / "release"), "digest": digest})
    return 0


def _evaluate(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.evaluate import evaluate, table, write_vectors
    from encoders.release import load, verified

    gates = [_gate(text) for text in args.fail_under]
    if None in gates:
        sys.stderr.write("--fail-under takes NAME=VALUE, such as R@1=0.9\n")
        return 2
    if args.card:
        verified(_release_folder(args))  # before minutes are spent: a card is of a release of kind lite
    release = load(args.release)
    result, query, gallery = evaluate(
        release,
        args.data,
        split=args.split,
        photos=args.photos,
        holdout=args.holdout,
        clothing=args.clothing,
        unseen=_products(args.unseen, args.data) if args.unseen else (),
        report=progress,
    )
    progress.close()
    result["command"] = args.command
    sys.stdout.write(table(result) + "\n")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if args.vectors:
        write_vectors(args.vectors, query, gallery)
    if args.plots:
        from encoders.plots import write_plots

        write_plots(result, args.plots)
    if args.card:
        from encoders.card import card_of

        card_of(_release_folder(args), result)
    _say({"R@1": result["retrieval"]["R@1"], "release": release.digest})
    missed = [name for name, least in (gate for gate in gates if gate) if result["retrieval"].get(name, 0.0) < least]
    return 1 if missed else 0


def _folds(args: argparse.Namespace, progress: Progress) -> int:
    tune_process()
    from encoders.folds import table, train_folds

    result = train_folds(_config(args), args.data, args.out, count=args.count, cache=args.cache, report=progress)
    progress.close()
    sys.stdout.write(table(result) + "\n")
    _say({name: result[name] for name in ("mean", "deviation")})
    return 0


def _card(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.card import write_card
    from encoders.release import FIGURES

    folder = _release_folder(args)
    _say({"card": str(write_card(folder, args.figures or folder / FIGURES, beside=dict(args.beside)))})
    return 0


def _speed(args: argparse.Namespace, progress: Progress) -> int:
    tune_process()
    from encoders.speed import speed, table

    result = speed(_release_folder(args), rounds=args.rounds, report=progress)
    progress.close()
    sys.stdout.write(table(result) + "\n")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _say({shape: result[shape] for shape in ("square", "wide")})
    return 0


def _calibrate(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.pipeline import calibrate_release
    from encoders.release import adopt_judgement

    if args.fitted is not None:
        digest = adopt_judgement(args.release, args.fitted, shelf=not args.without_shelf)
        _say({"release": str(args.release), "digest": digest})
        return 0
    if args.without_shelf:
        raise ConfigRefused(args.release, "--without-shelf goes with --fitted: photos tell nothing of shelves")
    figures = calibrate_release(
        args.release, args.data, split=args.split, holdout=args.holdout, clothing=args.clothing, report=progress
    )
    progress.close()
    _say(figures)
    return 0


def _export(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.pipeline import pack

    digest = pack(_config(args), args.run_folder, args.out, name=args.release, blend=args.blend)
    _say({"release": str(args.out), "digest": digest})
    return 0


def _hint(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.pipeline import hint_release

    digest, hint = hint_release(args.release, args.data)
    _say({"release": str(args.release), "digest": digest, "hint": hint})
    return 0


def _newcomers(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.pipeline import learn_newcomers

    digest = learn_newcomers(args.release, args.data, report=progress)
    progress.close()
    _say({"release": str(args.release), "digest": digest})
    return 0


def _fuse(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.pipeline import learn_fusion

    digest = learn_fusion(args.release, args.data, report=progress)
    progress.close()
    _say({"release": str(args.release), "digest": digest})
    return 0


def _holdout(args: argparse.Namespace, progress: Progress) -> int:
    from encoders.grocery import copy_photos, read_grocery, split_photos

    config = _config(args)
    grocery = read_grocery(args.grocery, config.data.split)
    held = split_photos(grocery.photos, holdout=config.data.holdout, fold=config.data.fold)[1]
    _say({"photos": copy_photos(held, args.out), "out": str(args.out), "holdout": config.data.holdout})
    return 0


def _config(args: argparse.Namespace) -> TrainingConfig:
    from encoders.config import preset, read_config

    return read_config(args.config) if args.config else preset(args.preset)


def _release_folder(args: argparse.Namespace) -> Path:
    from encoders.release import shipped

    folder: Path | None = args.release
    return folder or shipped("lite")


def _products(path: Path, data: Path) -> list[str]:
    """The product ids in a file. Raises DataRefused where it cannot be read, or one has no page in the data set."""
    from encoders.grocery import read_products

    try:
        told = path.read_text(encoding="utf-8").replace(",", "\n").split()
    except OSError as error:
        raise DataRefused(path, error.strerror or str(error)) from error
    unknown = sorted(set(told) - {product.product_id for product in read_products(data)})
    if unknown or not told:
        raise DataRefused(path, f"no page of {', '.join(unknown[:5])} in {data}" if unknown else "names no product")
    return told


def _gate(text: str) -> tuple[str, float] | None:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        return None


def _beside(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("NAME=FIGURES")
    return name, Path(path)


def positive(text: str) -> int:
    """An argument's whole number. Raises ArgumentTypeError under 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("between 0 and 1")
    return value


def _say(figures: dict[str, Any]) -> None:
    """The last line of stdout is one JSON object."""
    sys.stdout.write(json.dumps(figures) + "\n")


def _fail(error: EncodersError, code: int) -> int:
    sys.stderr.write(f"{error}\n")
    return code
