"""Tests of what is found after a job, and of what plain MPI leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.job import Job
from helpers.processes import find_tagged, is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.launcher import Launcher

    Script = Callable[..., Path]

pytestmark = pytest.mark.ranks

SLEEP = """
import time
from mpi4py import MPI
print("rank", MPI.COMM_WORLD.rank, "is up", flush=True)
time.sleep(300)
"""

END = """
import os, time
from mpi4py import MPI
comm = MPI.COMM_WORLD
print("ready", flush=True)
time.sleep(0.3)
comm.Barrier()
if comm.rank == 1:
    {act}
MPI.COMM_WORLD.Barrier()
"""


def test_leftovers_of_a_process_are_found(script: Script) -> None:
    path = script(
        """
        import os, subprocess, sys, tempfile
        code = '''
        import os, socket, tempfile, time
        shared = open("/dev/shm/gpumpitest-left", "w")
        mine = open("/tmp/left-in-tmp", "w")
        socket.create_server(("127.0.0.1", 0))
        listening = socket.create_server(("127.0.0.1", 0))
        print("port", listening.getsockname()[1], flush=True)
        time.sleep(300)
        '''.replace("        ", "")
        done = subprocess.Popen(
            [sys.executable, "-c", code],
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        print(done.stdout.readline())
        tempfile.mkdtemp(prefix="forgotten-")
        """
    )
    named = [Path("/dev/shm/gpumpitest-left"), Path("/tmp/left-in-tmp")]
    try:
        result = Job.run(path, ranks=1, gpumpi=False, mpirun=False, grace=1)
    finally:
        for item in named:
            item.unlink(missing_ok=True)
    left = result.leftovers
    port = result.stdout.split()[1]
    assert left
    assert len(left.processes) == 1, left
    assert len(left.sockets) == 1, left
    assert f":{port} " in left.sockets[0]
    assert str(named[0]) in left.shm
    assert str(named[1]) in left.files
    assert any("forgotten-" in name for name in left.files)
    assert not find_tagged(Job.started[-1].tag)


def test_process_with_cleaned_environment_is_found(script: Script) -> None:
    path = script(
        """
        import subprocess, sys, time
        subprocess.Popen(["sleep", "300"], env={}, start_new_session=True)
        print("started", flush=True)
        time.sleep(300)
        """
    )
    with Job.start(path, ranks=1, gpumpi=False) as job:
        job.wait_for("started")
        names = [process.name() for process in job.processes()]
    assert "sleep" in names
    assert not job.processes()


def test_regular_end_leaves_nothing(script: Script) -> None:
    result = Job.run(script("from mpi4py import MPI"), gpumpi=False)
    assert result.code == 0, result
    assert not result.leftovers, result


@pytest.mark.parametrize(
    "act", ["os.kill(os.getpid(), 9)", "os._exit(3)", "comm.Abort(7)"]
)
def test_banners_are_stripped(script: Script, launcher: Launcher, act: str) -> None:
    result = Job.run(script(END.format(act=act)), gpumpi=False, timeout=30)
    assert result.code != 0, result
    assert set(result.stdout_without_launcher.split()) == {"ready"}, result
    assert result.stderr_without_launcher.strip() == "", result
    if launcher.is_openmpi:
        assert not result.leftovers, result
    else:
        # Plain MPICH forgets its segment at every end but a regular one.
        assert len(result.leftovers.shm) == 1, result
        assert not Path(result.leftovers.shm[0]).exists()


def test_killed_launcher(script: Script, launcher: Launcher) -> None:
    with Job.start(script(SLEEP), gpumpi=False) as job:
        job.wait_for("rank 0 is up")
        job.wait_for("rank 1 is up")
        ranks = job.ranks()
        job.signal(signal.SIGKILL)
        result = job.wait(grace=2)
    assert result.code == -signal.SIGKILL, result
    assert result.leftovers.shm
    # Ranks of plain Open MPI live on; MPICH's proxy kills its own.
    assert len(result.leftovers.processes) == (2 if launcher.is_openmpi else 0)
    assert not any(map(is_alive, ranks.values()))
    assert not job.tmpdir.exists()
    assert not any(map(os.path.exists, result.leftovers.shm))
