"""The MPI launcher that sits beside the running interpreter."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
"""The folder of the running virtual environment's programs."""

OPENMPI_ENV = {
    # Open MPI refuses to start as root, and containers of CI are often root.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # Two cores must be able to hold four ranks.
    "PRTE_MCA_rmaps_default_mapping_policy": ":OVERSUBSCRIBE",
    # Ranks bound to one core each would make timings depend on the placement.
    "PRTE_MCA_rmaps_default_binding_policy": "none",
}

RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
"""Where MPICH and Open MPI tell a process its rank, in that order."""


class NoLauncher(RuntimeError):
    """There is no usable mpirun beside the interpreter."""


@dataclass(frozen=True)
class Launcher:
    """One mpirun: which MPI it belongs to and what it needs to run here.

    Parameters
    ----------
    path
        The ``mpirun`` program.
    flavour
        ``"mpich"`` or ``"openmpi"``.
    version
        The version it reports, such as ``"5.0.2"``.
    env
        Variables it needs on this machine, added to those of every job.
    """

    path: Path
    flavour: str
    version: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_mpich(self) -> bool:
        """Whether this is MPICH's hydra."""
        return self.flavour == "mpich"

    @property
    def is_openmpi(self) -> bool:
        """Whether this is Open MPI's prterun."""
        return self.flavour == "openmpi"

    @property
    def rank_variable(self) -> str:
        """Name of the variable that holds a process's rank."""
        return RANK_VARIABLES[self.is_openmpi]

    def command(self, ranks: int, args: tuple[str, ...] = ()) -> list[str]:
        """Words that start `ranks` copies of what is appended to them."""
        return [str(self.path), "-n", str(ranks), *args]


def read_version(text: str) -> tuple[str, str]:
    """Flavour and version in the text that ``mpirun --version`` prints.

    Raises
    ------
    NoLauncher
        The text is neither MPICH's nor Open MPI's.
    """
    if match := re.search(r"\(Open MPI\)\s+(\S+)", text):
        return "openmpi", match[1]
    if "HYDRA" in text and (match := re.search(r"Version:\s+(\S+)", text)):
        return "mpich", match[1]
    raise NoLauncher(f"mpirun --version is neither MPICH's nor Open MPI's:\n{text}")


@functools.cache
def find_launcher(folder: Path = BIN) -> Launcher:
    """Find the launcher beside the running interpreter.

    No variable and no search along ``PATH`` chooses it: an interpreter whose
    mpi4py loads one MPI and an mpirun of the other start N worlds of one rank.

    Raises
    ------
    NoLauncher
        There is no mpirun in `folder`, or it does not work.
    """
    path = folder / "mpirun"
    if not path.exists():
        raise NoLauncher(
            f"no mpirun beside the interpreter ({path}): install the extra"
            " 'mpich' or 'openmpi' into this virtual environment"
        )
    done = subprocess.run(
        [path, "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | OPENMPI_ENV,
        check=False,
    )
    if done.returncode:
        raise NoLauncher(f"{path} --version exits {done.returncode}:\n{done.stderr}")
    flavour, version = read_version(done.stdout)
    env = OPENMPI_ENV if flavour == "openmpi" else {}
    return Launcher(path, flavour, version, dict(env))
