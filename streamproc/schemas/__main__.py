"""Writes the schemas again: `python -m streamproc.schemas`."""

from pathlib import Path

from streamproc.schemas import generate


def main() -> None:
    for name, text in generate().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
