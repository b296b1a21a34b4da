"""The end of a rank's process: all that Python promises, without its teardown."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumpi.rank.mpi import World

__all__ = ["end_process"]


def end_process(
    world: World, code: int, before_finalize: Callable[[], None] | None = None
) -> NoReturn:
    """Join threads, run atexit functions, finalise MPI, flush, and leave.

    As the children of multiprocessing do, this leaves without Python's teardown:
    taking 600 modules apart costs 0.1 s of CPU on every rank, and can hang. It
    leaves by the C library's ``exit``, not by ``_exit``: MPICH 5.0.2's Hydra loses
    the exit code (0 or 9 in its place, 5 of 12 runs) when the library's own exit
    function has not run.

    Parameters
    ----------
    world : World
        Finalised last; collective.
    code : int
        Exit code of the process; its lowest 8 bits count, as everywhere.
    before_finalize : callable, optional
        Called when threads and atexit functions have ended, however long they took.
    """
    if os.getpid() != world.pid:
        # A child that the script forked came to the script's end: no rank at all.
        _flush()
        os._exit(code & 0xFF)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if before_finalize is not None:
        before_finalize()
    world.finalize()
    _flush()
    # PyDLL keeps the interpreter's lock, so no other thread runs Python meanwhile.
    ctypes.PyDLL(None).exit(code & 0xFF)
    raise AssertionError("exit() does not return")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # The reader has gone, or the script has closed it.
            continue
