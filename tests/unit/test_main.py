"""``python -m gpumpi`` and its other names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from click.testing import CliRunner

import gpumpi
from gpumpi.__main__ import command


def test_the_commands_are_these() -> None:
    assert set(command.commands) == {"run", "connect", "topology"}


def test_every_command_has_a_help_text() -> None:
    for name in command.commands:
        result = CliRunner().invoke(command, [name, "--help"])
        assert result.exit_code == 0
        assert "Options:" in result.output


def test_the_version_is_told(run_module) -> None:
    ended = run_module("gpumpi", "--version")
    assert (ended.returncode, ended.stdout) == (0, f"gpumpi {gpumpi.__version__}\n")


def test_an_unknown_command_is_2(run_module) -> None:
    ended = run_module("gpumpi", "fly")
    assert ended.returncode == 2
    assert "No such command 'fly'" in ended.stderr


def test_run_is_the_same_door_as_the_module(run_module) -> None:
    word = "--nthread"
    found = run_module("gpumpi", "run", word)
    assert found.returncode == 2
    assert found.stderr == run_module("gpumpi.run", word).stderr


def test_run_without_words_has_nothing_to_do(run_module) -> None:
    ended = run_module("gpumpi", "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "got neither a script nor --scheduler-file" in ended.stderr
    assert "Next: add script.py, or --scheduler-file scheduler.json" in ended.stderr


def test_the_console_script_is_there() -> None:
    path = shutil.which("gpumpi", path=str(Path(sys.executable).parent))
    assert path is not None
    ended = subprocess.run(
        [path, "--version"], capture_output=True, text=True, check=False
    )
    assert ended.stdout == f"gpumpi {gpumpi.__version__}\n"


def test_dask_finds_the_command() -> None:
    (found,) = entry_points(group="dask_cli", name="gpumpi")
    assert found.load() is command
