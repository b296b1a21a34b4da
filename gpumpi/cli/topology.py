"""``gpumpi topology``: what this host is made of."""

from __future__ import annotations

from pathlib import Path

import click

from gpumpi.errors import OptionError, describe
from gpumpi.log import log

__all__ = ["command"]


@click.command(name="topology")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page to look at, too.",
)
def command(as_json: bool, html: Path | None) -> None:  # noqa: FBT001
    """Show this host's NUMA nodes, GPUs, network devices and links between GPUs.

    No CUDA context is made. What is shown is what the control groups of this process
    let it see, whatever CUDA_VISIBLE_DEVICES says. Without a GPU the reason is named,
    and the exit code is still 0.
    """
    from gpumpi.report.topology import topology_html, topology_text
    from gpumpi.topology.discover import discover

    found = discover()
    if html is not None:
        try:
            html.write_text(topology_html(found), encoding="utf-8")
        except OSError as error:
            log.problem(
                describe(
                    f"writing {html}",
                    f"{error.strerror}",
                    "a file in a folder that this user may write to is needed",
                    "choose another place",
                )
            )
            raise SystemExit(OptionError.exit_code) from error
    click.echo(found.to_json() if as_json else topology_text(found))
