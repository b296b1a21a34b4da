"""Ranks and the scheduler killed or frozen while the job runs."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from ranks.support import (
    SCHEDULER,
    assert_failed,
    assert_good,
    end_of,
    find_process,
    gpumpi_lines,
    host_name,
    line_with,
)

if TYPE_CHECKING:
    from helpers.launcher import Launcher
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.faults]

START = """
import time
from dask.distributed import Client
from results import save
client = Client()
"""
IDLE = START + "print('script is up', flush=True)\ntime.sleep(60)\n"
COMPUTE = """
futures = client.map(time.sleep, [0.2] * 600, pure=False)
print("script is up", flush=True)
client.gather(futures)
"""


@pytest.mark.parametrize("work", [IDLE, START + COMPUTE], ids=["idle", "compute"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_and_is_named(
    jobs: Jobs, work: str, rank: int
) -> None:
    with jobs.start(work, ranks=3) as job:
        job.wait_for("script is up")
        job.signal_ranks(signal.SIGKILL, [rank])
        result, seconds = end_of(job)
    line = assert_failed(result, "was lost", code=None)
    assert line.startswith(f"rank {rank} on host {host_name()} "), str(result)
    assert seconds < 5, str(result)


@pytest.mark.parametrize("work", [IDLE, START + COMPUTE], ids=["idle", "compute"])
def test_a_killed_scheduler_ends_the_job_with_one_line(jobs: Jobs, work: str) -> None:
    with jobs.start(work, ranks=3) as job:
        job.wait_for("script is up")
        find_process(job, SCHEDULER).kill()
        result, seconds = end_of(job)
    assert_failed(result, "rank 0", "scheduler", "signal 9", code=1)
    assert seconds < 5, str(result)


FROZEN = """
print("script is up", flush=True)
futures = client.map(lambda x: time.sleep(0.2) or x, range(40), pure=False)
save("sum", sum(client.gather(futures)))
print("computed", flush=True)
"""
TTL = ("--worker-ttl", 5, "--stop-timeout", 3)


def test_a_frozen_worker_is_lost_by_name_and_its_work_done_elsewhere(
    jobs: Jobs,
) -> None:
    with jobs.start(START + FROZEN, ranks=3, options=TTL) as job:
        job.wait_for("script is up")
        time.sleep(0.5)
        job.signal_ranks(signal.SIGSTOP, [1])
        job.wait_for("computed", timeout=40)
        result, seconds = end_of(job)
    assert jobs.saved("sum") == sum(range(40))
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    # Besides, Dask's worker complains when Open MPI continues it to end it.
    assert len(gpumpi_lines(result)) == 2, str(result)
    line_with(result, "rank 1", host_name(), "silent for more than 5 s")
    line_with(result, "rank 1", host_name(), "did not end within 3 s", "aborted")
    assert seconds < 8, str(result)


def test_a_frozen_worker_that_goes_on_in_time_costs_nothing_but_a_line(
    jobs: Jobs,
) -> None:
    with jobs.start(START + FROZEN, ranks=3, options=TTL) as job:
        job.wait_for("script is up")
        time.sleep(0.5)
        job.signal_ranks(signal.SIGSTOP, [1])
        job.wait_for("silent for more than", timeout=40)
        job.signal_ranks(signal.SIGCONT, [1])
        result, _ = end_of(job)
    assert jobs.saved("sum") == sum(range(40))
    assert result.code == 0, str(result)
    assert not result.leftovers, str(result)
    # Besides, Dask's worker complains of what it missed.
    assert gpumpi_lines(result) == [line_with(result, "rank 1", "silent for more")]


def test_two_jobs_at_once_do_not_know_of_each_other(jobs: Jobs) -> None:
    script = jobs.write(
        """
        import sys, time
        from dask.distributed import Client
        from results import save
        client = Client()
        save(f"up-{sys.argv[1]}", True)
        time.sleep(1)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        save(f"job-{sys.argv[1]}", sorted(workers))
        """
    )
    with jobs.start(script, "a") as first, jobs.start(script, "b") as second:
        results = [first.wait(60), second.wait(60)]
    for result in results:
        assert_good(result)
    found = [jobs.saved("job-a"), jobs.saved("job-b")]
    assert len(set(found[0] + found[1])) == 4


def test_the_end_of_one_job_leaves_another_alone(jobs: Jobs) -> None:
    other = START + "save('up', 1)\ntime.sleep(3)\nsave('other', 1)\n"
    with jobs.start(other) as second, jobs.start(IDLE) as first:
        first.wait_for("script is up")
        jobs.saved("up", timeout=20)
        first.signal_ranks(signal.SIGKILL, [1])
        broken, _ = end_of(first)
        good, _ = end_of(second)
    assert broken.code != 0, str(broken)
    assert_good(good)
    assert jobs.saved("other") == 1


def test_ten_short_jobs_in_a_row_leave_nothing(jobs: Jobs, launcher: Launcher) -> None:
    script = jobs.write("from dask.distributed import Client\nClient()\n")
    for _ in range(10):
        assert_good(jobs.run(script, ranks=2))
