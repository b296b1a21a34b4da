"""The guard's process by its own protocol: words on stdin, signals on a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from gpumpi.rank import guard_main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Two looks of the guard and some more.
A_WHILE = 0.55


def as_line(*words: str) -> bytes:
    return os.fsencode("\0".join(words)) + b"\n"


class Guarding:
    """A guard, the process it guards, and what the rank's side holds of both."""

    def __init__(self, owner: subprocess.Popen[bytes], launcher_pid: int) -> None:
        self.owner = owner
        read_end, self.pipe = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guard_main.__file__,
                str(owner.pid),
                str(launcher_pid),
                str(read_end),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(read_end,),
        )
        os.close(read_end)

    def order(self, *words: str) -> None:
        self.write(as_line(*words))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def signal(self, *numbers: int) -> None:
        os.write(self.pipe, bytes(numbers))

    def lives(self) -> bool:
        return self.owner.poll() is None

    def said(self) -> str:
        """What it wrote, once it has ended."""
        assert self.process.stderr is not None
        self.process.wait(10)
        return self.process.stderr.read().decode()

    def noticed(self) -> str:
        """What it wrote to stdout, once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def settle(self) -> None:
        """Wait until it has obeyed all orders."""
        time.sleep(A_WHILE)

    def close(self) -> None:
        for process in (self.process, self.owner):
            process.kill()
            process.wait()
        os.close(self.pipe)


@pytest.fixture
def guarding() -> Iterator[Callable[..., Guarding]]:
    made: list[Guarding] = []

    def guard(launcher_pid: int = 0) -> Guarding:
        made.append(Guarding(subprocess.Popen(["sleep", "60"]), launcher_pid))
        return made[-1]

    yield guard
    for each in made:
        each.close()


@pytest.fixture
def guard(guarding) -> Guarding:
    return guarding()


@pytest.fixture
def things(tmp_path):
    """A file, a folder with something in it, a link to a folder, an absent thing."""
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "below" / "spilled").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "precious").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    return [str(tmp_path / name) for name in ("absent", "file", "folder", "link")]


def test_what_a_killed_owner_leaves_is_removed(guard, things, tmp_path) -> None:
    guard.order("paths", *things)
    guard.owner.kill()
    assert guard.said() == ""
    assert guard.process.returncode == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept" / "precious").exists()


def test_an_owner_that_has_only_to_be_reaped_is_gone(guard, things, tmp_path) -> None:
    guard.order("paths", *things)
    guard.owner.send_signal(signal.SIGKILL)  # a zombie: nobody waits for it
    guard.process.wait(10)
    assert not (tmp_path / "file").exists()


def test_nothing_is_removed_while_the_owner_lives(guard, things, tmp_path) -> None:
    before = sorted(each.name for each in tmp_path.iterdir())
    guard.order("paths", *things)
    time.sleep(A_WHILE)
    assert sorted(each.name for each in tmp_path.iterdir()) == before
    assert guard.process.poll() is None


@pytest.mark.parametrize(
    "name", [b"a b", "\u00e4\u4e2d".encode(), b"caf\xe9", b"'\\\""]
)
def test_a_path_may_have_any_name(guard, tmp_path, name) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    open(path, "w").close()
    guard.order("paths", os.fsdecode(path))
    guard.owner.kill()
    guard.said()
    assert not os.path.exists(path)


def test_a_later_list_of_paths_takes_the_place_of_the_first(guard, tmp_path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).touch()
        guard.order("paths", str(tmp_path / name))
    guard.owner.kill()
    guard.said()
    assert [each.name for each in tmp_path.iterdir()] == ["first"]


def test_what_another_puts_in_the_place_of_a_file_is_left_alone(
    guard, tmp_path
) -> None:
    ours, other = tmp_path / "scheduler.json", tmp_path / "other"
    ours.touch()
    guard.order("paths", str(ours))
    guard.settle()
    other.write_text("of a later job")
    other.replace(ours)
    guard.order("paths", str(ours), str(tmp_path / "more"))
    guard.owner.kill()
    guard.said()
    assert ours.read_text() == "of a later job"


def test_a_slow_mpi_init_is_spoken_of_once(guard) -> None:
    guard.order("deadline", "2.6", "gpumpi: too late")
    guard.order("in_mpi", "gpumpi: waiting")
    assert guard.said() == "gpumpi: too late\n"
    assert guard.noticed() == "gpumpi: waiting\n"


def test_an_mpi_init_that_ends_soon_is_not_spoken_of(guard) -> None:
    guard.order("in_mpi", "gpumpi: waiting")
    guard.order("no_deadline")
    time.sleep(2.5)
    guard.order("done")
    assert (guard.said(), guard.noticed()) == ("", "")


def test_a_rank_in_mpi_init_gets_one_second_after_a_signal(guard) -> None:
    guard.order("in_mpi", "")
    guard.signal(signal.SIGTERM)
    begin = time.monotonic()
    assert "did not end within 1 s after a signal" in guard.said()
    assert 0.9 < time.monotonic() - begin < 3


def test_children_of_a_killed_owner_are_killed(guard) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        guard.order("children", str(2**22 + 1), str(child.pid))
        time.sleep(A_WHILE)
        assert child.poll() is None
        guard.owner.kill()
        assert child.wait(10) == -signal.SIGKILL


def test_a_child_that_ends_by_itself_may_have_its_last_words(guard, tmp_path) -> None:
    # The scheduler says which rank was lost first.
    words = tmp_path / "words"
    script = f"sleep 0.7; echo said > {words}"
    with subprocess.Popen(["sh", "-c", script]) as child:
        guard.order("children", str(child.pid))
        guard.owner.kill()
        assert child.wait(10) == 0
    assert words.read_text() == "said\n"


def test_a_child_that_was_forgotten_is_left_alone(guard) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        guard.order("children", str(child.pid))
        guard.order("children")
        guard.owner.kill()
        guard.said()
        assert child.poll() is None
        child.kill()


def test_a_deadline_kills_the_owner_and_prints_the_message(guard, things) -> None:
    guard.order("paths", *things)
    guard.order("deadline", "0.1", "gpumpi: rank 3 is late")
    assert guard.owner.wait(10) == -signal.SIGKILL
    assert guard.said() == "gpumpi: rank 3 is late\n"
    assert not os.path.exists(things[1])


def test_a_deadline_that_was_withdrawn_kills_nobody(guard) -> None:
    guard.order("deadline", "0.3", "late")
    guard.order("no_deadline")
    time.sleep(A_WHILE)
    assert guard.lives()


def test_a_later_deadline_takes_the_place_of_the_first(guard) -> None:
    guard.order("deadline", "0.1", "first")
    guard.order("deadline", "60", "second")
    time.sleep(A_WHILE)
    assert guard.lives()


def test_done_ends_the_guard_and_nothing_else(guard, things) -> None:
    guard.order("paths", *things)
    guard.order("done")
    assert guard.said() == ""
    assert guard.process.returncode == 0
    assert guard.lives()
    assert os.path.exists(things[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_owner_that_does_not_end_after_a_signal_is_killed(guard, number) -> None:
    guard.order("grace", "0.5")
    begin = time.monotonic()
    guard.signal(number)
    assert guard.owner.wait(10) == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - begin < 3
    assert guard.said() == (
        f"gpumpi: process {guard.owner.pid} did not end within 0.5 s after a signal "
        "and was killed\n"
    )


HEARING = """
import signal, sys, time
signal.signal(signal.SIGURG, lambda number, frame: sys.exit(7))
print("ready", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("heard", [True, False])
def test_a_main_thread_that_sleeps_through_a_signal_is_woken(
    heard, start_python
) -> None:
    owner = start_python(HEARING)
    assert owner.stdout.readline() == "ready\n"
    guard = Guarding(owner, 0)
    guard.signal(signal.SIGTERM)
    if heard:
        guard.order("heard")
    time.sleep(1)
    assert owner.poll() == (None if heard else 7)
    owner.kill()
    guard.close()


def test_more_signals_do_not_put_the_end_off(guard) -> None:
    guard.order("grace", "0.6")
    begin = time.monotonic()
    while guard.lives() and time.monotonic() - begin < 5:
        guard.signal(signal.SIGTERM)
        time.sleep(0.05)
    assert 0.6 <= time.monotonic() - begin < 3


def test_signals_that_only_tell_end_nobody(guard) -> None:
    guard.order("grace", "0.1")
    guard.signal(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGWINCH)
    time.sleep(A_WHILE)
    assert guard.lives()


def test_an_order_may_come_in_pieces(guard, tmp_path) -> None:
    (tmp_path / "file").touch()
    line = as_line("paths", str(tmp_path / "file"))
    guard.write(line[:10])
    time.sleep(0.1)
    guard.write(line[10:] + b"gra")
    guard.owner.kill()
    guard.said()
    assert not (tmp_path / "file").exists()


def test_what_ends_the_job_does_not_end_the_guard(guard, things) -> None:
    guard.order("paths", *things)
    time.sleep(0.2)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGPIPE,
    ):
        guard.process.send_signal(number)
    time.sleep(0.1)
    assert guard.process.poll() is None
    guard.owner.kill()
    assert guard.said() == ""
    assert not os.path.exists(things[1])


