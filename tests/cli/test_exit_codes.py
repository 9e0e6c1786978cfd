"""Whose fault it is decides the exit code, and the message names what to set right."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from streamproc.cli import commands
from streamproc.errors import Misconfigured
from streamproc.settings import read_settings


def streamproc(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMPROC_")}
    command = [sys.executable, "-m", "streamproc", *arguments]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, check=False)


def test_no_broker_is_the_worlds_fault_and_names_the_setting() -> None:
    done = streamproc("topics", "apply", STREAMPROC_BROKER="127.0.0.1:9")

    assert (3, True) == (done.returncode, "STREAMPROC_BROKER" in done.stderr)


def test_a_setting_that_is_not_known_is_wrong_use_and_names_its_neighbour() -> None:
    done = streamproc("check", STREAMPROC_BROKR="x")
    told = streamproc("topics", "diff", STREAMPROC_BROKR="x")

    assert 0 == done.returncode  # it needs no settings
    assert (2, True) == (told.returncode, "did you mean STREAMPROC_BROKER?" in told.stderr)


def test_an_option_that_is_not_known_is_wrong_use() -> None:
    assert 2 == streamproc("check", "--colour").returncode


def test_an_agent_that_is_not_known_is_wrong_use_and_the_known_ones_are_named() -> None:
    done = streamproc("run", "percieve")

    assert (2, True) == (done.returncode, "perceive, match, spot, index" in done.stderr)


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
