"""A preload of supervised workers: what their processes do first."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import dask.config

from gpumpi.errors import describe
from gpumpi.log import Phase, log

__all__ = ["dask_setup"]

_PR_SET_PDEATHSIG = 1
_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def dask_setup(worker: Any) -> None:
    """Tie this process to its rank, and give it the log of a rank.

    The kernel kills it when its parent is gone, however that ended (Linux,
    ``prctl(2)``). Signals to a whole process group are the rank's to answer.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    log.tag(f"r{worker.name}")
    directory = dask.config.get("gpumpi.log-dir", None)
    log.configure(
        Path(directory) if directory else None,
        f"rank-{int(worker.name):04d}-worker-{os.getpid()}",
    )
    log.phase = Phase.RUNNING
    sys.meta_path.insert(0, _NoMpi())
    logging.getLogger("distributed.preloading").addHandler(_EndAtError())


class _NoMpi:
    """Refuses MPI: this process is no rank; MPI_Init would give it a world of 1."""

    def find_spec(self, name: str, *_: object) -> None:
        """Raise for the module that initialises MPI; know nothing of any other."""
        if name == "mpi4py.MPI":
            raise ImportError(
                describe(
                    "importing mpi4py.MPI in a supervised worker",
                    "its process is a child of an MPI rank",
                    "MPI works in workers that live inside their ranks",
                    "start the job without --nanny",
                )
            )


class _EndAtError(logging.Handler):
    """End the process when a later preload fails: Dask would go on without it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("distributed").handle(record)
        os._exit(1)
