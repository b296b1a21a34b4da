"""Verdicts: what every rank says of its start, and what rank 0 makes of it. Pure."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpumpi.errors import GpumpiError, OptionError, StartError
from gpumpi.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpumpi.topology.host import HostFacts

__all__ = ["RankReport", "Verdict", "failure_text", "judge", "late_text"]


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """What one rank says of one step of the start.

    Attributes
    ----------
    rank : int
        Who speaks.
    host : str
        On which host.
    facts : HostFacts or None
        What it sees of its host (first verdict).
    versions : dict of str to str
        Versions that all ranks must share (first verdict).
    worker : str
        Address of its worker (second verdict).
    error : str
        Why its step failed; empty when it did not.
    exit_code : int
        What the job ends with for this error.
    failed_at : float
        Seconds since the epoch of the failure, to tell the first from the others.
    """

    rank: int
    host: str
    facts: HostFacts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    worker: str = ""
    error: str = ""
    exit_code: int = 0
    failed_at: float = 0.0

    @classmethod
    def of_failure(cls, rank: int, host: str, error: BaseException) -> RankReport:
        """The report of a rank whose step raised."""
        return cls(
            rank=rank,
            host=host,
            error=failure_text(error),
            exit_code=error.exit_code if isinstance(error, GpumpiError) else 1,
            failed_at=time.time(),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Rank 0's answer to all: go on, or leave for this reason."""

    go: bool
    text: str = ""
    exit_code: int = 0


def failure_text(error: BaseException) -> str:
    """One line for an error of ours; type, message and place for any other."""
    if isinstance(error, GpumpiError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)
    where = f" ({place[-1].filename}, line {place[-1].lineno})" if place else ""
    return f"{type(error).__name__}: {error}{where}"


def judge(
    step: str,
    reports: Mapping[int, RankReport],
    size: int,
    *,
    seconds: float,
    hosts_by_rank: Mapping[int, str] | None = None,
) -> Verdict:
    """Judge one step of the start.

    Parameters
    ----------
    step : str
        What the ranks were doing, for the message.
    reports : mapping of int to RankReport
        By rank; silent ranks are absent.
    size : int
        Number of ranks.
    seconds : float
        How long rank 0 has waited.
    hosts_by_rank : mapping of int to str, optional
        Host of each rank where it is known from an earlier step.

    Returns
    -------
    Verdict
        With a text that names the first failing rank in its last line.
    """
    hosts = hosts_by_rank or {}
    silent = [rank for rank in range(size) if rank not in reports]
    failed = sorted(
        (report for report in reports.values() if report.error),
        key=lambda report: (report.failed_at, report.rank),
    )
    if not silent and not failed:
        return _judge_versions(step, reports)
    lines = [f"{step} failed on {len(failed) + len(silent)} of {size} rank(s)"]
    if silent:
        named = _named_all(silent, hosts)
        lines.append(
            f"no answer within {format_seconds(seconds)} from {named}. Next: look for "
            "a frozen process or file system there, or raise --start-timeout"
        )
    distinct: dict[str, list[RankReport]] = {}
    for report in failed:
        distinct.setdefault(report.error, []).append(report)
    # The first failure comes last: the end of a log is what people see.
    for error, same in reversed(distinct.items()):
        others = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        lines.append(f"{_named(same[0].rank, same[0].host)}{others}: {error}")
    code = failed[0].exit_code if failed else StartError.exit_code
    return Verdict(go=False, text="\n".join(lines), exit_code=code)


def _judge_versions(step: str, reports: Mapping[int, RankReport]) -> Verdict:
    """Refuse ranks whose versions differ: pickles would fail far from the cause."""
    first = reports[0]
    for rank, report in sorted(reports.items()):
        for name, version in report.versions.items():
            expected = first.versions.get(name)
            if version != expected:
                return Verdict(
                    go=False,
                    text=f"{step} failed: {_named(rank, report.host)} has {name} "
                    f"{version}, {_named(0, first.host)} has {expected}; all ranks "
                    "need the same. Next: start all ranks in one environment",
                    exit_code=StartError.exit_code,
                )
    return Verdict(go=True)


def _named(rank: int, host: str) -> str:
    return f"rank {rank}" + (f" on host {host}" if host else "")


def _named_all(ranks: list[int], hosts: Mapping[int, str]) -> str:
    named = ", ".join(_named(rank, hosts.get(rank, "")) for rank in ranks[:8])
    return named + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def late_text(absent: list[int], seconds: float, hosts: Mapping[int, str]) -> str:
    """What is said while ranks are late."""
    return f"gpumpi: waiting for {_named_all(absent, hosts)} ({seconds:.0f} s)"


def option_verdict(error: OptionError | GpumpiError) -> Verdict:
    """The verdict of an error that rank 0 found in the plan."""
    return Verdict(go=False, text=str(error), exit_code=error.exit_code)
