"""The banner: what runs where, on one screen, said before the script starts."""

from __future__ import annotations

import getpass
import os
import shlex
from typing import TYPE_CHECKING

from gpumpi._version import __version__
from gpumpi.config import Layout, Security
from gpumpi.rank.launcher import short_library
from gpumpi.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpumpi.config import Options
    from gpumpi.layout import Plan
    from gpumpi.rank.launcher import Launcher

__all__ = ["banner", "plan_table", "table"]

_MOST_ROWS = 64


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; numbers to the right."""
    shown = [list(head), *(list(row) for row in rows[:_MOST_ROWS])]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    numeric = [
        all(row[i].isdigit() or row[i] == "-" for row in shown[1:])
        for i in range(len(head))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in shown
    ]
    if len(rows) > _MOST_ROWS:
        lines.append(f"... and {len(rows) - _MOST_ROWS} more")
    return "\n".join(f"  {line}" for line in lines)


def plan_table(plan: Plan, workers: Mapping[int, str]) -> str:
    """One line per rank: host, GPU, cores, threads, memory, worker."""
    rows = [
        (
            str(each.rank),
            each.host,
            "-",
            str(each.cpus),
            str(each.nthreads) if each.worker else "-",
            format_bytes(each.memory_limit_bytes) if each.worker else "-",
            workers.get(each.rank, "") or ("-" if each.worker else "none"),
        )
        for each in plan.ranks
    ]
    head = ("rank", "host", "gpu", "cpus", "threads", "memory", "worker")
    if all(each.name == each.rank for each in plan.ranks):
        return table(head, rows)
    # Ranks that joined a cluster: their workers have names above its own ranks.
    names = [str(each.name) for each in plan.ranks]
    named = [(*row[:6], name, row[6]) for row, name in zip(rows, names, strict=True)]
    return table((*head[:6], "name", "worker"), named)


def banner(
    plan: Plan,
    options: Options,
    launcher: Launcher,
    library: str,
    *,
    workers: Mapping[int, str],
    dashboard: str | None = None,
    gpus_found: int = 0,
) -> str:
    """Build the banner.

    Parameters
    ----------
    plan : Plan
        What the ranks do.
    options : Options
        Of the run.
    launcher : Launcher
        Who started the ranks.
    library : str
        Version text of the MPI library.
    workers : mapping of int to str
        Worker address by rank; empty for ``--check``.
    dashboard : str or None
        URL of the dashboard.
    gpus_found : int
        GPUs on the hosts, which this version does not use.
    """
    hosts = len({each.host for each in plan.ranks})
    mpi = short_library(library)
    count = len(plan.workers)
    kind = "supervised CPU" if options.cluster.nanny else "CPU"
    layout = options.cluster.layout
    parts = [
        f"gpumpi {__version__}",
        _plural(len(plan.ranks), "rank"),
        _plural(hosts, "host"),
        _plural(count, f"{kind} worker"),
        f"{mpi} via {launcher.name}" if library != "no MPI" else "no launcher, no MPI",
        "tcp" if options.cluster.security is Security.NONE else "tcp with TLS",
    ]
    if layout is Layout.DEDICATED:
        parts.append("rank 0 dedicated")
    lines = [" | ".join(parts), plan_table(plan, workers)]
    if gpus_found:
        lines.append(
            f"  {_plural(gpus_found, 'GPU')} found and not used: this version starts "
            "CPU workers only"
        )
    if dashboard is not None:
        lines.append(f"  dashboard: {dashboard}")
        lines.append(f"  from elsewhere: {_tunnel(dashboard, plan.ranks[0].host)}")
    if options.cluster.security is Security.NONE:
        lines.append(
            "  SECURITY IS OFF: whoever reaches these ports can run code as you"
        )
    return "\n".join(lines)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _tunnel(dashboard: str, host: str) -> str:
    address = dashboard.removeprefix("http://").partition("/")[0]
    port = address.rpartition(":")[2]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"{os.getuid()}"  # a container's user may have no name
    return f"ssh -N -L {port}:{address} {shlex.quote(user)}@{host}"
