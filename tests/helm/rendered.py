"""The chart as a cluster would get it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.helm.helm_process import rendered

Manifest = dict[str, Any]


def render(**values: object) -> list[Manifest]:
    """Every manifest of an install called `demo` in namespace `live`."""
    files = rendered(values)
    return [
        manifest
        for path, text in files.items()
        if path.endswith(".yaml")
        for manifest in yaml.load_all(text, yaml.CSafeLoader)  # ten times as fast as the one in Python
        if manifest
    ]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Those of one kind, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that these manifests would make, as (name of what makes it, pod spec)."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        match manifest["kind"]:
            case "Pod":
                yield name, manifest["spec"]
            case "StatefulSet" | "Job":
                yield name, manifest["spec"]["template"]["spec"]
            case "CronJob":
                yield name, manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every container, as (name of what makes its pod, container)."""
    for name, pod in pods(manifests):
        for container in pod["containers"]:
            yield name, container


def environment(container: Manifest) -> dict[str, str]:
    """Variables with a value in the manifest itself."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}
