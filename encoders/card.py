"""The model card of a release: what it is, how good it is, what it is bad at. Written from its evaluation alone.

figures.json (what `evaluate` found) and MODEL_CARD.md (this page) may lie in the folder of a release. Nothing loads
them, and the digest leaves them out: a release is measured after it is made.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from encoders.errors import ReleaseRefused
from encoders.fusion import FILE as FUSION
from encoders.release import CARD, FIGURES, Manifest, digest_of, verified
from encoders.whole_file import write_atomically

WIDTH = 120  # of a line of text
NAMES = ("AUROC", "FPR@95")


def write_card(folder: Path, figures: Path, *, beside: Mapping[str, Path] | None = None) -> Path:
    """Writes the card of a release from the figures in a file; returns the card's path.

    `beside` adds, under names that say how they came about, the figures of other releases about products they were not
    trained on. Raises ReleaseRefused where figures are missing or of another release.
    """
    told = read_figures(figures)
    others = dict(told.get("beside", {}))
    for name, path in (beside or {}).items():
        found = read_figures(path)
        try:
            others[name] = {part: found[part] for part in ("release", "unseen", "unseen_95", "mixed", "mixed_95")}
        except KeyError as error:
            raise ReleaseRefused(path, f"has no {error}: evaluate it again, with --unseen") from error
    return card_of(folder, told | {"beside": others} if others else told)


def card_of(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Puts the figures into the folder of their release and writes its card; returns the card's path. Raises
    ReleaseRefused where they are of another release."""
    manifest = verified(folder)
    if figures.get("release") != digest_of(manifest):
        raise ReleaseRefused(folder, f"is {digest_of(manifest)}, but the figures are of {figures.get('release')}")
    try:
        page = card(manifest, figures)
    except KeyError as error:
        raise ReleaseRefused(folder, f"cannot have a card from figures without {error}: evaluate it again") from error
    write_atomically(folder / FIGURES, json.dumps(figures, indent=2).encode() + b"\n")
    write_atomically(folder / CARD, page.encode())
    return folder / CARD


def read_figures(path: Path) -> dict[str, Any]:
    """What `evaluate --json` wrote. Raises ReleaseRefused."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ReleaseRefused(path, error.strerror or str(error)) from error
    except msgspec.MsgspecError as error:
        raise ReleaseRefused(path, str(error)) from error


def card(manifest: Manifest, figures: Mapping[str, Any]) -> str:
    """The page, Markdown. The same release and figures give the same page."""
    parts = [
        f"# Model card: `{manifest.name}`\n\nWritten by `python -m encoders card` from figures.json beside it; edit "
        f"neither.\nDigest of the release: `{figures['release']}`.",
        _what(manifest),
        _data(manifest),
        _figures(figures),
        _weak(figures),
        _unknown(figures),
        _new_products(figures),
        _use(manifest),
    ]
    blocks = "\n\n".join(parts).split("\n\n")
    return "\n\n".join(block if block[0] in "#| " else textwrap.fill(block, WIDTH) for block in blocks) + "\n"


def _what(manifest: Manifest) -> str:
    vision = manifest.training.get("config", {}).get("vision", {})
    sizes = ", ".join(f"{'x'.join(map(str, size))} ({shape})" for shape, size in _sizes(manifest))
    encoder = manifest.text_encoder
    return f"""## What it is

Two towers into vectors of {manifest.dim} numbers of unit length, for finding which product of a catalogue a live stream
shows or speaks of. Pictures and words have a part of this one space each: frames are comparable with the pictures of
pages, sentences with their texts; a picture and the text of one page are nearly at right angles.{_fused(manifest)}
Pictures: {vision.get("backbone", "an image tower")}, fine-tuned{_soup(manifest)}, at
{sizes} pixels (height x width), by OpenVINO, in float32
or, after the first block, bfloat16. Words: `{encoder.package}` {encoder.version} as it comes, behind a trained
projection. It is not a CLIP: it knows the kinds of product it was trained on, and sentences about
their pages."""


def _fused(manifest: Manifest) -> str:
    """What joins them, if there is something."""
    if FUSION not in manifest.files:
        return " It has no vector of both."
    return """ The fused vector of a clip's frames and words is comparable with the fused vectors of pages
