"""The scheduler process: a child of rank 0 without MPI and without CUDA.

Run as ``python -m gpumpi.cluster.scheduler_main``. It takes lines of JSON on stdin:
first its orders, later ``{"end": ...}``; and tells what happens in lines of JSON on
stdout. It ends when stdin closes. When that happens without a word before, rank 0
is gone; then it says which rank was lost first, since it outlives them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

gc.disable()  # for the imports, as in gpumpi.run

import dask
from distributed import Scheduler, SchedulerPlugin
from distributed.core import Status

from gpumpi.cluster.dashboard import serve_dashboard
from gpumpi.cluster.security import Credentials, JobSecurity
from gpumpi.errors import JobError, describe
from gpumpi.log import Phase, log

_LEAVING = (Status.closing, Status.closing_gracefully, Status.closed)


class JobScheduler(Scheduler):  # type: ignore[misc]
    """Dask's scheduler with the doors that a job has.

    Parameters
    ----------
    supervised : bool
        Whether workers are restarted by a nanny.
    http_address : str or None
        Where the dashboard listens; None for no HTTP server at all.
    """

    def __init__(
        self, *, supervised: bool, http_address: str | None, **options: Any
    ) -> None:
        self._http_address = http_address
        self.left_by_itself: dict[str, bool] = {}
        self._next_name = 0
        # The dashboard proper (bokeh, 0.7 s of imports) is loaded when somebody
        # first looks at it, so that no start waits for it.
        super().__init__(dashboard=False, dashboard_address=http_address, **options)
        self.handlers["reserve_names"] = self._reserve_names
        if not supervised:
            self.handlers["restart"] = self._refuse_restart
            self.handlers["restart_workers"] = self._refuse_restart

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Start Dask's HTTP server, unless there is to be none."""
        if self._http_address is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                super().start_http_server(*args, **options)

    async def remove_worker(self, address: str, **options: Any) -> str:
        """Remove a worker, noting first whether it had said that it leaves."""
        state = self.workers.get(self.coerce_address(address))
        if state is not None:
            self.left_by_itself[state.address] = state.status in _LEAVING
        result: str = await super().remove_worker(address, **options)
        return result

    def _reserve_names(self, count: int, above: int) -> int:
        """Give the first of so many numbers that no worker has or will have.

        Two jobs that join at once must not get the same.
        """
        names = [str(worker.name) for worker in self.workers.values()]
        taken = [int(name) for name in names if name.isdigit()]
        first = max([above, self._next_name, *(number + 1 for number in taken)])
        self._next_name = first + count
        return first

    def _refuse_restart(self, **_: Any) -> None:
        raise JobError(
            describe(
                "restarting the workers",
                "they run inside their MPI ranks",
                "a rank cannot be restarted without ending the job",
                "start the job with --nanny, which supervises the workers",
            )
        )


class Witness(SchedulerPlugin):  # type: ignore[misc]
    """Tells rank 0 which workers come and go, and names the first rank lost."""

    def __init__(self, say: Any, hosts: dict[str, str], *, supervised: bool) -> None:
        self._say = say
        self._hosts = hosts
        self._supervised = supervised
        self._said = False
        self.quiet = False
        self.workers: dict[str, Any] = {}

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Tell of a new worker."""
        name = scheduler.workers[worker].name
        self.workers[worker] = name
        self._say(event="worker", name=name, address=worker)

    def remove_worker(
        self, scheduler: JobScheduler, worker: str, *, stimulus_id: str, **_: Any
    ) -> None:
        """Tell of a worker that has left or is lost."""
        name = self.workers.pop(worker, worker)
        silent = stimulus_id.startswith("check-worker-ttl")
        ending = scheduler.status in _LEAVING  # client.shutdown() closes them all
        lost = not scheduler.left_by_itself.pop(worker, False) and not ending
        if lost and not silent and not self._supervised and not self.quiet:
            # An in-rank worker goes only with its rank, and then the launcher ends
            # all: this process alone lives long enough to name the first.
            if not self._said:
                where = self._hosts.get(str(name))
                log.problem(
                    f"rank {name}{f' on host {where}' if where else ''} was lost: "
                    "it was killed, crashed, or ended without its MPI"
                )
            self._said = True
        self._say(event="left", name=name, address=worker, lost=lost, silent=silent)

    def rank_zero_is_gone(self) -> None:
        """Say that rank 0 went without a word, unless another rank went before."""
        if not self._said and not self.quiet:
            where = self._hosts.get("0", "unknown")
            log.problem(
                f"rank 0 on host {where} was lost: it was killed, crashed, or left by "
                "os._exit"
            )


class _Lines:
    """Lines of JSON from stdin, as an asynchronous reader."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=2**24)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin.buffer
        )

    async def next(self) -> dict[str, Any] | None:
        line = await self._reader.readline()
        return json.loads(line) if line.endswith(b"\n") else None


def _own_stdout() -> TextIO:
    """Keep stdout for our lines; what libraries print goes to stderr."""
    own = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return own


async def _serve() -> None:
    out = _own_stdout()

    def say(**event: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(event) + "\n")

    lines = _Lines()
    await lines.open()
    quiet = False
    while (orders := await lines.next()) == {"quiet": True}:
        quiet = True
    if orders is None or "end" in orders:
        return
    log.tag("scheduler")
    sys.path[:] = orders["path"]
    log.configure(Path(orders["log_dir"]) if orders["log_dir"] else None, "scheduler")
    log.phase = Phase.RUNNING
    witness = Witness(say, orders["hosts"], supervised=orders["supervised"])
    witness.quiet = quiet
    try:
        scheduler = await _start(orders, witness)
    except (OSError, RuntimeError, ValueError, UserWarning) as error:
        cause = str(error.__cause__ or error).strip()
        say(event="failed", error=cause.partition("\n")[0].rstrip("."))
        return
    gc.enable()
    server = getattr(scheduler, "http_server", None)
    say(
        event="listening",
        address=scheduler.address,
        dashboard_port=None if server is None else server.port,
    )
    finished = asyncio.ensure_future(scheduler.finished())
    while True:
        word = asyncio.ensure_future(lines.next())
        await asyncio.wait({finished, word}, return_when=asyncio.FIRST_COMPLETED)
        log.phase = Phase.ENDING
        said = None if finished.done() else word.result()
        if said is None or "end" in said:
            break
        witness.quiet = True  # a signal came: what is lost now was asked to go
    if finished.done():
        say(event="shutdown")
        return
    if said is None:
        # No farewell: workers that have joined must see that the cluster is lost.
        witness.rank_zero_is_gone()
        return
    await scheduler.close(reason="gpumpi-end")


async def _start(orders: dict[str, Any], witness: Witness) -> JobScheduler:
    dask.config.set(orders["config"])
    tls = orders["tls"]
    security = JobSecurity(Credentials(**tls)) if tls else None
    scheduler = JobScheduler(
        supervised=orders["supervised"],
        http_address=orders["http_address"],
        http_prefix=orders["http_prefix"],
        protocol="tls" if tls else "tcp",
        host=orders["host"],
        port=orders["port"],
        security=security,
        worker_ttl=orders["worker_ttl"],
        plugins=[witness],
    )
    if orders["http_address"] is not None:
        serve_dashboard(scheduler, orders["http_prefix"])
    await scheduler
    return scheduler


def main() -> None:
    """Run the scheduler until it is told to end, or rank 0 is gone."""
    import signal

    # Rank 0 answers the signals of the job and then ends this process.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    asyncio.run(_serve())
    # All is closed; taking the modules apart would only cost time.
    os._exit(0)


if __name__ == "__main__":
    main()
