"""The guard: a small process beside each rank, which outlives it.

Run by path with ``python -I -S`` and few modules of the standard library, so that it
costs 10 ms. It takes lines of words with NUL between them on stdin, and numbers of
signals, one byte each, on a pipe whose other end the rank's C-level signal handler
writes to. It ends when the rank said ``done``, or when the rank is gone; then it
removes what the rank left. It ends the rank when the launcher is gone, when a deadline
passes, or when the rank does not end in time after a signal.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

_TICK_SECONDS = 0.25
_CHILDREN_SECONDS = 1.0
#: A little more than the ranks take for themselves after a signal.
_GRACE_SECONDS = 4.5
#: Inside MPI_Init no handler of Python's can run, so waiting longer helps nobody.
_GRACE_IN_MPI_SECONDS = 1.0
#: A rank that has not heard a signal by then is woken.
_HEARD_SECONDS = 0.5
#: When a start is slow enough to be spoken of.
_NOTICE_SECONDS = 2.0


class Ward:
    """The rank that is guarded, and what is known of it."""

    def __init__(self, pid: int, launcher_pid: int, signals: int) -> None:
        self.pid = pid
        self.launcher_pid = launcher_pid
        self.signals = signals
        self.paths: dict[str, tuple[int, int] | None] = {}
        self.launcher_paths: list[str] = []
        self.prefix = ""
        self.children: dict[int, str] = {}
        self.deadline: float | None = None
        self.in_mpi = False
        self.unheard = False
        self.notice = ""
        self.notice_at: float | None = None
        self.message = ""
        self.tick = _TICK_SECONDS
        self.grace = _GRACE_SECONDS

    def take(self, line: bytes) -> bool:
        """Obey one line of the rank; False when the rank said that it is done."""
        kind, *words = os.fsdecode(line).split("\0")
        if kind == "done":
            return False
        if kind == "paths":
            # What another job puts in the place of a file later is not ours.
            self.paths = {word: self.paths.get(word) or inode(word) for word in words}
        elif kind == "prefix":
            self.prefix = words[0]
        elif kind == "launcher_paths":
            self.launcher_paths = words
        elif kind == "children":
            pids = [int(word) for word in words]
            self.children = {pid: self.children.get(pid) or born(pid) for pid in pids}
        elif kind == "grace":
            self.grace = float(words[0])
        elif kind == "heard":
            self.unheard = False
        elif kind == "leaving":
            self.tick = 0.02
        elif kind == "no_deadline":
            self.deadline = None
            self.in_mpi = False
            self.notice_at = None
        elif kind == "deadline":
            self.deadline = time.monotonic() + float(words[0])
            self.message = words[1]
        elif kind == "in_mpi":
            self.in_mpi = True
            self.notice = words[0]
            self.notice_at = time.monotonic() + _NOTICE_SECONDS
        return True

    def alive(self) -> bool:
        """Whether the rank still runs, and still as a child of its launcher."""
        try:
            with open(f"/proc/{self.pid}/stat") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            return False
        if self.launcher_pid and int(parent) != self.launcher_pid:
            self.kill("")
            return False
        return state not in "ZX"

    def kill(self, message: str) -> None:
        """End the rank at once, after a last line."""
        write(2, message)
        kill(self.pid)

    def note_segments(self) -> None:
        """Note what MPI_Init has made, before a rank that sticks in it is killed."""
        if self.in_mpi:
            self.paths |= {path: inode(path) for path in mpi_segments(self.pid)}

    def clear(self) -> None:
        """Take away what the rank left: its children, files and folders."""
        # The scheduler ends by itself, and may first say which rank was lost.
        until = time.monotonic() + _CHILDREN_SECONDS
        while self._children_left() and time.monotonic() < until:
            time.sleep(0.02)
        for pid in self._children_left():
            kill(pid)
        launcher_gone = self.launcher_pid and not os.path.exists(  # noqa: PTH110
            f"/proc/{self.launcher_pid}"
        )
        paths = [
            path
            for path, made in self.paths.items()
            if made is None or made == inode(path)
        ]
        paths += self.launcher_paths if launcher_gone else []
        for path in paths + found(self.prefix):
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
                import shutil

                shutil.rmtree(path, ignore_errors=True)
            else:
                try:
                    os.unlink(path)  # noqa: PTH108
                except OSError:
                    pass  # gone already, as after a good end

    def _children_left(self) -> list[int]:
        """Those that still run; a number may have been given anew."""
        return [pid for pid, time in self.children.items() if time == born(pid) != ""]


def inode(path: str) -> tuple[int, int] | None:
    """Which file is at a path; None when there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def mpi_segments(pid: int) -> list[str]:
    """Shared memory that an MPI library makes in MPI_Init, where a rank may stick."""
    try:
        with open(f"/proc/{pid}/maps") as file:  # noqa: PTH123
            words = {line.split()[-1] for line in file}
    except OSError:
        return []
    begins = ("/dev/shm/mpich_shm_", "/dev/shm/sm_segment.")
    return [word for word in words if word.startswith(begins)]


