"""How a failure in any thread ends the whole job, with one cause on the screen."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from gpumpi.log import Phase, log

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gpumpi.rank.mpi import World

__all__ = ["Failure"]

#: MPICH's Hydra (5.0.2) ends at an abort without reading the ranks' output to the end:
#: without a pause 5 of 69 last lines were lost, with 0.15 s 1 of 69.
_LAST_WORDS_SECONDS = 0.3
_FIRST_WORD_SECONDS = 0.1


class Failure:
    """The one way out of a job that cannot go on. All methods are thread-safe.

    An exception that nobody catches in a thread or on the event loop leaves MPI
    ranks waiting for ever; mpi4py.run sees only those of the main thread.

    Attributes
    ----------
    before_abort : callable
        Called before the end, e.g. to tell the scheduler that its end is wanted.
    """

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = host
        self._lock = threading.RLock()
        self.before_abort: Callable[[], None] = lambda: None
        self._old_hook = threading.excepthook
        self._old_main_hook = sys.excepthook

    def install(self) -> None:
        """Have exceptions that no thread catches end the job."""
        self._old_hook = threading.excepthook
        threading.excepthook = self._thread_hook
        self._old_main_hook = sys.excepthook
        sys.excepthook = self._main_hook

    def uninstall(self) -> None:
        """Leave exceptions of threads to Python again."""
        threading.excepthook = self._old_hook
        if sys.excepthook == self._main_hook:
            sys.excepthook = self._old_main_hook

    def end_job(self, text: str, code: int = 1) -> None:
        """Say why, then end all ranks with this exit code. Does not return.

        The guards of the ranks take away what is left.
        """
        self.say_and_abort(
            f"rank {self._world.rank} on host {self._host}: {text}", code
        )

    def say_and_abort(self, text: str, code: int) -> None:
        """Say this, then end all ranks with this exit code. Does not return."""
        with self._lock:
            log.phase = Phase.ENDING
            try:
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    sys.stdout.flush()  # closed or without a reader: nothing to lose
                log.problem(text)
                time.sleep(_LAST_WORDS_SECONDS)
            finally:
                self.abort_quietly(code)

    def abort_quietly(self, code: int) -> None:
        """End all ranks at once, as somebody asked for with a second signal."""
        try:
            self.before_abort()
        finally:
            self._world.abort(code)

    def _main_hook(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        # What the script makes of its lost cluster would be taken for the cause. Its
        # client hears of the loss as soon as we do; who ends the job goes first, and
        # then never gives the lock back.
        time.sleep(_FIRST_WORD_SECONDS)
        with self._lock:
            self._old_main_hook(kind, error, trace)

    def _thread_hook(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        name = args.thread.name if args.thread is not None else "unknown"
        if log.phase is Phase.ENDING:
            log.detail(f"thread {name}: {args.exc_type.__name__}: {args.exc_value}")
            return
        traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
        self.end_job(
            f"{args.exc_type.__name__} in thread {name!r} was not caught: "
            f"{args.exc_value}"
        )
