"""Signals from a person, a batch system and a kernel."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from ranks.support import assert_good, assert_silent, end_of

if TYPE_CHECKING:
    from helpers.job import Job
    from helpers.launcher import Launcher
    from helpers.result import JobResult
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.faults]

START = """
import signal, sys, time
from dask.distributed import Client
from results import save
client = Client()
print("script is up", flush=True)
"""
WAIT = "futures = client.map(time.sleep, [60] * 4, pure=False)\ntime.sleep(60)\n"

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
TARGETS = pytest.mark.parametrize("target", ["mpirun", "ranks"])


def send(job: Job, number: int, target: str) -> None:
    """Send a signal as a person does (mpirun) or as srun does (all ranks)."""
    job.ranks()
    if target == "mpirun":
        job.signal(number)
    else:
        job.signal_ranks(number)


def check_code(result: JobResult, number: int, target: str, launcher: Launcher) -> None:
    """128 + the signal; but Open MPI's mpirun ends with 1 when it is signalled."""
    forced = launcher.is_openmpi and target == "mpirun"
    assert result.code == (1 if forced else 128 + number), str(result)


@BOTH
@TARGETS
def test_a_signal_ends_the_job_with_its_code(
    jobs: Jobs, launcher: Launcher, number: int, target: str
) -> None:
    with jobs.start(START + WAIT, ranks=3) as job:
        job.wait_for("script is up")
        send(job, number, target)
        result, seconds = end_of(job)
    check_code(result, number, target, launcher)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
    assert seconds < 5, str(result)


@TARGETS
def test_a_signal_during_the_start_ends_it(
    jobs: Jobs, launcher: Launcher, target: str
) -> None:
    preload = jobs.write(
        """
        import time
        def dask_setup(worker):
            print("preload of", worker.name, flush=True)
            time.sleep(60)
        """
    )
    with jobs.start("", options=["--preload", preload]) as job:
        job.wait_for("preload of 0")
        job.wait_for("preload of 1")
        send(job, signal.SIGTERM, target)
        result, seconds = end_of(job)
    check_code(result, signal.SIGTERM, target, launcher)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
    assert seconds < 5, str(result)


@pytest.mark.parametrize("delay", [0, 0.4])
def test_a_signal_while_python_starts_ends_the_job(jobs: Jobs, delay: float) -> None:
    with jobs.start("") as job:
        while len(job.ranks()) < 2:
            time.sleep(0.01)
        time.sleep(delay)
        send(job, signal.SIGTERM, "mpirun")
        result, seconds = end_of(job)
    assert result.code != 0, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert not result.leftovers, str(result)
    assert seconds < 5, str(result)


IGNORE = """
while True:
    try:
        time.sleep(0.1)
    except KeyboardInterrupt:
        print("ignored", flush=True)
"""


def test_a_second_signal_to_the_ranks_ends_the_job_at_once(jobs: Jobs) -> None:
    with jobs.start(START + IGNORE) as job:
        job.wait_for("script is up")
        send(job, signal.SIGINT, "ranks")
        job.wait_for("ignored")
        time.sleep(0.3)
        send(job, signal.SIGINT, "ranks")
        result, seconds = end_of(job)
    assert_silent(result, 130)
    assert seconds < 2, str(result)


def test_a_second_signal_to_mpirun_ends_the_job_at_once(
    jobs: Jobs, launcher: Launcher
) -> None:
    with jobs.start(START + IGNORE) as job:
        job.wait_for("script is up")
        send(job, signal.SIGINT, "mpirun")
        if launcher.is_mpich:
            job.wait_for("ignored")
            time.sleep(0.3)
            send(job, signal.SIGINT, "mpirun")
        # Open MPI's mpirun kills what ignores it without a second signal.
        result, seconds = end_of(job)
    # MPICH's mpirun ends by itself then, at times with 0.
    assert result.code == 1 or launcher.is_mpich, str(result)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
    assert seconds < 2, str(result)


def test_a_script_that_ignores_a_signal_is_ended_after_a_grace(jobs: Jobs) -> None:
    with jobs.start(START + IGNORE) as job:
        job.wait_for("script is up")
        send(job, signal.SIGINT, "ranks")
        result, seconds = end_of(job)
    assert result.code != 0, str(result)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
    assert seconds < 6, str(result)


