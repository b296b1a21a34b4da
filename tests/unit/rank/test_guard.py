"""The rank's side of the guard, in real processes that come to their ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gpumpi.rank.guard import scrubbed_environment

#: Longer than a grace of 0.2 s and two looks of the guard.
A_WHILE = 0.75

OWNER = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from gpumpi.rank.guard import Guard
from gpumpi.rank.launcher import Launcher, LauncherName
def ready():
    print("ready", flush=True)
    time.sleep(60)
"""
ALONE = "guard = Guard(Launcher(name=LauncherName.NONE))\n"
LAUNCHED = "guard = Guard(Launcher(name=LauncherName.MPICH, size=2))\n"


@pytest.fixture
def start_owner(start_python):
    """Start a guarded process; gives it and its guard when it says that it is ready."""

    def start(code: str, *words: object, prelude: str = ALONE, **options):
        owner = start_python(OWNER + prelude + code, *words, **options)
        line = owner.stdout.readline()
        assert line == "ready\n", owner.stderr.read()
        return owner, find_guard(owner.pid)

    return start


@pytest.fixture(scope="module", autouse=True)
def stuck():
    """A process stuck in C that gets a signal, while the other tests run.

    It holds the interpreter: neither a Python handler nor a thread can run.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER + ALONE + STUCK.format(grace="", kind="PyDLL")],
        env=scrubbed_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    time.sleep(0.2)  # from its print() into C
    process.terminate()
    begin = time.monotonic()
    seconds: list[float] = []

    def wait() -> None:
        process.wait()
        seconds.append(time.monotonic() - begin)

    thread = threading.Thread(target=wait)
    thread.start()
    yield process, thread, seconds
    process.kill()
    thread.join()


def find_guard(pid: int) -> psutil.Process:
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(word.endswith("guard_main.py") for word in child.cmdline()):
                found.append(child)
    assert len(found) == 1
    return found[0]


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; init may reap it later."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(process: psutil.Process, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_gone(process):
        assert time.monotonic() < deadline, f"{process} still runs"
        time.sleep(0.02)


def test_files_and_folders_are_removed_after_sigkill(start_owner, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "spilled").touch()
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    owner, guard = start_owner(
        """
guard.remove_if_lost(sys.argv[1] + "/folder")
guard.remove_if_lost(Path(sys.argv[1]) / "file", sys.argv[1] + "/absent")
ready()
""",
        tmp_path,
    )
    time.sleep(0.4)
    assert len(list(tmp_path.iterdir())) == 3
    owner.kill()
    wait_gone(guard)
    assert [each.name for each in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    "end", ["os.abort()", "os._exit(0)", "ctypes.string_at(0)", "sys.exit(3)"]
)
def test_files_are_removed_however_the_owner_ends(
    start_owner, finish, tmp_path, end
) -> None:
    (tmp_path / "file").touch()
    owner, guard = start_owner(
        f"""
guard.remove_if_lost(sys.argv[1] + "/file")
print("ready", flush=True)
sys.stdin.readline()
{end}
""",
        tmp_path,
        stdin=subprocess.PIPE,
    )
    finish(owner, "\n")
    wait_gone(guard)
    assert list(tmp_path.iterdir()) == []


def test_what_was_removed_is_forgotten_and_may_be_made_anew(
    start_owner, tmp_path
) -> None:
    owner, guard = start_owner(
        """
kept, lost = Path(sys.argv[1]) / "kept", Path(sys.argv[1]) / "lost"
guard.remove_if_lost(kept, lost)
guard.forget_paths(kept, "/absent")
kept.touch(), lost.touch()
ready()
""",
        tmp_path,
    )
    owner.kill()
    wait_gone(guard)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_children_are_killed_with_a_lost_owner(start_owner) -> None:
    owner, guard = start_owner(
        """
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
forgotten = subprocess.Popen(["sleep", "60"], start_new_session=True)
guard.end_if_lost(forgotten.pid)
guard.end_if_lost(child.pid)
guard.forget_child(forgotten.pid)
ready()
"""
    )
    first, second = [
        each for each in psutil.Process(owner.pid).children() if each.name() == "sleep"
    ]
    owner.kill()
    wait_gone(guard)
    wait_gone(first)
    assert not is_gone(second)
    second.kill()


def test_a_deadline_kills_with_a_last_line(start_owner) -> None:
    owner, _ = start_owner('guard.deadline(0.2, "MPI_Init is late")\nready()')
    assert owner.wait(10) == -signal.SIGKILL
    assert owner.stderr.read() == "gpumpi: MPI_Init is late\n"


def test_a_deadline_reaches_a_thread_that_holds_the_interpreter(start_owner) -> None:
    owner, _ = start_owner(
        """
