"""Signals of a rank: the first asks, the second forces, USR1 and USR2 only tell."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from gpumpi.errors import SessionError, describe
from gpumpi.log import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Reaction", "Signals", "Stopped", "on_preempt"]

_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PREEMPT = (signal.SIGUSR1, signal.SIGUSR2)
#: Launchers may deliver one request twice; a person needs longer than this.
_SAME_REQUEST_SECONDS = 0.2
_AGAIN_SECONDS = 0.02

_preempt_callbacks: list[Callable[[int], object]] = []


class Stopped(BaseException):
    """A signal came while the job started.

    Not an :class:`Exception`: no handler for errors may swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interrupted(KeyboardInterrupt, SystemExit):
    """What SIGINT raises in a script.

    Scripts that handle KeyboardInterrupt do so; where none does, Python ends with
    this exit code, and not by a signal, which launchers take for a crash.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Reaction(Enum):
    """What the first signal does. Ex.: ``NOTE`` where a loop looks at it."""

    STOP = "raise Stopped in the main thread"
    SCRIPT = "raise Interrupted or SystemExit in the main thread"
    NOTE = "note it; the loop of the main thread looks"


def on_preempt(callback: Callable[[int], object]) -> None:
    """Have a function called when SIGUSR1 or SIGUSR2 reaches the job.

    Slurm (``--signal=USR1@120``) and others warn so before they end a job. The
    signal itself never ends the job.

    Parameters
    ----------
    callback : callable
        Called on rank 0, in the main thread between two of the script's
        instructions, with the number of the signal. An exception in it is printed
        and the script goes on.

    Raises
    ------
    SessionError
        When the callback cannot be called.
    """
    if not callable(callback):
        raise SessionError(
            describe(
                "setting the function for preemption",
                f"got {callback!r}",
                "a function of one argument, the signal's number, is allowed",
                "give such a function",
            )
        )
    _preempt_callbacks.append(callback)


class Signals:
    """The handlers of this process. Made and changed in the main thread only.

    Parameters
    ----------
    abort : callable
        Called with the exit code at the second request to end.

    Attributes
    ----------
    reaction : Reaction
        What the first request does.
    received : int or None
        The first request to end that came.
    """

    def __init__(self, abort: Callable[[int], None]) -> None:
        self.reaction = Reaction.STOP
        self.received: int | None = None
        self.received_at = 0.0
        self._abort = abort
        self._notice: Callable[[], None] = lambda: None
        self._raised: BaseException | None = None
        self._again = False
        self._old_hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        handled = (*_END, *_PREEMPT, signal.SIGURG)
        self._old = {number: signal.getsignal(number) for number in handled}
        for number in _END:
            # nohup has SIGHUP ignored, on purpose.
            if number != signal.SIGHUP or self._old[number] != signal.SIG_IGN:
                signal.signal(number, self._end)
        for number in _PREEMPT:
            signal.signal(number, self._preempt)
        # The guard's, for a main thread that sleeps through another signal.
        signal.signal(signal.SIGURG, lambda number, frame: None)
        os.register_at_fork(after_in_child=self._restore_in_child)

    def on_first(self, notice: Callable[[], None]) -> None:
        """Have a function called, in the handler, at the first request to end."""
        self._notice = notice

    def on_second(self, abort: Callable[[int], None]) -> None:
        """Set what the second request to end does; called with the exit code."""
        self._abort = abort

    def restore(self) -> None:
        """Give the old handlers back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if sys.unraisablehook == self._unraisable:
            sys.unraisablehook = self._old_hook

    def raise_if_received(self) -> None:
        """Raise in a script what a request to end that was only noted would have."""
        if self.received is not None and self.reaction is Reaction.SCRIPT:
            self._raise(self.received)

    def _restore_in_child(self) -> None:
        """A forked child (multiprocessing) is no rank: signals end it as usual."""
        self.restore()

    def _end(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._again:
            self._again = False
            self._raise(number)
        if self.received is not None:
            if now - self.received_at > _SAME_REQUEST_SECONDS:
                self._abort(128 + number)
            return
        self.received = number
        self.received_at = now
        self._notice()
        if self.reaction is Reaction.STOP:
            raise Stopped(number)
        if self.reaction is Reaction.SCRIPT:
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        code = 128 + number
        interrupt = number == signal.SIGINT
        self._raised = Interrupted(code) if interrupt else SystemExit(code)
        raise self._raised

    def _interrupt_again(self) -> None:
        self._again = True
        # A real one: it also ends a sleep of the main thread.
        main = threading.main_thread().ident
        signal.pthread_kill(main or 0, self.received or signal.SIGINT)

    def _unraisable(self, args: sys.UnraisableHookArgs) -> None:
        """Raise once more what came while a finaliser ran, where Python drops it."""
        if args.exc_value is not None and args.exc_value is self._raised:
            # From another thread and a moment later: here the finaliser still runs.
            timer = threading.Timer(_AGAIN_SECONDS, self._interrupt_again)
            timer.daemon = True
            timer.start()
            return
        self._old_hook(args)

    def _preempt(self, number: int, frame: FrameType | None) -> None:
        log.detail(f"signal {signal.Signals(number).name} came")
        for callback in _preempt_callbacks:
            try:
                callback(number)
            except Exception:  # noqa: BLE001 - a warning never ends the job
                traceback.print_exc()
