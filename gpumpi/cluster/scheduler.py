"""Rank 0's side of the scheduler process: start it, order it, hear it, end it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gpumpi.errors import DeadlineError, StartError, describe
from gpumpi.rank.guard import scrubbed_environment
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SchedulerProcess"]

_KILL_SECONDS = 5.0
_ROOT = Path(__file__).parents[2]
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop()); "
    "from gpumpi.cluster.scheduler_main import main; main()"
)


class SchedulerProcess:
    """Start the scheduler's process; it imports Dask while rank 0 does other things.

    A child of its own, because a scheduler inside rank 0 would share one interpreter
    lock with the script and a worker; without the launcher's variables, because it
    is no rank. Local to rank 0. :attr:`address` and :attr:`workers` may be read from
    any thread.

    Attributes
    ----------
    address : str
        Where it listens; empty before it does.
    dashboard_port : int or None
        Port of its HTTP server.
    workers : dict
        Address of each worker now connected, by name.
    ended : threading.Event
        Set when its process has ended.
    shut_down : bool
        Whether a client has shut it down.
    lost_with : int or None
        Code that its process ended with, when nobody had asked it to end.
    """

    def __init__(self) -> None:
        self.address = ""
        self.dashboard_port: int | None = None
        self.workers: dict[int | str, str] = {}
        self.ended = threading.Event()
        self.shut_down = False
        self.lost_with: int | None = None
        self._error = ""
        self._listening = threading.Event()
        self._ending = False
        self._on_end: Callable[[int], None] | None = None
        self._on_left: Callable[[dict[str, Any]], None] | None = None
        self._process = subprocess.Popen(
            # Not with -m: the folder that the job was started in is no part of it.
            [sys.executable, "-P", "-c", _PROGRAM, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=scrubbed_environment(),
            start_new_session=True,
            bufsize=0,
        )
        self._reader = threading.Thread(
            target=self._read, name="gpumpi scheduler reader", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def watch(
        self,
        on_end: Callable[[int], None],
        on_left: Callable[[dict[str, Any]], None],
    ) -> None:
        """Have functions called when it dies unasked, and when a worker leaves.

        They run in the thread that reads its words.
        """
        self._on_end = on_end
        self._on_left = on_left

    def configure(self, orders: dict[str, Any], deadline: float) -> str:
        """Send its orders and wait until it listens.

        Returns
        -------
        str
            Its address.

        Raises
        ------
        StartError
            When it cannot, e.g. because the port is in use.
        DeadlineError
            When it has not said so at the deadline.
        """
        start = time.monotonic()
        self._send(orders)
        while not self._listening.wait(0.02):
            if time.monotonic() > deadline:
                raise DeadlineError(
                    describe(
                        "starting the scheduler",
                        f"it does not listen after "
                        f"{format_seconds(time.monotonic() - start)}",
                        "it usually takes less than 2 s",
                        "raise --start-timeout, or look at the load of this host",
                    )
                )
        if self._error:
            raise StartError(
                describe(
                    f"starting the scheduler on {orders['host']}, port "
                    f"{orders['port'] or 'any'}, dashboard {orders['http_address']}",
                    self._error,
                    "free ports and addresses of this host are needed",
                    "leave --scheduler-port and --dashboard-address out, or choose "
                    "others",
                )
            )
        return self.address

    def end(self, deadline: float) -> None:
        """End it: ask, wait until the deadline, then kill."""
        self._ending = True
        self._send({"end": True})
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_KILL_SECONDS)
        self._reader.join(_KILL_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def expect_end(self) -> None:
        """Tell it that rank 0 ends the job now, and has said why itself."""
        self._ending = True
        self._send({"end": True})

    def expect_losses(self) -> None:
        """Tell it that ranks may go now, as a signal has asked them to."""
        self._send({"quiet": True})

    def _send(self, message: dict[str, Any]) -> None:
        """Write a line. Unbuffered, since a signal handler may do so in between."""
        assert self._process.stdin is not None
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[self._process.stdin.write(data) :]
        except (BrokenPipeError, ValueError):
            # It has ended already; whoever waits for its words learns that.
            pass

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in io.BufferedReader(cast("io.RawIOBase", self._process.stdout)):
            self._hear(json.loads(line))
        code = self._process.wait()
        if not self._ending and not self.shut_down:
            self.lost_with = code
        self.ended.set()
        if not self._listening.is_set():
            self._error = self._error or f"its process ended with code {code}"
            self._listening.set()
        elif self.lost_with is not None and self._on_end is not None:
            self._on_end(code)

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "listening":
            self.address = event["address"]
            self.dashboard_port = event["dashboard_port"]
            self._listening.set()
        elif kind == "failed":
            self._error = event["error"]
            self._listening.set()
        elif kind == "worker":
            self.workers[event["name"]] = event["address"]
        elif kind == "left":
            if self.workers.get(event["name"]) == event["address"]:
                del self.workers[event["name"]]
            if self._on_left is not None and not self._ending:
                self._on_left(event)
        elif kind == "shutdown":
            self.shut_down = True
