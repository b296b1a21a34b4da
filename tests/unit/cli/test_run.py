"""The command, as a user types it, with one rank and no launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpumpi
from gpumpi.cli.run import run
from gpumpi.cluster.scheduler_file import SchedulerFile

#: As Hydra sets them for the second of two ranks.
SECOND = {"HYDI_CONTROL_FD": "7", "PMI_RANK": "1", "PMI_SIZE": "2"}


@pytest.fixture
def job(run_module, tmp_path):
    """Run ``python -m gpumpi.run``; nothing may be left in TMPDIR."""
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()

    def start(*words: object, script: str | None = None, env=None, **options):
        words_ = list(words)
        if script is not None:
            (tmp_path / "work" / "script.py").write_text(script)
            words_.append("script.py")
        return run_module(
            "gpumpi.run",
            *words_,
            cwd=tmp_path / "work",
            env={"TMPDIR": str(tmp_path / "tmp")} | (env or {}),
            **options,
        )

    yield start
    deadline = time.monotonic() + 2
    while (left := list((tmp_path / "tmp").iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


# ----------------------------------------------------------------- the command line


def parse(*words: str) -> dict[str, object]:
    return run.make_context("gpumpi", list(words)).params


def test_what_follows_the_script_is_the_scripts() -> None:
    found = parse("--nthreads", "2", "script.py", "--nthreads", "3", "-m", "--", "x")
    assert found["target"] == "script.py"
    assert found["arguments"] == ("--nthreads", "3", "-m", "--", "x")
    assert found["nthreads"] == "2"
    assert found["is_module"] is False


def test_a_module_is_named_as_for_python() -> None:
    found = parse("--quiet", "-m", "package.module", "-v")
    assert (found["is_module"], found["target"]) == (True, "package.module")
    assert found["arguments"] == ("-v",)


def test_no_words_are_no_script() -> None:
    assert (parse()["target"], parse()["arguments"]) == (None, ())


@pytest.mark.parametrize("env", [{}, SECOND], ids=["alone", "second rank"])
@pytest.mark.parametrize("word", ["--version", "--help"])
def test_one_rank_answers_questions(run_module, word, env) -> None:
    ended = run_module("gpumpi.run", word, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    if env:
        assert ended.stdout == ""
    elif word == "--version":
        assert ended.stdout == f"gpumpi {gpumpi.__version__}\n"
    else:
        assert (
            "Usage: python -m gpumpi.run [OPTIONS] [TARGET] [ARGUMENTS]" in ended.stdout
        )


def test_an_option_that_is_none_is_one_line_and_2(run_module) -> None:
    ended = run_module("gpumpi.run", "--nthread", "2", "script.py")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("gpumpi: No such option")
    assert "--nthreads" in ended.stderr
    assert ended.stderr.endswith("See: python -m gpumpi.run --help\n")
    assert ended.stderr.count("\n") == 1


def test_of_many_ranks_one_says_so(run_module) -> None:
    ended = run_module("gpumpi.run", "--nthread", "2", "script.py", env=SECOND)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_parsing_imports_nothing_heavy(run_python) -> None:
    code = """
        import sys
        import gpumpi.cli.run
        found = {"distributed", "mpi4py", "dask", "numpy"} & set(sys.modules)
        assert not found, found
    """
    assert run_python(code).stderr == ""


def test_importing_the_door_leaves_garbage_collection_on(run_python) -> None:
    ended = run_python("import gc, gpumpi.run; print(gc.isenabled())")
    assert ended.stdout == "True\n"


# ------------------------------------------------------------------ what is refused


def test_a_bad_value_is_refused_with_what_is_allowed(job) -> None:
    ended = job("--nthreads", "0", script="print('ran')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("gpumpi: the start failed on 1 of 1 rank(s)\n")
    assert ended.stderr.endswith(
        ": nthreads from the arguments: reading a whole number: got '0'; numbers from "
        "1 are allowed. Next: write such a number\n"
    )
    assert "Traceback" not in ended.stderr


def test_two_things_to_do_are_refused(job) -> None:
    ended = job("--join", "--scheduler-file", "s.json", script="print('ran')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "got --join together with the script script.py" in ended.stderr


def test_a_script_that_is_no_python_is_refused_with_its_place(job) -> None:
    ended = job(script="if x\n")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert 'script.py", line 1' in ended.stderr
    assert ended.stderr.count("SyntaxError") == 1


def test_an_interface_that_is_none_is_refused_with_those_there_are(job) -> None:
    ended = job("--interface", "ib99", script="print('ran')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "has no interface 'ib99'" in ended.stderr
    assert "lo (127.0.0.1)" in ended.stderr


# ----------------------------------------------------------------------- what runs

SCRIPT = """
import sys
from distributed import Client
client = Client()
print(sys.argv, client.submit(sum, [40, 2]).result(), flush=True)
print([w["nthreads"] for w in client.scheduler_info()["workers"].values()])
sys.exit(3)
"""


def test_a_plain_client_finds_the_cluster_and_the_code_is_the_scripts(job) -> None:
    ended = job(script=SCRIPT, env={"GPUMPI_NTHREADS": "1"})
    assert (ended.returncode, ended.stderr) == (3, "")
    *banner, words, threads = ended.stdout.splitlines()
    assert words == "['script.py'] 42"
    assert threads == "[1]"
    assert banner[0].startswith(f"gpumpi {gpumpi.__version__} | 1 rank | 1 host |")
    assert any(line.startswith("  dashboard: http://127.0.0.1:") for line in banner)


def test_a_quiet_run_prints_what_the_script_prints_and_logs_all(job, tmp_path) -> None:
    words = ("--quiet", "--no-dashboard", "--security", "none")
    ended = job(*words, "--log-dir", tmp_path / "logs", script="print('x')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "x\n", "")
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["rank-0000.log", "scheduler.log"]
    text = (tmp_path / "logs" / "rank-0000.log").read_text()
    assert " r0 INFO gpumpi | the cluster has ended (" in text
    assert "SECURITY IS OFF" in text


def test_a_script_that_raises_is_one_traceback_of_its_own(job) -> None:
    ended = job("--quiet", script="def f():\n    raise ValueError('odd')\nf()\n")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.splitlines()[-1] == "ValueError: odd"
    assert "gpumpi" not in ended.stderr


def test_a_check_says_the_plan_and_runs_nothing(job) -> None:
    ended = job("--check", "--nthreads", "7", script="print('THE SCRIPT')")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    cores = str(len(os.sched_getaffinity(0)))
    assert lines[-1] == "check: all ranks can do this; nothing was started"
    assert lines[2].split()[:5] == ["0", socket.gethostname(), "-", cores, "7"]
    assert "THE SCRIPT" not in ended.stdout


def test_a_check_that_fails_is_2(job) -> None:
    ended = job("--check", script="if x\n")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "SyntaxError" in ended.stderr


# -------------------------------------------------------- the file, and the signals


@pytest.fixture
def running(tmp_path):
    """Start a job that goes on until it is told to end."""
    started = []

    def start(*words: object, script: str | None = None):
        words_ = [str(word) for word in words]
        if script is not None:
            (tmp_path / "script.py").write_text(script)
            words_.append(str(tmp_path / "script.py"))
        process = subprocess.Popen(
            [sys.executable, "-m", "gpumpi.run", *words_],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_script_and_the_job_with_its_code(
    running, finish, number
) -> None:
    script = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    process = running("--quiet", script=script)
    assert process.stdout.readline() == "up\n"
    begin = time.monotonic()
    process.send_signal(number)
    assert finish(process) == (128 + number, "", "")
    assert time.monotonic() - begin < 5


def test_a_cluster_serves_through_its_file_until_it_is_shut_down(
    running, tmp_path, eventually, finish
) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "scheduler.json"
    process = running("--scheduler-file", path, "--nthreads", "1")
    eventually(path.exists, "the scheduler file is there", seconds=30)
    file = SchedulerFile.read(path)
    assert (file.pid, file.ranks, file.secure) == (process.pid, 1, True)
    with gpumpi.connect(path) as client:
        assert client.submit(sum, [40, 2]).result() == 42
        client.shutdown()
    code, out, errors = finish(process)
    assert (code, errors) == (0, "")
    assert out.startswith("gpumpi ")
    assert list(tmp_path.iterdir()) == []


NEWER = """
import json
from pathlib import Path
path = Path("scheduler.json")
newer = json.loads(path.read_text()) | {"job": "newer"}
path.unlink()
path.write_text(json.dumps(newer))
"""


def test_a_job_that_ends_leaves_the_file_of_a_newer_job_alone(job, tmp_path) -> None:
    path = tmp_path / "work" / "scheduler.json"
    (tmp_path / "work").chmod(0o700)
    ended = job("--quiet", "--scheduler-file", "scheduler.json", script=NEWER)
    assert (ended.returncode, ended.stderr) == (0, "")
    time.sleep(1)  # the guard's look after the end
    assert json.loads(path.read_text())["job"] == "newer"
    assert Path(f"{path}.pem").exists()


def test_a_script_may_change_its_folder(job, tmp_path) -> None:
    (tmp_path / "work").chmod(0o700)
    script = "import os\nos.chdir('/')"
    words = ("--quiet", "--scheduler-file", "s.json", "--local-directory", "scratch")
    ended = job(*words, script=script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = {
            str(each.relative_to(tmp_path / "work"))
            for each in (tmp_path / "work").rglob("*")
        }
        if left == {"scratch", "script.py"}:
            break
        time.sleep(0.05)
    assert left == {"scratch", "script.py"}
    assert os.listdir(tmp_path / "work" / "scratch") == []
