"""The harness: named cases, run in turns.

Two cases are compared by running them in turns (A B, B A, A B ...), so that what
the machine does meanwhile hits both. Each run yields an outcome; one that fails or
hangs is an outcome too, kept with its output.
"""

from __future__ import annotations

import datetime
import resource
import sys
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.launch import OUTPUT_CHARACTERS
from benchmarks.record import Facts, Record, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.launch import Launch

__all__ = ["Case", "Outcome", "Plan", "measure", "turns"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes
    ----------
    status : str
        ``ok``, ``failed`` or ``timeout``.
    wall_s, cpu_s : float or None
        As measured by the case; None leaves it to the harness, which sees the
        call as a whole.
    observed : mapping
        Name to number. May hold something for a failed run too.
    message, output : str
        For a run that is not ok.
    """

    status: str = "ok"
    wall_s: float | None = None
    cpu_s: float | None = None
    observed: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    output: str = ""

    @classmethod
    def of(
        cls, ended: Launch, observed: Mapping[str, float], problem: str = ""
    ) -> Outcome:
        """Judge a launch.

        Parameters
        ----------
        ended : Launch
            The launch.
        observed : mapping
            What was seen during it.
        problem : str
            What the caller found wrong; counts where the launch itself went well.
        """
        if ended.code is None:
            status, message = "timeout", f"killed after {ended.wall_s:.1f} s"
        elif ended.code:
            status, message = "failed", f"exit code {ended.code}"
        elif ended.left_behind:
            status, message = "failed", f"left {ended.left_behind} processes behind"
        else:
            status, message = ("failed", problem) if problem else ("ok", "")
        return cls(
            status=status,
            wall_s=ended.wall_s,
            cpu_s=ended.cpu_s,
            observed=observed,
            message=message,
            output="" if status == "ok" else ended.output,
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A named thing to run.

    Attributes
    ----------
    name : str
        Short, unique within its suite.
    run : callable
        Takes the timeout in seconds and keeps it; returns an :class:`Outcome`, or
        a mapping of observations for a run that went well.
    parameters : dict
        What is asked, for the record.
    """

    name: str
    run: Callable[[float], Outcome | Mapping[str, float]]
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often, and how long at most.

    Attributes
    ----------
    repeats, warmup : int
        Rounds that count, and rounds before these.
    timeout : float
        Seconds per run.
    give_up_after : int
        After so many bad runs in a row, a case's other runs are recorded as
        skipped; 0 for never.
    """

    repeats: int
    warmup: int = 1
    timeout: float = 60.0
    give_up_after: int = 3


def turns(number: int, rounds: int) -> Iterator[tuple[int, int, int]]:
    """Round, place and case of each run: each round turns the order round.

    Examples
    --------
    >>> [case for _, _, case in turns(2, 3)]
    [0, 1, 1, 0, 0, 1]
    """
    for round_ in range(rounds):
        order = range(number) if round_ % 2 == 0 else reversed(range(number))
        for place, case in enumerate(order):
            yield round_, place, case


def measure(
    suite: str,
    cases: Sequence[Case],
    plan: Plan,
    *,
    facts: Facts | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Record]:
    """Run all cases in turns and make one record of each.

    On Ctrl-C the records of the runs so far are returned.

    Parameters
    ----------
    suite : str
        Name of the benchmark.
    cases : sequence of Case
        What to run.
    plan : Plan
        How often.
    facts : Facts, optional
        Default: gathered here, before the first run.
    say : callable, optional
        Takes lines of progress. Default: stderr.
    """
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"two cases have the same name: {names}")
    say = say or _say
    facts = facts or Facts.gather()
    now = datetime.datetime.now(datetime.UTC)
    session = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    runs: list[list[Run]] = [[] for _ in cases]
    bad_in_a_row = [0] * len(cases)
    try:
        for turn, place, index in turns(len(cases), plan.warmup + plan.repeats):
            round_, warmup = turn - plan.warmup, turn < plan.warmup
            if 0 < plan.give_up_after <= bad_in_a_row[index]:
                outcome = Outcome(
                    status="skipped",
                    message=f"{bad_in_a_row[index]} bad runs in a row before",
                )
            else:
                outcome = _run(cases[index], plan.timeout)
                good = outcome.status == "ok"
                bad_in_a_row[index] = 0 if good else bad_in_a_row[index] + 1
            run = Run(
                round=round_,
                place=place,
                warmup=warmup,
                status=outcome.status,
                wall_s=outcome.wall_s,
                cpu_s=outcome.cpu_s,
                observed=dict(outcome.observed),
                message=outcome.message,
                output=outcome.output,
            )
            runs[index].append(run)
            say(_line(names[index], run, plan))
    except KeyboardInterrupt:
        say("interrupted: the runs so far are kept")
    return [
        Record(
            suite=suite,
            name=case.name,
            session=session,
            date=now.isoformat(timespec="seconds"),
            repeats=plan.repeats,
            parameters={**case.parameters, "timeout_s": plan.timeout},
            runs=tuple(done),
            facts=facts,
        )
        for case, done in zip(cases, runs, strict=True)
    ]


def _run(case: Case, timeout: float) -> Outcome:
    """Run a case once; an exception is a failed run."""
    tick, cpu = time.monotonic(), _children_cpu_s()
    try:
        result = case.run(timeout)
    except Exception as error:  # noqa: BLE001 - a case's failure is a result
        result = Outcome(
            status="failed",
            message=f"{type(error).__name__}: {error}",
            output=traceback.format_exc()[-OUTPUT_CHARACTERS:],
        )
    wall_s, cpu_s = time.monotonic() - tick, _children_cpu_s() - cpu
    if not isinstance(result, Outcome):
        result = Outcome(observed=result)
    return Outcome(
        status=result.status,
        wall_s=wall_s if result.wall_s is None else result.wall_s,
        cpu_s=cpu_s if result.cpu_s is None else result.cpu_s,
        observed=result.observed,
        message=result.message,
        output=result.output,
    )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _line(name: str, run: Run, plan: Plan) -> str:
    where = "warm-up" if run.warmup else f"{run.round + 1}/{plan.repeats}"
    numbers = {"wall_s": run.wall_s, "cpu_s": run.cpu_s, **run.observed}
    seen = " ".join(f"{k}={v:.3f}" for k, v in numbers.items() if v is not None)
    bad = "" if run.status == "ok" else f" {run.status.upper()} ({run.message})"
    return f"[{where:>7}] {name}:{bad} {seen}".rstrip()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
