"""Fixtures of the unit tier: children in fresh interpreters, waits, a cluster."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from gpumpi.rank.launcher import is_launcher_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The machine is shared: an example that is late says nothing.
hypothesis.settings.register_profile("unit", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unit")


def _environment(changes: dict[str, str] | None) -> dict[str, str]:
    """What a child gets: no launcher, no options of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not is_launcher_variable(name)
        and not name.startswith(("GPUMPI_", "SLURM_", "PYTHONUNBUFFERED"))
    }
    return kept | (changes or {})


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a fresh interpreter and give what it ended with and wrote."""

    def run(
        code: str,
        *words: object,
        env: dict[str, str] | None = None,
        timeout: float = 60,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
            env=_environment(env),
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def run_module() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m ...`` in a fresh interpreter."""

    def run(
        *words: object, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            env=_environment(env),
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start code in a fresh interpreter; killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(
        code: str, *words: object, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
            env=_environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture(scope="session")
def finish() -> Callable[..., tuple[int, str, str]]:
    """Wait for the end of a process: its code, and the rest of what it writes.

    ``communicate()`` would lose what a ``readline()`` before it has read ahead.
    """

    def wait(
        process: subprocess.Popen[str], words: str | None = None
    ) -> tuple[int, str, str]:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(words or "")
                process.stdin.close()
        errors: list[str] = []
        reader = threading.Thread(
            target=lambda: errors.append(process.stderr.read()), daemon=True
        )
        reader.start()
        out = process.stdout.read()
        reader.join()
        return process.wait(30), out, errors[0]

    return wait


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Wait until something is true, or fail with its name."""

    def wait(true: Callable[[], object], what: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                pytest.fail(f"within {seconds} s: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def is_running() -> Callable[[int], bool]:
    """Tell whether a process runs; one that has only to be reaped does not."""

    def running(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return running


def make_orders(**changes: Any) -> dict[str, Any]:
    """What rank 0 sends to the scheduler's process, for one host without TLS."""
    return {
        "config": {"distributed.admin.tick.limit": "10s"},
        "path": list(sys.path),
        "log_dir": None,
        "supervised": False,
        "http_address": None,
        "http_prefix": "/secret",
        "host": "127.0.0.1",
        "port": 0,
        "worker_ttl": 60.0,
        "hosts": {"0": "node0", "1": "node1"},
        "tls": None,
    } | changes


@pytest.fixture(scope="session")
def orders() -> Callable[..., dict[str, Any]]:
    """Give the function that makes a scheduler's orders."""
    return make_orders


@dataclass
class Cluster:
    """A scheduler's process with TLS that serves all tests that only ask it."""

    process: Any
    credentials: Any
    address: str

    def write_file(self, path: Path, **changes: Any) -> Any:
        """Write its scheduler file, as rank 0 does."""
        from gpumpi.cluster.scheduler_file import SchedulerFile

        facts: dict[str, Any] = {
            "address": self.address,
            "job": "abc",
            "host": "node0",
            "pid": os.getpid(),
            "started": time.time(),
            "ranks": 2,
            "nanny": False,
            "secure": True,
        }
        file = SchedulerFile(**(facts | changes))
        file.write(path, self.credentials if file.secure else None)
        return file


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start one scheduler with TLS for the whole session."""
    from gpumpi.cluster.scheduler import SchedulerProcess
    from gpumpi.cluster.security import Credentials

    credentials = Credentials.make()
    process = SchedulerProcess()
    address = process.configure(
        make_orders(
            tls={"key": credentials.key, "certificate": credentials.certificate}
        ),
        time.monotonic() + 30,
    )
    yield Cluster(process, credentials, address)
    process.end(time.monotonic() + 10)


@pytest.fixture
def start_scheduler() -> Iterator[Callable[[], Any]]:
    """Start scheduler processes that are gone when the test ends."""
    from gpumpi.cluster.scheduler import SchedulerProcess

    started: list[SchedulerProcess] = []

    def start() -> SchedulerProcess:
        started.append(SchedulerProcess())
        return started[-1]

    yield start
    for process in started:
        process.end(time.monotonic() + 5)
