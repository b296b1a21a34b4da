"""What the scheduler's process is told, as one line of JSON. Pure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpumpi.cluster.security import Credentials
    from gpumpi.config import Options
    from gpumpi.layout import Plan

__all__ = ["dask_config", "scheduler_orders"]


def dask_config(scratch: str) -> dict[str, Any]:
    """Settings of Dask that every process of a job needs."""
    return {
        # Ranks share busy cores while they start; a late tick then says nothing.
        "distributed.admin.tick.limit": "10s",
        # Dask leaves an empty folder where its temporary files were.
        "temporary-directory": scratch,
    }


def scheduler_orders(
    options: Options,
    plan: Plan,
    credentials: Credentials | None,
    *,
    scratch: str,
    script_folder: str | None,
    http_prefix: str,
) -> dict[str, Any]:
    """Build the orders of the scheduler's process.

    Parameters
    ----------
    options : Options
        Of the job.
    plan : Plan
        Where it listens, and which host each worker is on.
    credentials : Credentials or None
        Of the job.
    scratch : str
        Scratch folder of rank 0.
    script_folder : str or None
        Put on its import path, since it unpickles graphs of the script.
    http_prefix : str
        Secret path of the dashboard.
    """
    log_dir = options.report.log_dir
    path = list(sys.path)
    if script_folder is not None and script_folder not in path:
        path.insert(0, script_folder)
    return {
        "config": dask_config(scratch),
        "path": path,
        "log_dir": None if log_dir is None else str(log_dir.absolute()),
        "supervised": options.cluster.nanny,
        "http_address": options.scheduler.dashboard_address
        if options.scheduler.dashboard
        else None,
        "http_prefix": http_prefix,
        "host": plan.scheduler_address,
        "port": options.scheduler.scheduler_port,
        "worker_ttl": options.cluster.worker_ttl,
        "hosts": {str(each.name): each.host for each in plan.ranks},
        "tls": None
        if credentials is None
        else {"key": credentials.key, "certificate": credentials.certificate},
    }
