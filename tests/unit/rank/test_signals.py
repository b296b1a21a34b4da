"""Signals of a rank, sent to real processes."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from gpumpi.errors import SessionError
from gpumpi.rank.signals import Interrupted, Stopped, on_preempt

if TYPE_CHECKING:
    import subprocess

PRELUDE = """
import os, signal, sys, threading, time
from gpumpi.rank.signals import Interrupted, Reaction, Signals, Stopped, on_preempt
def abort(code):
    print("abort", code, flush=True)
    os._exit(code)
signals = Signals(abort)
def say(*words):
    print(*words, flush=True)
def wait(seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
"""

END = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PREEMPT = [signal.SIGUSR1, signal.SIGUSR2]
#: Longer than the 0.2 s in which two signals are one request.
APART = 0.25


@pytest.fixture
def start(start_python):
    """Start a process with handlers; gives it when it says that it is ready."""

    def run(code: str) -> subprocess.Popen[str]:
        child = start_python(PRELUDE + code)
        line = child.stdout.readline()
        assert line == "ready\n", child.stderr.read()
        # It may still be inside print(), which must not be entered twice.
        time.sleep(0.05)
        return child

    return run


@pytest.fixture
def ended(finish):
    return finish


# ----------------------------------------------------------------- the first asks


@pytest.mark.parametrize("number", END)
def test_while_the_job_starts_the_first_signal_stops_it(start, ended, number) -> None:
    child = start(
        """
try:
    say("ready")
    wait()
except Exception:
    say("swallowed")
except Stopped as stop:
    say("stopped", stop.exit_code, signals.received)
"""
    )
    child.send_signal(number)
    assert ended(child) == (0, f"stopped {128 + number} {number:d}\n", "")


def test_a_script_may_handle_sigint_as_ever(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.SCRIPT
try:
    say("ready")
    wait()
except KeyboardInterrupt:
    say("handled")
"""
    )
    child.send_signal(signal.SIGINT)
    assert ended(child) == (0, "handled\n", "")


@pytest.mark.parametrize("number", END)
def test_a_script_that_handles_nothing_ends_with_the_signals_code(
    start, ended, number
) -> None:
    child = start('signals.reaction = Reaction.SCRIPT\nsay("ready")\nwait()')
    child.send_signal(number)
    assert ended(child) == (128 + number, "", "")


@pytest.mark.parametrize("number", END)
def test_a_scripts_finally_and_atexit_run(start, ended, number) -> None:
    child = start(
        """
import atexit
atexit.register(say, "atexit")
signals.reaction = Reaction.SCRIPT
try:
    say("ready")
    wait()
finally:
    say("finally")
"""
    )
    child.send_signal(number)
    assert ended(child) == (128 + number, "finally\natexit\n", "")


@pytest.mark.parametrize("number", END)
def test_a_rank_that_serves_only_notes_it(start, ended, number) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
say("ready")
while signals.received is None:
    time.sleep(0.01)
say("noted", signals.received, time.monotonic() - signals.received_at < 5)
"""
    )
    child.send_signal(number)
    assert ended(child) == (0, f"noted {number:d} True\n", "")


def test_the_first_signal_is_kept(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
say("ready")
wait(0.3)
say(signals.received)
"""
    )
    child.send_signal(signal.SIGHUP)
    time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert ended(child) == (0, f"{signal.SIGHUP:d}\n", "")


# -------------------------------------------------------------- the second forces

WAIT = """
signals.reaction = Reaction.{reaction}
try:
    say("ready")
    while not signals.received:
        time.sleep(0.01)
except (Stopped, SystemExit):
    pass
say("first")
wait({seconds})
"""
REACTIONS = ["STOP", "SCRIPT", "NOTE"]


@pytest.mark.parametrize(
    ("reaction", "second"),
    [
        ("STOP", signal.SIGTERM),
        ("SCRIPT", signal.SIGINT),
        ("NOTE", signal.SIGTERM),
        ("NOTE", signal.SIGHUP),
    ],
)
def test_a_second_request_ends_the_job_at_once(start, ended, reaction, second) -> None:
    child = start(WAIT.format(reaction=reaction, seconds=30))
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "first\n"
    time.sleep(APART)
    child.send_signal(second)
    assert ended(child) == (128 + second, f"abort {128 + second}\n", "")


@pytest.mark.parametrize("reaction", REACTIONS)
def test_signals_within_a_fifth_of_a_second_are_one_request(
    start, ended, reaction
) -> None:
    child = start(WAIT.format(reaction=reaction, seconds=0.3))
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "first\n"
    time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    assert ended(child) == (0, "", "")


def test_somebody_is_told_of_the_first_request_only(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
signals.on_first(lambda: say("told", signals.received))
say("ready")
wait(0.6)
"""
    )
    child.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert ended(child) == (0, f"told {signal.SIGTERM:d}\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_that_python_drops_in_a_finaliser_is_raised_again(
    start, ended, number
) -> None:
    # Python prints and forgets what is raised inside __del__.
    child = start(
        """
signals.reaction = Reaction.SCRIPT
class Slow:
    def __del__(self):
        say("ready")
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
thing = Slow()
del thing
time.sleep(30)
say("went on")
"""
    )
    child.send_signal(number)
    assert ended(child) == (128 + number, "", "")


def test_what_else_a_finaliser_raises_is_shown_as_ever(run_python) -> None:
    done = run_python(
        """
from gpumpi.rank.signals import Signals
signals = Signals(print)
class Bad:
    def __del__(self):
        raise ValueError("odd")
Bad()
print("went on")
"""
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "ValueError: odd" in done.stderr


def test_what_the_second_does_can_be_set_anew(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
def other(code):
    say("other", code)
    os._exit(code)
signals.on_second(other)
say("ready")
wait()
"""
    )
    child.send_signal(signal.SIGTERM)
    time.sleep(APART)
    child.send_signal(signal.SIGINT)
    assert ended(child) == (130, "other 130\n", "")


