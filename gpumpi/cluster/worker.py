"""The worker of one rank, and the event loop it lives on.

The loop runs in a background thread, so that the main thread is free for the
script (rank 0) or for MPI and signals (the others).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import dask
from distributed import Nanny, Worker
from distributed.core import Status

from gpumpi.errors import DeadlineError, GpumpiError, StartError, describe
from gpumpi.log import log
from gpumpi.rank.launcher import is_launcher_variable
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from gpumpi.cluster.security import JobSecurity
    from gpumpi.config import Options
    from gpumpi.layout import RankPlan

_CLOSED = (Status.closed, Status.closing, Status.failed)
_CONNECTION_BROKEN = "worker-handle-scheduler-connection-broken"
#: Why a worker closes that nobody has told to.
_LOST = (_CONNECTION_BROKEN, "worker-heartbeat-missing", "worker-heartbeat-error")

__all__ = ["EventLoop", "RankWorker", "WorkerHost"]


class RankWorker(Worker):  # type: ignore[misc]
    """Dask's worker inside a rank: no HTTP server of its own, hence no open port."""

    close_reason = ""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Start none: the scheduler's dashboard shows every worker."""

    async def close(
        self, *args: Any, reason: str = "worker-close", **options: Any
    ) -> str | None:
        """Close as Dask's worker does, and keep the reason."""
        if reason == _CONNECTION_BROKEN:
            # A scheduler that ends in order says so, then ends the stream: its word
            # is in a task of its own, which goes first.
            await asyncio.sleep(0)
        self.close_reason = self.close_reason or reason
        result: str | None = await super().close(*args, reason=reason, **options)
        return result


class RankNanny(Nanny):  # type: ignore[misc]
    """Dask's nanny, which keeps why its worker has closed."""

    close_reason = ""

    def close_gracefully(self, reason: str = "nanny-close-gracefully") -> None:
        """Expect the worker to end, and keep the reason."""
        self.close_reason = self.close_reason or reason
        super().close_gracefully(reason=reason)


class PreloadErrors(logging.Handler):
    """Catch what a preload raises: Dask (2026.7.1) logs it and goes on without it.

    Attributes
    ----------
    first : BaseException or None
        What the first preload that failed has raised.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record."""
        if self.first is None and record.exc_info:
            self.first = record.exc_info[1]

    def __enter__(self) -> None:
        logging.getLogger("distributed.preloading").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("distributed.preloading").removeHandler(self)


