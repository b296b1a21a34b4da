"""gpumpi: one command turns MPI ranks into a Dask cluster.

All names here are loaded at their first use: importing gpumpi starts no MPI and no
CUDA, and takes a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpumpi._version import __version__

if TYPE_CHECKING:
    from gpumpi.cli.connect import connect
    from gpumpi.cli.initialize import initialize
    from gpumpi.cluster.session import RankInfo, Session
    from gpumpi.errors import (
        DeadlineError,
        FeatureUnavailableError,
        GpumpiError,
        JobError,
        LauncherMismatchError,
        OptionError,
        SchedulerFileError,
        SessionError,
        StartError,
    )
    from gpumpi.rank.signals import on_preempt

__all__ = [
    "DeadlineError",
    "FeatureUnavailableError",
    "GpumpiError",
    "JobError",
    "LauncherMismatchError",
    "OptionError",
    "RankInfo",
    "SchedulerFileError",
    "Session",
    "SessionError",
    "StartError",
    "__version__",
    "connect",
    "initialize",
    "on_preempt",
]

_HOMES = {
    "connect": "gpumpi.cli.connect",
    "initialize": "gpumpi.cli.initialize",
    "RankInfo": "gpumpi.cluster.session",
    "Session": "gpumpi.cluster.session",
    "on_preempt": "gpumpi.rank.signals",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gpumpi' has no attribute {name!r}")
    home = importlib.import_module(_HOMES.get(name, "gpumpi.errors"))
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
