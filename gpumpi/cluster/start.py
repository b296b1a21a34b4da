"""What a door asks for, and what the ranks are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpumpi.cluster.job import Job
    from gpumpi.cluster.security import Credentials
    from gpumpi.config import Options
    from gpumpi.layout import Plan
    from gpumpi.rank.launcher import Launcher
    from gpumpi.rank.mpi import World

__all__ = ["Go", "Refused", "Start"]


class Refused(Exception):
    """The start came to nothing; all that is to be said has been said.

    Attributes
    ----------
    exit_code : int
        What this rank ends with. Only rank 0 carries the job's code: Open MPI prints
        a banner for each rank that ends with another than 0.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class Go:
    """Rank 0's answer to the first verdict when all is well."""

    plan: Plan
    job: str
    scheduler_address: str
    credentials: Credentials | None
    gpus_found: int = 0


@dataclass(kw_only=True)
class Start:
    """What a door asks for.

    Attributes
    ----------
    arguments : mapping
        Options given on the command line or as keyword arguments.
    prepare : callable
        Run on rank 0 before the first verdict, e.g. to compile the script.
    announce : callable
        Run on rank 0 with the job when all workers are up.
    show_plan : callable
        Run on rank 0 with the plan for ``--check``.
    path : str or None
        Folder of the script, for the imports of tasks.
    """

    arguments: Mapping[str, object]
    prepare: Callable[[Options], None]
    announce: Callable[[Job], None]
    show_plan: Callable[[Plan, Options, World, Launcher], None]
    path: str | None = None
