"""An attacker on the same host: every port, and every place a key could leak to."""

from __future__ import annotations

import asyncio
import http.client
import signal
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from distributed.comm import connect
from helpers.processes import is_python
from ranks.support import assert_good, assert_silent, end_of, run_python

from gpumpi.cluster.security import Credentials, JobSecurity

if TYPE_CHECKING:
    from helpers.job import Job
    from ranks.support import Jobs

pytestmark = pytest.mark.ranks

NANNY = pytest.mark.parametrize("options", [[], ["--nanny"]], ids=["in-rank", "nanny"])

SERVE = """
import time
from dask.distributed import Client
client = Client()
client.submit(sum, [1, 2]).result()
print("script is up", flush=True)
time.sleep(60)
"""


def listening(job: Job) -> set[tuple[str, int]]:
    """Addresses that Python processes of a job listen on, to connect to."""
    any_address = {"0.0.0.0": "127.0.0.2", "::": "[::1]"}
    return {
        (any_address.get(end.laddr.ip, end.laddr.ip), end.laddr.port)
        for process in job.processes()
        if is_python(process)
        for end in process.net_connections("tcp")
        if end.status == "LISTEN"
    }


async def ask(address: str, **arguments: Any) -> str:
    """Ask a Dask server who it is; an empty text when it refuses."""
    comm = None
    try:
        async with asyncio.timeout(3):
            comm = await connect(address, timeout=2, **arguments)
            await comm.write({"op": "identity", "reply": True})
            return str(await comm.read())
    except (OSError, TimeoutError):
        return ""
    finally:
        if comm is not None:
            comm.abort()


def attack(ports: set[tuple[str, int]]) -> dict[str, str]:
    """What Dask clients without the credentials get from each port."""
    foreign = JobSecurity(Credentials.make()).get_connection_args("client")

    async def all_at_once() -> dict[str, str]:
        asked = {}
        for host, port in ports:
            asked[f"plain {port}"] = ask(f"tcp://{host}:{port}")
            asked[f"foreign {port}"] = ask(f"tls://{host}:{port}", **foreign)
        answers = await asyncio.gather(*asked.values())
        return dict(zip(asked, answers, strict=True))

    return asyncio.run(all_at_once())


def get(url: str, timeout: float = 10) -> int:
    """Status of an HTTP request; 0 when the other side speaks no HTTP."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def get_all(ports: set[tuple[str, int]], *paths: str) -> dict[str, int]:
    """Status by URL, for all paths of all ports at once."""
    urls = [f"http://{host}:{port}/{path}" for host, port in ports for path in paths]
    with ThreadPoolExecutor(len(urls)) as pool:
        found = pool.map(lambda url: get(url, timeout=2), urls)
        return dict(zip(urls, found, strict=True))


@pytest.fixture(scope="module")
def mpi_ports(shared_jobs: Jobs) -> int:
    """Return how many ports a plain MPI program opens beyond the loopback."""
    script = """
