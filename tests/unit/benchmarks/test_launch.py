from __future__ import annotations

import os
import sys
import time

import psutil
import pytest

from benchmarks.launch import OUTPUT_CHARACTERS, launch

BURN = """
import time
while time.process_time() < 0.3:
    pass
"""

ORPHAN = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        exec(sys.argv[1])
    os._exit(0)
os.wait()
"""


def python(script, *words, timeout=30.0, **options):
    return launch([sys.executable, "-c", script, *words], timeout=timeout, **options)


def test_a_command_that_ends():
    before = time.time()
    ended = launch(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=30)
    assert ended.code == 3
    assert ended.output.splitlines() == ["out", "err"]
    assert before <= ended.started <= ended.ended <= time.time()
    assert 0 < ended.wall_s < 30
    assert ended.left_behind == 0


def test_the_environment_and_the_folder(tmp_path):
    ended = launch(
        ["/bin/sh", "-c", "echo $WORD; pwd"],
        timeout=30,
        environment={"WORD": "hello"},
        directory=tmp_path,
    )
    assert ended.output.splitlines() == ["hello", str(tmp_path)]


def test_a_signal_is_a_negative_code():
    assert launch(["sh", "-c", "kill -9 $$"], timeout=30).code == -9


def test_cpu_seconds_are_of_the_whole_tree():
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    assert 0.3 <= python(child).cpu_s < 3


def test_an_orphan_that_ends_soon_is_counted():
    # Burns longer than its parents live; nobody but us can wait for it.
    ended = python(ORPHAN, BURN)
    assert ended.left_behind == 0
    assert ended.cpu_s >= 0.3


def test_an_orphan_that_stays_is_killed_and_told(tmp_path):
    note = tmp_path / "pid"
    stay = f"import time; open({str(note)!r}, 'w').write(str(os.getpid()));"
    ended = python(ORPHAN, stay + "time.sleep(60)")
    assert ended.code == 0
    assert ended.left_behind == 1
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_late_command_is_killed_with_its_children(tmp_path):
    note = tmp_path / "pid"
    script = f"echo begun; sleep 60 & echo $! > {note}; sleep 60"
    ended = launch(["sh", "-c", script], timeout=0.5)
    assert ended.code is None
    assert ended.output == "begun\n"
    assert 0.5 <= ended.wall_s < 10
    assert not psutil.pid_exists(int(note.read_text()))


def test_killing_races_with_nothing():
    for _ in range(20):
        ended = launch(["sh", "-c", "echo begun; sleep 60 & sleep 60"], timeout=0.03)
        assert (ended.code, ended.left_behind) == (None, 0)
        assert ended.output in ("", "begun\n")


def test_the_end_of_a_long_output_is_kept():
    ended = python(f"print('x' * {2 * OUTPUT_CHARACTERS}); print('last')")
    assert len(ended.output) == OUTPUT_CHARACTERS
    assert ended.output.endswith("last\n")


def test_a_program_that_is_not_there():
    with pytest.raises(OSError, match="no-such-program-here"):
        launch(["no-such-program-here"], timeout=1)


def test_children_of_ours_are_left_alone():
    pid = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    try:
        launch(["true"], timeout=30)
        assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
