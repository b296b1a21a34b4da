"""What a script holds of its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpumpi.cluster.shutdown import stop
from gpumpi.errors import SessionError, describe
from gpumpi.log import Phase, log

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from distributed import Client

    from gpumpi.cluster.job import Job

__all__ = ["RankInfo", "Session", "current_session", "set_current_session"]


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """One rank of a session.

    Attributes
    ----------
    rank : int
        Its number.
    host : str
        Its host.
    gpu : str or None
        UUID of its GPU; None for a CPU worker.
    worker : str
        Address of its worker; empty for a rank without one.
    """

    rank: int
    host: str
    gpu: str | None
    worker: str


class Session:
    """The running job, as rank 0's script sees it.

    Made by :func:`gpumpi.initialize`, not by users. As a context manager it ends the
    cluster when the block ends, also when the block raises. Use it from the main
    thread.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """A ``distributed.Client`` of this job, made at the first use.

        Raises
        ------
        SessionError
            When the session has ended.
        """
        if self.ended:
            raise SessionError(
                describe(
                    "asking the session for its client",
                    "the session has ended",
                    "a client lives as long as its session",
                    "use it inside the `with gpumpi.initialize()` block",
                )
            )
        if self._client is None or self._client.status in ("closed", "closing"):
            self._client = self._job.make_client()
        return self._client

    @property
    def ranks(self) -> tuple[RankInfo, ...]:
        """All ranks: number, host, GPU UUID (None on CPUs), address of the worker."""
        return tuple(
            RankInfo(
                rank=plan.rank,
                host=plan.host,
                gpu=None,
                worker=self._job.worker_addresses.get(plan.rank, ""),
            )
            for plan in self._job.plan.ranks
        )

    @property
    def dashboard_link(self) -> str | None:
        """URL of the dashboard on rank 0's host, with its secret path; None without."""
        return self._job.dashboard_link

    @property
    def ended(self) -> bool:
        """Whether the cluster has ended."""
        return self._job.ended

    def close(self) -> None:
        """End the cluster: workers on all ranks, then the scheduler.

        Rank 0 only. The other ranks leave when this process ends. A second call does
        nothing.
        """
        self._end(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(0 if kind is None else 1)

    def _end(self, code: int) -> None:
        """End the cluster; the script goes on as a program of its own."""
        if self.ended:
            return
        stop(self._job, code)
        self._job.failure.uninstall()
        log.phase = Phase.RUNNING
        self._job.signals.raise_if_received()


_current: Session | None = None


def current_session() -> Session | None:
    """The session of this process, running or ended; None before the first."""
    return _current


def set_current_session(session: Session) -> None:
    """Keep the one session that a process can have."""
    global _current
    _current = session
