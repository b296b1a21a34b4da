from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The benchmarks are no part of the installed package.
_ROOT = str(Path(__file__).resolve().parents[3])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


@pytest.fixture
def make_record():
    """Records with made-up numbers: one dict of numbers per round, None if failed."""
    from benchmarks.record import Facts, Record, Run

    def make(name, *rounds, session="s1", **fields):
        runs = [
            Run(round=number, status="failed", message="exit code 1", output="a\nboom")
            if numbers is None
            else Run(
                round=number,
                wall_s=numbers.get("wall_s", 1.0),
                cpu_s=numbers.get("cpu_s", 1.0),
                observed={
                    key: value
                    for key, value in numbers.items()
                    if key not in {"wall_s", "cpu_s"}
                },
            )
            for number, numbers in enumerate(rounds)
        ]
        return Record(
            suite="startup",
            name=name,
            session=session,
            date="2026-01-02T03:04:05+00:00",
            repeats=len(rounds),
            runs=tuple(runs),
            facts=Facts(machine={"cores": 2, "memory_bytes": 2**34}),
            **fields,
        )

    return make
