"""Supervised workers: killed, restarted, and gone with their ranks."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from helpers.processes import read_environ
from ranks.support import (
    assert_failed,
    assert_good,
    end_of,
    host_name,
)

if TYPE_CHECKING:
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.faults]

START = """
import os, time
from dask.distributed import Client
from results import save
client = Client()

def pids():
    found = client.run(lambda dask_worker: [dask_worker.name, os.getpid()])
    return {str(name): pid for name, pid in found.values()}
"""


def test_a_killed_worker_is_restarted_and_the_answer_right(jobs: Jobs) -> None:
    script = """
save("pids", pids())
futures = client.map(lambda x: time.sleep(0.1) or x, range(60), pure=False)
print("computing", flush=True)
client.wait_for_workers(2)
save("sum", sum(client.gather(futures)))
client.wait_for_workers(2)
save("after", pids())
"""
    with jobs.start(START + script, options=["--nanny"]) as job:
        job.wait_for("computing")
        time.sleep(0.5)
        before = jobs.saved("pids")
        os.kill(before["1"], signal.SIGKILL)
        result, _ = end_of(job, 60)
    assert_failed(
        result, "rank 1", host_name(), "supervised worker", "started again", code=0
    )
    assert len(result.stderr_without_launcher.splitlines()) == 1, str(result)
    assert "2 supervised CPU workers" in result.stdout
    assert jobs.saved("sum") == sum(range(60))
    after = jobs.saved("after")
    assert after["0"] == before["0"]
    assert after["1"] not in before.values()


def test_a_killed_worker_is_back_within_5_s(jobs: Jobs) -> None:
    script = """
def addresses():
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {w["name"]: address for address, w in workers.items()}

before = addresses()
os.kill(pids()["1"], 9)
begin = time.monotonic()
while addresses().get(1, before[1]) == before[1]:
    time.sleep(0.02)
client.submit(sum, [1], workers=1).result()
save("seconds", time.monotonic() - begin)
"""
    result = jobs.run(START + script, options=["--nanny"])
    assert_failed(result, "rank 1", "started again", code=0)
    assert jobs.saved("seconds") < 5


def test_client_restart_gives_new_workers_in_silence(jobs: Jobs) -> None:
    script = """
before = pids()
client.restart()
after = pids()
save("pids", [before, after])
save("works", client.submit(sum, [1, 2]).result())
"""
    assert_good(jobs.run(START + script, options=["--nanny"]))
    before, after = jobs.saved("pids")
    assert sorted(before) == sorted(after) == ["0", "1"]
    assert not set(before.values()) & set(after.values())
    assert jobs.saved("works") == 3


def test_client_restart_without_nanny_says_why_it_cannot(jobs: Jobs) -> None:
    script = """
errors = []
for act in (client.restart, lambda: client.restart_workers(list(workers))):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    try:
        act()
    except Exception as error:
        errors.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
save("errors", errors)
save("works", client.submit(sum, [1, 2]).result())
"""
    assert_good(jobs.run(START + script))
    errors = jobs.saved("errors")
    assert len(errors) == 2
    assert "--nanny" in errors[0]
    assert "MPI ranks" in errors[0]
    assert "nanny" in errors[1]  # Dask's own words
    assert jobs.saved("works") == 3


def test_worker_children_are_no_ranks(jobs: Jobs) -> None:
    script = """
save("environ", list(client.run(lambda: dict(os.environ)).values()))
save("pids", pids())
print("script is up", flush=True)
time.sleep(60)
"""
    with jobs.start(START + script, options=["--nanny"]) as job:
        job.wait_for("script is up")
        children = jobs.saved("pids").values()
        outside = [read_environ(pid) for pid in children]
        names = {n for env in (*outside, *jobs.saved("environ")) for n in env}
        ranks = {process.pid for process in job.ranks().values()}
        assert not ranks & set(children)
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    assert result.code == 143, str(result)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)
    launchers = ("PMI_", "PMIX_", "OMPI_", "PRTE_", "HYDI_", "MPI_LOCAL")
    found = {name for name in names if name.startswith(launchers)}
    # Open MPI's library sets PMIX_MCA_psec itself, in C; it makes no rank.
    assert {name for name in found if not name.startswith("PMIX_MCA_")} == set()


def test_a_killed_rank_takes_its_worker_along(jobs: Jobs) -> None:
    script = "print('script is up', flush=True)\ntime.sleep(60)\n"
    with jobs.start(START + script, ranks=3, options=["--nanny"]) as job:
        job.wait_for("script is up")
        job.signal_ranks(signal.SIGKILL, [1])
        result, seconds = end_of(job)
    assert result.code != 0, str(result)
    assert not result.leftovers, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert seconds < 5, str(result)


def test_restarted_children_do_not_run_a_script_without_main_guard(
    jobs: Jobs,
) -> None:
    script = """
import os
with open(os.environ["RESULTS"] + "/runs", "a") as file:
    file.write(f"{os.getpid()}\\n")
import gpumpi
session = gpumpi.initialize(nanny=True)
client = session.client

def double(x):
    return 2 * x

before = client.submit(double, 1).result()
client.restart()
from results import save
save("works", [before, client.submit(double, 2).result()])
"""
    assert_good(jobs.run(script, gpumpi=False))
    assert jobs.saved("works") == [2, 4]
    # Each rank once.
    assert len((jobs.results / "runs").read_text().split()) == 2


def test_mpi_in_a_supervised_task_says_that_it_is_not_there(jobs: Jobs) -> None:
    script = """
def world():
    from mpi4py import MPI
    return MPI.COMM_WORLD.size

save("error", str(client.submit(world).exception()))
"""
    result = jobs.run(START + script, options=["--nanny"])
    assert result.code == 0, str(result)
    assert not result.leftovers, str(result)
    # A world of one rank would be wrong without a word.
    assert "--nanny" in jobs.saved("error")
    assert "gpumpi:" not in result.stderr, str(result)