import time
from mpi4py import MPI
MPI.COMM_WORLD.barrier()
print("up", flush=True)
time.sleep(60)
"""
    with shared_jobs.start(script, gpumpi=False) as job:
        job.wait_for("up")
        return len([host for host, _ in listening(job) if host != "127.0.0.1"])


@NANNY
def test_no_port_of_a_job_answers_a_stranger(
    jobs: Jobs, options: list[str], mpi_ports: int
) -> None:
    with jobs.start(SERVE, options=options) as job:
        job.wait_for("script is up")
        ports = listening(job)
        # Scheduler, dashboard and two workers at least.
        assert len([host for host, _ in ports if host == "127.0.0.1"]) >= 4
        # What MPI libraries do is theirs; gpumpi adds nothing to it.
        assert len([host for host, _ in ports if host != "127.0.0.1"]) == mpi_ports
        assert {name: text for name, text in attack(ports).items() if text} == {}
        pages = "", "status", "json/identity.json", "metrics", "info/main/workers.html"
        assert set(get_all(ports, *pages).values()) <= {0, 404}
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    assert result.code == 143, str(result)
    assert not result.leftovers, str(result)
    assert "Traceback" not in result.stderr, str(result)


def test_the_dashboard_answers_under_its_secret_path_alone(jobs: Jobs) -> None:
    pytest.importorskip("bokeh", reason="the dashboard needs bokeh")
    with jobs.start(SERVE) as job:
        line = job.wait_for("dashboard: http")
        link = line.split("dashboard: ")[1]
        job.wait_for("script is up")
        assert link.endswith("/status")
        assert get(link) == 200
        root, secret, _ = link.rsplit("/", 2)
        assert len(secret) >= 20
        assert get(f"{root}/status") == 404
        assert get(f"{root}/{'x' * len(secret)}/status") == 404
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    assert_silent(result, 143)


def test_without_dashboard_no_process_speaks_http(jobs: Jobs) -> None:
    with jobs.start(SERVE, options=["--no-dashboard"]) as job:
        job.wait_for("script is up")
        ports = listening(job)
        assert set(get_all(ports, "status").values()) == {0}
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    assert result.code == 143, str(result)
    assert not result.leftovers, str(result)
    assert "dashboard" not in result.stdout


def where_is(secrets: list[bytes], places: dict[str, bytes]) -> list[str]:
    """Names of the places that hold one of the secrets."""
    return [
        name for name, data in places.items() if any(text in data for text in secrets)
    ]


def read(path: Path) -> bytes:
    """Bytes of a file; none when it is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@NANNY
def test_the_key_is_in_no_command_environment_log_or_file(
    jobs: Jobs, options: list[str]
) -> None:
    file, logs = jobs.folder / "private" / "scheduler.json", jobs.folder / "logs"
    file.parent.mkdir()
    options = [*options, "--scheduler-file", str(file), "--log-dir", str(logs)]
    script = SERVE.replace("print(", "client.submit(lambda: 1 / 0).exception()\nprint(")
    with jobs.start(script, options=options) as job:
        job.wait_for("script is up")
        pem = file.with_name("scheduler.json.pem").read_bytes()
        key = pem.partition(b"-----END PRIVATE KEY-----")[0].splitlines()[1:]
        assert len(key) >= 2
        places = {}
        for process in job.processes():
            for name in ("cmdline", "environ"):
                path = Path(f"/proc/{process.pid}/{name}")
                places[str(path)] = read(path)
        assert len(places) >= 10
        for folder in (job.tmpdir, jobs.results):
            files = [path for path in folder.rglob("*") if path.is_file()]
            places |= {str(path): read(path) for path in files}
        job.signal_ranks(signal.SIGTERM)
        result, _ = end_of(job)
    places |= {str(path): read(path) for path in logs.iterdir()}
    places |= {"stdout": result.stdout.encode(), "stderr": result.stderr.encode()}
    assert where_is(key, places) == []
    assert where_is([b"PRIVATE KEY"], places) == []
    assert where_is(key, {"pem": pem}) == ["pem"]  # the search itself works
    assert result.code == 143, str(result)
    assert not result.leftovers, str(result)


def test_security_none_is_open_and_loud(jobs: Jobs) -> None:
    file = jobs.folder / "scheduler.json"
    options = ["--security", "none", "--scheduler-file", file]
    with jobs.start([], options=options) as job:
        job.wait_for("SECURITY IS OFF", stream="stdout")
        assert sorted(path.name for path in jobs.folder.glob("*.json*")) == [file.name]
        code = (
            "import sys; from dask.distributed import Client\n"
            "client = Client(scheduler_file=sys.argv[1])\n"
            "print(client.submit(sum, [1, 2]).result()); client.shutdown()"
        )
        done = run_python(code, file)
        assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", ""), done
        result, _ = end_of(job)
    assert_good(result)
    assert "with TLS" not in result.stdout


def test_files_of_a_job_are_private(jobs: Jobs) -> None:
    script = SERVE.replace("time.sleep(60)", "time.sleep(1)")
    with jobs.start(script, env={"GPUMPI_LOG_DIR": None}) as job:
        job.wait_for("script is up")
        scratch = list(job.tmpdir.iterdir())
        modes = {path.name: path.stat().st_mode & 0o077 for path in scratch}
        result, _ = end_of(job)
    assert_good(result)
    assert len([name for name in modes if name.startswith("gpumpi-")]) == 2
    assert set(modes.values()) == {0}
