"""A CLIP checkpoint, packed by README's own commands, through the whole pipeline."""

import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from encoders.cope.command import main as encoders_cope
from streamproc.adapters.release_folders import read_facts
from streamproc.cli import commands
from tests.encoders.tiny_clips import readme_commands, write_clip
from tests.end_to_end.conftest import MadeWorld


@pytest.mark.slow
def test_a_checkpoint_is_packed_and_a_stream_is_looked_at_and_listened_to_with_it(
    made: MadeWorld, tmp_path: Path
) -> None:
    """Its weights are random: what it recognises is nothing, whose vectors they are is told."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    release, record = tmp_path / "release", tmp_path / "record"
    places = {
        "openai/clip-vit-base-patch16": str(write_clip(tmp_path / "checkpoint")),
        "releases/clip": str(release),
        "show.ts": str(made.files[1]),
        "pages.jsonl": str(made.pages),
        "shelves.jsonl": str(made.shelves),
        "mentions.jsonl": str(tmp_path / "mentions.jsonl"),
    }
    told = readme_commands()
    export, recognise = ([places.get(word, word) for word in shlex.split(line)] for line in (told[0], told[-1]))

    assert (["python", "-m", "encoders.cope"], "streamproc") == (export[:3], recognise[0])
    assert 0 == encoders_cope(export[3:])
    run = CliRunner().invoke(commands, [*recognise[1:], "--record", str(record)], catch_exceptions=False)
    clips = [msgspec.json.decode(line) for line in (record / "clips.jsonl").read_bytes().splitlines()]

    assert 0 == run.exit_code
    assert {read_facts(release).release} == {clip["release"] for clip in clips}
    assert [clip for clip in clips if clip["seen"]]
    assert [clip for clip in clips if clip["spoken"]]
