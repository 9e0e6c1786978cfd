"""Whose fault it is decides the exit code, and the message names what to set right."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from streamproc.cli import commands, main
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


def test_the_doctor_says_what_is_missing_and_answers_no() -> None:
    done = streamproc("doctor", STREAMPROC_BROKER="127.0.0.1:9", STREAMPROC_MILVUS_URI="http://127.0.0.1:9")

    assert 1 == done.returncode
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