class EventLoop:
    """One asyncio loop in a daemon thread, for the worker and for clients.

    Parameters
    ----------
    on_error : callable
        Called with the text of an error that nobody awaited.
    """

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._ready = threading.Event()
        self._stopped: asyncio.Event
        self.asyncio_loop: asyncio.AbstractEventLoop
        self.tornado_loop: Any = None
        self.thread = threading.Thread(target=self._run, name="gpumpi", daemon=True)
        self._failed: BaseException | None = None
        self.thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def submit(self, coroutine: Any) -> Future[Any]:
        """Run a coroutine on the loop; from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.asyncio_loop)

    def stop(self, timeout: float) -> None:
        """Stop the loop and wait for its thread."""
        with contextlib.suppress(RuntimeError):
            self.asyncio_loop.call_soon_threadsafe(self._stopped.set)
        self.thread.join(timeout)

    def share_with_clients(self) -> None:
        """Have every ``Client()`` of this process use this loop, not one of its own.

        One loop means one thread less on rank 0, and UCX, which belongs to one loop,
        needs it. ``distributed`` 2026.7.1 has no option for it, hence the class that
        its client looks up is replaced.
        """
        from distributed import client
        from distributed.utils import LoopRunner

        shared = self

        class SharedLoopRunner(LoopRunner):  # type: ignore[misc]
            def __init__(self, loop: Any = None, asynchronous: bool = False) -> None:  # noqa: FBT001, FBT002
                if loop is None and not asynchronous and shared.thread.is_alive():
                    loop = shared.tornado_loop
                super().__init__(loop=loop, asynchronous=asynchronous)

        client.LoopRunner = SharedLoopRunner

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._ready.is_set():
                raise
            self._failed = error
            self._ready.set()

    async def _main(self) -> None:
        from tornado.ioloop import IOLoop

        self.asyncio_loop = asyncio.get_running_loop()
        self.asyncio_loop.set_exception_handler(self._unhandled)
        self.tornado_loop = IOLoop.current()
        self._stopped = asyncio.Event()
        self._ready.set()
        await self._stopped.wait()

    def _unhandled(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        error = context.get("exception")
        text = f"{context.get('message', 'error in the event loop')}"
        if error is None or "never retrieved" in text:
            # Somebody forgot to look at a result; nothing of the job depends on it.
            log.detail(f"event loop: {text} {error!r}")
            return
        self._on_error(f"{text}: {type(error).__name__}: {error}")


class WorkerHost:
    """Start the worker that the plan gives to this rank.

    Parameters
    ----------
    loop : EventLoop
        Where it lives.
    plan : RankPlan
        Name, threads, memory, address.
    options : Options
        Preloads, resources, and whether it is supervised.
    scheduler_address : str
        Where it reports to.
    security : JobSecurity or None
        Its credentials.
    scratch : str
        Its folder for spilled data.
    """

    def __init__(
        self,
        loop: EventLoop,
        plan: RankPlan,
        options: Options,
        scheduler_address: str,
        security: JobSecurity | None,
        scratch: str,
    ) -> None:
        self._loop = loop
        self._server: RankWorker | RankNanny | None = None
        common: dict[str, Any] = {
            "nthreads": plan.nthreads,
            "name": plan.name,
            "host": plan.address,
            "security": security,
            "local_directory": scratch,
            "memory_limit": plan.memory_limit_bytes,
            "preload": list(options.worker.preload),
            "resources": dict(options.worker.resources) or None,
            "protocol": "tcp" if security is None else "tls",
        }
        self._make: Callable[[], RankWorker | RankNanny]
        if options.cluster.nanny:
            _prepare_supervision(options)
            common["preload"].insert(0, "gpumpi.cluster.supervised")
            common["worker_class"] = RankWorker
            self._make = functools.partial(RankNanny, scheduler_address, **common)
        else:
            self._make = functools.partial(
                RankWorker,
                scheduler_address,
                death_timeout=options.cluster.start_timeout,
                **common,
            )

    @property
    def address(self) -> str:
        """Address that the worker listens on."""
        if isinstance(self._server, Nanny):
            return str(self._server.worker_address or "")
        return "" if self._server is None else str(self._server.address)

    @property
    def finished(self) -> bool:
        """Whether it has closed, whoever asked for it."""
        return self._server is not None and self._server.status in _CLOSED

    @property
    def lost(self) -> bool:
        """Whether it has closed because the scheduler was gone."""
        return self._server is not None and self._server.close_reason in _LOST

    def start(self, deadline: float) -> None:
        """Start it and wait until the scheduler has taken it.

        Raises
        ------
        StartError
            When it cannot start; the cause is in the message.
        DeadlineError
            When it has not started at the deadline.
        """
        seconds = max(0.1, deadline - time.monotonic())
        future = self._loop.submit(self._start())
        try:
            future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise DeadlineError(
                describe(
                    "starting the worker",
                    f"it has not started within {format_seconds(seconds)}",
                    "it usually takes less than 2 s",
                    "raise --start-timeout, or look at the load of this host",
                )
            ) from None
        except GpumpiError:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            raise StartError(
                describe(
                    "starting the worker",
                    f"{type(cause).__name__}: {cause}",
                    "the worker's options and this host must fit each other",
                    "look at the options of the worker",
                )
            ) from error

    def close(self, timeout: float) -> None:
        """Close it without waiting for tasks that still run.

        Raises
        ------
        DeadlineError
            When it has not closed in time.
        """
        if self._server is None:
            return
        try:
            self._loop.submit(self._close()).result(timeout)
        except TimeoutError:
            raise DeadlineError(
                describe(
                    "closing the worker",
                    f"it has not closed within {format_seconds(timeout)}",
                    "it usually takes less than 0.5 s",
                    "look at what its tasks were doing",
                )
            ) from None

    async def _start(self) -> None:
        # On the loop: a worker binds itself to the loop that runs when it is made.
        self._server = self._make()
        preloads = PreloadErrors()
        with preloads:
            await self._server
        if preloads.first is not None:
            raise preloads.first

    async def _close(self) -> None:
        server = self._server
        assert server is not None
        if isinstance(server, Nanny):
            await server.close(timeout=3, reason="gpumpi-end")
            return
        heartbeat = server.periodic_callbacks.get("heartbeat")
        if heartbeat is not None:
            heartbeat.stop()
        await server.close(timeout=3, executor_wait=False, reason="gpumpi-end")


def _prepare_supervision(options: Options) -> None:
    """Make this process fit to spawn supervised workers.

    The child must not take itself for a rank: it would find the launcher's variables
    and talk into this rank's connection. And a restarted child must not import the
    user's script again, which spawn does with ``__main__``.
    """
    for name in [name for name in os.environ if is_launcher_variable(name)]:
        del os.environ[name]
    directory = options.report.log_dir
    dask.config.set(
        {
            # Dask reads this when the child imports it, before any preload runs.
            "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning",
            "gpumpi.log-dir": None if directory is None else str(directory.absolute()),
        }
    )
    from multiprocessing import spawn

    original = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        data: dict[str, Any] = original(name)
        if name.startswith("Dask Worker process"):
            data.pop("init_main_from_path", None)
            data.pop("init_main_from_name", None)
        return data

    spawn.get_preparation_data = without_main
