"""What this process needs from its host before MPI and Dask start.

MPI libraries crash without a word on a full /dev/shm, and Dask fails far from the
cause when no file descriptors are left; both are looked at first.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from gpumpi.errors import StartError, describe
from gpumpi.topology.host import free_bytes
from gpumpi.units import format_bytes

__all__ = ["check_limits"]

_SHARED_MEMORY = Path("/dev/shm")
#: MPICH 5.0.2 uses 1 MiB per rank at the start, Open MPI 5.0.11 less than 0.1 MiB.
_SHARED_MEMORY_NEEDED_BYTES = 2 * 2**20
_DESCRIPTORS_NEEDED = 128


def check_limits(*, local_ranks: int) -> None:
    """Raise the limit of open files as far as allowed, and check what is there.

    Parameters
    ----------
    local_ranks : int
        How many ranks of this host will use /dev/shm; 0 without MPI.

    Raises
    ------
    StartError
        When too few file descriptors or too little shared memory are left.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, no stat
    if soft != resource.RLIM_INFINITY and soft - used < _DESCRIPTORS_NEEDED:
        raise StartError(
            describe(
                "looking for free file descriptors",
                f"{max(soft - used, 0)} of {soft} are left",
                f"at least {_DESCRIPTORS_NEEDED} are needed on every rank",
                "raise the hard limit (ulimit -Hn) on this host",
            )
        )
    if local_ranks and _SHARED_MEMORY.is_dir():
        free = free_bytes(_SHARED_MEMORY)
        needed = local_ranks * _SHARED_MEMORY_NEEDED_BYTES
        if free < needed:
            raise StartError(
                describe(
                    "looking for shared memory for MPI",
                    f"{format_bytes(free)} are free in {_SHARED_MEMORY}",
                    f"{format_bytes(needed)} are needed for {local_ranks} rank(s)",
                    "remove what earlier jobs left there, or give the container "
                    "more (--shm-size)",
                )
            )
