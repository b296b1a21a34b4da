"""The processes of a job: found by their tag, told apart, killed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import psutil

from helpers.launcher import RANK_VARIABLES

TAG = "GPUMPITEST_TAG"
"""Variable that marks every process of a job.

It does not start with ``GPUMPI_``, since gpumpi refuses variables of its own
that it does not know.
"""

GONE = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)
"""Errors that mean that a process has ended meanwhile."""


def all_pids() -> list[int]:
    """Every process of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read_environ(pid: int) -> dict[str, str]:
    """Environment a process was started with; empty when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def read_parent(pid: int) -> int:
    """Parent of a process; 0 when it is gone or a zombie, which holds nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    state, parent = text.rpartition(")")[2].split()[:2]
    return 0 if state in "ZX" else int(parent)


def has_tag(pid: int, tag: str) -> bool:
    """Whether a process was started with the tag in its environment."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{TAG}={tag}".encode() in words


def find_tagged_pids(tag: str) -> set[int]:
    """Living processes of the job `tag`, whatever their parent.

    Descendants of a tagged process that cleaned their environment count too.
    """
    found, others = set(), {}
    for pid in all_pids():
        parent = read_parent(pid)
        if not parent or pid == os.getpid():
            continue
        if has_tag(pid, tag):
            found.add(pid)
        else:
            others[pid] = parent
    while children := {pid for pid, parent in others.items() if parent in found}:
        found |= children
        others = {pid: parent for pid, parent in others.items() if pid not in found}
    return found


def find_tagged(tag: str) -> list[psutil.Process]:
    """Living processes of the job `tag`, oldest first."""
    found = []
    for pid in find_tagged_pids(tag):
        with contextlib.suppress(*GONE):
            process = psutil.Process(pid)
            found.append((process.create_time(), pid, process))
    return [process for _, _, process in sorted(found)]


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs, sleeps or is stopped, and is not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except GONE:
        return False


def is_python(process: psutil.Process) -> bool:
    """Whether a process is a Python interpreter, by the name it was started as."""
    try:
        words = process.cmdline()
    except GONE:
        return False
    return bool(words) and Path(words[0]).name.startswith("python")


def rank_of(process: psutil.Process) -> int | None:
    """Rank in a process's environment, which its children may have as well."""
    environ = read_environ(process.pid)
    for name in RANK_VARIABLES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return None


def find_ranks(processes: list[psutil.Process]) -> dict[int, psutil.Process]:
    """Pick the ranks out of a job's processes.

    A scheduler or a guard that a rank started may have the rank's variable too.
    So a rank is a Python process with the variable whose parent is not one,
    and whose parent belongs to the job (an orphan is a helper without its rank).
    """
    pids = {process.pid for process in processes}
    candidates = {
        process.pid: (process, rank)
        for process in processes
        if is_python(process) and (rank := rank_of(process)) is not None
    }
    ranks: dict[int, psutil.Process] = {}
    for process, rank in candidates.values():
        parent = read_parent(process.pid)
        if parent in pids and parent not in candidates:
            ranks.setdefault(rank, process)
    return dict(sorted(ranks.items()))


def describe(process: psutil.Process) -> str:
    """One line on a process: number, parent, rank, state and command."""
    try:
        with process.oneshot():
            words = " ".join(process.cmdline()) or process.name()
            rank = rank_of(process)
            who = "" if rank is None else f" of rank {rank}"
            return (
                f"pid {process.pid}{who}, parent {process.ppid()},"
                f" {process.status()}: {words[:200]}"
            )
    except GONE:
        return f"pid {process.pid}: gone"


def kill_tagged(tag: str, timeout: float = 10) -> list[str]:
    """Kill the processes of a job until none is left; describe who was killed."""
    killed: dict[int, str] = {}
    end = time.monotonic() + timeout
    while processes := find_tagged(tag):
        for process in processes:
            if process.pid not in killed:
                killed[process.pid] = describe(process)
            with contextlib.suppress(*GONE):
                process.kill()
        if time.monotonic() > end:
            print(f"still there after SIGKILL: {processes}", file=sys.stderr)
            break
        time.sleep(0.02)
    return list(killed.values())
