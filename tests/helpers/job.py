"""Real jobs: a launcher, its ranks and whatever they start."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from helpers.command import make_command, make_environ
from helpers.leftovers import Watch
from helpers.processes import TAG, find_ranks, find_tagged, is_alive, kill_tagged
from helpers.result import JobEnded, JobHung, JobResult
from helpers.stacks import show_stacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psutil

    from helpers.command import Word

__all__ = ["Job", "JobEnded", "JobHung", "JobResult"]


class Job:
    """A running job; as a context manager it kills what is left at its end.

    `Job.start` makes one from ``mpirun -n RANKS LAUNCHER_ARGS WRAPPER python -m
    gpumpi.run OPTIONS ARGS``; `Job.run` waits for its end as well. The job gets
    a session of its own, a tag in the environment by which all its processes
    are found, a fresh ``TMPDIR``, and files to write its output to.

    Attributes
    ----------
    tag
        Value of ``GPUMPITEST_TAG`` in its processes.
    command
        The words it was started with.
    tmpdir
        Its ``TMPDIR``; removed at the end.
    """

    started: ClassVar[list[Job]] = []
    """All jobs that this process has started."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.tag = uuid.uuid4().hex
        self.command = tuple(command)
        # Short, since the name of a Unix socket below it has 107 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="gpumpitest-"))
        self.tmpdir = self._folder / "tmp"
        self.tmpdir.mkdir()
        self._popen: subprocess.Popen[bytes] | None = None
        self._ranks: dict[int, psutil.Process] = {}
        self._output: dict[str, str] = {}
        self._result: JobResult | None = None
        self._watch = Watch(self.tag, self.tmpdir)
        self._started = time.monotonic()
        self.started.append(self)
        try:
            with self._open("stdout") as out, self._open("stderr") as err:
                self._popen = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env={**environ, TAG: self.tag, "TMPDIR": str(self.tmpdir)},
                    cwd=cwd,
                    start_new_session=True,
                )
        except BaseException:
            self.kill()
            raise

    @classmethod
    def start(
        cls,
        args: Word | Sequence[Word],
        *,
        ranks: int = 2,
        launcher_args: Iterable[Word] = (),
        options: Iterable[Word] = (),
        gpumpi: bool = True,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        mpirun: bool = True,
        wrapper: Iterable[Word] = (),
    ) -> Job:
        """Start a job and return at once.

        Parameters
        ----------
        args
            The script and its arguments.
        ranks, launcher_args
            What ``mpirun`` is given: ``-n``, and words after it.
        options
            Options of gpumpi.
        gpumpi
            Whether gpumpi runs the script, or Python alone.
        env
            Variables to set; None removes one.
        cwd
            Working directory; None for the tests' own.
        mpirun
            Whether there is a launcher at all.
        wrapper
            Words before Python, such as ``["nice"]``.
        """
        command = make_command(
            args,
            ranks=ranks,
            launcher_args=launcher_args,
            options=options,
            gpumpi=gpumpi,
            mpirun=mpirun,
            wrapper=wrapper,
        )
        return cls(command, make_environ(env, mpirun=mpirun), cwd)

    @classmethod
    def run(
        cls,
        args: Word | Sequence[Word],
        *,
        timeout: float = 60,
        grace: float = 5,
        **how: Any,
    ) -> JobResult:
        """Run a job to its end; `how` is as for `start`.

        Raises
        ------
        JobHung
            It took longer than `timeout` seconds; with stacks and output.
        """
        with cls.start(args, **how) as job:
            return job.wait(timeout, grace=grace)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process number of the launcher, or of Python where there is none."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def stdout(self) -> str:
        """Stdout so far."""
        return self._read("stdout")

    @property
    def stderr(self) -> str:
        """Stderr so far."""
        return self._read("stderr")

    def processes(self) -> list[psutil.Process]:
        """All living processes of the job, oldest first, launcher included."""
        return find_tagged(self.tag)

    def ranks(self) -> dict[int, psutil.Process]:
        """Living ranks: the interpreters that the launcher or a wrapper started.

        A rank that was seen once is known from then on, so a test that ends the
        launcher calls this before.
        """
        for rank, process in find_ranks(self.processes()).items():
            self._ranks.setdefault(rank, process)
        return {n: p for n, p in sorted(self._ranks.items()) if is_alive(p)}

    def is_running(self) -> bool:
        """Whether the launcher runs."""
        return self._popen is not None and self._popen.poll() is None

    def wait_for(self, text: str, stream: str = "any", timeout: float = 30) -> str:
        """Wait until a stream contains `text`; return the line it is in.

        Raises
        ------
        JobHung
            It is not there after `timeout` seconds; all is killed.
        JobEnded
            The job ended without it.
        """
        streams = ("stdout", "stderr") if stream == "any" else (stream,)
        end = time.monotonic() + timeout
        while True:
            running = self.is_running()
            for name in streams:
                for line in self._read(name).splitlines():
                    if text in line:
                        return line
            if not running:
                raise JobEnded(f"job ended without {text!r}\n{self.wait()}")
            if time.monotonic() > end:
                raise self._hung(f"no {text!r} in {stream} within {timeout:g} s")
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send a signal to the launcher alone."""
        os.kill(self.pid, number)

    def signal_ranks(self, number: int, ranks: Iterable[int] | None = None) -> None:
        """Send a signal to the ranks themselves, all or those given."""
        found = self.ranks()
        for rank in found if ranks is None else ranks:
            found[rank].send_signal(number)

    def wait(self, timeout: float = 60, *, grace: float = 5) -> JobResult:
        """Wait for the launcher's end, look for leftovers, then kill what is left.

        Raises
        ------
        JobHung
            The launcher still runs after `timeout` seconds; all is killed.
        """
        if self._result is not None:
            return self._result
        assert self._popen is not None
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._hung(f"job still runs after {timeout:g} s") from None
        seconds = time.monotonic() - self._started
        leftovers = self._watch.settle(grace)
        self.kill()
        self._result = JobResult(
            code=code,
            seconds=seconds,
            stdout=self.stdout,
            stderr=self.stderr,
            command=self.command,
            leftovers=leftovers,
        )
        return self._result

    def kill(self) -> list[str]:
        """Kill all processes of the job, remove its files, tell who was killed.

        May be repeated.
        """
        self._watch.stop()
        self._watch.look()
        killed = kill_tagged(self.tag)
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(10)
        if self._folder.exists():
            self._output = {name: self._read(name) for name in ("stdout", "stderr")}
            shutil.rmtree(self._folder, ignore_errors=True)
        for path in self._watch.removable():
            path.unlink(missing_ok=True)
        return killed

    def _open(self, stream: str) -> Any:
        return (self._folder / stream).open("wb")

    def _read(self, stream: str) -> str:
        if stream in self._output:
            return self._output[stream]
        path = self._folder / stream
        return path.read_text(errors="replace") if path.exists() else ""

    def _hung(self, why: str) -> JobHung:
        seconds = time.monotonic() - self._started
        stacks = show_stacks(self.processes())
        self.kill()
        return JobHung(
            f"{why} (started {seconds:.1f} s ago)\n$ {shlex.join(self.command)}\n"
            f"---- processes\n{stacks}\n"
            f"---- stdout\n{self.stdout}\n---- stderr\n{self.stderr}"
        )