def test_a_main_thread_inside_c_is_ended_after_a_grace(jobs: Jobs) -> None:
    # A loop in C that never looks for signals and never gives the lock away.
    stuck = "import collections, itertools\n"
    stuck += "collections.deque(itertools.repeat(0), maxlen=0)\n"
    with jobs.start(START + stuck) as job:
        job.wait_for("script is up")
        time.sleep(0.3)
        send(job, signal.SIGTERM, "ranks")
        result, seconds = end_of(job)
    assert result.code != 0, str(result)
    assert not result.leftovers, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert seconds < 6, str(result)


def test_a_script_may_clean_up_with_its_cluster_after_ctrl_c(jobs: Jobs) -> None:
    script = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    save("clean", client.submit(sum, [1, 2], workers=1).result())
    sys.exit(5)
"""
    with jobs.start(START + script) as job:
        job.wait_for("script is up")
        send(job, signal.SIGINT, "ranks")
        result, seconds = end_of(job)
    assert_silent(result, 5)
    assert jobs.saved("clean") == 3
    assert seconds < 5


def test_finally_blocks_of_the_script_run_at_sigterm(jobs: Jobs) -> None:
    script = "try:\n    time.sleep(60)\nfinally:\n    save('finally', True)\n"
    with jobs.start(START + script) as job:
        job.wait_for("script is up")
        send(job, signal.SIGTERM, "ranks")
        result, seconds = end_of(job)
    assert_silent(result, 143)
    assert jobs.saved("finally") is True
    assert seconds < 5


@pytest.mark.parametrize(
    ("number", "target"),
    [
        (signal.SIGUSR1, "ranks"),
        (signal.SIGUSR2, "ranks"),
        # MPICH's mpirun itself dies by SIGUSR2.
        (signal.SIGUSR1, "mpirun"),
    ],
)
def test_a_warning_signal_reaches_the_script_and_ends_nothing(
    jobs: Jobs, launcher: Launcher, number: int, target: str
) -> None:
    script = """
import gpumpi
came = []
gpumpi.on_preempt(came.append)
print("callback is set", flush=True)
end = time.monotonic() + 2
while not came and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(0.3)
save("came", came)
save("on", client.submit(sum, [1, 2], workers=1).result())
"""
    with jobs.start(START + script) as job:
        job.wait_for("callback is set")
        send(job, number, target)
        result, _ = end_of(job)
    assert_good(result)
    assert jobs.saved("on") == 3
    if target == "ranks" or launcher.is_openmpi:
        # MPICH's mpirun does not pass these signals on.
        assert jobs.saved("came") == [number]


def test_a_failing_callback_is_shown_and_ends_nothing(jobs: Jobs) -> None:
    script = """
import gpumpi
gpumpi.on_preempt(lambda number: 1 / 0)
print("callback is set", flush=True)
time.sleep(1.5)
save("on", True)
"""
    with jobs.start(START + script) as job:
        job.wait_for("callback is set")
        send(job, signal.SIGUSR1, "ranks")
        result, _ = end_of(job)
    assert result.code == 0, str(result)
    assert not result.leftovers, str(result)
    assert result.stderr.count("ZeroDivisionError") == 1, str(result)
    assert jobs.saved("on") is True


def test_nothing_outlives_a_killed_mpirun(jobs: Jobs) -> None:
    with jobs.start(START + WAIT, ranks=3) as job:
        job.wait_for("script is up")
        job.ranks()
        job.signal(signal.SIGKILL)
        result = job.wait(5, grace=5)
    assert result.code == -signal.SIGKILL, str(result)
    assert not result.leftovers, str(result)
    assert "Traceback" not in result.stderr, str(result)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(
    jobs: Jobs, number: int, code: int
) -> None:
    # Python prints what __del__ raises and goes on.
    result = jobs.run(
        f"""
        import os, time
        class Finalised:
            def __del__(self):
                os.kill(os.getpid(), {int(number)})
                [None for _ in range(1000)]
        Finalised()
        time.sleep(30)
        """,
        ranks=2,
    )
    assert result.code == code, str(result)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
