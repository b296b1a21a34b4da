from __future__ import annotations

import asyncio
import socket
import time

import pytest
from distributed import Worker

from gpumpi.cluster.join import ask, read_cluster, retire_workers
from gpumpi.cluster.scheduler_file import SchedulerFile
from gpumpi.cluster.security import Credentials, JobSecurity
from gpumpi.config import Options, resolve
from gpumpi.errors import SchedulerFileError

LONG = 30.0


def joining(path) -> Options:
    given = {"join": True, "scheduler_file": str(path)}
    return resolve(given, environment={}, dask_config={})


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "s.json"


def test_a_cluster_that_answers_is_read(cluster, path) -> None:
    file = cluster.write_file(path, ranks=3)
    found = read_cluster(joining(path), 2, time.monotonic() + LONG)
    assert found.file == file
    assert found.credentials == cluster.credentials
    assert found.first_name == 3
    assert found.local is True


def test_new_names_are_above_those_of_all_workers(cluster, path) -> None:
    cluster.write_file(path, ranks=2)
    security = JobSecurity(cluster.credentials)

    async def main() -> int:
        worker = Worker(cluster.address, name=7, security=security, host="127.0.0.1")
        named = Worker(cluster.address, name="x", security=security, host="127.0.0.1")
        async with worker, named:
            # Not on this loop: it must be free to serve its workers meanwhile.
            found = await asyncio.to_thread(
                read_cluster, joining(path), 2, time.monotonic() + LONG
            )
            return found.first_name

    assert asyncio.run(main()) == 8


def test_two_that_join_at_once_get_names_of_their_own(cluster, path) -> None:
    cluster.write_file(path, ranks=2)
    first, second = (
        read_cluster(joining(path), ranks, time.monotonic() + LONG).first_name
        for ranks in (3, 1)
    )
    assert second == first + 3


def test_who_it_is_is_asked_with_the_credentials(cluster, path) -> None:
    file = cluster.write_file(path)
    found = ask(path, file, cluster.credentials, time.monotonic() + LONG)
    assert found["address"] == cluster.address
    assert found["n_workers"] == 0


def test_a_stale_file_is_told_with_who_wrote_it_and_when(path) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{gone.getsockname()[1]}"
    file = SchedulerFile(
        address=address,
        job="old",
        host="node9",
        pid=4711,
        started=time.time() - 7205,
        ranks=1,
        nanny=False,
        secure=False,
    )
    begin = time.monotonic()
    with pytest.raises(SchedulerFileError) as caught:
        ask(path, file, None, begin + 1)
    assert time.monotonic() - begin < 4
    text = str(caught.value)
    assert f"connecting to the cluster of {path}" in text
    assert f"nobody answers at {address}" in text
    assert "process 4711 on host node9 wrote the file 120 min ago" in text
    assert "Next: remove the file if that job has ended" in text


def test_wrong_credentials_get_no_answer(cluster, path) -> None:
    file = cluster.write_file(path)
    with pytest.raises(SchedulerFileError, match="connecting to the cluster"):
        ask(path, file, Credentials.make(), time.monotonic() + 1)


def test_retired_workers_leave_their_data_to_the_others(cluster) -> None:
    from distributed import Client

    security = JobSecurity(cluster.credentials)
    options = {"security": security, "host": "127.0.0.1", "nthreads": 1}

    async def main() -> tuple[int, int]:
        async with (
            Worker(cluster.address, name=0, **options) as stays,
            Worker(cluster.address, name=1, **options) as goes,
            Client(cluster.address, security=security, asynchronous=True) as client,
        ):
            future = client.submit(lambda: 41 + 1, workers=[goes.address])
            await future
            await retire_workers(cluster.address, security, [goes.address])
            return await future, len(stays.data)

    assert asyncio.run(main()) == (42, 1)
