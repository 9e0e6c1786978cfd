"""Helm in a process of its own: it is a Go program in a shared library, and its runtime beside those of the models'
libraries ended both runs of the whole suite in random order with a segmentation fault."""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

CHART = Path(__file__).parents[2] / "helm" / "streamproc"


class HelmRefused(Exception):
    """Helm's own words for what it does not take."""


class ChartFacts(NamedTuple):
    """What the chart says of itself."""

    schema: dict[str, Any] | None
    values: dict[str, Any]
    metadata: dict[str, Any]


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))


def _in_helm(work: Callable[..., T], *arguments: object) -> T:
    return _process().submit(work, *arguments).result()


@cache
def chart() -> ChartFacts:
    """Loaded once: it does not change."""
    return _in_helm(_facts)


def rendered(values: Mapping[str, object]) -> dict[str, str]:
    """Text by file of an install called `demo` in namespace `live`. Raises HelmRefused."""
    return _in_helm(_render, dict(values))


def linted(values: Mapping[str, object], *, kube_version: str) -> dict[str, Any]:
    """Helm's strict report."""
    return _in_helm(_lint, dict(values), kube_version)


def packaged(destination: Path) -> Path:
    """The archive."""
    return _in_helm(_package, destination)


# --- there --------------------------------------------------------------------------------------------------------


@cache
def _loaded() -> Any:
    from helm_python import Chart

    return Chart.load(CHART)


def _facts() -> ChartFacts:
    return ChartFacts(_loaded().schema, _loaded().values, _loaded().metadata)


def _render(values: dict[str, object]) -> dict[str, str]:
    from helm_python import HelmError

    try:
        files: dict[str, str] = _loaded().render(values, name="demo", namespace="live", is_install=True)
    except HelmError as error:
        raise HelmRefused(str(error)) from None
    return files


def _lint(values: dict[str, object], kube_version: str) -> dict[str, Any]:
    from helm_python import lint

    report: dict[str, Any] = lint(CHART, values, strict=True, kube_version=kube_version)
    return report


def _package(destination: Path) -> Path:
    from helm_python import package

    return Path(package(CHART, destination=destination))
