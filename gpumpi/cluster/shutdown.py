"""The orderly end of a job: STOP to all ranks, CLOSED from all, LEAVE to all.

Between STOP and LEAVE a script may go on without its cluster, as after a
``with gpumpi.initialize()`` block; the other ranks wait for it, since MPI_Finalize
is collective. Nothing here starts a thread or opens a connection, except that ranks
that joined a cluster tell its scheduler that they leave.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from concurrent.futures import thread as executors
from typing import TYPE_CHECKING, Any

from distributed import Client

from gpumpi.cluster.verdict import failure_text
from gpumpi.errors import DeadlineError
from gpumpi.log import Phase, log
from gpumpi.rank.mpi import Tag
from gpumpi.rank.signals import Reaction
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from gpumpi.cluster.job import Job

__all__ = ["leave", "serve", "serve_cluster", "stop"]

_POLL_SECONDS = 0.03
_FIRST_POLL_SECONDS = 0.002
#: After a signal the other ranks wait so long for rank 0's word before they abort.
_SIGNAL_GRACE_SECONDS = 4.0
_CLIENT_CLOSE_SECONDS = 3.0
_DEADLINE_MARGIN_SECONDS = 10.0
_LOST_SCHEDULER_SECONDS = 0.05


def serve(job: Job) -> int:
    """Serve until rank 0 says stop, then until it says leave. Every rank but 0.

    Returns
    -------
    int
        Exit code of this rank.
    """
    signalled = 0.0
    while job.world.heard(Tag.STOP) is None:
        if job.signals.received is not None:
            signalled = signalled or time.monotonic()
            if time.monotonic() > signalled + _grace(job):
                job.failure.abort_quietly(128 + job.signals.received)
        time.sleep(_POLL_SECONDS)
    log.phase = Phase.ENDING
    deadline = time.monotonic() + job.options.cluster.stop_timeout
    error = job.close_worker()
    job.clear()
    job.world.collect(error, Tag.CLOSED, deadline)
    sleep = _FIRST_POLL_SECONDS
    while job.world.heard(Tag.LEAVE) is None:
        time.sleep(sleep)
        sleep = min(1.2 * sleep, _POLL_SECONDS)
    _go(job)
    return 0


def serve_cluster(job: Job) -> int:
    """Serve without a script until a signal or ``client.shutdown()``. Rank 0 only.

    Returns
    -------
    int
        0 after a shutdown, 128 + the signal's number after a signal, 1 when the
        cluster that these ranks have joined is lost.
    """
    while job.signals.received is None and not job.cluster_ended:
        time.sleep(_POLL_SECONDS)
    if job.signals.received is not None:
        return 128 + job.signals.received
    if not job.cluster_lost:
        return 0
    log.problem(
        f"the scheduler at {job.scheduler_address} is gone: the cluster that these "
        "ranks joined was killed or cannot be reached; what their workers held is lost"
    )
    return 1


def stop(job: Job, code: int) -> None:
    """End the cluster in order. Rank 0 only; a second call does nothing.

    Parameters
    ----------
    job : Job
        Of this process; a forked child of it is left alone.
    code : int
        What the job will end with, if its end goes well.
    """
    if job.ended or os.getpid() != job.guard.owner_pid:
        return
    reaction, job.signals.reaction = job.signals.reaction, Reaction.NOTE
    try:
        _join_user_threads(job)
        job.guard.deadline(
            job.options.cluster.stop_timeout + _DEADLINE_MARGIN_SECONDS,
            f"{job.named(0)}: the end of the cluster took too long",
        )
        _stop(job, code)
        job.guard.deadline(None)
    except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
        traceback.print_exc()
        job.failure.end_job(f"the end failed: {failure_text(error)}", code or 1)
    job.signals.reaction = reaction


def _stop(job: Job, code: int) -> None:
    if code != 0 and job.scheduler is not None:
        # A script that lost its scheduler may fail before we hear of it.
        job.scheduler.ended.wait(_LOST_SCHEDULER_SECONDS)
        if job.scheduler.lost_with is not None:
            job.scheduler_ended(job.scheduler.lost_with)
    job.ended = True
    log.phase = Phase.ENDING
    begin = time.monotonic()
    deadline = begin + job.options.cluster.stop_timeout
    _close_clients()
    if job.options.cluster.join and not job.cluster_ended:
        _retire(job)
    _close_workers(job, code, deadline)
    if job.scheduler is not None:
        # First, since its number may be given anew once it has ended.
        job.guard.forget_child(job.scheduler.pid)
        job.scheduler.end(max(deadline, time.monotonic() + 1))
    job.clear()
    job.close_doors()
    log.detail(f"the cluster has ended ({time.monotonic() - begin:.2f} s)")


def leave(job: Job) -> None:
    """Let all ranks go; this process must end now. Rank 0 only."""
    if os.getpid() != job.guard.owner_pid:
        return
    deadline = time.monotonic() + job.options.cluster.stop_timeout
    try:
        job.world.tell(0, Tag.LEAVE, deadline)
    except DeadlineError as error:
        job.failure.end_job(str(error))
    _go(job)


def _grace(job: Job) -> float:
    """How long an end may take after a signal."""
    if job.options.cluster.join:
        return job.options.cluster.stop_timeout + _SIGNAL_GRACE_SECONDS
    return _SIGNAL_GRACE_SECONDS


def _go(job: Job) -> None:
    job.guard.leave(
        job.options.cluster.stop_timeout,
        f"{job.named(job.world.rank)}: the process did not end in time",
    )


def _close_workers(job: Job, code: int, deadline: float) -> None:
    """Have all ranks close their workers; abort, naming them, when some do not."""
    errors: dict[int, Any] = {}
    try:
        job.world.tell(code, Tag.STOP, deadline)
        own = job.close_worker()
        errors = job.world.collect(own, Tag.CLOSED, deadline)
    except DeadlineError as late:
        job.failure.end_job(str(late))
    for rank, text in errors.items():
        if text:
            log.detail(f"{job.named(rank)} at its end: {text}")
    silent = [rank for rank in range(job.world.size) if rank not in errors]
    if silent:
        named = ", ".join(job.named(rank) for rank in silent)
        job.failure.end_job(
            f"the script had ended with {code}, but {named} did not end within "
            f"{format_seconds(job.options.cluster.stop_timeout)} and had to be "
            "aborted. Next: look for a frozen process there, or raise --stop-timeout",
            code or 1,
        )


def _close_clients() -> None:
    for client in list(Client._instances):
        if client._asynchronous:
            continue  # it belongs to a loop of the script's own
        with contextlib.suppress(TimeoutError, RuntimeError, OSError):
            client.close(timeout=_CLIENT_CLOSE_SECONDS)


def _retire(job: Job) -> None:
    from gpumpi.cluster.join import retire_workers

    future = job.loop.submit(
        retire_workers(
            job.scheduler_address, job.security, list(job.worker_addresses.values())
        )
    )
    try:
        future.result(job.options.cluster.stop_timeout)
    except (TimeoutError, OSError) as error:
        log.problem(f"the workers left without moving their data: {error!r}")


def _join_user_threads(job: Job) -> None:
    """Wait for the script's own threads, as Python does at its end.

    They may still use the cluster. Threads of executors wait for work for ever, and
    are woken only when Python itself ends.
    """
    ours = {job.loop.thread, threading.main_thread(), threading.current_thread()}
    ours |= set(executors._threads_queues)
    for thread in threading.enumerate():
        if thread not in ours and not thread.daemon:
            thread.join()
