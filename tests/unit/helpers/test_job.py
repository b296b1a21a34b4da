"""Tests of the harness itself, with programs that have nothing to do with gpumpi."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from helpers.job import Job, JobEnded, JobHung
from helpers.processes import find_tagged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.launcher import Launcher

    Script = Callable[..., Path]

pytestmark = pytest.mark.ranks

SLEEP = """
import sys, time
from mpi4py import MPI
def linger():
    time.sleep(300)
sys.stderr.write("complaint\\n")
print("rank", MPI.COMM_WORLD.rank, "is up", flush=True)
linger()
"""


def wait_until_up(job: Job, ranks: int = 2) -> None:
    """Wait for each rank of `SLEEP`."""
    for rank in range(ranks):
        job.wait_for(f"rank {rank} is up", stream="stdout")


def test_code_output_and_arguments_come_back(script: Script) -> None:
    path = script(
        """
        import os, sys
        from mpi4py import MPI
        comm = MPI.COMM_WORLD
        if comm.rank == 0:
            print(comm.size, sys.argv[1:], os.environ["COLOUR"], os.getcwd())
            sys.stderr.write("to stderr")
        """
    )
    result = Job.run(
        [path, "a b", 3],
        ranks=3,
        gpumpi=False,
        env={"COLOUR": "red"},
        cwd=path.parent,
    )
    assert result.code == 0, result
    assert result.stdout == f"3 ['a b', '3'] red {path.parent}\n"
    assert result.stderr == "to stderr"
    assert not result.leftovers, result
    assert not result.leftovers.unsure, result
    assert 0 < result.seconds < 30


def test_command_has_all_parts_in_their_places(launcher: Launcher) -> None:
    # Open MPI's options go after -n as well as before it, as MPICH's do.
    words = ["-x", "HOME"] if launcher.is_openmpi else ["-genvlist", "PATH"]
    wrapper = ["nice", "-n", "1"]
    with Job.start(
        "script.py",
        ranks=1,
        launcher_args=words,
        options=["--quiet"],
        wrapper=wrapper,
    ) as job:
        python = sys.executable
        assert job.command == (
            *(str(launcher.path), "-n", "1", *words, *wrapper),
            *(python, "-m", "gpumpi.run", "--quiet", "script.py"),
        )


def test_environment_of_the_tests_does_not_leak(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUMPI_SOMETHING", "1")
    monkeypatch.setenv("PMI_RANK", "7")
    monkeypatch.setenv("UNWANTED", "1")
    path = script("import os\nfor n in os.environ: print(n)")
    result = Job.run(path, gpumpi=False, mpirun=False, env={"UNWANTED": None})
    names = result.stdout.split()
    assert "GPUMPITEST_TAG" in names
    assert not {"GPUMPI_SOMETHING", "PMI_RANK", "UNWANTED"} & set(names)


def test_without_launcher_a_signal_is_a_negative_code(script: Script) -> None:
    path = script("print('up', flush=True)\nimport time; time.sleep(300)")
    with Job.start(path, gpumpi=False, mpirun=False) as job:
        job.wait_for("up")
        assert [process.pid for process in job.processes()] == [job.pid]
        job.signal(signal.SIGKILL)
        assert job.wait().code == -signal.SIGKILL


@pytest.mark.parametrize("py_spy", [True, False], ids=["py-spy", "faulthandler"])
def test_hang_is_reported_with_stacks_and_killed(
    script: Script, monkeypatch: pytest.MonkeyPatch, *, py_spy: bool
) -> None:
    if not py_spy:
        monkeypatch.setattr("helpers.command.find_py_spy", lambda: None)
        monkeypatch.setattr("helpers.stacks.find_py_spy", lambda: None)
    start = time.monotonic()
    with pytest.raises(JobHung) as caught:
        Job.run(script(SLEEP), gpumpi=False, timeout=4)
    text = str(caught.value)
    assert time.monotonic() - start < 25
    assert text.count("linger") == 2, text
    assert "rank 0 is up" in text
    assert "complaint" in text
    assert "mpirun" in text
    assert not find_tagged(Job.started[-1].tag)


def test_stopped_ranks_are_reported_too(script: Script) -> None:
    with Job.start(script(SLEEP), gpumpi=False) as job:
        wait_until_up(job)
        job.signal_ranks(signal.SIGSTOP)
        with pytest.raises(JobHung, match="linger") as caught:
            job.wait(1)
        assert "stopped" in str(caught.value)


def test_text_that_does_not_come_is_reported(script: Script) -> None:
    with Job.start(script(SLEEP), gpumpi=False) as job:
        wait_until_up(job)
        assert "complaint" in job.wait_for("complaint", stream="stderr")
        with pytest.raises(JobHung, match="no 'is up' in stderr within"):
            job.wait_for("is up", stream="stderr", timeout=0.5)
        assert not job.processes()


def test_helper_with_the_output_of_a_rank_keeps_the_launcher(script: Script) -> None:
    path = script(
        """
        import subprocess
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank == 0:
            subprocess.Popen(["sleep", "300"], start_new_session=True)
        """
    )
    # Both launchers wait until nobody can write to the ranks' pipes any more.
    with pytest.raises(JobHung, match="sleep 300"):
        Job.run(path, gpumpi=False, timeout=4)


def test_wait_for_text_sees_the_job_end(script: Script) -> None:
    path = script("print('this'); raise SystemExit(3)")
    with Job.start(path, ranks=1, gpumpi=False) as job:
        assert job.wait_for("thi") == "this"
        with pytest.raises(JobEnded, match="exit code 3"):
            job.wait_for("that")


def test_program_that_does_not_exist(script: Script) -> None:
    with pytest.raises(FileNotFoundError):
        Job.start(script(""), mpirun=False, wrapper=["/does/not/exist"])


def test_ranks_are_found_without_their_helpers(script: Script) -> None:
    path = script(
        """
        import subprocess, sys, time
        from mpi4py import MPI
        code = "import time; print('helper up', flush=True); time.sleep(300)"
        if MPI.COMM_WORLD.rank == 1:
            subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print("rank", MPI.COMM_WORLD.rank, "is up", flush=True)
        time.sleep(300)
        """
    )
    # The shell stays, as the parent of its rank.
    wrapper = ["sh", "-c", '"$@"; :', "-"]
    with Job.start(path, ranks=3, gpumpi=False, wrapper=wrapper) as job:
        wait_until_up(job, 3)
        job.wait_for("helper up")
        ranks = job.ranks()
        assert list(ranks) == [0, 1, 2]
        assert all(str(path) in process.cmdline() for process in ranks.values())
        pids = {process.pid for process in job.processes()}
        assert pids > {process.pid for process in ranks.values()}
        assert job.pid in pids
        job.signal_ranks(signal.SIGKILL, [1])
        ranks[1].wait(10)
        # The helper has the variable still, but it is no rank.
        assert 1 not in job.ranks()


def test_exit_of_the_context_kills_everything(script: Script) -> None:
    with (
        contextlib.suppress(ZeroDivisionError),
        Job.start(script(SLEEP), gpumpi=False) as job,
    ):
        wait_until_up(job)
        assert len(job.processes()) >= 3
        _ = 1 / 0
    assert not job.processes()
    assert "rank 0 is up" in job.stdout
