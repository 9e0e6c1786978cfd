"""Whose fault it is decides the exit code, and the message names what to set right."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from streamproc.cli import commands, main
from streamproc.embedded.jars import fetch
from streamproc.errors import Misconfigured
from streamproc.settings import read_settings
from streamproc.wiring import commands as verbs

Typed = Callable[..., tuple[int, str]]


def streamproc(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command as a process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMPROC_")}
    command = [sys.executable, "-m", "streamproc", *arguments]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, check=False)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """The command in this process, which spares a second of imports: its exit code, and what it said to stderr."""

    def run(*arguments: str, **settings: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["streamproc", *arguments])
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def test_no_broker_is_the_worlds_fault_and_names_the_setting() -> None:
    done = streamproc("topics", "apply", STREAMPROC_BROKER="127.0.0.1:9")

    assert (3, True) == (done.returncode, "STREAMPROC_BROKER" in done.stderr)


def test_a_setting_that_is_not_known_is_wrong_use_and_names_its_neighbour(typed: Typed) -> None:
    assert 0 == typed("check", STREAMPROC_BROKR="x")[0]  # it needs no settings
    code, said = typed("topics", "diff", STREAMPROC_BROKR="x")

    assert (2, True) == (code, "did you mean STREAMPROC_BROKER?" in said)


def test_an_option_that_is_not_known_is_wrong_use(typed: Typed) -> None:
    assert 2 == typed("check", "--colour")[0]


def test_an_agent_that_is_not_known_is_wrong_use_and_the_known_ones_are_named(typed: Typed) -> None:
    code, said = typed("run", "percieve")

    assert (2, True) == (code, "perceive, match, spot, index" in said)


def test_a_source_that_cannot_be_one_is_wrong_use_broker_or_not(typed: Typed, tmp_path: Path) -> None:
    code, said = typed("ingest", str(tmp_path / "gone.mp4"), "--stream", "room-7", STREAMPROC_BROKER="127.0.0.1:9")

    assert (2, True) == (code, "gone.mp4" in said)


def test_a_source_that_is_lost_is_given_up_after_as_long_as_was_said(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "KafkaOutbox", lambda _: contextlib.nullcontext())  # nothing comes that could be sent

    code, said = typed("ingest", "rtmp://127.0.0.1:9/live/x", "--stream", "room-7", "--give-up", "0.2")

    assert (3, True) == (code, "rtmp://127.0.0.1:9/live/x: nothing for" in said)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("graph", "--write", "gone.md"), "gone.md"),
        (("bench", "--bench", ".", "--data", ".", "--work", "w", "--seeds", "1,x"), "--seeds"),
        (("mentions", "tail", "--from", "yesterday"), "2026-11-22T10:00:00Z"),
    ],
)
def test_an_argument_that_cannot_be_right_is_wrong_use_and_named(
    typed: Typed, arguments: tuple[str, ...], named: str
) -> None:
    code, said = typed(*arguments)

    assert (2, True) == (code, named in said)


@pytest.mark.parametrize("said", ["2026-11-22T10:00:00.000000Z", "2026-11-22T11:00:00+01:00", "2026-11-22 10:00:00"])
def test_a_time_is_taken_as_events_tell_it_and_is_utc_where_nothing_is_said(
    said: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[datetime] = []

    async def tail(*_: object, since: datetime, **__: object) -> None:
        asked.append(since)

    monkeypatch.setattr(verbs, "tail", tail)

    assert 0 == typed("mentions", "tail", "--from", said, "--once")[0]
    assert [datetime(2026, 11, 22, 10, tzinfo=UTC)] == asked


def recognising(folder: Path, *more: str) -> tuple[str, ...]:
    """What a caller types who has one page, and a file that is no media."""
    page = {"page_id": "p", "product_id": "mug", "title": "Mug"}
    (folder / "pages.jsonl").write_text(json.dumps(page))
    (folder / "show.ts").write_bytes(b"no media")
    return ("recognise", str(folder / "show.ts"), "--pages", str(folder / "pages.jsonl"), *more)


def test_a_log_that_cannot_be_written_is_told_before_the_work(typed: Typed, tmp_path: Path) -> None:
    code, said = typed(*recognising(tmp_path, "--out", str(tmp_path / "none" / "m.jsonl")))

    assert (2, True) == (code, "m.jsonl: cannot be written" in said)


def test_shelves_of_which_none_can_be_used_are_refused_since_no_shelf_is_the_whole_catalogue(
    typed: Typed, tmp_path: Path
) -> None:
    (tmp_path / "shelves.jsonl").write_text("{}\n")

    code, said = typed(
        *recognising(tmp_path, "--out", str(tmp_path / "m.jsonl"), "--shelves", str(tmp_path / "shelves.jsonl"))
    )

    assert (2, True) == (code, "--shelves: " in said)


def test_a_log_that_is_there_survives_a_refusal(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("earlier")

    assert 2 == typed(*recognising(tmp_path, "--out", str(tmp_path / "m.jsonl")))[0]
    assert "earlier" == (tmp_path / "m.jsonl").read_text()


def test_a_cache_that_cannot_be_made_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Misconfigured, match="STREAMPROC_CACHE"):
        fetch((), tmp_path / "file" / "kafka")


def test_the_doctor_says_what_is_missing_and_answers_no() -> None:
    done = streamproc(
        "doctor",
        STREAMPROC_BROKER="127.0.0.1:9",
        STREAMPROC_MILVUS_URI="http://127.0.0.1:9",
        STREAMPROC_MEDIA_PREFIXES="s3://a, s3://b",
    )

    assert (1, "") == (done.returncode, done.stderr)
    assert "STREAMPROC_MEDIA_PREFIXES=s3://a,s3://b" in done.stdout.splitlines()  # as it may be typed
    assert "NO  broker" in done.stdout
    assert "NO  index" in done.stdout
    assert "ok  releases" in done.stdout


def test_a_value_that_cannot_be_right_names_its_setting() -> None:
    with pytest.raises(Misconfigured, match="STREAMPROC_HEALTH_PORT"):
        read_settings({"STREAMPROC_HEALTH_PORT": "eighty"})


def every_command(group: click.Group = commands, name: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for part, command in group.commands.items():
        if isinstance(command, click.Group):
            found += every_command(command, f"{name} {part}")
        else:
            found.append((f"{name} {part}".strip(), command))
    return found


@pytest.mark.parametrize(("name", "command"), every_command())
def test_the_help_of_each_command_says_what_it_does_and_gives_an_example(name: str, command: click.Command) -> None:
    assert command.help is not None
    assert f"Example: streamproc {name}" in command.help


def test_the_settings_of_every_variable_are_described_where_they_are_declared() -> None:
    text = (Path(__file__).parents[2] / "streamproc" / "settings.py").read_text()

    assert all(f"    {name}: " in text for name in read_settings({}).__struct_fields__)
