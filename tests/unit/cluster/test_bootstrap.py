"""The start of a lone rank where it fails; the ranks tier has the others."""

from __future__ import annotations

import signal
import time

import pytest

START = """
import sys, time
from gpumpi.cluster.bootstrap import start_rank
from gpumpi.cluster.start import Refused, Start
from gpumpi.rank.launcher import Launcher, LauncherName, read_launcher
def nothing(*words):
    pass
def start(launcher=None, **changes):
    arguments = dict(quiet=True, dashboard=False) | changes.pop("arguments", {})
    wish = dict(prepare=nothing, announce=nothing, show_plan=nothing) | changes
    try:
        asked = Start(arguments=arguments, **wish)
        return start_rank(asked, launcher or read_launcher())
    except Refused as refused:
        sys.exit(refused.exit_code)
"""


@pytest.fixture
def run(run_python):
    def run(code: str, **options):
        ended = run_python(START + code, **options)
        return ended.returncode, ended.stdout, ended.stderr

    return run


def test_an_error_of_the_door_is_told_with_the_rank_and_its_code(run) -> None:
    code, out, errors = run(
        """
from gpumpi.errors import OptionError
def prepare(options):
    raise OptionError("no such thing")
start(prepare=prepare)
"""
    )
    assert (code, out) == (2, "")
    first, second = errors.splitlines()
    assert first == "gpumpi: the start failed on 1 of 1 rank(s)"
    assert second.startswith("gpumpi: rank 0 on host ")
    assert second.endswith(": no such thing")


def test_an_error_that_is_not_ours_is_told_with_its_place(run) -> None:
    code, _, errors = run("start(prepare=lambda options: 1 / 0)")
    assert code == 1
    assert "ZeroDivisionError: division by zero (<string>, line " in errors
    assert "Traceback" not in errors


def test_a_fault_after_the_start_ends_the_job_with_its_traceback(run) -> None:
    code, _, errors = run("start(announce=lambda job: 1 / 0)\ntime.sleep(60)")
    assert code == 1
    assert errors.count("Traceback") == 1
    last = errors.splitlines()[-1]
    assert last.startswith("gpumpi: rank 0 on host ")
    assert "the start failed: ZeroDivisionError: division by zero" in last


def test_a_folder_that_cannot_be_written_is_told(run, tmp_path) -> None:
    (tmp_path / "file").touch()
    arguments = {"local_directory": str(tmp_path / "file" / "x")}
    code, _, errors = run(f"start(arguments={arguments!r})")
    assert code == 1
    assert "making the scratch folder" in errors


def test_a_log_folder_that_cannot_be_made_is_told(run, tmp_path) -> None:
    (tmp_path / "file").touch()
    arguments = {"log_dir": str(tmp_path / "file" / "x")}
    code, _, errors = run(f"start(arguments={arguments!r})")
    assert code == 1
    assert f"opening a log file in {tmp_path}/file/x: Not a directory" in errors
    assert "Next: choose another --log-dir" in errors


def test_a_start_that_takes_too_long_is_cut(run) -> None:
    begin = time.monotonic()
    code, _, errors = run("start(arguments={'start_timeout': 0.05})")
    assert code == 1
    assert "starting the scheduler" in errors or "starting the worker" in errors
    assert "raise --start-timeout" in errors
    assert time.monotonic() - begin < 15


def test_of_the_ranks_of_a_host_the_first_speaks_of_its_limits(run) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
start(Launcher(
    name=LauncherName.MPICH, rank={rank}, size=2, local_rank={rank}, local_size=2
))
"""
    assert run(code.format(rank=1)) == (1, "", "")
    ended, out, errors = run(code.format(rank=0))
    assert (ended, out) == (1, "")
    assert errors.startswith("gpumpi: looking for free file descriptors: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_it_in_silence(
    start_python, finish, number
) -> None:
    child = start_python(
        START
        + """
def prepare(options):
    print("preparing", flush=True)
    time.sleep(30)
start(prepare=prepare)
"""
    )
    assert child.stdout.readline() == "preparing\n"
    begin = time.monotonic()
    child.send_signal(number)
    assert finish(child) == (128 + number, "", "")
    assert time.monotonic() - begin < 5
