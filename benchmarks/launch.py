"""Launches: a command, its whole process tree, its clocks and its CPU seconds.

CPU seconds come from ``wait4``, which counts all descendants that were waited
for. To miss none, this process adopts orphans (``PR_SET_CHILD_SUBREAPER``) for
the time of the launch: a scheduler that nobody waits for is counted too, and one
that stays behind is seen, counted and ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["OUTPUT_CHARACTERS", "Launch", "launch"]

#: How much of the end of the output is kept.
OUTPUT_CHARACTERS = 4000

#: How long after its launcher a process may end without being "left behind".
GRACE_S = 1.0

#: How long to wait for what was killed; a process stuck in its kernel may not end.
STUCK_S = 10.0

_SET_SUBREAPER, _GET_SUBREAPER = 36, 37


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What became of a command.

    Attributes
    ----------
    code : int or None
        Exit code of the command, negative for a signal; None when it was killed
        for being late.
    started, ended : float
        ``time.time()`` just before the launch and just after its end.
    wall_s, cpu_s : float
        Duration, and user plus system seconds of the whole process tree.
    left_behind : int
        Processes that lived on after the command and had to be killed.
    output : str
        The end of stdout and stderr, together.
    """

    code: int | None
    started: float
    ended: float
    wall_s: float
    cpu_s: float
    left_behind: int
    output: str


def launch(
    command: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Launch:
    """Run a command to its end, or to its timeout.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    timeout : float
        Seconds until the whole process tree is killed.
    environment : mapping, optional
        Default: the environment of this process.
    directory : Path, optional
        Working directory.

    Raises
    ------
    OSError
        When the program cannot be started.
    """
    before = {child.pid for child in psutil.Process().children()}
    # A file, not a pipe: a process left behind would keep a pipe open.
    with tempfile.TemporaryFile() as output, _adopting_orphans():
        started, tick = time.time(), time.monotonic()
        process = subprocess.Popen(
            list(command),
            env=None if environment is None else dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            in_time = _await_end(process.pid, timeout)
            wall_s, ended = time.monotonic() - tick, time.time()
        finally:
            # On Ctrl-C as well, nothing of the tree may stay.
            cpu_s, left_behind, code = _clear(process, before)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Launch(
        code=code if in_time else None,
        started=started,
        ended=ended,
        wall_s=wall_s,
        cpu_s=cpu_s,
        left_behind=left_behind if in_time else 0,
        output=text[-OUTPUT_CHARACTERS:],
    )


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    earlier = ctypes.c_int()
    prctl(_GET_SUBREAPER, ctypes.byref(earlier), 0, 0, 0)
    prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SET_SUBREAPER, earlier.value, 0, 0, 0)


def _await_end(pid: int, timeout: float) -> bool:
    """Whether the child ended in time. Wakes at once: no polling, no rounding."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(handle)


def _clear(
    process: subprocess.Popen[bytes], before: set[int]
) -> tuple[float, int, int]:
    """Reap the whole tree; kill what runs on.

    Returns
    -------
    cpu_s : float
        Of all processes reaped.
    left_behind : int
        Processes that had to be killed, the command itself aside.
    code : int
        Exit code of the command.
    """
    cpu_s = 0.0
    if not _await_end(process.pid, 0):
        # Late, or interrupted: end the tree from its root, so that no parent lives
        # to remark on its child. Not Popen.kill(): it would reap, and take from us
        # the CPU seconds.
        tree = _descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        for child in tree:
            _kill(child)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    cpu_s += usage.ru_utime + usage.ru_stime
    limit = time.monotonic() + GRACE_S
    killed: set[int] = set()
    while adopted := [
        child for child in psutil.Process().children() if child.pid not in before
    ]:
        if time.monotonic() > limit + STUCK_S:
            break
        for child in adopted:
            pid, _, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                cpu_s += usage.ru_utime + usage.ru_stime
            elif time.monotonic() > limit and child.pid not in killed:
                for late in (child, *_descendants(child.pid)):
                    _kill(late)
                    killed.add(late.pid)
        time.sleep(0.01)
    return cpu_s, len(killed), code


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
