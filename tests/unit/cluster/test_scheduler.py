from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time

import psutil
import pytest
from distributed import Client, Worker

from gpumpi.cluster.security import Credentials, JobSecurity
from gpumpi.errors import DeadlineError, JobError, StartError

LONG = 30.0


def soon(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def with_tls(credentials: Credentials) -> dict[str, str]:
    return {"key": credentials.key, "certificate": credentials.certificate}


async def with_worker(address: str, name: int, *, nanny: bool = False) -> str:
    async with Worker(address, name=name, nthreads=1, host="127.0.0.1") as worker:
        return worker.address


# -------------------------------------------------------------------- clients


def test_a_client_with_the_credentials_connects(cluster) -> None:
    security = JobSecurity(cluster.credentials)
    with Client(cluster.address, security=security, timeout=LONG) as client:
        assert client.scheduler_info()["address"] == cluster.address
        assert client.scheduler.address.startswith("tls://127.0.0.1:")


def test_a_client_with_credentials_of_another_job_is_refused(cluster) -> None:
    security = JobSecurity(Credentials.make())
    with pytest.raises(OSError):
        Client(cluster.address, security=security, timeout=1)


def test_a_client_without_credentials_is_refused(cluster) -> None:
    with pytest.raises((OSError, TypeError, ValueError)):
        Client(cluster.address, timeout=1)


def test_a_client_that_leaves_tls_out_is_refused(cluster) -> None:
    with pytest.raises(OSError):
        Client(cluster.address.replace("tls://", "tcp://"), timeout=1)


def test_a_certificate_is_asked_for_before_anything_is_read(cluster) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = cluster.address.removeprefix("tls://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        context.wrap_socket(raw) as connection,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        connection.recv(1)


def test_restarting_workers_inside_ranks_is_refused_with_the_reason(cluster) -> None:
    security = JobSecurity(cluster.credentials)
    with (
        Client(cluster.address, security=security, timeout=LONG) as client,
        pytest.raises(JobError) as caught,
    ):
        client.restart()
    assert "restarting the workers: they run inside their MPI ranks" in str(
        caught.value
    )
    assert "Next: start the job with --nanny" in str(caught.value)


def test_restarting_some_workers_is_refused_too(cluster) -> None:
    security = JobSecurity(cluster.credentials)
    with (
        Client(cluster.address, security=security, timeout=LONG) as client,
        pytest.raises(JobError, match="they run inside their MPI ranks"),
    ):
        client.restart_workers(["tls://127.0.0.1:1"])


def test_the_credentials_are_in_no_argument_and_no_environment(cluster) -> None:
    process = psutil.Process(cluster.process.pid)
    shown = " ".join(process.cmdline()) + " ".join(process.environ().values())
    for line in cluster.credentials.pem.splitlines()[1:4]:
        assert line not in shown


def test_no_port_of_it_is_open_but_its_own(cluster) -> None:
    listening = {
        f"tls://{each.laddr.ip}:{each.laddr.port}"
        for each in psutil.Process(cluster.process.pid).net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {cluster.address}


# ------------------------------------------------------------- its life and end


def test_it_counts_its_workers_and_ends_without_a_trace(
    start_scheduler, orders, eventually, is_running
) -> None:
    process = start_scheduler()
    assert process.address == ""
    address = process.configure(orders(supervised=True), soon())
    assert address == process.address
    assert address.startswith("tcp://127.0.0.1:")
    assert process.dashboard_port is None
    left: list[dict[str, object]] = []
    ended: list[int] = []
    process.watch(ended.append, left.append)

    async def come_and_go() -> str:
        async with Worker(address, name=7, nthreads=1, host="127.0.0.1") as worker:
            while process.workers != {7: worker.address}:
                await asyncio.sleep(0.02)
            return worker.address

    worker_address = asyncio.run(asyncio.wait_for(come_and_go(), LONG))
    eventually(lambda: left, "the worker's leaving is told")
    assert left == [
        {
            "event": "left",
            "name": 7,
            "address": worker_address,
            "lost": False,
            "silent": False,
        }
    ]
    assert process.workers == {}
    # Supervised workers may be restarted.
    with Client(address, timeout=LONG) as client:
        client.restart(timeout=5)
    pid = process.pid
    assert psutil.Process(pid).children() == []
    begin = time.monotonic()
    process.end(soon())
    assert time.monotonic() - begin < 5
    assert not psutil.pid_exists(pid)
    assert process.ended.is_set()
    assert process.lost_with is None
    assert ended == []
    assert not process.shut_down


def test_it_ends_before_it_was_given_its_orders(start_scheduler, is_running) -> None:
    process = start_scheduler()
    process.end(soon())
    assert not psutil.pid_exists(process.pid)
    assert process.lost_with is None


def test_ending_twice_is_fine(start_scheduler) -> None:
    process = start_scheduler()
    process.end(soon(0))
    process.end(soon(0))
    assert not psutil.pid_exists(process.pid)


def test_one_that_does_not_end_in_time_is_killed(start_scheduler) -> None:
    process = start_scheduler()
    os.kill(process.pid, signal.SIGSTOP)
    begin = time.monotonic()
    process.end(begin + 0.2)
    assert time.monotonic() - begin < 3
    assert not psutil.pid_exists(process.pid)


def test_its_death_is_told_with_the_code(start_scheduler, orders, eventually) -> None:
    process = start_scheduler()
    process.configure(orders(), soon())
    ended: list[int] = []
    process.watch(ended.append, lambda event: None)
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: ended, "its death is told")
    assert ended == [-signal.SIGKILL]
    assert process.lost_with == -signal.SIGKILL
    assert process.ended.is_set()


def test_a_client_may_shut_it_down(start_scheduler, orders, eventually) -> None:
    process = start_scheduler()
    address = process.configure(orders(), soon())
    ended: list[int] = []
    process.watch(ended.append, lambda event: None)
    with Client(address, timeout=LONG) as client:
        client.shutdown()
    eventually(process.ended.is_set, "its process has ended")
    assert process.shut_down
    assert process.lost_with is None
    assert ended == []


# --------------------------------------------------------------------- failures


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_named(start_scheduler, orders, taken_port) -> None:
    process = start_scheduler()
    with pytest.raises(StartError) as caught:
        process.configure(orders(port=taken_port), soon())
    text = str(caught.value)
    assert text.startswith(f"starting the scheduler on 127.0.0.1, port {taken_port}")
    assert "in use" in text
    assert "Next: leave --scheduler-port and --dashboard-address out" in text
    assert "\n" not in text


def test_a_dashboard_port_in_use_is_named(start_scheduler, orders, taken_port) -> None:
    process = start_scheduler()
    http_address = f"127.0.0.1:{taken_port}"
    with pytest.raises(StartError) as caught:
        process.configure(orders(http_address=http_address), soon())
    assert f"dashboard {http_address}: " in str(caught.value)
    assert "in use" in str(caught.value)


def test_an_address_of_another_host_is_named(start_scheduler, orders) -> None:
    process = start_scheduler()
    with pytest.raises(StartError) as caught:
        process.configure(orders(host="192.0.2.1"), soon())
    assert "starting the scheduler on 192.0.2.1, port any" in str(caught.value)
    assert "assign requested address" in str(caught.value)


def test_one_that_dies_at_its_start_is_told_with_its_code(
    start_scheduler, orders
) -> None:
    process = start_scheduler()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(StartError, match="its process ended with code -9"):
        process.configure(orders(), soon())


def test_one_that_is_late_is_told_with_the_time(start_scheduler, orders) -> None:
    process = start_scheduler()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineError) as caught:
        process.configure(orders(), soon(0.1))
    os.kill(process.pid, signal.SIGKILL)
    assert "starting the scheduler: it does not listen after 0.1" in str(caught.value)


def test_a_dashboard_gets_a_port_of_its_own(start_scheduler, orders) -> None:
    process = start_scheduler()
    process.configure(orders(http_address="127.0.0.1:0"), soon())
    assert process.dashboard_port > 0
    with socket.create_connection(("127.0.0.1", process.dashboard_port), timeout=5):
        pass
