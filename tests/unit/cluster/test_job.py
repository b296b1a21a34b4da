"""Events of a running job of one rank; the ranks tier has those of many."""

from __future__ import annotations

import time

SCRIPT = """
import os, signal, sys, time
import gpumpi
import psutil
session = gpumpi.initialize(
    nthreads=1, quiet=True, dashboard=False, scheduler_file="scheduler.json"
)
def find(word):
    (found,) = [
        child for child in psutil.Process().children()
        if any(word in part for part in child.cmdline())
    ]
    return found
"""


def test_a_scheduler_that_is_killed_ends_the_job_with_one_line(
    run_python, tmp_path
) -> None:
    tmp_path.chmod(0o700)
    begin = time.monotonic()
    ended = run_python(
        SCRIPT + 'find("scheduler_main").kill()\ntime.sleep(60)\nprint("still there")',
        cwd=tmp_path,
        timeout=30,
    )
    assert time.monotonic() - begin < 15
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gpumpi: rank 0 on host ")
    assert line.endswith(
        "the scheduler process was killed by signal 9; the job cannot go on"
    )


def test_a_job_that_is_killed_leaves_neither_files_nor_processes(
    start_python, tmp_path, eventually, is_running, finish
) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "tmp").mkdir()
    child = start_python(
        SCRIPT
        + 'print(find("scheduler_main").pid, find("guard_main").pid, flush=True)\n'
        + "time.sleep(60)",
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path / "tmp")},
    )
    pids = [int(word) for word in child.stdout.readline().split()]
    assert (tmp_path / "scheduler.json").exists()
    assert (tmp_path / "scheduler.json.pem").exists()
    child.kill()
    eventually(lambda: not any(map(is_running, pids)), "all processes are gone")
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
    _, _, errors = finish(child)
    assert errors.endswith(
        "was lost: it was killed, crashed, or left by os._exit\n"
    ) or errors.endswith("it was killed, crashed, or ended without its MPI\n")


def test_a_job_whose_file_cannot_be_written_does_not_start(
    run_python, tmp_path
) -> None:
    tmp_path.chmod(0o777)
    ended = run_python(SCRIPT + 'print("started")', cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"others may write to {tmp_path} (mode 777)" in ended.stderr