(`encoders.fusion`)."""


def _soup(manifest: Manifest) -> str:
    """The runs whose weights were averaged, if there were several."""
    runs = manifest.training.get("config", {}).get("soup", ())
    if not runs:
        return ""
    told = [f"{run['steps']} steps with {run['swapped']:.0%} of the batches in other colours" for run in runs]
    return f" (the mean of {len(runs)} runs: {'; '.join(told)})"


def _sizes(manifest: Manifest) -> list[tuple[str, tuple[int, int]]]:
    told = manifest.preprocessing
    return [("square", told.square), ("wide", told.wide), ("tall", told.tall)]


def _data(manifest: Manifest) -> str:
    training = manifest.training
    data = training.get("config", {}).get("data", {})
    held, unseen = data.get("holdout", 0.0), data.get("unseen", ())
    but = f" and without any photo of {len(unseen)} products" if unseen else ""
    rows = "\n".join(f"| {name} | {licence} |" for name, licence in sorted(manifest.licences.items()))
    return f"""## Data and licences

Trained on the split `{data.get("split")}` without the {held:.0%} of each product's photos that calibration needs{but}
(sha256 over all of it: `{training.get("data_sha256")}`). The grocery photos were taken by hand in Swedish shops; the
packshots come from a retailer's site and show brands.

| part | licence |
|---|---|
{rows}"""


def _figures(figures: Mapping[str, Any]) -> str:
    rows = [
        ("photo to page, " + name, value, figures["retrieval_95"][name]) for name, value in figures["retrieval"].items()
    ]
    rows += [
        (f"photo to page, R@1, prefix {length}", one["R@1"], one["R@1 95"])
        for length, one in figures.get("prefixes", {}).items()
    ]
    rows += [(f"photo to page, R@1, {kind}", one["R@1"], one["R@1 95"]) for kind, one in figures["kinds"].items()]
    back = figures["directions"]["directions"]["P2L"]["retrieval"]
    rows.append(("page to photo, R@1 (a right photo comes first)", back["R@1"], back["R@1 95"]))
    for name, text in (
        ("frames only", "one photo alone, R@1"),
        ("words only", "one sentence alone, R@1"),
        ("both", "both together, R@1"),
        ("both, one vector", "both, one vector, R@1"),
    ):
        if name not in figures["ablation"]:
            continue
        one = figures["ablation"][name]
        rows.append((text, one["R@1"], one["R@1 95"]))
    table = "\n".join(f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |" for name, value, (low, high) in rows)
    weights = figures["ablation"]["weights"]
    told, bare = (
        _with_interval(figures["calibration"][name], figures["calibration_95"][name])
        for name in ("ECE", "ECE of the cosine")
    )
    return f"""## Figures

{figures["photos"]} hand-held photos of {figures["photo_products"]} products (`{figures["split"]}`) against the pages of
all {figures["pages"]} products. Intervals: whole products drawn with replacement.

    {figures["command"]}

| | | 95 % |
|---|---|---|
{table}

{_one_shot(figures)}

The {figures["ablation"]["sentences"]} sentences are written ones in ways of talking that training did not have, half of
them naming the product, half telling a fact of its page word for word; nothing is misheard in them. "Both" adds the
logarithms of both sides' shares, frames with weight {weights["frames"]:.2f} and words with {weights["words"]:.2f}, as
the mention rule weighs them.{_told(figures)}

Calibration error (ECE, 15 bins) of the share that the best product gets: {told}; of the bare cosine {bare}. That is for
single photos with the whole catalogue as gallery; for streams see README.md."""


def _told(figures: Mapping[str, Any]) -> str:
    if "both, one vector" not in figures["ablation"]:
        return ""
    return """ "One vector" is the cosine of the fused vector of photo and sentence with those of pages
(`encoders.fusion`)."""


def _one_shot(figures: Mapping[str, Any]) -> str:
    shot = figures.get("one_shot_live")
    if shot is None:
        return "One-shot was not measured: no product has a second photo."
    return f"""One-shot (one photo of each product as its prototype, the other photos to the nearest):
{_with_interval(shot["top-1"], shot["top-1 95"])}, standard deviation {shot["deviation"]:.3f} over {shot["draws"]}
draws."""


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _weak(figures: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {row['title']} ({row['product_id']}) | {row['R@1']:.2f} of {row['photos']} photos | "
        f"{row['taken_for_title'] or ''} |"
        for row in figures["worst"]
    )
    by_kind = sorted(figures["kinds"].items(), key=lambda kind: float(kind[1]["R@1"]))
    told = ", ".join(f"{kind} {one['R@1']:.3f}" for kind, one in by_kind)
    return f"""## What it is bad at

