"""A cluster from inside a script: one rank, no launcher, real processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FACTS = """
import json, multiprocessing, os, sys, threading
import gpumpi
from distributed import Client, get_client
from gpumpi import SessionError

def refusal(function):
    try:
        function()
    except SessionError as error:
        return str(error)

facts = {}
thread = threading.Thread(target=lambda: facts.update(
    thread=refusal(gpumpi.initialize)), name="side")
thread.start()
thread.join()
with gpumpi.initialize(nthreads=1, memory_limit="1GiB", quiet=True) as session:
    facts["ranks"] = [vars(rank) for rank in session.ranks]
    facts["same session"] = gpumpi.initialize(nthreads=7) is session
    facts["same client"] = session.client is session.client
    facts["result"] = session.client.submit(sum, [40, 2]).result()
    with Client() as plain:
        workers = plain.scheduler_info(n_workers=-1)["workers"]
        facts["plain client"] = plain.submit(os.getpid).result() == os.getpid()
    facts["workers"] = [
        (worker["name"], worker["nthreads"], worker["memory_limit"])
        for worker in workers.values()
    ]
    facts["threads"] = sorted(
        each.name for each in threading.enumerate() if each.name.startswith("IO loop")
    )
    session.client.close()
    facts["new client"] = session.client.submit(sum, [1, 2]).result()
    facts["link"] = session.dashboard_link
    facts["running"] = not session.ended
    facts["restart"] = None
    try:
        session.client.restart()
    except gpumpi.JobError as error:
        facts["restart"] = str(error)
facts["ended"] = session.ended
facts["client after"] = refusal(lambda: session.client)
facts["again"] = refusal(gpumpi.initialize)
session.close()
print(json.dumps(facts))
sys.exit(4)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    script = tmp_path_factory.mktemp("work") / "script.py"
    script.write_text(FACTS)
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def facts(ended):
    return json.loads(ended.stdout)


def test_the_script_ends_with_its_own_code_and_in_silence(ended) -> None:
    assert (ended.returncode, ended.stderr) == (4, "")


def test_the_ranks_are_told_with_their_workers(facts) -> None:
    (rank,) = facts["ranks"]
    assert (rank["rank"], rank["gpu"]) == (0, None)
    assert rank["worker"].startswith("tls://127.0.0.1:")


def test_a_second_call_gives_the_same_session(facts) -> None:
    assert facts["same session"] is True


def test_the_client_is_one_and_works(facts) -> None:
    assert facts["same client"] is True
    assert facts["result"] == 42


def test_a_plain_client_finds_the_worker_inside_the_rank(facts) -> None:
    assert facts["plain client"] is True


def test_a_client_that_was_closed_is_made_anew(facts) -> None:
    assert facts["new client"] == 3


def test_the_arguments_are_the_options(facts) -> None:
    assert facts["workers"] == [[0, 1, 2**30]]


def test_clients_share_the_loop_of_the_worker(facts) -> None:
    assert facts["threads"] == []


def test_the_dashboard_has_a_link_with_its_secret(facts) -> None:
    link = facts["link"]
    assert link.startswith("http://127.0.0.1:")
    assert link.endswith("/status")
    assert len(link.split("/")[3]) == 22


def test_restarting_is_refused_with_the_reason(facts) -> None:
    assert "Next: start the job with --nanny" in facts["restart"]


def test_the_session_ends_with_its_block(facts) -> None:
    assert facts["running"] is True
    assert facts["ended"] is True
    assert "the session has ended" in facts["client after"]


def test_there_is_one_session_per_process(facts) -> None:
    assert "the session of this process has ended" in facts["again"]


def test_a_thread_cannot_start_one(facts) -> None:
    assert "called in thread 'side'" in facts["thread"]
    assert "only the main thread can handle the signals" in facts["thread"]


# ------------------------------------------------------------------------- refusals


@pytest.fixture
def run_script(run_python, tmp_path):
    def run(text: str, **options):
        (tmp_path / "script.py").write_text(text)
        code = "import runpy, sys; runpy.run_path('script.py', run_name='__main__')"
        return run_python(code, cwd=tmp_path, **options)

    return run


def test_an_option_that_is_none_is_told_once_and_ends_with_2(run_script) -> None:
    ended = run_script("import gpumpi; gpumpi.initialize(nthread=2); print('on')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "reading the options from the arguments: nthread is not" in ended.stderr
    assert ended.stderr.endswith("Next: write nthreads\n")


def test_joining_is_refused_with_the_command_that_can(run_script) -> None:
    given = "join=True, scheduler_file='s.json'"
    ended = run_script(f"import gpumpi; gpumpi.initialize({given}); print('on')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "got join=True" in ended.stderr
    assert "Next: use python -m gpumpi.run --join" in ended.stderr


def test_a_child_that_imports_the_script_again_is_told_of_the_guard(tmp_path) -> None:
    (tmp_path / "script.py").write_text(
        """
import multiprocessing
import gpumpi
if __name__ == "__mp_main__":
    try:
        gpumpi.initialize()
    except gpumpi.SessionError as error:
        print(error, flush=True)
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
"""
    )
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "a child process that imported the script again" in ended.stdout
    assert '`if __name__ == "__main__":`' in ended.stdout
