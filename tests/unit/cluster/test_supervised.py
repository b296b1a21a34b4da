"""Workers that are supervised children of their rank, in a real rank's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

RANK = """
import json, os, sys, threading, time, traceback
def end(kind, error, trace):
    traceback.print_exception(kind, error, trace)
    os._exit(1)
sys.excepthook = end
from gpumpi.cluster.scheduler import SchedulerProcess
from gpumpi.cluster.worker import EventLoop, WorkerHost
from gpumpi.config import resolve
from gpumpi.layout import RankPlan
print("a script must not be run again", file=sys.stderr)
os.environ |= {"PMI_RANK": "0", "PMI_SIZE": "1", "KEPT": "x"}
scheduler = SchedulerProcess()
address = scheduler.configure(json.loads(sys.argv[1]), time.monotonic() + 30)
plan = RankPlan(rank=0, host="n0", local_rank=0, local_size=1, worker=True, name=5,
                nthreads=1, memory_limit_bytes=2**30, address="127.0.0.1", cpus=2)
given = {"nanny": True, "log_dir": sys.argv[2]}
options = resolve(given, environment={}, dask_config={})
host = WorkerHost(EventLoop(print), plan, options, address, None, sys.argv[2])
host.start(time.monotonic() + 40)
from distributed import Client
with Client(address) as client:
    found = client.submit(lambda: [os.getpid(), dict(os.environ)], pure=False).result()
    known = [host.address, scheduler.workers]
    print(json.dumps([*known, *found]), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def rank(tmp_path_factory, orders):
    folder = tmp_path_factory.mktemp("rank")
    (folder / "rank.py").write_text(
        f"if True:\n{RANK.replace(chr(10), chr(10) + '  ')}"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            str(folder / "rank.py"),
            json.dumps(orders(supervised=True)),
            str(folder / "logs"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line, process.stderr.read()
    yield process, json.loads(line), folder
    process.kill()
    process.wait()


def test_the_worker_is_a_child_with_the_name_of_its_rank(rank) -> None:
    process, (address, workers, pid, _), _ = rank
    assert pid != process.pid
    assert psutil.Process(pid).ppid() == process.pid
    assert workers == {"5": address}


def test_the_worker_does_not_take_itself_for_a_rank(rank) -> None:
    *_, environment = rank[1]
    assert environment["KEPT"] == "x"
    assert not {"PMI_RANK", "PMI_SIZE"} & set(environment)


def test_signals_to_a_whole_group_are_the_ranks_to_answer(rank, is_running) -> None:
    *_, pid, _ = rank[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(pid, number)
    time.sleep(0.3)
    assert is_running(pid)


def test_the_worker_has_a_log_file_with_its_process(rank) -> None:
    pid = rank[1][2]
    names = [path.name for path in (rank[2] / "logs").glob("*.log")]
    assert f"rank-0005-worker-{pid}.log" in names


def test_the_worker_ends_when_its_rank_is_killed(
    rank, eventually, is_running, finish
) -> None:
    process, (*_, pid, _), _ = rank
    assert is_running(pid)
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), "the worker is gone", seconds=5)
    _, _, errors = finish(process)
    assert errors.count("a script must not be run again") == 1
