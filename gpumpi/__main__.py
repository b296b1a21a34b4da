"""``python -m gpumpi``, ``gpumpi`` and ``dask gpumpi``: all commands."""

from __future__ import annotations

import sys

import click

from gpumpi._version import __version__
from gpumpi.cli.connect import command as connect_command
from gpumpi.cli.run import main as run_main
from gpumpi.cli.run import run as run_command
from gpumpi.cli.topology import command as topology_command

__all__ = ["command", "main"]


@click.group(name="gpumpi")
@click.version_option(__version__, message="gpumpi %(version)s")
def command() -> None:
    """One command turns MPI ranks into a Dask cluster."""


command.add_command(run_command)
command.add_command(connect_command)
command.add_command(topology_command)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["run"]:
        # The same door as python -m gpumpi.run: one rank speaks for all.
        run_main(sys.argv[2:])
    command()


if __name__ == "__main__":
    main()
