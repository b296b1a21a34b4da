"""Ranks that join a running cluster, and leave it again without loss."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed.core import rpc

from gpumpi.cluster.scheduler_file import SchedulerFile
from gpumpi.cluster.security import Credentials, JobSecurity
from gpumpi.errors import SchedulerFileError, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gpumpi.config import Options

__all__ = ["RunningCluster", "read_cluster", "retire_workers"]

_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class RunningCluster:
    """A cluster that answers.

    Attributes
    ----------
    file : SchedulerFile
        What its scheduler file says.
    credentials : Credentials or None
        What its members hold.
    first_name : int
        The first of the names that it keeps for the workers of these ranks.
    local : bool
        Whether it listens on the loopback of this host.
    """

    file: SchedulerFile
    credentials: Credentials | None
    first_name: int
    local: bool


def read_cluster(options: Options, ranks: int, deadline: float) -> RunningCluster:
    """Read the scheduler file and ask the cluster behind it for names.

    Raises
    ------
    SchedulerFileError
        When the file is no good, or nobody answers (a stale file).
    """
    path = options.scheduler.scheduler_file
    assert path is not None
    file = SchedulerFile.read(path)
    credentials = file.read_credentials(path)
    first = ask(
        path,
        file,
        credentials,
        deadline,
        lambda scheduler: scheduler.reserve_names(count=ranks, above=file.ranks),
    )
    return RunningCluster(
        file=file,
        credentials=credentials,
        first_name=first,
        local="://127." in file.address,
    )


def ask_identity(scheduler: Any) -> Awaitable[Any]:
    """Ask a scheduler who it is, and for all its workers."""
    answer: Awaitable[Any] = scheduler.identity(n_workers=-1)
    return answer


def ask(
    path: Path,
    file: SchedulerFile,
    credentials: Credentials | None,
    deadline: float,
    question: Callable[[Any], Awaitable[Any]] = ask_identity,
) -> Any:
    """Ask the scheduler, on a loop of its own in a thread of its own.

    In a notebook the main thread runs a loop already.

    Parameters
    ----------
    path, file : Path, SchedulerFile
        Where the cluster is found.
    credentials : Credentials or None
        What it asks for.
    deadline : float
        When to give up, at the latest; never later than 5 s from now.
    question : callable
        Gets the connection to the scheduler, and calls one of its handlers.

    Raises
    ------
    SchedulerFileError
        When nobody answers: the file is stale, or the address out of reach.
    """
    security = None if credentials is None else JobSecurity(credentials)
    seconds = max(1.0, min(_CONNECT_SECONDS, deadline - time.monotonic()))

    async def answer() -> Any:
        async with asyncio.timeout(seconds):
            async with _connect(file.address, security) as scheduler:
                return await question(scheduler)

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="gpumpi ask") as pool:
            return pool.submit(asyncio.run, answer()).result()
    except (OSError, TimeoutError) as error:
        age = (time.time() - file.started) / 60
        raise SchedulerFileError(
            describe(
                f"connecting to the cluster of {path}",
                f"nobody answers at {file.address} ({type(error).__name__})",
                f"process {file.pid} on host {file.host} wrote the file "
                f"{age:.0f} min ago",
                "remove the file if that job has ended; from another host, start the "
                "cluster with --interface, or use a tunnel",
            )
        ) from error


async def retire_workers(
    address: str, security: JobSecurity | None, workers: list[str]
) -> None:
    """Have the scheduler move what these workers hold to the others, then drop them.

    Dask's ``retire_workers``: nothing that is computed gets lost.
    """
    async with _connect(address, security) as scheduler:
        await scheduler.retire_workers(
            workers=workers, close_workers=False, remove=True
        )


def _connect(address: str, security: JobSecurity | None) -> Any:
    arguments = {} if security is None else security.get_connection_args("client")
    return rpc(address, connection_args=arguments, timeout=_CONNECT_SECONDS)
