"""How a job ended."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from helpers.banners import strip_banners
from helpers.leftovers import Leftovers


class JobHung(AssertionError):
    """A job, or something waited for in it, took too long."""


class JobEnded(AssertionError):
    """A job ended before what was waited for."""


@dataclass(frozen=True)
class JobResult:
    """How a job ended; its text is made for the message of an assertion.

    Parameters
    ----------
    code
        The launcher's return code; ``-9`` when signal 9 ended it.
    seconds
        From its start to its end, without the search for leftovers.
    stdout, stderr
        All that it wrote.
    command
        The words it was started with.
    leftovers
        What was still there some seconds after its end.
    """

    code: int
    seconds: float
    stdout: str
    stderr: str
    command: tuple[str, ...] = ()
    leftovers: Leftovers = field(default_factory=Leftovers)

    @property
    def stdout_without_launcher(self) -> str:
        """Stdout without what mpirun and the MPI library wrote into it."""
        return strip_banners(self.stdout)

    @property
    def stderr_without_launcher(self) -> str:
        """Stderr without what mpirun and the MPI library wrote into it."""
        return strip_banners(self.stderr)

    def __str__(self) -> str:
        return (
            f"$ {shlex.join(self.command)}\n"
            f"exit code {self.code} after {self.seconds:.1f} s\n"
            f"---- stdout\n{self.stdout}\n---- stderr\n{self.stderr}\n"
            f"---- leftovers\n{self.leftovers}"
        )
