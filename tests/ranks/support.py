"""What the tests of real ranks share: jobs with result files, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.command import make_environ
from helpers.job import Job, JobResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psutil

JOBSIDE = Path(__file__).parent / "jobside"
SCHEDULER = "gpumpi.cluster.scheduler_main"
GUARD = "guard_main.py"


class Jobs:
    """Start jobs whose scripts ``save`` results into files of one folder.

    Parameters
    ----------
    folder
        Of the scripts; results go to a folder in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir()
        self._scripts = 0

    def write(self, text: str, name: str = "") -> Path:
        """Write a script, unindented."""
        self._scripts += 1
        path = self.folder / (name or f"script{self._scripts}.py")
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def run(self, script: Any, *args: Any, timeout: float = 60, **how: Any) -> Any:
        """Run a job to its end: a script's text or path, arguments, then as Job."""
        with self.start(script, *args, **how) as job:
            return job.wait(timeout)

    def start(
        self,
        script: Any,
        *args: Any,
        env: Mapping[str, str | None] | None = None,
        **how: Any,
    ) -> Job:
        """Start a job."""
        words = [script]
        if isinstance(script, str):
            words = [self.write(script)]
        elif isinstance(script, list):
            words = script
        return Job.start([*words, *args], env={**self.env, **(env or {})}, **how)

    @property
    def env(self) -> dict[str, str]:
        """What a job needs to ``from results import save``."""
        return {"RESULTS": str(self.results), "PYTHONPATH": str(JOBSIDE)}

    def saved(self, name: str, timeout: float = 0) -> Any:
        """What the job has saved under a name, once it is there."""
        path = self.results / f"{name}.json"
        end = time.monotonic() + timeout
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return json.loads(path.read_text())

    def on_rank(self, rank: int, act: str) -> list[str]:
        """Words before Python that do `act` in bash on one rank first."""
        path = self.write(
            f"""
            rank=${{PMI_RANK:-$OMPI_COMM_WORLD_RANK}}
            if [ "$rank" = {rank} ]; then
              {act}
            fi
            exec "$@"
            """,
            name=f"on-rank-{rank}.sh",
        )
        return ["bash", str(path)]


def end_of(job: Job, timeout: float = 30) -> tuple[JobResult, float]:
    """Wait for the end of a job: its result, and the seconds from now to the end."""
    begin = time.monotonic()
    while job.is_running() and time.monotonic() < begin + timeout:
        time.sleep(0.01)
    seconds = time.monotonic() - begin
    return job.wait(0.1), seconds


def gpumpi_lines(result: JobResult) -> list[str]:
    """Lines on stderr that gpumpi has said, without its name."""
    lines = result.stderr_without_launcher.splitlines()
    name = "gpumpi: "
    return [line.removeprefix(name) for line in lines if line.startswith(name)]


def foreign_lines(result: JobResult) -> list[str]:
    """Lines on stderr that neither gpumpi nor a launcher has said."""
    lines = result.stderr_without_launcher.splitlines()
    return [line for line in lines if line and not line.startswith("gpumpi:")]


def assert_good(result: JobResult) -> None:
    """Exit code 0, nothing on stderr, nothing left."""
    assert_silent(result, 0)


def assert_silent(result: JobResult, code: int) -> None:
    """The exit code, nothing on stderr, nothing left."""
    assert result.code == code, result
    assert result.stderr_without_launcher == "", result
    assert not result.leftovers, result


def assert_failed(result: JobResult, *words: str, code: int | None = 1) -> str:
    """The exit code (None: any but 0), nothing left, one line with all these words.

    Nothing but gpumpi's own lines is on stderr. Returns the line.
    """
    if code is None:
        assert result.code != 0, result
    else:
        assert result.code == code, result
    assert foreign_lines(result) == [], result
    assert not result.leftovers, result
    return line_with(result, *words)


def line_with(result: JobResult, *words: str) -> str:
    """The one line of gpumpi on stderr that has all these words."""
    lines = gpumpi_lines(result)
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, f"{len(found)} lines with {words}\n{result}"
    return found[0]


def find_process(job: Job, word: str) -> psutil.Process:
    """The one process of a job with a word in its command line."""
    found = [p for p in job.processes() if any(word in w for w in p.cmdline())]
    assert len(found) == 1, found
    return found[0]


def host_name() -> str:
    """Name of this host, as gpumpi says it."""
    return os.uname().nodename


def run_python(
    code: str, *args: Any, env: Mapping[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run Python outside of any job, as a user's notebook or shell does."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        env=make_environ(env, mpirun=False),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_gpumpi(*args: Any, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run ``gpumpi ARGS`` outside of any job."""
    code = (
        "import sys; from gpumpi.__main__ import main; sys.argv[0] = 'gpumpi'; main()"
    )
    return run_python(code, *args, timeout=timeout)
