"""The rank's side of its guard, the small process that outlives it.

A rank that is killed, aborted or crashes cannot clear up after itself, a rank whose
main thread is inside C cannot time out, and Open MPI leaves its ranks behind when
``mpirun`` is killed. The guard (:mod:`gpumpi.rank.guard_main`) does these three.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from gpumpi.rank import guard_main
from gpumpi.rank.launcher import Launcher, LauncherName, is_launcher_variable

__all__ = ["Guard", "scrubbed_environment"]


def scrubbed_environment() -> dict[str, str]:
    """The environment for a child process that must not take itself for a rank."""
    return {k: v for k, v in os.environ.items() if not is_launcher_variable(k)}


def _shared_memory() -> set[str]:
    """Files of /dev/shm that this process has mapped."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return {
        line.split(maxsplit=5)[5]
        for line in maps.splitlines()
        if " /dev/shm/" in line and not line.endswith("(deleted)")
    }


class Guard:
    """Start the guard of this process. Local; call it from the main thread.

    Parameters
    ----------
    launcher : Launcher
        With a launcher, the rank ends when its parent process does.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.owner_pid = os.getpid()
        self._paths: list[str] = []
        self._children: list[int] = []
        self._mapped_before = _shared_memory()
        parent = 0 if launcher.name is LauncherName.NONE else os.getppid()
        read_end, self._signals = os.pipe()
        os.set_blocking(self._signals, False)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guard_main.__file__,
                str(self.owner_pid),
                str(parent),
                str(read_end),
            ],
            stdin=subprocess.PIPE,
            env=scrubbed_environment(),
            pass_fds=(read_end,),
            start_new_session=True,
            bufsize=0,  # a signal handler may write in between
        )
        os.close(read_end)
        # The C-level handler writes the number of every signal here, even while
        # the main thread is inside C and no Python handler can run.
        self._old_wakeup = signal.set_wakeup_fd(
            self._signals, warn_on_full_buffer=False
        )
        os.register_at_fork(after_in_child=self._forget_in_child)

    def remove_if_lost(self, *paths: str | Path) -> None:
        """Have files and folders removed if this process dies before it can."""
        self._paths.extend(str(path) for path in paths)
        self._order("paths", *self._paths)

    def remove_semaphores_if_lost(self) -> None:
        """Have this process's semaphores of multiprocessing removed if it is lost.

        Those to come too: they get a prefix of their own. Their tracker, which would
        remove them, is killed along with a process group.
        """
        prefix = f"mp-gpumpi-{self.owner_pid}"
        multiprocessing.current_process()._config["semprefix"] = f"/{prefix}"  # type: ignore[attr-defined]
        self._order("prefix", f"/dev/shm/sem.{prefix}-")

    def forget_paths(self, *paths: str | Path) -> None:
        """Leave files alone that have been removed: others may make them anew."""
        gone = {str(path) for path in paths}
        self._paths = [path for path in self._paths if path not in gone]
        self._order("paths", *self._paths)

    def end_if_lost(self, pid: int) -> None:
        """Have a child process killed if this process dies before it can."""
        self._children.append(pid)
        self._order("children", *map(str, self._children))

    def forget_child(self, pid: int) -> None:
        """Leave a child that has ended alone: its number may be given anew."""
        self._children = [child for child in self._children if child != pid]
        self._order("children", *map(str, self._children))

    def grace(self, seconds: float) -> None:
        """Set how long this process may take to end after a signal (default 4.5 s)."""
        self._order("grace", str(seconds))

    def deadline(self, seconds: float | None, message: str = "") -> None:
        """Kill this process, with a last line, unless called again in time."""
        if seconds is None:
            self._order("no_deadline")
        else:
            self._order("deadline", str(seconds), f"gpumpi: {message}")

    def in_mpi(self, notice: str) -> None:
        """Say that this process is in MPI_Init, where it can answer no signal.

        It is so until its deadline is taken back. The notice, if not empty, is
        written to stdout after 2 s.
        """
        self._order("in_mpi", notice)

    def watch_shared_memory(self) -> None:
        """Note the MPI library's segments, which an abort leaves in /dev/shm.

        They are what this process has mapped since the guard was made.
        """
        found = _shared_memory() - self._mapped_before
        if found:
            self.remove_if_lost(*sorted(found))
        session = os.environ.get("PMIX_SERVER_TMPDIR")
        if session is not None:
            self._order("launcher_paths", session)

    def heard(self) -> None:
        """Say, from the handler, that a signal has been heard in Python."""
        self._order("heard")

    def leave(self, seconds: float, message: str) -> None:
        """Say that the process ends now, and must be gone in so many seconds.

        What comes after (atexit functions, MPI_Finalize, threads that CPython joins)
        is out of the reach of Python's own time-outs.
        """
        self.deadline(seconds, message)
        self._order("leaving")
        signal.set_wakeup_fd(self._old_wakeup)

    def dismiss(self, timeout: float = 5.0) -> None:
        """End the guard while this process goes on."""
        signal.set_wakeup_fd(self._old_wakeup)
        self._order("done")
        try:
            self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._signals)

    def _order(self, *words: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            data = os.fsencode("\0".join(words).replace("\n", " ")) + b"\n"
            while data:
                data = data[stdin.write(data) :]
        except (BrokenPipeError, ValueError):
            # The guard was killed from outside; the rank can live without it.
            pass

    def _forget_in_child(self) -> None:
        """Keep a forked child (multiprocessing) away from this guard."""
        signal.set_wakeup_fd(-1)