guard.deadline(0.2, "stuck")
print("ready", flush=True)
mutex = ctypes.create_string_buffer(64)
lock = ctypes.PyDLL(None).pthread_mutex_lock
lock(mutex), lock(mutex)
"""
    )
    assert owner.wait(10) == -signal.SIGKILL
    assert owner.stderr.read() == "gpumpi: stuck\n"


def test_a_deadline_that_is_met_does_nothing(start_owner) -> None:
    owner, guard = start_owner("guard.deadline(0.3)\nguard.deadline(None)\nready()")
    time.sleep(A_WHILE)
    assert owner.poll() is None
    assert not is_gone(guard)


def test_a_dismissed_guard_ends_while_its_owner_goes_on(
    start_owner, finish, tmp_path
) -> None:
    (tmp_path / "file").touch()
    owner, guard = start_owner(
        """
guard.remove_if_lost(sys.argv[1] + "/file")
guard.end_if_lost(os.getpid())
print("ready", flush=True)
sys.stdin.readline()
begin = time.monotonic()
guard.dismiss()
assert time.monotonic() - begin < 4
assert signal.set_wakeup_fd(-1) == -1
assert sorted(os.listdir("/proc/self/fd")) == before
print("dismissed", flush=True)
time.sleep(0.4)
""",
        tmp_path,
        prelude='before = sorted(os.listdir("/proc/self/fd"))\n' + ALONE,
        stdin=subprocess.PIPE,
    )
    assert finish(owner, "\n") == (0, "dismissed\n", "")
    assert is_gone(guard)
    assert (tmp_path / "file").exists()


def test_a_guard_that_does_not_listen_is_killed_when_dismissed(
    start_owner, finish
) -> None:
    owner, guard = start_owner(
        'print("ready", flush=True)\nsys.stdin.readline()\nguard.dismiss(0.2)',
        stdin=subprocess.PIPE,
    )
    guard.suspend()
    assert finish(owner, "\n") == (0, "", "")
    assert is_gone(guard)


def test_after_leaving_the_guard_ends_by_itself(start_owner, finish) -> None:
    owner, guard = start_owner(
        """
print("ready", flush=True)
sys.stdin.readline()
guard.leave(10, "too late")
assert signal.set_wakeup_fd(-1) == -1
sys.exit(7)
""",
        stdin=subprocess.PIPE,
    )
    assert finish(owner, "\n") == (7, "", "")
    wait_gone(guard, 2)


def test_an_end_that_takes_too_long_is_cut_with_a_line(start_owner) -> None:
    owner, guard = start_owner(
        """
import atexit
atexit.register(time.sleep, 60)
guard.leave(0.5, "rank 1 on host n1: the process did not end in time")
print("ready", flush=True)
"""
    )
    assert owner.wait(10) == -signal.SIGKILL
    assert owner.stderr.read() == (
        "gpumpi: rank 1 on host n1: the process did not end in time\n"
    )
    wait_gone(guard)


# -------------------------------------------------------------------- signals

STUCK = """
from gpumpi.rank.signals import Signals
signals = Signals(os._exit)
{grace}
print("ready", flush=True)
mutex = ctypes.create_string_buffer(64)
lock = ctypes.{kind}(None).pthread_mutex_lock
lock(mutex), lock(mutex)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_request_to_end_reaches_the_guard(start_owner, number) -> None:
    grace = "guard.grace(0.2)"
    owner, _ = start_owner(STUCK.format(grace=grace, kind="CDLL"))
    time.sleep(0.2)  # from its print() into C
    owner.send_signal(number)
    assert owner.wait(10) == -signal.SIGKILL


def test_a_warning_does_not_lead_to_the_end(start_owner) -> None:
    grace = "guard.grace(0.2)"
    owner, _ = start_owner(STUCK.format(grace=grace, kind="CDLL"))
    owner.send_signal(signal.SIGUSR1)
    time.sleep(A_WHILE)
    assert owner.poll() is None


# ------------------------------------------------------------------------ forks

FORKED = """
from gpumpi.rank.signals import Signals
signals = Signals(os._exit)
guard.grace(0.2)
guard.remove_if_lost(sys.argv[1] + "/file")
pid = os.fork()
if pid == 0:
    {child}
print("ready", flush=True)
print(os.waitpid(pid, 0)[1], flush=True)
time.sleep(60)
"""


CHILDREN = {
    "exits": "os._exit(0)",
    "handles a signal": "signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); "
    "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "is killed": "signal.raise_signal(signal.SIGTERM); time.sleep(60)",
    "runs atexit": "sys.exit(0)",
}


def test_a_forked_child_does_not_disturb_the_guard(start_owner, tmp_path) -> None:
    owners = {}
    for name, child in CHILDREN.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").touch()
        owners[name] = start_owner(FORKED.format(child=child), folder)
    for owner, _ in owners.values():
        owner.stdout.readline()  # the child has ended
    time.sleep(A_WHILE)
    for name, (owner, guard) in owners.items():
        assert owner.poll() is None, name
        assert not is_gone(guard), name
        assert (tmp_path / name / "file").exists(), name
        owner.kill()
        wait_gone(guard)
        assert not (tmp_path / name / "file").exists(), name


