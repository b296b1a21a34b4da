"""How a failure ends a job, in real processes of one rank without MPI."""

from __future__ import annotations

import pytest

PRELUDE = """
import atexit, sys, threading, time
from gpumpi.cluster.failure import Failure
from gpumpi.log import Phase, log
from gpumpi.rank.mpi import LoneWorld
failure = Failure(LoneWorld(), "n0")
log.phase = Phase.RUNNING
def wait():
    time.sleep(30)
    print("still there")
"""


@pytest.fixture
def run(run_python):
    def run(code: str, **options):
        ended = run_python(PRELUDE + code, **options)
        return ended.returncode, ended.stdout, ended.stderr

    return run


def test_ending_the_job_says_who_and_why_and_ends_with_the_code(run) -> None:
    assert run('failure.end_job("the disk is full", 5)\nwait()') == (
        5,
        "",
        "gpumpi: rank 0 on host n0: the disk is full\n",
    )


def test_what_the_script_has_printed_comes_before(run) -> None:
    code, out, _ = run('sys.stdout.write("last words")\nfailure.end_job("x")')
    assert (code, out) == (1, "last words")


def test_somebody_is_told_before_the_end(run) -> None:
    code = """
failure.before_abort = lambda: print("told", flush=True)
failure.{}
"""
    assert run(code.format('end_job("x", 3)')) == (
        3,
        "told\n",
        "gpumpi: rank 0 on host n0: x\n",
    )
    assert run(code.format("abort_quietly(143)")) == (143, "told\n", "")


def test_of_many_threads_that_fail_at_once_one_speaks(run) -> None:
    code, _, errors = run(
        """
def fail(number):
    failure.end_job(f"thread {number}")
for number in range(8):
    threading.Thread(target=fail, args=(number,)).start()
wait()
"""
    )
    assert code == 1
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    "broken",
    [
        "sys.stdout.close()",
        "sys.stdout = None",
        "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); print('x' * 9)",
        "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x' * 9)",
    ],
    ids=["closed", "none", "reader gone", "disk full"],
)
def test_an_output_that_is_gone_does_not_keep_the_job_alive(run, broken) -> None:
    code, _, errors = run(f'{broken}\nfailure.end_job("why", 5)\nwait()')
    assert (code, errors) == (5, "gpumpi: rank 0 on host n0: why\n")


def test_an_exception_that_no_thread_catches_ends_the_job(run) -> None:
    code, out, errors = run(
        """
failure.install()
def work():
    raise ValueError("odd number")
threading.Thread(target=work, name="mine").start()
wait()
"""
    )
    assert (code, out) == (1, "")
    lines = errors.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ValueError: odd number"
    assert lines[-1] == (
        "gpumpi: rank 0 on host n0: ValueError in thread 'mine' was not caught: "
        "odd number"
    )
    assert errors.count("Traceback") == 1


def test_what_the_script_makes_of_a_job_that_is_ended_is_not_said(run) -> None:
    code = """
failure.install()
threading.Thread(target=failure.end_job, args=("the cause", 5)).start()
time.sleep(0.1)
raise OSError("the cluster is gone")
"""
    assert run(code) == (5, "", "gpumpi: rank 0 on host n0: the cause\n")


def test_a_thread_may_end_by_system_exit(run) -> None:
    code = """
failure.install()
thread = threading.Thread(target=sys.exit, args=(3,))
thread.start()
thread.join()
print("went on")
"""
    assert run(code) == (0, "went on\n", "")


def test_while_the_job_ends_such_an_exception_is_for_the_log(run) -> None:
    code = """
failure.install()
log.phase = Phase.ENDING
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print("went on")
"""
    assert run(code) == (0, "went on\n", "")


def test_after_its_end_threads_are_pythons_again(run) -> None:
    code, out, errors = run(
        """
failure.install()
failure.uninstall()
thread = threading.Thread(target=lambda: 1 / 0, name="mine")
thread.start()
thread.join()
print("went on")
"""
    )
    assert (code, out) == (0, "went on\n")
    assert errors.startswith("Exception in thread mine:")


def test_the_job_ends_although_telling_somebody_fails(run) -> None:
    code, _, errors = run(
        """
def fail():
    raise OSError("pipe")
failure.before_abort = fail
failure.end_job("why", 5)
wait()
"""
    )
    assert (code, errors) == (5, "gpumpi: rank 0 on host n0: why\n")
