"""What a rank says: rank-tagged lines, one write each, and the log files.

Notices about a good run go to stdout, problems to stderr, so that a run that
went well leaves stderr empty. The libraries' own messages pass one filter: while
the job starts and ends, their talk of closed connections is expected and goes to
the log file only.
"""

from __future__ import annotations

import logging
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, TextIO

from gpumpi.errors import GpumpiError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Phase", "RankLog", "log"]

#: Loggers of the libraries under us.
_LIBRARIES = ("distributed", "tornado", "asyncio", "bokeh")

#: What Dask says of a lost worker, on several ranks; rank 0 says it in one line.
_SAID_ELSEWHERE = (
    "Restarting worker",
    "Removing worker",
    "Worker failed to heartbeat",
    "Worker process",
    "Workers [",
    "Host wildcard",
    "Async instruction for <Task cancelled",
    "Failed to communicate with scheduler during heartbeat",
    "Scheduler was unaware of this worker",
)

#: Dask warns of every P2P shuffle that begins and ends, tornado of every stranger
#: that asks the dashboard for a path.
_ROUTINE = ("distributed.shuffle._scheduler_plugin", "tornado.access")

_logger = logging.getLogger("gpumpi")
# What we say ourselves reaches the screen by our own writes, the file by a handler.
_logger.addHandler(logging.NullHandler())
_logger.propagate = False


class Phase(Enum):
    """Where a rank is in its life. Ex.: ``Phase.ENDING`` while workers close."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


class _Tagged(logging.Formatter):
    """Rank first, then one act per line."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"{tag} | %(message)s")


class _PhaseFilter(logging.Filter):
    """Keep the libraries' messages off the screen while they are expected."""

    def __init__(self, owner: RankLog) -> None:
        super().__init__()
        self._owner = owner

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _LIBRARIES:
            return True
        if record.exc_info and isinstance(record.exc_info[1], GpumpiError):
            return False  # raised on purpose; whoever asked is told
        if record.name in _ROUTINE and record.levelno <= logging.WARNING:
            return False
        if record.getMessage().startswith(_SAID_ELSEWHERE):
            return False
        return self._owner.phase is Phase.RUNNING


class RankLog:
    """The log of this process. Thread-safe, as :mod:`logging` is.

    Attributes
    ----------
    phase : Phase
        Set by the owner of the process as the job goes on.
    quiet : bool
        Whether notices are left out. Problems are always said.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.quiet = False
        self._tag = "gpumpi"

    def tag(self, tag: str) -> None:
        """Name this process in every line to come, e.g. ``r3`` or ``scheduler``."""
        self._tag = tag

    def notice(self, text: str) -> None:
        """Say something about a good run, on stdout, in one write."""
        _logger.info(text)
        if not self.quiet:
            _write(sys.stdout, text)

    def problem(self, text: str) -> None:
        """Say what went wrong, on stderr, in one write, with our name before it."""
        _logger.error(text)
        _write(sys.stderr, "\n".join(f"gpumpi: {line}" for line in text.splitlines()))

    def detail(self, text: str) -> None:
        """Note an act for the log file (``--log-dir``); the screen stays as it is."""
        _logger.info(text)

    def configure(self, directory: Path | None, name: str) -> None:
        """Send the libraries' warnings to stderr, tagged, and all to a file.

        Parameters
        ----------
        directory : Path or None
            Folder of the log files, made if needed; None for no files.
        name : str
            Stem of this process's file: ``rank-0003`` or ``scheduler``.

        Raises
        ------
        OSError
            When the folder or the file cannot be made.
        """
        handlers: list[logging.Handler] = []
        screen = logging.StreamHandler()
        screen.setLevel(logging.WARNING)
        screen.setFormatter(_Tagged(self._tag))
        screen.addFilter(_PhaseFilter(self))
        handlers.append(screen)
        _logger.setLevel(logging.INFO)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{name}.log"
            # Private: the banner in it has the dashboard's secret path.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            file = logging.FileHandler(path, encoding="utf-8")
            file.setFormatter(
                logging.Formatter(
                    f"%(asctime)s {self._tag} %(levelname)s %(name)s | %(message)s"
                )
            )
            handlers.append(file)
            _logger.addHandler(file)
        for library in _LIBRARIES:
            # Dask gives some loggers below these (distributed.client) handlers of
            # their own, which would pass our filter by.
            for name in list(logging.root.manager.loggerDict):
                if name.startswith(f"{library}."):
                    below = logging.getLogger(name)
                    below.handlers.clear()
                    below.propagate = True
                    below.setLevel(logging.NOTSET)
            logger = logging.getLogger(library)
            logger.handlers[:] = handlers
            logger.propagate = False
            logger.setLevel(logging.INFO if directory else logging.WARNING)


def _write(stream: TextIO | None, text: str) -> None:
    """Write whole lines at once: two prints from two ranks would tear.

    A reader that went away must not turn the end of a job into a failure.
    """
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(shown + "\n")
        stream.flush()
    except (OSError, ValueError):
        # Closed, without a reader, or on a full disk: there is nobody to tell.
        pass


#: The log of this process.
log = RankLog()
