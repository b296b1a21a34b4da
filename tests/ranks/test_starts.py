"""Starts that fail or hang on one rank: named, in time, on all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ranks.support import (
    assert_failed,
    assert_good,
    end_of,
    gpumpi_lines,
    host_name,
    line_with,
)

if TYPE_CHECKING:
    from ranks.support import Jobs

pytestmark = [pytest.mark.ranks, pytest.mark.faults]

NOT_RUN = "print('the script ran', flush=True)"
TIMEOUT = ("--start-timeout", 6)


@pytest.mark.parametrize("act", ["exec sleep 60", "exec /no/such/python"])
def test_a_rank_that_never_comes_to_mpi_ends_the_job_at_the_timeout(
    jobs: Jobs, act: str
) -> None:
    wrapper = jobs.on_rank(1, act)
    options = ["--start-timeout", 4]
    with jobs.start(NOT_RUN, ranks=2, wrapper=wrapper, options=options) as job:
        result, seconds = end_of(job)
    assert result.code != 0, str(result)
    assert "Traceback" not in result.stderr, str(result)
    assert not result.leftovers, str(result)
    assert "the script ran" not in result.stdout
    assert seconds < 9, str(result)
    # Some launchers end the others as soon as one has failed.
    if "sleep" in act or seconds > 4:
        words = "rank 0", host_name(), "MPI_Init", "within 4 s", "--start-timeout"
        line_with(result, *words)


def broken_package(jobs: Jobs, act: str) -> str:
    """Folder of a package `distributed` that does something at its import."""
    package = jobs.folder / "shadow" / "distributed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(act)
    return str(package.parent)


def test_a_rank_whose_imports_fail_is_named_with_the_cause(jobs: Jobs) -> None:
    shadow = broken_package(jobs, "raise ImportError('libbroken.so: no such file')")
    wrapper = jobs.on_rank(1, f"export PYTHONPATH={shadow}")
    with jobs.start(NOT_RUN, ranks=3, wrapper=wrapper) as job:
        result, seconds = end_of(job)
    line = assert_failed(result, "libbroken.so: no such file", "pip install")
    assert line.startswith(f"rank 1 on host {host_name()}: "), str(result)
    assert gpumpi_lines(result)[-1] == line
    assert "1 of 3 rank(s)" in gpumpi_lines(result)[0]
    assert "the script ran" not in result.stdout
    assert seconds < 15, str(result)


def test_a_rank_that_hangs_in_its_imports_is_named_at_the_timeout(jobs: Jobs) -> None:
    shadow = broken_package(jobs, "import time\ntime.sleep(60)")
    wrapper = jobs.on_rank(1, f"export PYTHONPATH={shadow}")
    with jobs.start(NOT_RUN, ranks=3, wrapper=wrapper, options=TIMEOUT) as job:
        result, seconds = end_of(job)
    assert_failed(result, "no answer within 6", "rank 1", "--start-timeout")
    assert "waiting for rank 1 (" in result.stdout, str(result)
    assert "the script ran" not in result.stdout
    assert seconds < 11, str(result)


PRELOAD = """
import time
def dask_setup(worker):
    if worker.name == 1:
        {act}
"""


@pytest.mark.parametrize("options", [[], ["--nanny"]], ids=["in-rank", "nanny"])
def test_a_worker_that_cannot_start_is_named_with_the_cause(
    jobs: Jobs, options: list[str]
) -> None:
    preload = jobs.write(PRELOAD.format(act="raise OSError('no licence')"))
    words = [*options, "--preload", str(preload)]
    with jobs.start(NOT_RUN, ranks=3, options=words) as job:
        result, seconds = end_of(job)
    assert result.code == 1, str(result)
    assert not result.leftovers, str(result)
    # A supervised worker says the cause itself; its rank knows that it did not start.
    line = line_with(result, "Nanny failed" if options[:1] else "no licence")
    assert "no licence" in result.stderr
    assert line.startswith(f"rank 1 on host {host_name()}: "), str(result)
    assert gpumpi_lines(result)[-1] == line
    assert "the script ran" not in result.stdout
    assert seconds < 15, str(result)


def test_a_worker_that_hangs_at_its_start_is_named_at_the_timeout(jobs: Jobs) -> None:
    preload = jobs.write(PRELOAD.format(act="time.sleep(60)"))
    options = [*TIMEOUT, "--preload", str(preload)]
    with jobs.start(NOT_RUN, ranks=3, options=options) as job:
        result, seconds = end_of(job)
    assert_failed(result, "rank 1", host_name(), "--start-timeout")
    assert f"waiting for rank 1 on host {host_name()} (" in result.stdout, str(result)
    assert "the script ran" not in result.stdout
    assert seconds < 11, str(result)


def test_a_rank_that_is_late_is_waited_for_by_name(jobs: Jobs) -> None:
    wrapper = jobs.on_rank(1, "export LATE=1")
    preload = jobs.write("import os, time\ntime.sleep(3 * ('LATE' in os.environ))\n")
    options = ["--preload", preload]
    result = jobs.run(NOT_RUN, wrapper=wrapper, options=options)
    assert_good(result)
    assert f"waiting for rank 1 on host {host_name()} (" in result.stdout
    assert "the script ran" in result.stdout
