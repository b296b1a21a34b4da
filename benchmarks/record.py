"""Records: what a benchmark asked, what it observed, and where.

One record is one case of one session, written as one line of JSON. Seconds and
bytes are plain numbers. A record keeps every run by itself, failed ones too, so
that a report can pair the runs of one round and nothing is averaged away.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ROOT", "SCHEMA", "Facts", "Record", "Run", "append", "read"]

#: The checkout that is measured.
ROOT = Path(__file__).resolve().parents[1]

#: Raised when a field changes its meaning.
SCHEMA = 1

_PACKAGES = ("dask", "distributed", "dask-mpi", "mpi4py", "bokeh", "tornado")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one case.

    Attributes
    ----------
    round : int
        Runs of different cases with the same round ran next to each other.
    place : int
        Position within the round, from 0.
    warmup : bool
        Whether the run was only there to warm caches.
    status : str
        ``ok``, ``failed``, ``timeout`` or ``skipped``.
    wall_s, cpu_s : float or None
        Of the whole process tree; until it was killed, if it was.
    observed : dict
        Name to number; holds only what was seen, whatever the status.
    message, output : str
        Why a run is not ok, and the end of what it printed.
    """

    round: int
    place: int = 0
    warmup: bool = False
    status: str = "ok"
    wall_s: float | None = None
    cpu_s: float | None = None
    observed: dict[str, float] = field(default_factory=dict)
    message: str = ""
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Where a session ran: the machine, the versions, the commit."""

    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None

    @classmethod
    def gather(cls) -> Facts:
        """Look at this machine, this interpreter and this checkout."""
        commit, dirty = _checkout()
        return cls(machine=_machine(), versions=_versions(), commit=commit, dirty=dirty)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One case of one session.

    Attributes
    ----------
    suite, name : str
        The benchmark and the case.
    session : str
        Same for all cases that were interleaved with each other. Only these may
        be compared.
    date : str
        UTC, ISO 8601, start of the session.
    parameters : dict
        What was asked, such as the command line and the number of ranks.
    repeats : int
        How many runs were asked for, without warm-up.
    runs : tuple of Run
        All runs, in the order in which they ran.
    facts : Facts
        Where it ran.
    """

    suite: str
    name: str
    session: str
    date: str
    repeats: int
    parameters: dict[str, Any] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    facts: Facts = field(default_factory=Facts)

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        content = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(content, allow_nan=False, ensure_ascii=True)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            When the line is not a record of this schema.
        """
        content = json.loads(line)
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"not a record of schema {SCHEMA}: schema is {schema!r}")
        try:
            content["runs"] = tuple(Run(**run) for run in content["runs"])
            content["facts"] = Facts(**content["facts"])
            return cls(**content)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record of schema {SCHEMA}: {error!r}") from error

    def values(self, metric: str) -> dict[int, float]:
        """Round to value of one metric, warm-up left out.

        Wall and CPU seconds count for runs that went well only: those of a run
        that was killed say when it was killed. An observation counts when it was
        made, e.g. the first task of a run that hung at its end.
        """
        found: dict[int, float] = {}
        for run in self.runs:
            if run.warmup:
                continue
            if metric in {"wall_s", "cpu_s"}:
                value = getattr(run, metric) if run.status == "ok" else None
            else:
                value = run.observed.get(metric)
            if value is not None:
                found[run.round] = value
        return found

    def statuses(self) -> dict[str, int]:
        """How many runs ended how, warm-up left out."""
        counts: dict[str, int] = {}
        for run in self.runs:
            if not run.warmup:
                counts[run.status] = counts.get(run.status, 0) + 1
        return counts


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to the end of a file, one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(record.to_json() + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def read(path: Path) -> list[Record]:
    """All records of a file, oldest first.

    Raises
    ------
    ValueError
        When a line is not a record; names the line.
    """
    records = []
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.from_json(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return records


def _ask(*command: str) -> str | None:
    """What a command prints, or None when it cannot say."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _machine() -> dict[str, Any]:
    model = None
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
                break
    gpus: list[str] = []
    if shutil.which("nvidia-smi"):
        answer = _ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        gpus = (answer or "").splitlines()
    return {
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "cpu_model": model,
        "kernel": platform.release(),
        "gpus": gpus,
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    # Asked in a child, and without MPI_Init: this process stays clear of MPI.
    question = (
        "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI;"
        "print(MPI.Get_library_version().splitlines()[0])"
    )
    answer = _ask(sys.executable, "-c", question)
    versions["mpi"] = " ".join(answer.split()).strip(",") if answer else None
    # The file, not the metadata: the runs import gpumpi from this checkout.
    space: dict[str, Any] = {}
    file = ROOT / "gpumpi" / "_version.py"
    if file.exists():
        exec(file.read_text(), space)
    versions["gpumpi"] = space.get("__version__")
    return versions


def _checkout() -> tuple[str | None, bool | None]:
    """Commit and whether files differ from it, the results themselves aside."""
    git = ("git", "-C", str(ROOT))
    commit = _ask(*git, "rev-parse", "HEAD")
    if not commit:
        return None, None
    changes = _ask(
        *git, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results"
    )
    return commit, None if changes is None else bool(changes)
