"""Hosts and environments that cannot hold a rank: said at the start, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.command import REPOSITORY
from ranks.support import assert_failed, gpumpi_lines, host_name

if TYPE_CHECKING:
    from helpers.launcher import Launcher
    from helpers.result import JobResult
    from ranks.support import Jobs

pytestmark = pytest.mark.ranks

NOT_RUN = "print('the script ran', flush=True)"


def in_bash(act: str) -> list[str]:
    """Words before Python that do `act` in bash on every rank first."""
    return ["bash", "-c", f'{act}; exec "$@"', "bash"]


def assert_refused(result: JobResult, *words: str) -> None:
    """One message on stderr with these words, in time, and nothing was run."""
    assert_failed(result, *words)
    assert len(gpumpi_lines(result)) <= 2, result  # a header and the cause
    assert "the script ran" not in result.stdout, result
    assert result.seconds < 15, result


def test_an_interface_that_one_rank_lacks_is_named_with_what_it_has(
    jobs: Jobs,
) -> None:
    # Network namespaces would part the ranks' MPI as well, so a name is hidden.
    site = jobs.folder / "site"
    site.mkdir()
    jobs.write(
        """
        import psutil
        found = psutil.net_if_addrs()
        del found["lo"]
        psutil.net_if_addrs = lambda: found
        """,
        name="site/sitecustomize.py",
    )
    wrapper = jobs.on_rank(1, f"export PYTHONPATH={site}")
    options = ["--interface", "lo"]
    result = jobs.run(NOT_RUN, ranks=3, options=options, wrapper=wrapper)
    words = f"rank 1 on host {host_name()} has no interface 'lo'", "found there: "
    assert_failed(result, *words, code=2)
    assert len(gpumpi_lines(result)) == 1, str(result)
    assert "the script ran" not in result.stdout


def test_no_space_in_shared_memory_is_said(jobs: Jobs) -> None:
    mount = "mount -t tmpfs -o size=1m none /dev/shm"
    wrapper = ["unshare", "-m", *in_bash(mount)]
    result = jobs.run(NOT_RUN, wrapper=wrapper)
    assert_refused(result, "/dev/shm", "are free", "--shm-size")


def test_no_file_descriptors_left_is_said(jobs: Jobs) -> None:
    result = jobs.run(NOT_RUN, wrapper=in_bash("ulimit -n 64"))
    assert_refused(result, "file descriptors", "of 64 are left", "ulimit -Hn")


def test_a_soft_limit_of_descriptors_is_raised_and_no_problem(jobs: Jobs) -> None:
    text = "from dask.distributed import Client\nClient().submit(sum, [1]).result()"
    result = jobs.run(text, wrapper=in_bash("ulimit -Sn 64"))
    assert result.code == 0, str(result)
    assert result.stderr_without_launcher == "", str(result)
    assert not result.leftovers, str(result)


def site_without(jobs: Jobs, name: str) -> Path:
    """A folder of all installed packages but one."""
    import mpi4py

    site = jobs.folder / "site"
    site.mkdir()
    for entry in Path(mpi4py.__file__).parents[1].iterdir():
        if not entry.name.startswith(name):
            (site / entry.name).symlink_to(entry)
    return site


def test_mpi4py_that_is_not_installed_is_said_with_the_cure(jobs: Jobs) -> None:
    site = site_without(jobs, "mpi4py")
    # -S leaves the real folder of packages out.
    act = f"export PYTHONPATH={site}:{REPOSITORY}; shift; set -- {sys.executable} -S"
    wrapper = ["bash", "-c", f'a=("${{@:2}}"); {act} "${{a[@]}}"; exec "$@"', "bash"]
    result = jobs.run(NOT_RUN, wrapper=wrapper)
    assert_refused(result, "mpi4py", "not installed", "pip install")


def shadow(jobs: Jobs, version: str) -> Path:
    """A folder in which distributed has another version than it has."""
    folder = jobs.folder / "shadow"
    info = folder / f"distributed-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: distributed\nVersion: {version}\n"
    )
    return folder


def test_a_distributed_that_is_too_old_everywhere_is_said_once(jobs: Jobs) -> None:
    env = {"PYTHONPATH": str(shadow(jobs, "2020.1.0"))}
    result = jobs.run(NOT_RUN, ranks=3, env=env)
    words = "distributed", "older than", "2020.1.0 was found", "(and 2 more)"
    assert_refused(result, *words)


def test_a_distributed_that_is_too_old_on_one_rank_is_named(jobs: Jobs) -> None:
    act = f"export PYTHONPATH={shadow(jobs, '2020.1.0')}"
    result = jobs.run(NOT_RUN, ranks=3, wrapper=jobs.on_rank(2, act))
    words = f"rank 2 on host {host_name()}: ", "2020.1.0 was found", "pip install"
    assert_refused(result, *words)


def test_versions_that_differ_between_ranks_are_named(jobs: Jobs) -> None:
    act = f"export PYTHONPATH={shadow(jobs, '2026.7.99')}"
    result = jobs.run(NOT_RUN, ranks=3, wrapper=jobs.on_rank(1, act))
    words = f"rank 1 on host {host_name()} has distributed 2026.7.99", "rank 0"
    assert_refused(result, *words)


def test_a_library_of_another_mpi_than_the_launcher_is_named(
    jobs: Jobs, launcher: Launcher
) -> None:
    other = REPOSITORY / (".venv-openmpi" if launcher.is_mpich else ".venv")
    python = other / "bin" / "python"
    if not python.exists():
        pytest.skip(f"needs the other MPI in {other}")
    wrapper = ["bash", "-c", f'exec {python} "${{@:2}}"', "bash"]
    result = jobs.run(NOT_RUN, wrapper=wrapper)
    names = ("Open MPI", "MPICH")
    library, started = names if launcher.is_mpich else names[::-1]
    assert_refused(result, f"mpi4py loads {library}", started, "same MPI")