def found(prefix: str) -> list[str]:
    """Files whose path begins so."""
    folder, _, begin = prefix.rpartition("/")
    if not begin:
        return []
    names = os.listdir(folder)  # noqa: PTH208 - pathlib costs more than the guard
    return [f"{folder}/{name}" for name in names if name.startswith(begin)]


def born(pid: int) -> str:
    """When a process was started, in ticks; empty when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            state, *words = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else words[18]


def write(descriptor: int, line: str) -> None:
    """Write a line, if any, for which there may be no reader."""
    try:
        os.write(descriptor, f"{line}\n".encode() if line else b"")
    except OSError:
        pass  # whoever read our messages has gone


def kill(pid: int) -> None:
    """Kill a process that may be gone."""
    send(pid, signal.SIGKILL)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def watch(ward: Ward) -> None:
    """Guard until the rank is done or gone."""
    buffer = b""
    first_signal: float | None = None
    open_pipe = True
    while True:
        sources = [0] * open_pipe + [ward.signals] * (ward.signals >= 0)
        ready, _, _ = select.select(sources, [], [], ward.tick)
        # Signals first: the word that one was heard is written after it.
        if ward.signals in ready:
            numbers = set(os.read(ward.signals, 512))
            if not numbers:
                ward.signals = -1  # the rank has closed its end
            asked = numbers & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
            if asked and first_signal is None:
                first_signal = time.monotonic()
                ward.unheard = True
        if 0 in ready:
            data = os.read(0, 65536)
            open_pipe = bool(data)
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if not ward.take(line):
                    return
        if not ward.alive():
            break
        now = time.monotonic()
        late = first_signal is not None and now > first_signal + _HEARD_SECONDS
        if late and ward.unheard and not ward.in_mpi:
            # It came just before the main thread went to sleep in C: Python had no
            # chance to run its handler. Any signal cuts the sleep short; this one has
            # a handler of its own, which does nothing.
            send(ward.pid, signal.SIGURG)
            ward.unheard = False
        if ward.notice_at is not None and now > ward.notice_at:
            ward.notice_at = None
            write(1, ward.notice)
        if ward.deadline is not None and now > ward.deadline:
            ward.note_segments()
            ward.kill(ward.message)
            ward.deadline = None
        grace = _GRACE_IN_MPI_SECONDS if ward.in_mpi else ward.grace
        if first_signal is not None and now > first_signal + grace:
            ward.note_segments()
            ward.kill(
                f"gpumpi: process {ward.pid} did not end within {grace:g} s after "
                "a signal and was killed"
            )
            first_signal = None
    ward.clear()


def main() -> None:
    """Start: ``guard_main.py RANK_PID LAUNCHER_PID SIGNAL_FD``."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    pid, launcher_pid, signals = (int(word) for word in sys.argv[1:4])
    watch(Ward(pid, launcher_pid, signals))


if __name__ == "__main__":
    main()
