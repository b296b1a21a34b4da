"""``gpumpi.initialize``: the same as ``gpumpi.run``, from inside a script."""

from __future__ import annotations

import atexit
import multiprocessing
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from gpumpi.cli.say import announce
from gpumpi.cluster.bootstrap import start_rank
from gpumpi.cluster.start import Refused, Start
from gpumpi.errors import OptionError, SessionError, describe
from gpumpi.rank.launcher import read_launcher
from gpumpi.rank.leave import end_process
from gpumpi.rank.signals import Reaction

if TYPE_CHECKING:
    from gpumpi.cluster.job import Job
    from gpumpi.cluster.session import Session
    from gpumpi.config import Options

__all__ = ["initialize"]


def initialize(**options: object) -> Session:
    """Turn the ranks of this MPI job into a Dask cluster.

    Collective: every rank of the job calls it, in its main thread. On rank 0 it
    returns when all workers are up; from then on a plain ``distributed.Client()``
    connects to them. The other ranks serve inside the call and leave the process
    with exit code 0 when rank 0 ends. Without a launcher the job has one rank.

    Parameters
    ----------
    **options
        Any option of ``gpumpi.run`` with underscores, e.g. ``nthreads=2``,
        ``memory_limit="4GiB"``, ``security="none"``. Environment variables
        (``GPUMPI_NTHREADS``) and Dask's configuration (``gpumpi.nthreads``) are read
        too; an argument goes first.

    Returns
    -------
    Session
        ``session.client``, ``session.ranks``, ``session.dashboard_link``. As a
        context manager it ends the cluster when the block ends; else the cluster
        ends with the script. A second call returns the same session.

    Raises
    ------
    SystemExit
        On every rank when the start fails; rank 0 has said why and carries the code
        (2 for options that cannot be, 1 for failures). On the other ranks with code
        0 at the end of the job.
    SessionError
        Outside the main thread, in a child process of multiprocessing, or after the
        end of an earlier session.
    """
    _require_main_thread()
    if _in_child_of_multiprocessing():
        raise SessionError(
            describe(
                "calling gpumpi.initialize()",
                f"this is {multiprocessing.current_process().name}, a child process "
                "that imported the script again",
                "only the ranks that the launcher started can form a cluster",
                'put the script\'s actions under `if __name__ == "__main__":`',
            )
        )
    from gpumpi.cluster.session import Session, current_session, set_current_session
    from gpumpi.cluster.shutdown import serve

    running = current_session()
    if running is not None:
        if running.ended:
            raise SessionError(
                describe(
                    "calling gpumpi.initialize()",
                    "the session of this process has ended",
                    "MPI can be used once per process, and so can a session",
                    "do all work inside one session",
                )
            )
        return running
    try:
        job = start_rank(
            Start(
                arguments=options,
                prepare=_prepare,
                announce=announce,
                show_plan=lambda *_: None,
                path=_script_folder(),
            ),
            read_launcher(),
        )
    except Refused as refused:
        sys.exit(refused.exit_code)
    if job.world.rank != 0:
        end_process(job.world, serve(job))
    atexit.register(_end, job)
    session = Session(job)
    set_current_session(session)
    job.signals.reaction = Reaction.SCRIPT
    if job.signals.received is not None:
        sys.exit(128 + job.signals.received)
    return session


def _in_child_of_multiprocessing() -> bool:
    """Whether this process is such a child, also while it imports the script again."""
    importing = getattr(multiprocessing.current_process(), "_inheriting", False)
    return importing or multiprocessing.parent_process() is not None


def _prepare(options: Options) -> None:
    for name, given in (
        ("join", options.cluster.join),
        ("check", options.report.check),
    ):
        if given:
            raise OptionError(
                describe(
                    "calling gpumpi.initialize()",
                    f"got {name}=True",
                    "a script can start a cluster, not join or only check one",
                    f"use python -m gpumpi.run --{name}",
                )
            )
    file = options.scheduler.scheduler_file
    if file is not None:
        from gpumpi.cluster.scheduler_file import SchedulerFile

        SchedulerFile.check_directory(file)


def _script_folder() -> str | None:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if file is None else str(Path(file).absolute().parent)


def _end(job: Job) -> None:
    """End the job with the process.

    Everything it needs runs already: at exit CPython 3.12 starts no thread, and
    nothing here opens a connection.
    """
    from gpumpi.cluster.shutdown import leave, stop

    job.signals.reaction = Reaction.NOTE
    stop(job, 0)
    leave(job)


def _require_main_thread() -> None:
    """Refuse other threads, where signals cannot be handled."""
    if threading.current_thread() is not threading.main_thread():
        raise SessionError(
            describe(
                "starting a session",
                f"called in thread {threading.current_thread().name!r}",
                "only the main thread can handle the signals of the job",
                "call it at the top of the script",
            )
        )
