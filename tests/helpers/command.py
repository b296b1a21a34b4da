"""The command line of a job and its environment."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.launcher import BIN, find_launcher
from helpers.stacks import find_py_spy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Word = str | os.PathLike[str] | int | float

REPOSITORY = Path(__file__).parents[2]

CLEARED = (
    # Settings and rank of the tests themselves must not reach a job.
    "GPUMPI_",
    "DASK_",
    "DISTRIBUTED_",
    "PMI_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "HYDRA_",
    "MPI_",
    # Users rarely have it, and it hides output that an abrupt exit loses.
    "PYTHONUNBUFFERED",
)
"""Prefixes of variables that jobs do not inherit."""


def make_command(
    args: Word | Sequence[Word],
    *,
    ranks: int = 2,
    launcher_args: Iterable[Word] = (),
    options: Iterable[Word] = (),
    gpumpi: bool = True,
    mpirun: bool = True,
    wrapper: Iterable[Word] = (),
) -> list[str]:
    """Words of a job's command; a single word stands for a list of one."""
    if isinstance(args, str | os.PathLike):
        args = [args]
    program: list[Word] = [*wrapper, sys.executable]
    if gpumpi:
        program += ["-m", "gpumpi.run", *options]
    program += args
    words = list(map(str, program))
    if not mpirun:
        return words
    return [*find_launcher().command(ranks, tuple(map(str, launcher_args))), *words]


def make_environ(
    env: Mapping[str, str | None] | None = None, *, mpirun: bool = True
) -> dict[str, str]:
    """Environment of a job: the tests' own, cleared, plus `env`; None removes."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(CLEARED)
    }
    environ["PATH"] = f"{BIN}{os.pathsep}{environ.get('PATH', os.defpath)}"
    if mpirun:
        environ |= find_launcher().env
    try:
        importlib.metadata.version("gpumpi")
    except importlib.metadata.PackageNotFoundError:
        parts = [str(REPOSITORY), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
    if find_py_spy() is None:
        # Stacks of a hung job then come from SIGABRT.
        environ["PYTHONFAULTHANDLER"] = "1"
    for name, value in (env or {}).items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = str(value)
    return environ
