"""Which launcher started this process, read from its environment.

Sources of the variables: Hydra (MPICH, Intel MPI), Open MPI 5, MVAPICH2, Slurm and
PALS set them for every process of a job. ``SLURM_*`` is inherited by everything in
an allocation, so Slurm counts only inside a step, and only when no MPI launcher
spoke first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gpumpi.errors import LauncherMismatchError, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Launcher",
    "LauncherName",
    "check_library",
    "check_world_size",
    "is_launcher_variable",
    "read_launcher",
    "short_library",
]


class LauncherName(StrEnum):
    """The launchers that are recognised. Ex.: ``MPICH`` for MPICH's Hydra."""

    OPEN_MPI = "Open MPI"
    INTEL = "Intel MPI"
    MVAPICH = "MVAPICH"
    PALS = "PALS"
    MPICH = "MPICH/Hydra"
    SLURM = "Slurm"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """What the launcher's environment says of this process.

    Attributes
    ----------
    name : LauncherName
        Who started it.
    rank, size : int
        Number of this process and of all; 0 and 1 without a launcher.
    local_rank, local_size : int or None
        The same on this host; None where the launcher does not tell.
    evidence : str
        The variable that gave the launcher away.
    """

    name: LauncherName
    rank: int = 0
    size: int = 1
    local_rank: int | None = None
    local_size: int | None = None
    evidence: str = ""

    @property
    def speaks_first(self) -> bool:
        """Whether this process reports what is wrong on its whole host."""
        return (self.local_rank if self.local_rank is not None else self.rank) == 0


#: In order: the variable that is the evidence, then rank, size, local rank and size.
_VARIABLES: tuple[tuple[LauncherName, str, str, str, str, str], ...] = (
    (
        LauncherName.OPEN_MPI,
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    (
        LauncherName.MVAPICH,
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    (
        LauncherName.INTEL,
        "I_MPI_HYDRA_HOST_FILE",
        "PMI_RANK",
        "PMI_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
    ),
    (
        LauncherName.INTEL,
        "I_MPI_MPIRUN",
        "PMI_RANK",
        "PMI_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
    ),
    (
        LauncherName.PALS,
        "PALS_RANKID",
        "PALS_RANKID",
        "PMI_SIZE",
        "PALS_LOCAL_RANKID",
        "PALS_LOCAL_SIZE",
    ),
    (
        LauncherName.MPICH,
        "HYDI_CONTROL_FD",
        "PMI_RANK",
        "PMI_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
    ),
    (
        LauncherName.SLURM,
        "SLURM_STEP_ID",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_LOCALID",
        "",
    ),
    (
        LauncherName.MPICH,
        "PMI_SIZE",
        "PMI_RANK",
        "PMI_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
    ),
)

#: Slurm's batch script and its interactive shell are steps too, of one process that
#: nobody started as a rank; their identities are at the top of the range.
_SLURM_SPECIAL_STEP = 0xFFFFFFF0

#: What an MPI library finds its launcher by. A child of a rank must not inherit it.
_LAUNCHER_PREFIXES = (
    "PMI_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MV2_COMM_WORLD_",
    "PALS_",
)


_SLURM_STEP = (
    "SLURM_LOCALID",
    "SLURM_PROCID",
    "SLURM_STEPID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS",
)


def is_launcher_variable(name: str) -> bool:
    """Whether a variable would make a child of this rank take itself for a rank."""
    return name.startswith(_LAUNCHER_PREFIXES) or name in _SLURM_STEP


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def read_launcher(environment: Mapping[str, str] | None = None) -> Launcher:
    """Recognise the launcher. Pure; MPI is neither imported nor initialised.

    Parameters
    ----------
    environment : mapping, optional
        Default: the environment of this process.
    """
    environment = os.environ if environment is None else environment
    for name, evidence, rank, size, local_rank, local_size in _VARIABLES:
        if evidence not in environment:
            continue
        found_rank, found_size = (
            _number(environment, rank),
            _number(environment, size),
        )
        if found_rank is None or found_size is None:
            continue
        if name is LauncherName.SLURM and _is_shell_step(environment):
            continue
        return Launcher(
            name=name,
            rank=found_rank,
            size=found_size,
            local_rank=_number(environment, local_rank),
            local_size=_number(environment, local_size),
            evidence=evidence,
        )
    return Launcher(name=LauncherName.NONE)


def _is_shell_step(environment: Mapping[str, str]) -> bool:
    return (_number(environment, "SLURM_STEP_ID") or 0) >= _SLURM_SPECIAL_STEP


#: Families of libraries that a launcher cannot serve. Slurm and PALS serve several.
_FOREIGN: dict[LauncherName, tuple[str, ...]] = {
    LauncherName.OPEN_MPI: ("MPICH", "Intel", "MVAPICH"),
    LauncherName.MPICH: ("Open MPI",),
    LauncherName.INTEL: ("Open MPI",),
    LauncherName.MVAPICH: ("Open MPI",),
}


def check_library(launcher: Launcher, library: str) -> None:
    """Refuse an MPI library that this launcher cannot serve, before MPI_Init.

    MPI_Init itself would abort without a word of help (MPICH under Open MPI) or
    give every process a world of its own (Open MPI under Hydra).

    Parameters
    ----------
    launcher : Launcher
        As it was recognised.
    library : str
        What ``MPI_Get_library_version`` returns.

    Raises
    ------
    LauncherMismatchError
        Names both and says what to do.
    """
    for family in _FOREIGN.get(launcher.name, ()):
        if library.startswith(family):
            raise _mismatch(launcher, library)


def check_world_size(launcher: Launcher, size: int, library: str) -> None:
    """Compare MPI's number of ranks with the launcher's, after MPI_Init.

    Raises
    ------
    LauncherMismatchError
        When they differ, e.g. 1 everywhere.
    """
    if launcher.name is not LauncherName.NONE and size != launcher.size:
        raise _mismatch(launcher, library, size)


def short_library(library: str) -> str:
    """Name and version of an MPI library, e.g. ``MPICH 5.0.2``."""
    first = library.partition("\n")[0].partition(",")[0]
    return " ".join(first.replace("Version", "").replace(":", "").split()[:4])


def _mismatch(
    launcher: Launcher, library: str, size: int | None = None
) -> LauncherMismatchError:
    short = short_library(library)
    world = "" if size is None else f", whose world has {size} rank(s)"
    return LauncherMismatchError(
        describe(
            "comparing the MPI library with the launcher",
            f"mpi4py loads {short}{world}",
            f"{launcher.name} ({launcher.evidence}) started {launcher.size} rank(s)",
            "use the mpirun of the same MPI, e.g. the one beside this Python, or "
            "install the matching library (gpumpi[mpich] or gpumpi[openmpi])",
        )
    )