def test_it_guards_on_when_its_orders_end(guard, things) -> None:
    guard.order("paths", *things)
    guard.process.stdin.close()
    time.sleep(A_WHILE)
    assert guard.process.poll() is None
    assert psutil.Process(guard.process.pid).cpu_times().user < 0.3
    guard.owner.kill()
    guard.process.wait(10)
    assert not os.path.exists(things[1])


def test_it_sleeps_when_the_pipe_of_the_signals_was_closed(guard) -> None:
    # A script may close all descriptors it does not know (os.closerange).
    time.sleep(0.2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), guard.pipe)
    process = psutil.Process(guard.process.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(A_WHILE)
    assert guard.process.poll() is None
    assert sum(process.cpu_times()[:2]) - before < 0.3


# ------------------------------------------------------------------ the launcher

LAUNCHER = """
    import subprocess, sys
    owner = subprocess.Popen(["sleep", "60"])
    print(owner.pid, flush=True)
    owner.wait()
"""


@pytest.fixture
def launched(start_python):
    """A launcher, a process that it started, and the guard of that."""
    launcher = start_python(LAUNCHER)
    owner = psutil.Process(int(launcher.stdout.readline()))
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            guard_main.__file__,
            str(owner.pid),
            str(launcher.pid),
            str(read_end),
        ],
        stdin=subprocess.PIPE,
        pass_fds=(read_end,),
    )
    os.close(read_end)
    yield launcher, owner, process
    if owner.is_running():
        owner.kill()
    process.kill()
    process.wait()
    os.close(write_end)


