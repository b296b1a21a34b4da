"""One rank's part of a running job: its parts, and what they tell each other."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client

from gpumpi.cluster.scheduler_file import SchedulerFile
from gpumpi.cluster.security import JobSecurity, set_job_credentials
from gpumpi.cluster.worker import EventLoop, WorkerHost
from gpumpi.errors import GpumpiError
from gpumpi.log import Phase, log
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from gpumpi.cluster.failure import Failure
    from gpumpi.cluster.scheduler import SchedulerProcess
    from gpumpi.cluster.scratch import Scratch
    from gpumpi.cluster.start import Go
    from gpumpi.config import Options
    from gpumpi.rank.guard import Guard
    from gpumpi.rank.launcher import Launcher
    from gpumpi.rank.mpi import World
    from gpumpi.rank.signals import Signals

__all__ = ["Job"]

_LONGEST_WORKER_CLOSE_SECONDS = 5.0
#: A worker that hangs at its start holds nothing yet, and the others wait for it.
_ABANDON_SECONDS = 1.0


class Job:
    """The parts of one rank, after the first verdict.

    Used by the main thread; the events at its end arrive in other threads.

    Attributes
    ----------
    worker_addresses : dict of int to str
        By rank; on rank 0 after the second verdict.
    ended : bool
        Whether the end has begun. Rank 0 only.
    """

    def __init__(
        self,
        *,
        go: Go,
        options: Options,
        world: World,
        launcher: Launcher,
        guard: Guard,
        signals: Signals,
        failure: Failure,
        scheduler: SchedulerProcess | None,
        scratch: Scratch,
        http_prefix: str,
    ) -> None:
        self.identity = go.job
        self.plan = go.plan
        self.options = options
        self.world = world
        self.launcher = launcher
        self.guard = guard
        self.signals = signals
        self.failure = failure
        self.scheduler = scheduler
        self.scratch = scratch
        self.scheduler_address = go.scheduler_address
        self.worker_addresses: dict[int, str] = {}
        self.ended = False
        self.gpus_found = go.gpus_found
        self.security = None if go.credentials is None else JobSecurity(go.credentials)
        self.loop = EventLoop(self._unhandled)
        self._http_prefix = http_prefix
        self._credentials = go.credentials
        self._file: SchedulerFile | None = None
        self._path: Path | None = None
        self._host: WorkerHost | None = None
        if self.plan.ranks[world.rank].worker:
            self._host = WorkerHost(
                self.loop,
                self.plan.ranks[world.rank],
                options,
                go.scheduler_address,
                self.security,
                scratch.path,
            )

    # -------------------------------------------------------------------- facts

    def named(self, rank: int) -> str:
        """Rank and host, for messages."""
        return f"rank {rank} on host {self.plan.ranks[rank].host}"

    @property
    def worker_address(self) -> str:
        """Address of this rank's worker; empty without one."""
        return "" if self._host is None else self._host.address

    @property
    def cluster_ended(self) -> bool:
        """Whether a client has shut the cluster down. Rank 0 only."""
        if self.scheduler is not None:
            return self.scheduler.ended.is_set()
        return self._host is not None and self._host.finished

    @property
    def cluster_lost(self) -> bool:
        """Whether the cluster that these ranks have joined went without a word."""
        return self._host is not None and self._host.lost

    @property
    def dashboard_link(self) -> str | None:
        """URL of the dashboard on rank 0's host, with its secret path."""
        if self.scheduler is None or self.scheduler.dashboard_port is None:
            return None
        host = self.options.scheduler.dashboard_address.rpartition(":")[0]
        return (
            f"http://{host}:{self.scheduler.dashboard_port}{self._http_prefix}/status"
        )

    def make_client(self) -> Client:
        """Make a client of this job. Rank 0 only."""
        return Client(
            self.scheduler_address,
            security=self.security,
            timeout=self.options.cluster.start_timeout,
        )

    # -------------------------------------------------------------------- start

    def start_worker(self, deadline: float) -> None:
        """Start this rank's worker.

        Raises
        ------
        StartError
            When the scratch folder could not be made, or the worker cannot start.
        DeadlineError
            When it has not started at the deadline.
        """
        self.scratch.check()
        if self._host is not None:
            self._host.start(deadline)

    def open_doors(self) -> None:
        """Let this process's clients in, and those that read the scheduler file.

        Raises
        ------
        SchedulerFileError
            When the file cannot be written.
        """
        set_job_credentials(self._credentials, self.scheduler_address)
        dask.config.set(
            {
                "scheduler-address": self.scheduler_address,
                "distributed.client.security-loader": (
                    "gpumpi.cluster.security.load_job_security"
                ),
            }
        )
        self.loop.share_with_clients()
        if self.scheduler is not None:
            self.scheduler.watch(self.scheduler_ended, self._worker_left)
        path = self.options.scheduler.scheduler_file
        if path is None or self.options.cluster.join:
            return
        self._file = SchedulerFile(
            address=self.scheduler_address,
            job=self.identity,
            host=self.plan.ranks[0].host,
            pid=os.getpid(),
            started=time.time(),
            ranks=self.world.size,
            nanny=self.options.cluster.nanny,
            secure=self._credentials is not None,
        )
        self._path = path.absolute()
        self._file.write(self._path, self._credentials)
        self.guard.remove_if_lost(self._path)
        if self._credentials is not None:
            self.guard.remove_if_lost(SchedulerFile.credentials_path(self._path))

    def close_doors(self) -> None:
        """Take back what :meth:`open_doors` gave; the script may go on without us."""
        set_job_credentials(None)
        dask.config.set(
            {"scheduler-address": None, "distributed.client.security-loader": None}
        )

    # ---------------------------------------------------------------------- end

    def close_worker(self, seconds: float = _LONGEST_WORKER_CLOSE_SECONDS) -> str:
        """Close this rank's worker; give the text of what went wrong, if anything."""
        if self._host is None:
            return ""
        try:
            self._host.close(min(seconds, self.options.cluster.stop_timeout))
        except GpumpiError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the end goes on; rank 0 notes it
            return f"{type(error).__name__}: {error}"
        return ""

    def clear(self) -> None:
        """Stop the event loop and remove this rank's files."""
        self.loop.stop(1.0)
        self.scratch.remove()
        if self._file is not None and self._path is not None:
            self._file.remove(self._path)
            self.guard.forget_paths(
                self._path, SchedulerFile.credentials_path(self._path)
            )

    def abandon(self) -> None:
        """End this rank's part after a start that failed elsewhere."""
        log.phase = Phase.ENDING
        self.close_worker(_ABANDON_SECONDS)
        self.clear()

    # ------------------------------------------------------------------- events

    def scheduler_ended(self, code: int) -> None:
        """End the job: its scheduler has ended unasked."""
        if self.ended:
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self.failure.end_job(f"the scheduler process {how}; the job cannot go on")

    def _unhandled(self, text: str) -> None:
        if log.phase is Phase.RUNNING:
            self.failure.end_job(text)
        else:
            log.detail(text)

    def _worker_left(self, event: dict[str, Any]) -> None:
        if self.ended or not event["lost"]:
            return
        hosts = {plan.name: plan.host for plan in self.plan.ranks}
        name = event["name"]
        where = f"rank {name}" + (f" on host {hosts[name]}" if name in hosts else "")
        if event["silent"]:
            log.problem(
                f"the worker of {where} has been silent for more than "
                f"{format_seconds(self.options.cluster.worker_ttl)} and is lost; its "
                "partitions are computed again"
            )
            if self.scheduler is not None and not self.scheduler.workers:
                self.failure.end_job("no worker is left; the job cannot go on")
        elif self.options.cluster.nanny:
            log.problem(
                f"the supervised worker of {where} was lost and is started again; its "
                "partitions are computed again"
            )
