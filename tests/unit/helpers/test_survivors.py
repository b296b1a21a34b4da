"""Test of the check, in conftest, that no process outlives its test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[2]

SUITE = """
import pytest
from helpers.job import Job

def start():
    code = "import time; print('up', flush=True); time.sleep(300)"
    job = Job.start(["-c", code], gpumpi=False, mpirun=False)
    job.wait_for("up")
    return job

@pytest.fixture(scope="module")
def shared():
    with start() as job:
        yield job

@pytest.fixture
def own():
    with start() as job:
        yield job

def test_forgets():
    start()

def test_first_use(shared, own):
    assert shared.processes()

def test_second_use(shared):
    assert shared.processes()
"""


def test_only_the_test_that_forgets_fails(script: Callable[..., Path]) -> None:
    path = script(SUITE, "test_suite.py")
    words = ["-p", "conftest", "-p", "no:cacheprovider", "-q", "-rA", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, path],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed, 1 error" in done.stdout, done.stdout
    assert "ERROR test_suite.py::test_forgets" in done.stdout
    assert "processes outlive the test" in done.stdout
