from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest

from gpumpi.errors import StartError
from gpumpi.rank import limits
from gpumpi.rank.limits import check_limits

LIMITED = """
    import resource, sys
    from gpumpi.errors import StartError
    from gpumpi.rank.limits import check_limits
    soft, hard = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    held = [open("/dev/null") for _ in range(int(sys.argv[3]))]
    try:
        check_limits(local_ranks=0)
    except StartError as error:
        print(error)
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(run_python) -> None:
    ended = run_python(LIMITED, 200, 1000, 0)
    assert (ended.stdout, ended.stderr) == ("1000 1000\n", "")


def test_too_few_free_file_descriptors_are_told_with_both_numbers(run_python) -> None:
    ended = run_python(LIMITED, 200, 200, 150)
    message, _ = ended.stdout.splitlines()
    found = re.fullmatch(
        r"looking for free file descriptors: (\d+) of 200 are left; at least 128 are "
        r"needed on every rank\. Next: raise the hard limit \(ulimit -Hn\) on this "
        r"host",
        message,
    )
    assert found is not None, message
    assert 30 <= int(found[1]) <= 50


def test_descriptors_that_are_in_use_count(run_python) -> None:
    assert len(run_python(LIMITED, 300, 300, 0).stdout.splitlines()) == 1
    assert len(run_python(LIMITED, 300, 300, 200).stdout.splitlines()) == 2


@pytest.fixture
def kept_limit():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], hard))


@pytest.mark.usefixtures("kept_limit")
def test_without_mpi_shared_memory_is_not_looked_at(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_SHARED_MEMORY_NEEDED_BYTES", 2**60)
    check_limits(local_ranks=0)


@pytest.mark.usefixtures("kept_limit")
def test_too_little_shared_memory_is_told_with_both_numbers(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_SHARED_MEMORY_NEEDED_BYTES", 2**60)
    with pytest.raises(StartError) as caught:
        check_limits(local_ranks=3)
    text = str(caught.value)
    assert text.startswith("looking for shared memory for MPI: ")
    assert "are free in /dev/shm; 3145728.0 TiB are needed for 3 rank(s)" in text
    assert "(--shm-size)" in text


@pytest.mark.usefixtures("kept_limit")
def test_every_rank_of_the_host_needs_its_part(monkeypatch) -> None:
    stat = os.statvfs("/dev/shm")
    free = stat.f_bavail * stat.f_frsize
    monkeypatch.setattr(limits, "_SHARED_MEMORY_NEEDED_BYTES", free // 3)
    check_limits(local_ranks=2)
    with pytest.raises(StartError, match="are needed for 4 rank"):
        check_limits(local_ranks=4)


@pytest.mark.usefixtures("kept_limit")
def test_a_host_without_shared_memory_is_left_to_mpi(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_SHARED_MEMORY", Path("/no/such/folder"))
    check_limits(local_ranks=1000)


@pytest.mark.usefixtures("kept_limit")
def test_this_machine_is_good_enough() -> None:
    check_limits(local_ranks=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
