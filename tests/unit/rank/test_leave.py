"""The end of a rank's process, in real processes without MPI."""

from __future__ import annotations

import pytest

PRELUDE = """
import atexit, os, sys, threading, time
from gpumpi.rank.leave import end_process
from gpumpi.rank.mpi import LoneWorld
"""


@pytest.mark.parametrize(
    ("code", "shown"),
    [(0, 0), (1, 1), (3, 3), (130, 130), (256, 0), (259, 3), (-1, 255)],
)
def test_the_code_is_that_of_any_process(run_python, code, shown) -> None:
    ended = run_python(PRELUDE + f"end_process(LoneWorld(), {code})")
    assert (ended.returncode, ended.stdout, ended.stderr) == (shown, "", "")


def test_nothing_that_python_promises_is_lost(run_python) -> None:
    ended = run_python(
        PRELUDE
        + """
class World(LoneWorld):
    def finalize(self):
        print("finalize")
def work():
    time.sleep(0.2)
    print("thread")
atexit.register(print, "atexit 2")
atexit.register(print, "atexit 1")
threading.Thread(target=work).start()
sys.stdout.write("before\\n")
sys.stderr.write("error")
end_process(World(), 4, lambda: print("before"))
"""
    )
    assert ended.returncode == 4
    assert ended.stdout.split("\n") == [
        "before",
        "thread",
        "atexit 1",
        "atexit 2",
        "before",
        "finalize",
        "",
    ]
    assert ended.stderr == "error"


def test_a_forked_child_of_the_script_leaves_as_no_rank(run_python) -> None:
    ended = run_python(
        PRELUDE
        + """
class World(LoneWorld):
    def finalize(self):
        print("finalize")
world = World()
atexit.register(print, "atexit")
pid = os.fork()
if pid == 0:
    sys.stdout.write("child\\n")
    end_process(world, 3, lambda: print("before"))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
end_process(world, 4)
"""
    )
    assert ended.returncode == 4
    assert ended.stdout == "child\n3\natexit\nfinalize\n"


def test_daemon_threads_do_not_hold_it_up(run_python) -> None:
    ended = run_python(
        PRELUDE
        + "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        + "end_process(LoneWorld(), 5)",
        timeout=20,
    )
    assert ended.returncode == 5


def test_an_atexit_function_that_fails_is_shown_and_changes_no_code(run_python) -> None:
    ended = run_python(
        PRELUDE + "atexit.register(lambda: 1 / 0)\nend_process(LoneWorld(), 6)"
    )
    assert ended.returncode == 6
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize("stream", ["sys.stdout.close()", "sys.stdout = None"])
def test_a_script_that_closed_its_output_ends_as_any(run_python, stream) -> None:
    ended = run_python(PRELUDE + f"{stream}\nend_process(LoneWorld(), 7)")
    assert (ended.returncode, ended.stderr) == (7, "")


def test_a_reader_that_went_away_changes_no_code(run_python) -> None:
    ended = run_python(
        PRELUDE
        + """
read_end, write_end = os.pipe()
os.dup2(write_end, 1)
os.close(read_end)
sys.stdout.write("x" * 100)
end_process(LoneWorld(), 8)
"""
    )
    assert (ended.returncode, ended.stderr) == (8, "")


def test_what_c_has_buffered_is_written(run_python) -> None:
    ended = run_python(
        PRELUDE
        + """
import ctypes
ctypes.CDLL(None).printf(b"from C\\n")
end_process(LoneWorld(), 9)
"""
    )
    assert (ended.returncode, ended.stdout) == (9, "from C\n")
