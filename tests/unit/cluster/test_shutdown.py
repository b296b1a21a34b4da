"""The orderly end of a job of one rank; the ranks tier has the others."""

from __future__ import annotations

import pytest

RUN = """
import gpumpi, os, sys, threading, time
session = gpumpi.initialize(nthreads=1, quiet=True, dashboard=False)
client = session.client
"""


@pytest.fixture
def run(run_python):
    def run(code: str, **options):
        ended = run_python(RUN + code, **options)
        return ended.returncode, ended.stdout, ended.stderr

    return run


def test_forked_children_end_nothing_and_threads_may_use_the_cluster(run) -> None:
    assert run(
        """
pid = os.fork()
if pid == 0:
    session.close()
    os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
def work():
    time.sleep(0.5)
    print(client.submit(sum, [40, 2]).result())
threading.Thread(target=work).start()
sys.exit(3)
"""
    ) == (3, "5\n42\n", "")


def test_a_block_that_raises_ends_the_cluster_and_the_error_goes_on(run) -> None:
    code, out, errors = run(
        """
try:
    with session:
        raise ValueError("odd")
finally:
    print(session.ended)
"""
    )
    assert (code, out) == (1, "True\n")
    assert errors.splitlines()[-1] == "ValueError: odd"
    assert errors.count("Traceback") == 1


def test_a_script_may_go_on_after_its_cluster(run) -> None:
    assert run(
        """
session.close()
print([t.name for t in threading.enumerate() if t.name == "gpumpi"])
import dask
print(dask.config.get("scheduler-address"))
from dask import delayed
print(delayed(sum)([40, 2]).compute(scheduler="synchronous"))
"""
    ) == (0, "[]\nNone\n42\n", "")


def test_running_tasks_do_not_hold_the_end_up(run) -> None:
    code = "f = client.submit(time.sleep, 60)\ntime.sleep(0.3)\nsys.exit(6)"
    assert run(code, timeout=20) == (6, "", "")