# --------------------------------------------------------------------- preemption


@pytest.mark.parametrize("number", PREEMPT)
def test_a_warning_never_ends_the_job(start, ended, number) -> None:
    child = start('say("ready")\nwait(0.25)\nsay(signals.received)')
    for _ in range(3):
        child.send_signal(number)
        time.sleep(0.02)
    assert ended(child) == (0, "None\n", "")


@pytest.mark.parametrize("number", PREEMPT)
def test_a_warning_is_told_to_all_functions_in_order(start, ended, number) -> None:
    child = start(
        """
main = threading.get_ident()
on_preempt(lambda number: say("first", number, threading.get_ident() == main))
on_preempt(lambda number: say("second", number))
say("ready")
wait(0.25)
"""
    )
    child.send_signal(number)
    assert ended(child) == (0, f"first {number:d} True\nsecond {number:d}\n", "")


def test_an_exception_in_such_a_function_is_printed_and_ends_nothing(
    start, ended
) -> None:
    child = start(
        """
def bad(number):
    raise ValueError("disk is full")
on_preempt(bad)
on_preempt(lambda number: say("saved"))
say("ready")
wait(0.25)
say("went on")
"""
    )
    child.send_signal(signal.SIGUSR1)
    code, out, errors = ended(child)
    assert (code, out) == (0, "saved\nwent on\n")
    assert errors.splitlines()[-1] == "ValueError: disk is full"
    assert errors.count("Traceback") == 1


def test_a_warning_of_every_kind_is_heard_after_a_request_to_end(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
on_preempt(lambda number: say("told"))
say("ready")
wait(0.35)
"""
    )
    child.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    child.send_signal(signal.SIGUSR2)
    assert ended(child) == (0, "told\n", "")


@pytest.mark.parametrize("wrong", [None, "save", 3])
def test_what_cannot_be_called_is_refused(wrong) -> None:
    with pytest.raises(SessionError) as caught:
        on_preempt(wrong)
    assert f"got {wrong!r}" in str(caught.value)
    assert "a function of one argument, the signal's number" in str(caught.value)


# ------------------------------------------------------------ others of the process


def test_a_forked_child_is_no_rank(start, ended) -> None:
    child = start(
        """
signals.reaction = Reaction.NOTE
pid = os.fork()
if pid == 0:
    kept = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP,
            signal.SIGUSR1, signal.SIGUSR2)]
    usual = kept == [signal.SIG_DFL] * 4
    usual &= signal.getsignal(signal.SIGINT) is signal.default_int_handler
    os._exit(0 if usual else 1)
say("ready")
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say(signal.getsignal(signal.SIGTERM) == signals._end)
"""
    )
    assert ended(child) == (0, "0\nTrue\n", "")


def test_a_signal_ends_a_forked_child_and_not_its_parent(start, ended) -> None:
    child = start(
        """
pid = os.fork()
if pid == 0:
    time.sleep(30)
time.sleep(0.1)
os.kill(pid, signal.SIGTERM)
say("ready")
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), signals.received)
"""
    )
    assert ended(child) == (0, f"{-signal.SIGTERM} None\n", "")


def test_a_child_forked_in_a_thread_is_no_rank_either(start, ended) -> None:
    child = start(
        """
def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
    say("ready")
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread = threading.Thread(target=fork)
thread.start()
thread.join()
"""
    )
    assert ended(child) == (0, "0\n", "")


def test_the_old_handlers_come_back(run_python) -> None:
    done = run_python(
        """
import signal
from gpumpi.rank.signals import Signals
signal.signal(signal.SIGTERM, signal.SIG_IGN)
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
before = [signal.getsignal(number) for number in numbers]
signals = Signals(print)
assert not set(map(str, before)) & {str(signal.getsignal(n)) for n in numbers}
signals.restore()
assert [signal.getsignal(number) for number in numbers] == before
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_hangup_that_nohup_has_ignored_stays_ignored(run_python) -> None:
    done = run_python(
        """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from gpumpi.rank.signals import Signals
signals = Signals(print)
os.kill(os.getpid(), signal.SIGHUP)
print(signals.received)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


@pytest.mark.parametrize("number", END)
def test_a_request_that_was_only_noted_can_be_raised_later(start, ended, number):
    child = start(
        """
signals.raise_if_received()
signals.reaction = Reaction.NOTE
say("ready")
while signals.received is None:
    time.sleep(0.01)
signals.raise_if_received()
say("noted")
signals.reaction = Reaction.SCRIPT
signals.raise_if_received()
"""
    )
    child.send_signal(number)
    assert ended(child) == (128 + number, "noted\n", "")


def test_the_exceptions_carry_the_code_that_a_shell_would_show() -> None:
    assert Stopped(signal.SIGTERM).exit_code == 143
    assert not isinstance(Stopped(signal.SIGTERM), Exception)
    assert Interrupted(130).code == 130
    assert isinstance(Interrupted(130), KeyboardInterrupt)
    assert isinstance(Interrupted(130), SystemExit)