def test_an_owner_whose_launcher_is_gone_is_killed(launched, eventually, tmp_path):
    launcher, owner, guard = launched
    (tmp_path / "session").mkdir()
    guard.stdin.write(as_line("launcher_paths", str(tmp_path / "session")))
    guard.stdin.flush()
    time.sleep(A_WHILE)
    assert owner.is_running()
    launcher.kill()
    launcher.wait()
    assert guard.wait(10) == 0
    eventually(
        lambda: not owner.is_running() or owner.status() == psutil.STATUS_ZOMBIE,
        "the owner is killed",
    )
    assert not (tmp_path / "session").exists()


def test_what_the_launcher_will_remove_is_left_to_it(launched, tmp_path) -> None:
    _, owner, guard = launched
    (tmp_path / "session").mkdir()
    guard.stdin.write(as_line("launcher_paths", str(tmp_path / "session")))
    guard.stdin.flush()
    time.sleep(0.1)
    owner.kill()
    assert guard.wait(10) == 0
    assert (tmp_path / "session").exists()


def test_it_needs_the_standard_library_only_and_starts_soon(guard) -> None:
    begin = time.monotonic()
    guard.order("done")
    guard.process.wait(10)
    # 15 ms of an idle machine; a package's imports would be ten times that.
    assert time.monotonic() - begin < 2
    maps = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", guard_main.__file__],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    assert "gpumpi" not in maps.partition("Traceback")[0]
    assert "asyncio" not in maps
