"""Fixtures of all tests, and what pytest says about the MPI in use."""

from __future__ import annotations

import importlib.metadata
import signal
import textwrap
from typing import TYPE_CHECKING

import pytest
from helpers.job import Job
from helpers.launcher import Launcher, NoLauncher, find_launcher
from helpers.stacks import find_py_spy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Children inherit what is ignored: under nohup, or in the background of a script, the
# tests of signals would test nothing.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

VERSIONS = ("mpi4py", "distributed", "gpumpi")


def pytest_report_header() -> str:
    """Tell which MPI the ranks get, and the versions that matter."""
    try:
        found = find_launcher()
        words = [f"{found.flavour} {found.version}"]
    except NoLauncher as error:
        words = [f"none ({error})"]
    for name in VERSIONS:
        try:
            words.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            words.append(f"{name} not installed")
    words.append(f"py-spy {find_py_spy() or 'not found'}")
    return f"mpi: {', '.join(words)}"


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """Return the mpirun that sits beside the running interpreter."""
    return find_launcher()


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a script, unindented, and gives its path."""

    def write(text: str, name: str = "script.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write


@pytest.fixture(autouse=True)
def _no_survivors() -> Iterator[None]:
    """Fail a test if a process of a job that it started outlives it.

    Jobs of fixtures with a wider scope were started before this one, and are
    left alone. Survivors are killed, so that the next test has the cores.
    """
    before = len(Job.started)
    yield
    survivors = [line for job in Job.started[before:] for line in job.kill()]
    if survivors:
        pytest.fail("processes outlive the test:\n" + "\n".join(survivors))
