"""What the doors say of a run: the banner, and the plan of ``--check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumpi.log import log
from gpumpi.report.banner import banner

if TYPE_CHECKING:
    from gpumpi.cluster.job import Job
    from gpumpi.config import Options
    from gpumpi.layout import Plan
    from gpumpi.rank.launcher import Launcher
    from gpumpi.rank.mpi import World

__all__ = ["announce", "show_plan"]


def announce(job: Job) -> None:
    """Print the banner of a job whose workers are all up. Rank 0 only."""
    log.notice(
        banner(
            job.plan,
            job.options,
            job.launcher,
            job.world.library,
            workers=job.worker_addresses,
            dashboard=job.dashboard_link,
            gpus_found=job.gpus_found,
        )
    )


def show_plan(plan: Plan, options: Options, world: World, launcher: Launcher) -> None:
    """Print what a run would do. Rank 0 only."""
    log.notice(banner(plan, options, launcher, world.library, workers={}))
    log.notice("check: all ranks can do this; nothing was started")
