"""``gpumpi topology``: what this host is made of."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="topology")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:  # noqa: FBT001
    """Show this host's NUMA nodes, GPUs, network devices and links between GPUs.

    No CUDA context is made. What is shown is what the control groups of this process
    let it see, whatever CUDA_VISIBLE_DEVICES says. Without a GPU the reason is named,
    and the exit code is still 0.
    """
    from gpumpi.report.topology import topology_text
    from gpumpi.topology.discover import discover

    found = discover()
    click.echo(found.to_json() if as_json else topology_text(found))
