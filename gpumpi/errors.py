"""Every error that gpumpi raises on purpose, under one base class.

A message says what was being done, the value that was got, what is allowed or
was found, and what to do next. :func:`describe` builds it, so that no part is
forgotten and all messages read alike.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DeadlineError",
    "FeatureUnavailableError",
    "GpumpiError",
    "JobError",
    "LauncherMismatchError",
    "OptionError",
    "SchedulerFileError",
    "SessionError",
    "StartError",
    "describe",
]


class GpumpiError(Exception):
    """Base of all errors of gpumpi.

    Attributes
    ----------
    exit_code : int
        What a command ends with when this error reaches it: 2 for a request
        that cannot be right, 1 for a failure.
    """

    exit_code: ClassVar[int] = 1


class OptionError(GpumpiError, ValueError):
    """An option is unknown, has a value that is not allowed, or excludes another."""

    exit_code: ClassVar[int] = 2


class FeatureUnavailableError(GpumpiError):
    """Something asked for is not installed or not there; the message says why."""


class LauncherMismatchError(GpumpiError):
    """The MPI library is not the one whose launcher started the ranks."""


class DeadlineError(GpumpiError, TimeoutError):
    """A wait came to its deadline; the message names what it waited for."""


class StartError(GpumpiError):
    """The start failed on at least one rank; the message names the first."""


class JobError(GpumpiError):
    """A part of the running job failed: a scheduler, a worker, a thread."""


class SchedulerFileError(GpumpiError):
    """A scheduler file is absent, stale, half-written, foreign or not writable."""


class SessionError(GpumpiError, RuntimeError):
    """A session was used in a way it does not allow, e.g. after its end."""


def describe(doing: str, got: str, allowed: str, do: str) -> str:
    """Build a message out of its four parts.

    Parameters
    ----------
    doing : str
        What was being done, as a clause without full stop.
    got : str
        The value or the state that was got.
    allowed : str
        What is allowed, or what was found instead.
    do : str
        What to do next, in the imperative.

    Returns
    -------
    str
        ``doing: got; allowed. Next: do``
    """
    return f"{doing}: {got}; {allowed}. Next: {do}"
