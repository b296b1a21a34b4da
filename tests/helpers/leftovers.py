"""What a job leaves behind: processes, sockets and files.

Other jobs may run on the machine at the same time, so a thing counts only
when it can be put down to this job:

- processes by the tag in their environment: exact;
- listening sockets by the process that has them: exact;
- entries of the job's own ``TMPDIR``: exact;
- new entries of ``/dev/shm`` and ``/tmp`` that a process of the job was seen
  with (mapped, open, or working in it), or whose name has the number of one
  of its processes. A thread looks as soon as an entry appears, and twice a
  second, which finds the segments of 39 of 40 MPI jobs that abort as soon as they
  are up. A file that is closed within milliseconds, or a folder that nobody
  opens, may be missed.

New entries that nobody was seen with are shown as `Leftovers.unsure` and do
not count. Programs that respect ``TMPDIR`` write nothing to ``/tmp``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from helpers.arrivals import Arrivals
from helpers.processes import GONE, all_pids, describe, find_tagged, has_tag

SHM = Path("/dev/shm")
TMP = Path("/tmp")

LAUNCHERS_OWN = (
    # MPICH's mpirun writes the machine's topology here for its proxies, in
    # /tmp whatever TMPDIR. It stays when a rank calls MPI_Abort and when mpirun
    # gets SIGKILL; not when a rank is killed or exits with an error.
    "hydra_hwloc_xmlfile_*",
    # Open MPI's session directory, in TMPDIR, named after mpirun's process. It
    # stays when mpirun gets SIGKILL, and then only.
    "ompi.*",
    "prte.*",
)
"""Names that plain mpi4py programs leave behind too, which do not count.

Plain programs leave segments of MPI as well: ``/dev/shm/mpich_shm_*`` after
every end but a regular one, ``/dev/shm/sm_segment.*`` after a SIGKILL of
mpirun. Those count: gpumpi has to remove them.
"""

FOREIGN = ("gpumpitest-*", "pytest-of-*", "bash_*", "hsperfdata_*", "tmux-*")
"""Names of others in ``/tmp``, and of the tests themselves, not even shown."""


@dataclass(frozen=True)
class Leftovers:
    """What was there some seconds after a job's end; false when nothing.

    Parameters
    ----------
    processes
        Living processes, one line each.
    sockets
        Listening TCP addresses, with the process.
    shm
        Files in ``/dev/shm``.
    files
        Entries of ``/tmp`` and of the job's ``TMPDIR``.
    unsure
        New entries of both that may be anyone's; they do not count.
    """

    processes: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    shm: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.sockets or self.shm or self.files)

    def __str__(self) -> str:
        rows = [
            f"{item.name}: {entry}"
            for item in fields(self)
            for entry in getattr(self, item.name)
        ]
        return "\n".join(rows) or "nothing"


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is like one of some shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def names_in(folder: Path) -> set[str]:
    """Names in a folder; none when it is gone."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def held_by(pid: int) -> set[Path]:
    """Entries of /tmp and /dev/shm that a process has mapped, open or as cwd.

    For a path below a folder of ``/tmp`` it is that folder.
    """
    root = Path(f"/proc/{pid}")
    texts: list[str] = []
    with contextlib.suppress(OSError):
        maps = (root / "maps").read_text(errors="replace")
        texts += re.findall(r" (/(?:dev/shm|tmp)/.*)$", maps, re.MULTILINE)
    with contextlib.suppress(OSError):
        texts.append(os.readlink(root / "cwd"))
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(root / "fd"):
            with contextlib.suppress(OSError):
                texts.append(os.readlink(root / "fd" / descriptor))
    found = set()
    for text in texts:
        path = Path(text.removesuffix(" (deleted)"))
        for folder in (SHM, TMP):
            if folder in path.parents:
                found.add(folder / path.relative_to(folder).parts[0])
    return found


def numbers_in(name: str) -> set[int]:
    """Numbers that stand alone in a name, as a process number would."""
    return set(map(int, re.findall(r"(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])", name)))


class Watch:
    """Notes which processes and files belong to one job, from before its start.

    Parameters
    ----------
    tag
        The job's tag.
    tmpdir
        Its ``TMPDIR``, empty at the start.
    """

    def __init__(self, tag: str, tmpdir: Path) -> None:
        self.tag = tag
        self.tmpdir = tmpdir
        self.pids: set[int] = set()
        self.own: set[Path] = set()
        self.foreign: set[Path] = set()
        self._arrivals = Arrivals(SHM, TMP)
        self._before = {folder: names_in(folder) for folder in (SHM, TMP)}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiting: set[Path] = set()
        while not self._stopped:
            came = self._arrivals.wait(0.02 if waiting else 0.5)
            self.look()
            waiting = (waiting | came) - self.own - self.foreign
            if waiting and not came:
                # Not this job's: see whose it is while they live. This takes
                # longer than a look, so it is put off until nothing comes.
                self._look_at_others()
                waiting = set()

    def look(self) -> list[psutil.Process]:
        """Note the job's processes and what they hold; return the processes."""
        processes = find_tagged(self.tag)
        for process in processes:
            self.pids.add(process.pid)
            self.own |= held_by(process.pid)
        return processes

    def _look_at_others(self) -> None:
        for pid in all_pids():
            if pid not in self.pids and pid != os.getpid():
                held = held_by(pid)
                # A process of the job may have started since the last look.
                if has_tag(pid, self.tag):
                    self.own |= held
                else:
                    self.foreign |= held

    def stop(self) -> None:
        """End the thread; may be repeated."""
        if not self._stopped:
            self._stopped = True
            self._arrivals.wake()
            self._thread.join()
            self._arrivals.close()

    def new_in(self, folder: Path) -> set[Path]:
        """Entries of a folder that were not there before the job."""
        return {folder / name for name in names_in(folder) - self._before[folder]}

    def removable(self) -> set[Path]:
        """Files of MPI that are this job's for sure, to be removed after it."""
        own = {path for path in self.new_in(TMP) if matches(path.name, LAUNCHERS_OWN)}
        return (self.new_in(SHM) | own) & self.own

    def _is_own(self, path: Path) -> bool:
        return path in self.own or bool(numbers_in(path.name) & self.pids)

    def find(self) -> Leftovers:
        """What is there of the job now."""
        processes = self.look()
        sockets = []
        for process in processes:
            with contextlib.suppress(*GONE):
                sockets += [
                    f"{end.laddr.ip}:{end.laddr.port} of pid {process.pid}"
                    for end in process.net_connections("tcp")
                    if end.status == psutil.CONN_LISTEN
                ]
        new = self.new_in(SHM) | {
            path
            for path in self.new_in(TMP)
            if not matches(path.name, (*FOREIGN, *LAUNCHERS_OWN))
        }
        own = {path for path in new if self._is_own(path)}
        if unsure := new - own - self.foreign:
            self._look_at_others()
            unsure -= self.foreign
        shm = {path for path in own if path.parent == SHM}
        files = (own - shm) | {
            self.tmpdir / name
            for name in names_in(self.tmpdir)
            if not matches(name, LAUNCHERS_OWN)
        }
        return Leftovers(
            processes=tuple(map(describe, processes)),
            sockets=tuple(sorted(sockets)),
            shm=tuple(sorted(map(str, shm))),
            files=tuple(sorted(map(str, files))),
            unsure=tuple(sorted(map(str, unsure))),
        )

    def settle(self, grace: float = 5) -> Leftovers:
        """Wait until nothing is left; after `grace` seconds say what is."""
        end = time.monotonic() + grace
        while found := self.find():
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        return found