What looks alike. R@1 by kind, worst first: {told}. The products it misses most, and what it takes them for:

| product | right | taken for |
|---|---|---|
{rows}

A packshot that shows the product otherwise than the photo does (cut fruit against whole, one against a pile) is a
frequent reason. All photos are from shops of one country; other goods, other light and other languages were not
measured."""


def _unknown(figures: Mapping[str, Any]) -> str:
    rows = [
        ("other products of the catalogue, shelves of 20", "off_shelf", ""),
        ("the same, when their pages may be looked at", "off_shelf", " with catalogue"),
        ("clothing, no page at all", "clothing", ""),
    ]
    lines = [
        "## The unknown\n",
        "How well the best cosine tells what is on the shelf from what is not (AUROC; FPR@95 is the share of unknown "
        "pictures let in where 95 % of the known are), with 95 % intervals over the known products:\n",
        "| unknown | AUROC | FPR@95 |",
        "|---|---|---|",
    ]
    for told, part, ending in rows:
        if part in figures:
            cells = [_with_interval(figures[part][n + ending], figures[f"{part}_95"][n + ending]) for n in NAMES]
            lines.append(f"| {told} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _new_products(figures: Mapping[str, Any]) -> str:
    told = """## Products that it was not trained on

A new page can be searched at once. It is found less often than a trained one, and among trained pages that look like
it; a release moves it by what its title tells and lifts it where pages compete (`encoders.newcomers`). `python -m
encoders adapt` teaches a release new pages, without photos of them."""
    others = figures.get("beside", {})
    if not others:
        return f"{told} How much is lost was not measured on this release, which has met every product of the data set."
    columns = (("unseen", "R@1"), ("mixed", "new R@1"), ("mixed", "trained R@1"), ("mixed", "harmonic"))
    rows = [
        f"| {name} | {' | '.join(_with_interval(one[part][n], one[f'{part}_95'][n]) for part, n in columns)} |"
        for name, one in others.items()
    ]
    if len(others) > 1:
        means = [sum(one[part][n] for one in others.values()) / len(others) for part, n in columns]
        rows.append(f"| mean | {' | '.join(f'{value:.3f}' for value in means)} |")
    table = "\n".join(rows)
    return f"""{told} Measured on releases that saw no photo of some products in training (R@1; "new" and
"trained" with all pages in the gallery):

| release | among new pages only | new | trained | harmonic mean |
|---|---|---|---|---|
{table}"""


def _without_shelf(manifest: Manifest) -> str:
    judgement = manifest.without_shelf
    if isinstance(judgement, msgspec.UnsetType):
        return ""
    seen, threshold = judgement.calibration.seen, judgement.calibration.threshold
    return (
        f"; for streams without a shelf, in which all of the catalogue counts, they are {seen.temperature:g}, "
        f"{seen.unknown_score:g} and {threshold:g}"
    )


def _use(manifest: Manifest) -> str:
    seen, spoken = manifest.calibration.seen, manifest.calibration.spoken
    return f"""## Use

    from encoders.release import load
    release = load(Path("…/{manifest.name}"))          # every file is checked against its sha256 first
    release.encode_frames(frames)                  # uint8 (F, H, W, 3) RGB -> (F, {manifest.dim})
    release.encode_page(title, description, images)

A frame is of a product with the share it gets in a soft-max of cosine / {seen.temperature:g} over the shelf and a
constant {seen.unknown_score:g} for the unknown (words: / {spoken.temperature:g}, {spoken.unknown_score:g}); below
{manifest.calibration.threshold:g} it is of no product. These were fitted on streams made of photos that training left
out{_without_shelf(manifest)}.

To adapt it to new pages: `python -m encoders adapt --release FOLDER --data CATALOGUE --out RUN`; to photos of other
shops: `python -m encoders train`, then `calibrate`. It is not for recognising people, or anything about them."""
