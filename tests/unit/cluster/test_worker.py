from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import distributed.client
import psutil
import pytest
from distributed import Client

from gpumpi.cluster.security import JobSecurity
from gpumpi.cluster.worker import EventLoop, WorkerHost
from gpumpi.config import resolve
from gpumpi.errors import DeadlineError, StartError
from gpumpi.layout import RankPlan

if TYPE_CHECKING:
    from pathlib import Path

LONG = 30.0


@pytest.fixture
def loop():
    errors: list[str] = []
    loop = EventLoop(errors.append)
    loop.errors = errors
    yield loop
    loop.stop(5)


def make_plan(**changes: Any) -> RankPlan:
    facts = {
        "rank": 0,
        "host": "n0",
        "local_rank": 0,
        "local_size": 1,
        "worker": True,
        "name": 3,
        "nthreads": 2,
        "memory_limit_bytes": 2**30,
        "address": "127.0.0.1",
        "cpus": 2,
    }
    return RankPlan(**(facts | changes))


@pytest.fixture
def host(cluster, loop, tmp_path):
    """Make a worker's host for the cluster of the session; closed at the end."""
    made: list[WorkerHost] = []

    def make(address: str | None = None, **given: Any) -> WorkerHost:
        made.append(
            WorkerHost(
                loop,
                make_plan(),
                resolve(given, environment={}, dask_config={}),
                address or cluster.address,
                JobSecurity(cluster.credentials),
                str(tmp_path),
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close(10)


# ------------------------------------------------------------------ the event loop


def test_the_loop_is_one_daemon_thread(loop) -> None:
    async def where() -> threading.Thread:
        return threading.current_thread()

    assert loop.submit(where()).result(10) is loop.thread
    assert loop.thread.daemon
    assert loop.thread.name == "gpumpi"


def test_the_result_of_a_coroutine_comes_back_and_so_does_its_error(loop) -> None:
    async def work(value: int) -> float:
        return 42 / value

    assert loop.submit(work(2)).result(10) == 21
    with pytest.raises(ZeroDivisionError):
        loop.submit(work(0)).result(10)
    assert loop.errors == []


def test_stopping_ends_the_thread_and_twice_is_fine(loop) -> None:
    loop.stop(5)
    assert not loop.thread.is_alive()
    loop.stop(5)


def test_an_error_that_nobody_awaits_is_told(loop, eventually) -> None:
    def bad() -> None:
        raise ValueError("odd")

    loop.asyncio_loop.call_soon_threadsafe(bad)
    eventually(lambda: loop.errors, "the error is told")
    (text,) = loop.errors
    assert text.endswith("ValueError: odd")


def test_a_result_that_nobody_looked_at_ends_nothing(loop) -> None:
    async def forget() -> None:
        async def bad() -> None:
            raise ValueError("odd")

        import asyncio

        task = asyncio.ensure_future(bad())
        await asyncio.sleep(0.05)
        del task
        gc.collect()

    loop.submit(forget()).result(10)
    assert loop.errors == []


def test_clients_of_the_process_share_the_loop(loop, cluster, monkeypatch) -> None:
    monkeypatch.setattr(distributed.client, "LoopRunner", distributed.client.LoopRunner)
    loop.share_with_clients()
    security = JobSecurity(cluster.credentials)
    with Client(cluster.address, security=security, timeout=LONG) as client:
        assert client.loop is loop.tornado_loop
    # Closing a client must not stop what the worker lives on.
    assert loop.thread.is_alive()
    loop.stop(5)
    with Client(cluster.address, security=security, timeout=LONG) as client:
        assert client.loop is not loop.tornado_loop


# --------------------------------------------------------------------- the worker


def test_a_worker_is_what_the_plan_says(host, cluster, tmp_path, eventually) -> None:
    preload = tmp_path / "loaded_first.py"
    preload.write_text("def dask_setup(worker): worker.found = 'preloaded'")
    one = host(preload=[str(preload)], resources="GPU=2")
    assert (one.address, one.finished) == ("", False)
    one.start(time.monotonic() + LONG)
    assert one.address.startswith("tls://127.0.0.1:")
    eventually(lambda: cluster.process.workers == {3: one.address}, "it is counted")
    worker = one._server
    assert (worker.name, worker.state.nthreads) == (3, 2)
    assert worker.memory_manager.memory_limit == 2**30
    assert worker.state.total_resources == {"GPU": 2.0}
    assert worker.found == "preloaded"
    assert str(worker.local_directory).startswith(str(tmp_path))
    one.close(10)
    assert one.finished
    eventually(lambda: cluster.process.workers == {}, "it has left")


def test_a_worker_has_no_http_server_of_its_own(host) -> None:
    def listening() -> set[int]:
        return {
            each.laddr.port
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }

    before = listening()
    one = host()
    one.start(time.monotonic() + LONG)
    assert listening() - before == {int(one.address.rpartition(":")[2])}


def test_a_worker_computes_in_this_process(host, cluster) -> None:
    one = host()
    one.start(time.monotonic() + LONG)
    with Client(cluster.address, security=JobSecurity(cluster.credentials)) as client:
        found = client.submit(
            lambda: (threading.current_thread().name, os.getpid()), pure=False
        )
        name, pid = found.result(timeout=LONG)
    assert pid == os.getpid()
    assert "Dask-Default-Threads" in name


def test_closing_does_not_wait_for_tasks_that_run(host, cluster, tmp_path) -> None:
    one = host()
    one.start(time.monotonic() + LONG)

    def work(flag: Path) -> None:
        flag.touch()
        while flag.exists():
            time.sleep(0.02)

    flag = tmp_path / "flag"
    with Client(cluster.address, security=JobSecurity(cluster.credentials)) as client:
        future = client.submit(work, flag, pure=False)
        while not flag.exists():
            time.sleep(0.02)
        begin = time.monotonic()
        one.close(10)
        assert time.monotonic() - begin < 3
        assert future.status == "pending"
    flag.unlink()


def test_closing_one_that_never_started_does_nothing(host) -> None:
    one = host()
    one.close(1)
    assert not one.finished


def test_a_preload_that_fails_is_told_with_its_error(host, tmp_path) -> None:
    preload = tmp_path / "broken.py"
    preload.write_text("raise ValueError('no licence')")
    one = host(preload=[str(preload)])
    with pytest.raises(StartError) as caught:
        one.start(time.monotonic() + LONG)
    assert "starting the worker: ValueError: no licence" in str(caught.value)
    assert "Next: look at the options of the worker" in str(caught.value)


def test_a_scheduler_that_does_not_answer_is_told_at_the_deadline(host) -> None:
    one = host(address="tls://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        one.start(begin + 0.5)
    assert time.monotonic() - begin < 3
    assert "starting the worker: it has not started within 0.5 s" in str(caught.value)
