"""The report: records in, Markdown out.

Cases are compared within one session only, as only there they ran in turns.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # python benchmarks/report.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import read
from benchmarks.spread import Ratio, Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.record import Record

__all__ = ["METRICS", "REFERENCES", "main", "markdown", "sessions"]

#: Metric to heading, in the order of the columns.
METRICS = {
    "first_task_s": "first task, s",
    "all_workers_s": "all workers, s",
    "exit_s": "exit, s",
    "wall_s": "launcher, s",
    "cpu_s": "CPU, s",
}

#: Suite to the cases that its others are compared with.
REFERENCES = {"startup": ("dask-mpi", "dask-mpi-no-dashboard")}

_FEW = 5


def sessions(records: Sequence[Record]) -> list[list[Record]]:
    """Records by session, in the order of the file."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.suite, record.session), []).append(record)
    return list(groups.values())


def markdown(records: Sequence[Record], *, references: Sequence[str] = ()) -> str:
    """Tables of one session.

    Parameters
    ----------
    records : sequence of Record
        Of one session.
    references : sequence of str
        Names of the cases to compare with, a table of ratios each. Default: those
        of the suite, else the first case.

    Raises
    ------
    ValueError
        When there is no record, they are of different sessions, or a reference is
        not among them.
    """
    if len(sessions(records)) != 1:
        raise ValueError("a report is about one session; only there cases took turns")
    cases = {record.name: record for record in records}
    if unknown := [name for name in references if name not in cases]:
        raise ValueError(f"{unknown} are not among the cases {list(cases)}")
    usual = [name for name in REFERENCES.get(records[0].suite, ()) if name in cases]
    shown = [
        metric for metric in METRICS if any(record.values(metric) for record in records)
    ]
    headings = [METRICS[metric] for metric in shown]
    values = [
        [record.name, _went(record)]
        + [_spread(record.values(metric)) for metric in shown]
        for record in records
    ]
    parts = [
        _heading(records[0]),
        "Median [quartiles] and minimum.",
        _table(["case", "runs", *headings], values),
    ]
    for name in references or usual or [records[0].name]:
        parts += _ratios(records, cases[name], shown)
    fewest = min((len(record.values("wall_s")) for record in records), default=0)
    if fewest < _FEW:
        parts.append(
            f"Fewest good runs of a case: {fewest}. An interval of under {_FEW} means"
            " little."
        )
    if troubles := _troubles(records):
        parts.append("Runs that did not go well:\n\n" + "\n".join(troubles))
    return "\n\n".join(parts) + "\n"


def _ratios(
    records: Sequence[Record], base: Record, metrics: Sequence[str]
) -> list[str]:
    """Title and table of the ratios to one case; nothing where it is alone."""
    rows = [
        [record.name]
        + [_ratio(record.values(metric), base.values(metric)) for metric in metrics]
        for record in records
        if record is not base
    ]
    if not rows:
        return []
    title = (
        f"Ratio of medians to `{base.name}` [95 % interval, paired bootstrap]."
        " Below 1 is less."
    )
    plain = [METRICS[metric].removesuffix(", s") for metric in metrics]
    return [title, _table(["case", *plain], rows)]


def _heading(record: Record) -> str:
    machine, versions = record.facts.machine, record.facts.versions
    memory = machine.get("memory_bytes")
    commit = (record.facts.commit or "unknown")[:12]
    dirty = " with changes" if record.facts.dirty else ""
    memory_text = f"{memory / 2**30:.0f} GiB" if memory else "unknown memory"
    where = [
        f"{machine.get('cores_usable')} of {machine.get('cores')} cores",
        str(machine.get("cpu_model")),
        memory_text,
        f"Linux {machine.get('kernel')}",
        f"load {machine.get('load_1min')}",
        *machine.get("gpus", []),
    ]
    which = [f"{name} {version}" for name, version in versions.items()]
    return (
        f"## {record.suite}, {record.date}\n\n"
        f"- Machine: {', '.join(where)}\n"
        f"- Versions: {', '.join(which)}\n"
        f"- Commit: {commit}{dirty}; session {record.session}"
    )


def _went(record: Record) -> str:
    """Good runs of those asked for, and what became of the others."""
    counts = record.statuses()
    text = f"{counts.pop('ok', 0)}/{record.repeats}"
    others = ", ".join(f"{number} {status}" for status, number in counts.items())
    return f"{text} ({others})" if others else text


def _spread(values: dict[int, float]) -> str:
    return str(Spread.of(list(values.values()))) if values else "-"


def _ratio(values: dict[int, float], base: dict[int, float]) -> str:
    return str(Ratio.of(values, base) or "-")


def _troubles(records: Sequence[Record]) -> list[str]:
    """One line per kind of trouble; the whole output stands in the record."""
    counts: dict[tuple[str, str, str], int] = {}
    for record in records:
        for run in record.runs:
            if run.status not in {"ok", "skipped"}:
                message = run.message.partition("\n")[0]
                key = (record.name, f"{run.status}: {message}", _telling(run.output))
                counts[key] = counts.get(key, 0) + 1
    return [
        f"- `{name}`, {number} x {what}" + (f"; output: `{line}`" if line else "")
        for (name, what, line), number in counts.items()
    ]


def _telling(output: str) -> str:
    """The last line that names an error, else the last that says anything."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"\w", line)]
    errors = [line for line in lines if re.search(r"Error\b", line)]
    return (errors or lines or [""])[-1][:200].replace("`", "'")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report of a file, and write it where asked."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("records", type=Path, help="a .jsonl file")
    parser.add_argument("--reference", help="cases to compare with, with commas")
    parser.add_argument("--all", action="store_true", help="not the last session only")
    parser.add_argument("--out", type=Path, help="write the Markdown here too")
    asked = parser.parse_args(arguments)
    references = asked.reference.split(",") if asked.reference else ()
    try:
        groups = sessions(read(asked.records))
        if not groups:
            raise ValueError(f"{asked.records} holds no records")  # noqa: TRY301
        text = "\n".join(
            markdown(group, references=references)
            for group in (groups if asked.all else groups[-1:])
        )
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
