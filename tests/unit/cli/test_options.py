from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gpumpi.cli.options import add_options
from gpumpi.config import option_fields

NAMES = [item.name for item in option_fields()]


@click.command()
@add_options
def command(**given: object) -> None:
    click.echo(
        repr({name: value for name, value in given.items() if value is not None})
    )


def given(*words: str) -> dict[str, object]:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return eval(result.output)


def test_the_command_has_one_option_per_field_in_their_order() -> None:
    assert [parameter.name for parameter in command.params] == NAMES


def test_what_is_not_given_is_none() -> None:
    assert given() == {}


def test_values_stay_text() -> None:
    assert given("--nthreads", "3", "--start-timeout", "2m") == {
        "nthreads": "3",
        "start_timeout": "2m",
    }


def test_a_switch_is_true_when_it_is_given() -> None:
    assert given("--nanny", "--quiet") == {"nanny": True, "quiet": True}


def test_a_switch_that_is_on_can_be_put_off() -> None:
    assert given("--no-dashboard") == {"dashboard": False}


@pytest.mark.parametrize("word", ["--dashboard", "--no-nanny", "--nanny=1", "--bogus"])
def test_other_switches_are_none(word: str) -> None:
    assert CliRunner().invoke(command, [word]).exit_code == 2


@pytest.mark.parametrize("item", list(option_fields()), ids=NAMES)
def test_the_help_tells_the_option_its_meaning_and_its_default(item) -> None:
    wide = CliRunner(env={"COLUMNS": "200"})
    text = wide.invoke(command, ["--help"], terminal_width=200).output
    flag = item.name.replace("_", "-")
    negative = "no-" if item.metadata["negative"] else ""
    (line,) = [
        line
        for line in text.splitlines()
        if line.lstrip().startswith(f"--{negative}{flag} ")
    ]
    assert item.metadata["help"] in line
    assert item.metadata["metavar"] in line
    if not item.metadata["switch"] and item.default not in (None, ()):
        assert f"[{item.default}]" in line
