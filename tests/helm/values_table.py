"""The table of values in the chart's README, made from the `# --` comments of values.yaml.

`python -m tests.helm.values_table` writes it anew; a test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parents[2] / "helm" / "streamproc"
BEGIN, END = "<!-- values:begin -->", "<!-- values:end -->"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


class Row(NamedTuple):
    """A value with a comment of its own."""

    key: str
    default: object
    comment: str


def rows(text: str) -> Iterator[Row]:
    """Every key of values.yaml that a `# --` comment stands right above, in the order of the file."""
    values = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = [bare.removeprefix("# -- ")]
        elif bare.startswith("#") and comment:
            comment.append(bare.removeprefix("#").strip())
        elif found := KEY.match(line):
            path = [*path[: len(found[1]) // 2], found[2]]
            if comment:
                yield Row(".".join(path), _at(values, path), " ".join(comment))
            comment = []
        else:
            comment = []


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted name of every value that is not itself a map with entries."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name


def table(text: str) -> str:
    """Markdown."""
    lines = ["| value | default | when and why |", "|---|---|---|"]
    lines += [
        f"| `{row.key}` | `{json.dumps(row.default, ensure_ascii=False)}` | {row.comment} |" for row in rows(text)
    ]
    return "\n".join(lines) + "\n"


def rewritten(readme: str, values: str) -> str:
    """`readme` with the table between its markers made anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(values)}{END}{after}"


def _at(values: Any, path: list[str]) -> object:
    for key in path:
        values = values[key]
    return values


if __name__ == "__main__":
    readme = CHART / "README.md"
    readme.write_text(rewritten(readme.read_text(), (CHART / "values.yaml").read_text()))
