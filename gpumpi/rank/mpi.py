"""The door to mpi4py: a private communicator whose every wait has a deadline.

Blocking MPI calls spin at 100 % of a core and cannot time out, so all traffic here
is non-blocking point to point, polled with a growing sleep. Messages go through a
dup of the world, so they never meet those of the user's own mpi4py code.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from gpumpi.errors import DeadlineError, describe
from gpumpi.features import load
from gpumpi.log import log
from gpumpi.rank.launcher import (
    Launcher,
    LauncherName,
    check_library,
    check_world_size,
)
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoneWorld", "MpiWorld", "Tag", "World", "join_world"]

_FIRST_SLEEP_SECONDS = 0.0005
_LONGEST_SLEEP_SECONDS = 0.02


class Tag(IntEnum):
    """Kinds of messages. Ex.: ``STOP``: rank 0 ends the job."""

    FACTS = 1
    ANSWER = 2
    STARTED = 3
    GO = 4
    STOP = 5
    CLOSED = 6
    LEAVE = 7


class World(ABC):
    """The ranks of this job, as seen by one of them.

    Not thread-safe: one thread of the process, the main one, talks through it.
    :meth:`abort` alone may be called from any thread.

    Attributes
    ----------
    rank, size : int
        Number of this rank and of all.
    library : str
        Version text of the MPI library, or ``"no MPI"``.
    pid : int
        The process that joined; a forked child of it is no rank.
    """

    rank: int
    size: int
    library: str

    def __init__(self) -> None:
        self.pid = os.getpid()

    @abstractmethod
    def collect(
        self,
        message: object,
        tag: Tag,
        deadline: float,
        *,
        missing: Callable[[list[int], float], None] | None = None,
    ) -> dict[int, Any]:
        """Send a message to rank 0, which gets those of all ranks.

        Collective: every rank calls it.

        Parameters
        ----------
        message : object
            Picklable.
        tag : Tag
            Kind of the message.
        deadline : float
            Time of :func:`time.monotonic` at which rank 0 stops waiting.
        missing : callable, optional
            Called on rank 0 while it waits: ranks not heard of, seconds waited.

        Returns
        -------
        dict of int to object
            On rank 0 by rank, without the ranks that stayed silent; empty elsewhere.
        """

    @abstractmethod
    def tell(self, message: object, tag: Tag, deadline: float) -> None:
        """Send a message from rank 0 to every other rank. Called by rank 0 only.

        Raises
        ------
        DeadlineError
            When a rank has not taken it at the deadline.
        """

    @abstractmethod
    def heard(self, tag: Tag) -> Any | None:
        """Give the message of rank 0 with this tag if it is there. Never waits."""

    @abstractmethod
    def abort(self, code: int) -> None:
        """End all ranks of the job now, with this exit code. Does not return."""

    @abstractmethod
    def finalize(self) -> None:
        """End the use of MPI. Collective; the last call."""

    @abstractmethod
    def local_position(self) -> tuple[int, int]:
        """Local rank and number of local ranks by ``MPI_Comm_split_type``.

        Collective and blocking: call it only when all ranks are known to be alive.
        """

    def listen(self, tag: Tag, deadline: float, what: str) -> Any:
        """Wait for a message of rank 0. Called by the other ranks.

        Raises
        ------
        DeadlineError
            When it has not come at the deadline; names what was waited for.
        """
        start = time.monotonic()
        sleep = _FIRST_SLEEP_SECONDS
        while (message := self.heard(tag)) is None:
            if time.monotonic() > deadline:
                raise DeadlineError(
                    describe(
                        f"rank {self.rank} waiting for {what}",
                        f"no word from rank 0 within "
                        f"{format_seconds(time.monotonic() - start)}",
                        "an answer was due",
                        "look at what rank 0 said, or raise --start-timeout",
                    )
                )
            time.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP_SECONDS)
        return message


class LoneWorld(World):
    """One rank without a launcher; MPI is not initialised.

    A singleton MPI_Init would cost time and, with Open MPI's UCX layer, can hang
    in MPI_Finalize (open-mpi/ompi#13626).
    """

    rank = 0
    size = 1
    library = "no MPI"

    def collect(
        self,
        message: object,
        tag: Tag,
        deadline: float,
        *,
        missing: Callable[[list[int], float], None] | None = None,
    ) -> dict[int, Any]:
        """Give the own message back."""
        return {0: message}

    def tell(self, message: object, tag: Tag, deadline: float) -> None:
        """Do nothing: there is nobody else."""

    def heard(self, tag: Tag) -> Any | None:
        """Hear nothing: there is nobody else."""
        return None

    def abort(self, code: int) -> None:
        """End this process now; atexit functions do not run."""
        os._exit(code)

    def finalize(self) -> None:
        """Do nothing: MPI was never initialised."""

    def local_position(self) -> tuple[int, int]:
        """First of one."""
        return 0, 1


class MpiWorld(World):
    """The ranks that an MPI launcher started."""

    def __init__(self, mpi: Any, communicator: Any, library: str) -> None:
        super().__init__()
        self._mpi = mpi
        self._comm = communicator
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self.rank = int(communicator.Get_rank())
        self.size = int(communicator.Get_size())
        self.library = library

    def collect(
        self,
        message: object,
        tag: Tag,
        deadline: float,
        *,
        missing: Callable[[list[int], float], None] | None = None,
    ) -> dict[int, Any]:
        """See :meth:`World.collect`."""
        if self.rank != 0:
            self._send(message, 0, tag)
            return {}
        start = time.monotonic()
        received: dict[int, Any] = {0: message}
        sleep = _FIRST_SLEEP_SECONDS
        while len(received) < self.size and time.monotonic() < deadline:
            found = self._receive(self._mpi.ANY_SOURCE, tag)
            if found is not None:
                received[found[0]] = found[1]
                sleep = _FIRST_SLEEP_SECONDS
                continue
            if missing is not None:
                absent = [r for r in range(self.size) if r not in received]
                missing(absent, time.monotonic() - start)
            time.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP_SECONDS)
        return received

    def tell(self, message: object, tag: Tag, deadline: float) -> None:
        """See :meth:`World.tell`."""
        # Pickled once for all: the plan of 1,000 ranks is large. What receives it is
        # the same recv() as for objects.
        data = self._mpi.pickle.dumps(message)
        waiting = {
            rank: self._comm.Isend([data, self._mpi.BYTE], dest=rank, tag=tag)
            for rank in range(1, self.size)
        }
        sleep = _FIRST_SLEEP_SECONDS
        while waiting:
            waiting = {
                rank: request for rank, request in waiting.items() if not request.Test()
            }
            if not waiting:
                return
            if time.monotonic() > deadline:
                late = ", ".join(str(rank) for rank in list(waiting)[:8])
                late += f" and {len(waiting) - 8} more" if len(waiting) > 8 else ""
                raise DeadlineError(
                    describe(
                        f"rank 0 sending {tag.name} to all ranks",
                        f"not taken by rank(s) {late}",
                        "every rank was to take it",
                        "look for a frozen process on the hosts of these ranks",
                    )
                )
            time.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP_SECONDS)

    def heard(self, tag: Tag) -> Any | None:
        """See :meth:`World.heard`."""
        found = self._receive(0, tag)
        return None if found is None else found[1]

    def abort(self, code: int) -> None:
        """See :meth:`World.abort`. Thread-safe; needs MPI_THREAD_MULTIPLE."""
        # Of this process, nothing after gpumpi's own last line is of use.
        os.dup2(self._nowhere, 2)
        # Aborting a dup'ed communicator, MPICH loses the code (9 in its place).
        self._mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    def finalize(self) -> None:
        """See :meth:`World.finalize`. The script may have done it before."""
        if not self._mpi.Is_finalized():
            self._mpi.Finalize()

    def local_position(self) -> tuple[int, int]:
        """See :meth:`World.local_position`."""
        local = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        position = int(local.Get_rank()), int(local.Get_size())
        local.Free()
        return position

    def _send(self, message: object, destination: int, tag: Tag) -> None:
        request = self._comm.isend(message, dest=destination, tag=tag)
        # A small message leaves at once; a large one when rank 0 takes it. The
        # deadline of the answer covers both, so this wait needs none of its own.
        self._pending = request
        request.Test()

    def _receive(self, source: int, tag: Tag) -> tuple[int, Any] | None:
        status = self._mpi.Status()
        message = self._comm.improbe(source=source, tag=tag, status=status)
        if message is None:
            return None
        # What improbe matched is under way, so this receive cannot block for long.
        return int(status.Get_source()), message.recv()


def join_world(launcher: Launcher) -> World:
    """Initialise MPI and make the communicator of gpumpi's own traffic.

    Collective under a launcher. MPI_Init holds the interpreter, so a deadline for it
    must come from another process (see :mod:`gpumpi.rank.guard`).

    Raises
    ------
    FeatureUnavailableError
        When mpi4py is absent, too old or broken.
    LauncherMismatchError
        When the library is not the launcher's.
    """
    if launcher.name is LauncherName.NONE:
        return LoneWorld()
    mpi4py = load("mpi4py", why="to talk between the ranks")
    # The library's name is looked at before MPI_Init; mpi4py still finalises at exit.
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True
    from mpi4py import MPI

    library = MPI.Get_library_version().strip("\x00\n ")
    check_library(launcher, library)
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    check_world_size(launcher, MPI.COMM_WORLD.Get_size(), library)
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        log.detail(f"{library}: no MPI_THREAD_MULTIPLE, hence no MPI inside tasks")
    communicator, request = MPI.COMM_WORLD.Idup()
    while not request.Test():
        time.sleep(_FIRST_SLEEP_SECONDS)
    return MpiWorld(MPI, communicator, library)
