"""Pictures of an evaluation: how right, for which products, how honest, how well the unknown is told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (6.4, 4.8)


def write_plots(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """retrieval.png, products.png, reliability.png and, if clothing was measured, rejection.png of what
    `encoders.evaluate.evaluate` returned; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        _write(folder / "retrieval.png", lambda axes: _retrieval(axes, figures)),
        _write(folder / "products.png", lambda axes: _products(axes, figures["products"])),
        _write(folder / "reliability.png", lambda axes: _reliability(axes, figures)),
    ]
    if "clothing" in figures["curves"]:
        written.append(_write(folder / "rejection.png", lambda axes: _rejection(axes, figures)))
    return written


def write_direction_plot(figures: Mapping[str, Any], folder: Path) -> Path:
    """directions.png of what `python -m encoders.cope evaluate` found: R@1 of each direction, and of live clips to
    pages of products that were trained on and of others; the path written."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(name, one["retrieval"]["R@1"], one["retrieval"]["R@1 95"]) for name, one in figures["directions"].items()]
    pages = figures["live to pages"]
    parts = [("retrieval", "R@1"), ("seen", "R@1"), ("unseen", "R@1"), ("mixed", "new R@1"), ("mixed", "trained R@1")]
    rows += [
        (f"to pages: {part} {name}", pages[part][name], pages[f"{part}_95"][name])
        for part, name in parts
        if part in pages
    ]
    return _write(folder / "directions.png", lambda axes: _shares(axes, rows))


def _write(path: Path, draw: Any) -> Path:
    """Draws into a figure of its own: pyplot would keep them all, and ask for a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    figure.savefig(path, dpi=120)
    return path


def _retrieval(axes: Axes, figures: Mapping[str, Any]) -> None:
    rows = [(f"photo to page {name}", value, figures["retrieval_95"][name]) for name, value in _shown(figures)]
    rows += [(kind, one["R@1"], one["R@1 95"]) for kind, one in figures["kinds"].items()]
    for name in ("frames only", "words only", "both"):
        one = figures["ablation"][name]
        rows.append((name, one["R@1"], one["R@1 95"]))
    _shares(axes, rows)


def _shares(axes: Axes, rows: Sequence[tuple[str, float, Sequence[float]]]) -> None:
    """Figures with their intervals, the first at the top."""
    rows = rows[::-1]
    values = [value for _, value, _ in rows]
    below = [max(0.0, value - low) for _, value, (low, _) in rows]
    above = [max(0.0, high - value) for _, value, (_, high) in rows]
    axes.errorbar(values, range(len(rows)), xerr=[below, above], fmt="o", capsize=3)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xlabel("share right; bars are 95 % intervals over products")
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", alpha=0.3)


def _shown(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in figures["retrieval"].items() if name in ("R@1", "R@5")]


def _products(axes: Axes, products: Mapping[str, float]) -> None:
    values = sorted(products.values())
    axes.bar(range(len(values)), values, width=1.0)
    axes.set_xlabel(f"{len(values)} products, worst first")
    axes.set_ylabel("R@1 of their photos")
    axes.set_ylim(0, 1.02)


def _reliability(axes: Axes, figures: Mapping[str, Any]) -> None:
    errors = {
        "calibrated": figures["calibration"]["ECE"],
        "cosine": figures["calibration"]["ECE of the cosine"],
    }
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, curve in figures["curves"]["reliability"].items():
        told = [point[0] for point in curve]
        true = [point[1] for point in curve]
        axes.plot(told, true, marker="o", label=f"{name}, ECE {errors[name]:.3f}")
    axes.set_xlabel("what was told of the best product")
    axes.set_ylabel("how often it was right")
    axes.legend()


def _rejection(axes: Axes, figures: Mapping[str, Any]) -> None:
    points: Sequence[Sequence[float]] = figures["curves"]["clothing"]
    area = figures["clothing"]["AUROC"]
    axes.plot([point[0] for point in points], [point[1] for point in points], label=f"clothing, AUROC {area:.3f}")
    axes.set_xlabel("share of the unknown let in")
    axes.set_ylabel("share of the known let in")
    axes.grid(alpha=0.3)
    axes.legend()
