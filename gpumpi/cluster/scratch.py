"""The scratch folder of one rank, for spilled data and Dask's temporary files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import dask.config

from gpumpi.errors import StartError, describe

if TYPE_CHECKING:
    from gpumpi.rank.guard import Guard

__all__ = ["Scratch"]


class Scratch:
    """Make a folder that goes when the rank does, however that ends.

    An error is held back until :meth:`check`, where a verdict can tell it to all.

    Parameters
    ----------
    base : Path or None
        Where to make it; None: Dask's ``temporary-directory``, then ``TMPDIR``.
    job : str
        Identity of the job.
    rank : int
        Number of the rank.
    guard : Guard
        Removes it if this process is lost.

    Attributes
    ----------
    path : str
        The folder; empty when it could not be made.
    """

    def __init__(self, base: Path | None, job: str, rank: int, guard: Guard) -> None:
        self.path = ""
        self._error: OSError | None = None
        directory = base or dask.config.get("temporary-directory", None)
        try:
            if directory is not None:
                directory = Path(directory).absolute()
                directory.mkdir(parents=True, exist_ok=True)
            self.path = tempfile.mkdtemp(prefix=f"gpumpi-{job}-r{rank}-", dir=directory)
        except OSError as error:
            self._error = error
        else:
            guard.remove_if_lost(self.path)

    def check(self) -> None:
        """Raise what went wrong when the folder was made.

        Raises
        ------
        StartError
            When there is no folder.
        """
        if self._error is not None:
            raise StartError(
                describe(
                    "making the scratch folder",
                    f"{self._error}",
                    "a folder that this user may write to is needed",
                    "choose one with --local-directory",
                )
            )

    def remove(self) -> None:
        """Remove the folder and all in it."""
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)
