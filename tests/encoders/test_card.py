"""Evaluation as a whole on a miniature release, and the page that is made of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.ablation import ABLATIONS
from encoders.card import card, card_of, read_figures, write_card
from encoders.cli import main
from encoders.errors import ReleaseRefused
from encoders.evaluate import evaluate, prefixes, table
from encoders.measure import Labelled
from encoders.plots import write_plots
from encoders.release import CARD, FIGURES, digest_of, forget_fusion, load, shipped, verified
from tests.encoders.conftest import silent

Figures = dict[str, Any]


@pytest.fixture(scope="module")
def figures(run: Path, shop: Path) -> Figures:
    return evaluate(load(run / "release"), shop, report=silent)[0] | {"command": "python -m encoders evaluate …"}


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A release that a test may write to."""
    return Path(shutil.copytree(run / "release", tmp_path / "release"))


def test_every_figure_stands_in_the_table(figures: Figures) -> None:
    told = table(figures)

    for name in (
        "P2L",
        "L2P",
        "live to live: one-shot",
        "off_shelf: AUROC",
        "calibration: ECE",
        "Box: R@1",
        *ABLATIONS,
    ):
        assert name in told
    assert figures["retrieval"]["R@1"] == figures["directions"]["directions"]["L2P"]["retrieval"]["R@1"]
    assert figures["retrieval"]["R@1"] == figures["ablation"]["frames only"]["R@1"]
    assert 3 * figures["photos"] == figures["ablation"]["sentences"]
    assert {} == figures["prefixes"]  # vectors of 32 numbers have no first 64
    assert json.loads(json.dumps(figures)) == read_back(figures)


def test_prefixes_are_compared_as_vectors_of_their_own() -> None:
    names = np.array(["a", "b"])
    pages = np.zeros((2, 256), np.float32)
    pages[0, 0] = pages[1, 1] = 0.6
    pages[0, 100] = pages[1, 101] = 0.8
    asked = pages.copy()
    asked[:, [100, 101]] = asked[:, [101, 100]]  # what comes after the first 64 numbers misleads

    found = prefixes(Labelled(asked, names), Labelled(pages, names))

    assert {"128": 0.0, "64": 1.0} == {length: one["R@1"] for length, one in found.items()}
    assert [1.0, 1.0] == list(found["64"]["R@1 95"])


def test_a_release_without_a_fusion_is_measured_and_told_without_one(folder: Path, shop: Path) -> None:
    forget_fusion(folder)
    figures = evaluate(load(folder), shop, report=silent)[0] | {"command": "…"}

    assert "both, one vector" not in figures["ablation"]
    assert "both, one vector" not in table(figures)
    assert "one vector" not in card(verified(folder), figures)


def read_back(value: Any) -> Any:
    """With lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: read_back(part) for name, part in value.items()}
    return [read_back(part) for part in value] if isinstance(value, list | tuple) else value


def test_a_card_beside_the_weights_changes_nothing_of_the_release(folder: Path, figures: Figures) -> None:
    before = digest_of(verified(folder))
    page = card_of(folder, figures).read_text("utf-8")

    assert before == digest_of(verified(folder)) == load(folder).digest
    assert page == card(verified(folder), read_figures(folder / FIGURES))
    assert f"{figures['retrieval']['R@1']:.3f}" in page
    assert figures["worst"][0]["title"] in page
    assert "| both, one vector, R@1 |" in page
    (folder / "notes.txt").write_text("…", "utf-8")
    with pytest.raises(ReleaseRefused, match=r"notes\.txt: is not listed"):
        verified(folder)


def test_figures_of_another_release_make_no_card(folder: Path, figures: Figures, tmp_path: Path) -> None:
    with pytest.raises(ReleaseRefused, match="the figures are of sha256:0"):
        card_of(folder, figures | {"release": "sha256:0"})
    assert not (folder / CARD).exists()
    with pytest.raises(ReleaseRefused, match="No such file"):
        write_card(folder, tmp_path / "none.json")
    (tmp_path / "seen.json").write_text(json.dumps(figures), "utf-8")
    with pytest.raises(ReleaseRefused, match="--unseen"):
        write_card(folder, tmp_path / "seen.json", beside={"split 0": tmp_path / "seen.json"})


def test_one_command_measures_and_writes_the_card(folder: Path, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "unseen.txt").write_text("grocery-001\ngrocery-004\n", "utf-8")
    shown = ["evaluate", "--quiet", "--release", str(folder), "--data", str(shop)]

    assert 0 == main([*shown, "--unseen", str(tmp_path / "unseen.txt"), "--json", str(tmp_path / "unseen.json")])
    assert 0 == main([*shown, "--card", "--plots", str(tmp_path / "plots")])
    assert f"python -m encoders evaluate --quiet --release {folder}" in (folder / CARD).read_text("utf-8")
    assert {"products.png", "reliability.png", "retrieval.png"} == {
        path.name for path in (tmp_path / "plots").iterdir()
    }
    assert 0 == main(["card", "--release", str(folder), "--beside", f"pages only={tmp_path / 'unseen.json'}"])
    page = (folder / CARD).read_text("utf-8")
    assert "| pages only |" in page
    assert 0 == main(["card", "--release", str(folder)])
    assert page == (folder / CARD).read_text("utf-8")


def test_rejection_is_drawn_where_it_was_measured(figures: Figures, tmp_path: Path) -> None:
    curves = figures["curves"] | {"clothing": [(0.0, 0.1), (1.0, 1.0)]}
    written = write_plots(figures | {"curves": curves, "clothing": {"AUROC": 0.5, "FPR@95": 0.9}}, tmp_path)

    assert "rejection.png" in [path.name for path in written]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_the_card_of_the_shipped_release_is_of_today() -> None:
    folder = shipped("lite")
    figures = read_figures(folder / FIGURES)

    assert digest_of(verified(folder)) == figures["release"]
    assert card(verified(folder), figures) == (folder / CARD).read_text("utf-8")