def test_a_child_forked_in_a_thread_does_not_disturb_the_guard(start_owner) -> None:
    owner, guard = start_owner(
        """
import threading
def fork():
    pid = os.fork()
    if pid == 0:
        assert signal.set_wakeup_fd(-1) == -1
        os._exit(5)
    print("ready", flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
threading.Thread(target=fork).start()
time.sleep(60)
"""
    )
    assert owner.stdout.readline() == "5\n"
    assert not is_gone(guard)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_does_not_disturb_the_guard(tmp_path, method) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        OWNER
        + f"""
import multiprocessing
def double(x):
    return 2 * x
if __name__ == "__main__":
    {ALONE}
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        assert pool.map(double, range(4)) == [0, 2, 4, 6]
    time.sleep(0.4)
    assert guard._process.poll() is None
    guard.dismiss()
"""
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        env=scrubbed_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# ----------------------------------------------------------- launcher and others

MIDDLE = """
    import subprocess, sys
    rank = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    rank.wait()
"""


def test_a_rank_whose_launcher_is_killed_is_killed(start_python) -> None:
    code = OWNER + LAUNCHED + "print(os.getpid(), flush=True)\ntime.sleep(60)"
    launcher = start_python(MIDDLE, code)
    rank = psutil.Process(int(launcher.stdout.readline()))
    guard = find_guard(rank.pid)
    time.sleep(0.4)
    assert not is_gone(rank)
    launcher.kill()
    wait_gone(guard)
    wait_gone(rank, 5)


def test_a_process_without_a_launcher_outlives_its_parent(start_python) -> None:
    code = OWNER + ALONE + "print(os.getpid(), flush=True)\ntime.sleep(60)"
    shell = start_python(MIDDLE, code)
    owner = psutil.Process(int(shell.stdout.readline()))
    shell.kill()
    shell.wait()
    time.sleep(0.7)
    assert not is_gone(owner)
    owner.kill()


def test_an_owner_whose_guard_was_killed_goes_on(start_owner, finish) -> None:
    owner, guard = start_owner(
        """
print("ready", flush=True)
sys.stdin.readline()
guard.remove_if_lost("/absent")
guard.end_if_lost(2**22 + 1)  # above all numbers that Linux gives
guard.deadline(0.1, "x")
time.sleep(0.5)
guard.leave(1, "x")
""",
        stdin=subprocess.PIPE,
    )
    guard.kill()
    assert finish(owner, "\n") == (0, "", "")


def test_the_guard_is_no_rank_and_has_a_session_of_its_own(start_owner) -> None:
    env = {"PMI_RANK": "0", "PMI_SIZE": "2", "SLURM_JOB_ID": "7"}
    owner, guard = start_owner("ready()", env=env)
    found = guard.environ()
    assert "PMI_RANK" not in found
    assert found["SLURM_JOB_ID"] == "7"
    stat = Path(f"/proc/{guard.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[3]) == guard.pid
    assert owner.poll() is None


def test_a_child_must_not_take_itself_for_a_rank(monkeypatch) -> None:
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("HARMLESS", "x")
    found = scrubbed_environment()
    assert found["HARMLESS"] == "x"
    assert not {"PMI_RANK", "OMPI_COMM_WORLD_SIZE"} & set(found)


# ----------------------------------------------------------------- shared memory

MAPPED = """
import mmap
def share(name):
    path = Path("/dev/shm") / name
    with open(path, "w+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)
"""


@pytest.fixture
def segment(tmp_path):
    """Names for two segments in /dev/shm, which are gone after the test."""
    names = [f"gpumpi-unit-{tmp_path.name}-{part}" for part in ("before", "after")]
    yield names
    for name in names:
        Path("/dev/shm", name).unlink(missing_ok=True)


def test_segments_that_mpi_has_mapped_are_removed(start_owner, segment) -> None:
    owner, guard = start_owner(
        MAPPED + "m = share(sys.argv[1])\nguard.watch_shared_memory()\nready()",
        segment[1],
    )
    assert Path("/dev/shm", segment[1]).exists()
    owner.kill()
    wait_gone(guard)
    assert not Path("/dev/shm", segment[1]).exists()


def test_a_segment_that_was_mapped_before_is_not_mpis(start_owner, segment) -> None:
    # A script may have mapped shared memory of its own before gpumpi.initialize().
    owner, guard = start_owner(
        "guard.watch_shared_memory()\nready()",
        segment[0],
        prelude=MAPPED + "m = share(sys.argv[1])\n" + ALONE,
    )
    owner.kill()
    wait_gone(guard)
    assert Path("/dev/shm", segment[0]).exists()


def test_an_owner_stuck_in_c_is_killed_4_5_seconds_after_a_signal(stuck) -> None:
    process, thread, seconds = stuck
    thread.join(20)
    assert process.returncode == -signal.SIGKILL
    assert 4.4 <= seconds[0] < 8
    assert process.stderr.read() == (
        f"gpumpi: process {process.pid} did not end within 4.5 s after a signal and "
        "was killed\n"
    )
