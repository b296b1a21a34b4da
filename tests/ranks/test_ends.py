"""How a job ends when its script does: exit codes, times, what is said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from ranks.support import (
    assert_failed,
    assert_good,
    assert_silent,
    end_of,
    foreign_lines,
    gpumpi_lines,
    host_name,
    line_with,
)

if TYPE_CHECKING:
    from helpers.launcher import Launcher
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.pythons]

START = """
import atexit, os, sys, threading, time
from dask.distributed import Client
from results import save
client = Client()
"""


def test_a_script_ends_at_once_and_in_silence_whatever_still_runs(jobs: Jobs) -> None:
    job = jobs.start(
        START
        + """
others = [Client(), Client()]
futures = client.map(time.sleep, [60] * 4, pure=False)
while not all(client.processing().values()):
    time.sleep(0.05)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
atexit.register(save, "atexit", True)
print("x" * 200_000, end="")
save("end", time.time())
""",
        options=["--quiet"],
    )
    with job:
        result, _ = end_of(job)
        seconds = time.time() - jobs.saved("end")
    assert_good(result)
    assert len(result.stdout) == 200_000
    assert jobs.saved("atexit") is True
    assert seconds < 3, str(result)


@pytest.mark.parametrize(
    ("last", "code", "text"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("raise SystemExit('no input found')", 1, "no input found\n"),
        ("import signal; sys.exit(256 + 5)", 5, ""),
    ],
    ids=["code", "no-code", "text", "8-bits"],
)
def test_the_job_ends_with_the_code_of_the_script(
    jobs: Jobs, last: str, code: int, text: str
) -> None:
    result = jobs.run(START + last)
    assert result.code == code, str(result)
    assert result.stderr_without_launcher == text, str(result)
    assert not result.leftovers, str(result)


def test_an_exception_is_shown_once_and_ends_the_job_with_1(jobs: Jobs) -> None:
    script = START + "save('end', time.time())\n1 / 0\n"
    with jobs.start(script, ranks=3) as job:
        result, _ = end_of(job)
        seconds = time.time() - jobs.saved("end")
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    assert seconds < 5, str(result)
    lines = foreign_lines(result)
    assert lines[0] == "Traceback (most recent call last):", str(result)
    assert lines[-1] == "ZeroDivisionError: division by zero", str(result)
    # Frames of gpumpi are no help to the user.
    assert sum(line.startswith("  File ") for line in lines) == 1, str(result)
    assert gpumpi_lines(result) == [], str(result)


def test_an_exception_of_a_task_is_shown_once(jobs: Jobs) -> None:
    result = jobs.run(START + "client.submit(lambda: 1 / 0).result()\n")
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    assert foreign_lines(result)[-1] == "ZeroDivisionError: division by zero"
    # What Dask's worker logs of a failed task is for the log file or one more line.
    assert result.stderr.count("Traceback (most recent call last)") == 1, str(result)


@pytest.mark.parametrize("act", ["client.close()", "client.shutdown()"])
def test_a_script_goes_on_after_it_closed_its_client(jobs: Jobs, act: str) -> None:
    script = f"{START}{act}\ntime.sleep(0.5)\nsave('on', 1)\nsys.exit(4)\n"
    result = jobs.run(script, ranks=3)
    assert_silent(result, 4)
    assert jobs.saved("on") == 1


def test_another_client_works_after_the_first_was_closed(jobs: Jobs) -> None:
    script = START + "client.close()\nsave('on', Client().submit(sum, [1]).result())"
    assert_good(jobs.run(script))
    assert jobs.saved("on") == 1


def test_threads_of_the_script_end_their_work_on_the_cluster(jobs: Jobs) -> None:
    result = jobs.run(
        START
        + """
def work():
    time.sleep(1)
    save("thread", client.submit(sum, [1, 2]).result())

threading.Thread(target=work).start()
"""
    )
    assert_good(result)
    assert jobs.saved("thread") == 3


def test_an_exception_in_a_thread_of_the_script_ends_the_job(jobs: Jobs) -> None:
    result = jobs.run(
        START
        + """
def work():
    raise RuntimeError("in the thread")

threading.Thread(target=work, name="side").start()
time.sleep(60)
""",
        ranks=3,
        timeout=20,
    )
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    assert result.stderr.count("Traceback (most recent call last)") == 1, str(result)
    assert result.stderr.count("RuntimeError: in the thread") == 1, str(result)
    last = gpumpi_lines(result)[-1]
    for words in ("rank 0", host_name(), "'side'", "in the thread"):
        assert words in last, str(result)


def test_os_exit_of_the_script_leaves_nothing(jobs: Jobs, launcher: Launcher) -> None:
    # MPICH's Hydra loses the code of a process that leaves without MPI's own end.
    result = jobs.run(START + "os._exit(3)", ranks=3, timeout=20)
    assert_failed(result, "rank 0", "was lost", code=3 if launcher.is_openmpi else None)


def test_a_segfault_in_a_task_shows_the_stack_and_names_the_rank(jobs: Jobs) -> None:
    result = jobs.run(
        START
        + """
def crash():
    import ctypes
    ctypes.string_at(0)

client.submit(crash, workers=1).result()
""",
        ranks=3,
        timeout=20,
    )
    assert result.code not in (0, 2), str(result)
    assert not result.leftovers, str(result)
    assert "Fatal Python error: Segmentation fault" in result.stderr, str(result)
    assert "in crash" in result.stderr, str(result)
    assert "rank 1" in line_with(result, "was lost"), str(result)
    assert "Traceback" not in result.stderr, str(result)
