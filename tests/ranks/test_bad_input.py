"""Requests that cannot be right: refused with one clear message, in time."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from ranks.support import assert_failed, gpumpi_lines, run_gpumpi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.result import JobResult
    from ranks.support import Jobs

pytestmark = pytest.mark.ranks

NOT_RUN = "print('the script ran', flush=True)"


def assert_refused(result: JobResult, *words: str, code: int) -> None:
    """One message on stderr with these words, in time, and nothing was run."""
    assert_failed(result, *words, code=code)
    assert len(gpumpi_lines(result)) <= 2, result  # a header and the cause
    assert "the script ran" not in result.stdout, result
    assert "gpumpi 0" not in result.stdout, result
    assert result.seconds < 15, result


USAGE: dict[str, tuple[list[Any], list[Any], list[str]]] = {
    "missing-script": ([], ["/no/such/script.py"], ["No such file", "/no/such/"]),
    "folder-as-script": ([], ["/tmp"], ["it is a folder", "-m"]),
    "missing-module": (["-m"], ["no.such.module"], ["no.such.module"]),
    "nothing-to-do": ([], [], ["neither a script", "--scheduler-file"]),
    "unknown-option": (["--gpu-list", "0"], ["x.py"], ["--gpu-list", "--help"]),
    "wrong-value": (["--layout", "mixed"], ["x.py"], ["mixed", "shared, dedicated"]),
    "wrong-number": (["--nthreads", "0"], ["x.py"], ["nthreads", "from 1"]),
    "wrong-bytes": (["--memory-limit", "much"], ["x.py"], ["memory_limit", "4GiB"]),
    "join-without-file": (["--join"], [], ["--join", "--scheduler-file"]),
    "join-with-script": (
        ["--join", "--scheduler-file", "/tmp/s.json"],
        ["x.py"],
        ["--join", "x.py"],
    ),
    "gpus-without-gpus": (["--gpus", "0"], [__file__], ["--gpus 0", "no GPU"]),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_request_is_refused_once_with_2(jobs: Jobs, case: str) -> None:
    options, target, words = USAGE[case]
    result = jobs.run(target, options=options, ranks=2)
    assert_refused(result, *words, code=2)


def test_dedicated_needs_a_second_rank(jobs: Jobs) -> None:
    result = jobs.run(NOT_RUN, options=["--layout", "dedicated"], ranks=1)
    assert_refused(result, "dedicated", "1 rank", "mpirun -n 2", code=2)


@pytest.mark.parametrize("mpirun", [True, False], ids=["mpirun", "no-launcher"])
def test_a_syntax_error_is_shown_before_anything_starts(
    jobs: Jobs, mpirun: bool
) -> None:
    script = jobs.write("print('the script ran')\nx = (1,\n", name="wrong.py")
    result = jobs.run(script, mpirun=mpirun)
    assert_failed(result, "wrong.py", "not valid Python")
    text = "\n".join(gpumpi_lines(result))
    assert "line 2" in text
    assert "SyntaxError: '(' was never closed" in text
    assert text.count("SyntaxError") == 1
    assert "the script ran" not in result.stdout
    assert result.seconds < 15


@pytest.mark.parametrize("source", ["environment", "dask-config"])
def test_an_unknown_option_elsewhere_is_refused_with_the_nearest(
    jobs: Jobs, source: str
) -> None:
    env = {"environment": "GPUMPI_NTHREAD", "dask-config": "DASK_GPUMPI__NTHREAD"}
    result = jobs.run(NOT_RUN, env={env[source]: "2"})
    near = {"environment": "write GPUMPI_NTHREADS", "dask-config": "gpumpi.nthreads"}
    assert_refused(result, "is not an option", near[source], code=2)


@pytest.mark.parametrize("option", ["--scheduler-port", "--dashboard-address"])
def test_a_port_in_use_is_named(jobs: Jobs, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host = "" if option == "--scheduler-port" else "127.0.0.1:"
        result = jobs.run(NOT_RUN, options=[option, f"{host}{port}"])
    assert_refused(result, str(port), option, "use", code=1)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: None, "is not a folder"),
    "open-to-all": (lambda folder: (folder.mkdir(), folder.chmod(0o777)), "chmod go-w"),
    "read-only": (lambda folder: folder.mkdir(), "is not writable for this user"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_unfit_for_the_scheduler_file_is_refused(
    jobs: Jobs, case: str
) -> None:
    make, words = FOLDERS[case]
    folder = jobs.folder / "shared"
    make(folder)
    wrapper = []
    if case == "read-only":
        # Root writes anywhere but into a read-only mount.
        mount = f"mount -t tmpfs -o ro none {folder}"
        wrapper = ["unshare", "-m", "bash", "-c", f'{mount} && exec "$@"', "bash"]
    file = folder / "scheduler.json"
    result = jobs.run([], options=["--scheduler-file", file], wrapper=wrapper)
    assert_refused(result, str(folder), words, code=1)
    assert not folder.exists() or list(folder.iterdir()) == []


def content(**changes: Any) -> str:
    """Text of a scheduler file as gpumpi writes it."""
    facts = {
        "address": "tcp://127.0.0.1:9",
        "job": "0123456789ab",
        "host": "node1",
        "pid": 1,
        "started": time.time() - 600,
        "ranks": 2,
        "nanny": False,
        "secure": False,
    }
    return json.dumps(facts | changes)


def write_file(path: Path, case: str) -> None:
    """A scheduler file that is no good."""
    if case == "absent":
        return
    text = content()
    path.write_text({"half": text[:60], "empty": "", "other": "{}"}.get(case, text))
    if case == "foreign":
        os.chown(path, 12345, -1)


FILES = {
    "absent": "it is not there",
    "empty": "it is empty",
    "half": "it is half-written",
    "other": "it is half-written or not one of gpumpi's",
    "foreign": "it belongs to user 12345",
    "stale": "nobody answers at tcp://127.0.0.1:9",
}


@pytest.mark.parametrize("case", FILES)
def test_a_scheduler_file_that_is_no_good_is_refused_by_connect(
    tmp_path: Path, case: str
) -> None:
    if case == "foreign" and os.getuid() != 0:
        pytest.skip("only root can give a file to another user")
    path = tmp_path / "scheduler.json"
    write_file(path, case)
    begin = time.monotonic()
    done = run_gpumpi("connect", path)
    assert time.monotonic() - begin < 15
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gpumpi: "), done.stderr
    assert FILES[case] in lines[0]
    assert str(path) in lines[0]
    assert "Next: " in lines[0]


@pytest.mark.parametrize("case", ["absent", "half", "stale"])
def test_ranks_that_join_refuse_a_scheduler_file_that_is_no_good(
    jobs: Jobs, case: str
) -> None:
    path = jobs.folder / "scheduler.json"
    write_file(path, case)
    result = jobs.run([], options=["--scheduler-file", path, "--join"])
    assert_refused(result, FILES[case], str(path), code=1)
    assert path.exists() is (case != "absent")


@pytest.mark.parametrize("option", ["--log-dir", "--local-directory"])
def test_a_folder_that_cannot_be_made_is_named(jobs: Jobs, option: str) -> None:
    file = jobs.write("", name="file")
    result = jobs.run(NOT_RUN, options=[option, file / "below"])
    assert_refused(result, str(file / "below"), "Not a directory", option, code=1)


def test_help_and_version_are_said_once(jobs: Jobs) -> None:
    for option, words in (("--help", "Usage: "), ("--version", "gpumpi 0")):
        result = jobs.run([], options=[option])
        assert result.code == 0, result
        assert result.stderr == "", result
        assert not result.leftovers, result
        assert result.stdout.count(words) == 1
