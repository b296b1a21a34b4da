"""``--scheduler-file``: a cluster that serves, and ranks that join and leave it."""

from __future__ import annotations

import json
import shlex
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.command import make_environ
from ranks.support import (
    assert_good,
    assert_silent,
    end_of,
    run_gpumpi,
    run_python,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.job import Job
    from helpers.launcher import Launcher
    from ranks.support import Jobs

pytestmark = pytest.mark.ranks

CONNECT = """
import sys, gpumpi
client = gpumpi.connect(sys.argv[1])
"""


@pytest.fixture
def file(jobs: Jobs) -> Path:
    """Return where the cluster of the test writes its scheduler file."""
    return jobs.folder / "scheduler.json"


@pytest.fixture
def serve(jobs: Jobs, file: Path) -> Callable[..., Job]:
    """Return a function that starts a cluster and waits until it serves."""

    def start(*options: str, **how: object) -> Job:
        job = jobs.start([], options=["--scheduler-file", file, *options], **how)
        job.wait_for("dashboard: ")
        return job

    return start


def workers_of(file: Path) -> list[int]:
    """Names of a cluster's workers."""
    code = CONNECT + "print([w['name'] for w in client.scheduler_info(n_workers=-1)"
    done = run_python(code + "['workers'].values()])", file)
    assert (done.returncode, done.stderr) == (0, ""), done
    return sorted(json.loads(done.stdout))


def test_a_cluster_serves_through_private_files_until_it_is_told_to_end(
    file: Path, serve: Callable[..., Job]
) -> None:
    with serve() as job:
        pem = file.with_name("scheduler.json.pem")
        for path in (file, pem):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "PRIVATE KEY" not in file.read_text()

        code = CONNECT + "print(client.submit(sum, [1, 2]).result(), client.ncores())"
        done = run_python(code, file)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith("3 {'tls://127.0.0.1:")

        shown = run_gpumpi("connect", file)
        assert (shown.returncode, shown.stderr) == (0, ""), shown
        assert "tls://127.0.0.1:" in shown.stdout
        assert "2 workers" in shown.stdout

        stock = (
            "from dask.distributed import Client\nimport sys\n"
            "for client in (Client(scheduler_file=sys.argv[1]), Client()):\n"
            "    print(client.submit(sum, [3, 4]).result())\n"
        )
        shell = (
            f'eval "$({sys.executable} -m gpumpi connect --env {file})"\n'
            f"exec {sys.executable} -c {shlex.quote(stock)} {file}"
        )
        done = subprocess.run(
            ["bash", "-c", shell],
            env=make_environ(mpirun=False),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout == "7\n7\n"

        job.signal_ranks(signal.SIGTERM)
        result, seconds = end_of(job)
    assert_silent(result, 143)
    assert seconds < 5
    assert not file.exists()
    assert not pem.exists()


@pytest.mark.parametrize(
    ("number", "target"), [(signal.SIGINT, "ranks"), (signal.SIGINT, "mpirun")]
)
def test_ctrl_c_ends_a_cluster(
    file: Path,
    serve: Callable[..., Job],
    launcher: Launcher,
    number: int,
    target: str,
) -> None:
    with serve() as job:
        job.ranks()
        (job.signal if target == "mpirun" else job.signal_ranks)(number)
        result, seconds = end_of(job)
    forced = launcher.is_openmpi and target == "mpirun"
    assert_silent(result, 1 if forced else 130)
    assert seconds < 5
    assert not file.exists()


def test_client_shutdown_ends_a_cluster_with_0(
    file: Path, serve: Callable[..., Job]
) -> None:
    with serve() as job:
        done = run_python(CONNECT + "client.shutdown()", file)
        assert (done.returncode, done.stderr) == (0, ""), done
        result, seconds = end_of(job)
    assert_good(result)
    assert seconds < 5
    assert not file.exists()


def test_joined_ranks_get_free_names_and_leave_without_loss(
    jobs: Jobs, file: Path, serve: Callable[..., Job]
) -> None:
    holder = """
import sys, time
import gpumpi
client = gpumpi.connect(sys.argv[1])
futures = [client.submit(pow, 10, n, workers=n, pure=False) for n in (2, 3)]
client.gather(futures)
print("held", flush=True)
client.wait_for_workers(2)
while len(client.scheduler_info(n_workers=-1)["workers"]) > 2:
    time.sleep(0.05)
print(client.gather(futures), flush=True)
"""
    with serve() as cluster:
        join = ["--scheduler-file", file, "--join"]
        with jobs.start([], options=join) as joined:
            joined.wait_for("rank  host")
            assert workers_of(file) == [0, 1, 2, 3]
            client = subprocess.Popen(
                [sys.executable, "-c", holder, str(file)],
                env=make_environ(mpirun=False),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert client.stdout is not None
            assert client.stdout.readline() == "held\n"
            joined.signal_ranks(signal.SIGTERM)
            left, seconds = end_of(joined)
            out, err = client.communicate(timeout=20)
        assert_silent(left, 143)
        assert seconds < 5
        assert (out, err) == ("[100, 1000]\n", "")
        assert file.exists()
        assert workers_of(file) == [0, 1]
        cluster.signal_ranks(signal.SIGTERM)
        result, _ = end_of(cluster)
    assert_silent(result, 143)


def test_joined_ranks_end_by_themselves_with_their_cluster(
    jobs: Jobs, file: Path, serve: Callable[..., Job]
) -> None:
    join = ["--scheduler-file", file, "--join"]
    with serve(ranks=1) as cluster, jobs.start([], options=join) as joined:
        joined.wait_for("rank  host")
        done = run_python(CONNECT + "client.shutdown()", file)
        assert (done.returncode, done.stderr) == (0, ""), done
        result, _ = end_of(cluster)
        left, seconds = end_of(joined)
    assert_good(result)
    assert_good(left)
    assert seconds < 5


@pytest.mark.parametrize("options", [[], ["--nanny"]])
def test_joined_ranks_fail_when_their_cluster_is_killed(
    jobs: Jobs, file: Path, serve: Callable[..., Job], options: list[str]
) -> None:
    join = ["--scheduler-file", file, "--join", *options]
    with serve(ranks=1) as cluster, jobs.start([], options=join) as joined:
        joined.wait_for("rank  host")
        cluster.ranks()
        cluster.signal(signal.SIGKILL)
        cluster.wait(5, grace=5)
        left, seconds = end_of(joined)
    assert left.code == 1, str(left)
    assert left.stderr.startswith("gpumpi: the scheduler at tls://127.0.0.1:"), left
    assert "Traceback" not in left.stderr, str(left)
    assert not left.leftovers, str(left)
    assert seconds < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_later_cluster_keeps_its_file_when_the_first_ends(
    file: Path, serve: Callable[..., Job], number: int
) -> None:
    with serve(ranks=1) as first, serve(ranks=1) as second:
        first.signal_ranks(number)
        ended, _ = end_of(first)
        if number == signal.SIGTERM:
            assert_silent(ended, 143)
        assert workers_of(file) == [0]
        second.signal_ranks(signal.SIGTERM)
        assert_silent(end_of(second)[0], 143)
    assert not file.exists()


def test_a_killed_cluster_takes_its_files_along(
    file: Path, serve: Callable[..., Job]
) -> None:
    with serve() as job:
        job.ranks()
        job.signal(signal.SIGKILL)
        result = job.wait(5, grace=5)
    assert result.code == -signal.SIGKILL, str(result)
    assert not result.leftovers, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert [path.name for path in file.parent.glob("*scheduler.json*")] == []


def test_clients_without_the_credentials_are_refused(
    file: Path, serve: Callable[..., Job]
) -> None:
    with serve() as job:
        code = """
            import json, sys
            from distributed import Client
            from gpumpi.cluster.security import Credentials, JobSecurity
            address = json.load(open(sys.argv[1]))["address"]
            for security in (None, JobSecurity(Credentials.make())):
                for where in (address, address.replace("tls", "tcp")):
                    try:
                        Client(where, security=security, timeout=1)
                    except (OSError, TypeError, ValueError, RuntimeError) as error:
                        print("refused")
        """
        done = run_python(code, file)
        assert done.returncode == 0, done
        assert done.stdout == "refused\n" * 4

        file.with_name("scheduler.json.pem").chmod(0o644)
        open_to_all = run_gpumpi("connect", file)
        file.with_name("scheduler.json.pem").unlink()
        missing = run_gpumpi("connect", "--env", file)
        for refused, word in ((open_to_all, "mode is 644"), (missing, "No such file")):
            assert refused.returncode == 1, refused
            lines = refused.stderr.splitlines()
            assert len(lines) == 1, refused
            assert lines[0].startswith("gpumpi: reading the credentials"), refused
            assert word in lines[0]
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    assert result.code == 143, str(result)
    assert not result.leftovers, str(result)
