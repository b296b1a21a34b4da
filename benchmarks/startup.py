"""Start and end of a job: gpumpi against dask-mpi, and the floor under both.

The clock starts just before ``mpirun`` is executed. The client script stamps the
time at which it starts, is connected, has its first result and sees all workers;
the launcher's end is seen from outside.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # python benchmarks/startup.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Case, Outcome, Plan, measure
from benchmarks.launch import launch
from benchmarks.record import ROOT, Facts, append
from benchmarks.report import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cases", "main"]

FLOOR = "import distributed; from mpi4py import MPI"

#: The same for all. "script_end" comes before close(), which gpumpi does not need:
#: all that follows the last line of work counts as the end of the job.
BODY = """\
import os
import time

from distributed import Client


def stamp(name):
    with open(os.environ["GPUMPIBENCH_STAMPS"], "a") as file:
        file.write(f"{name} {time.time()!r}\\n")


stamp("script_start")
client = Client()
stamp("connected")
assert client.submit(lambda: 42).result() == 42
stamp("first_task")
client.wait_for_workers(int(os.environ["GPUMPIBENCH_WORKERS"]))
stamp("all_workers")
stamp("script_end")
"""

DASK_MPI = "from dask_mpi import initialize\n\ninitialize({arguments})\n\n"
DASK_MPI_END = "client.close()\n"

_STAMPS = ("script_start", "connected", "first_task", "all_workers", "script_end")


def cases(ranks: int, mpirun: str) -> list[Case]:
    """All cases, dask-mpi first."""
    python = sys.executable

    def floor(name: str, number: int) -> Case:
        command = [mpirun, "-n", str(number), python, "-c", FLOOR]
        return Case(
            name=name,
            run=partial(_run, command, None, 0),
            parameters={"ranks": number, "command": command},
        )

    def job(name: str, number: int, workers: int, script: str, *words: str) -> Case:
        command = [mpirun, "-n", str(number), python, *words, "{script}"]
        return Case(
            name=name,
            run=partial(_run, command, script, workers),
            parameters={
                "ranks": number,
                "workers": workers,
                "command": command,
                "script": script,
            },
        )

    def dask_mpi(name: str, arguments: str) -> Case:
        script = DASK_MPI.format(arguments=arguments) + BODY + DASK_MPI_END
        return job(name, ranks, ranks - 2, script)

    def gpumpi(name: str, number: int, *options: str) -> Case:
        return job(name, number, number, BODY, "-m", "gpumpi.run", *options)

    return [
        dask_mpi("dask-mpi", ""),
        gpumpi("gpumpi", ranks),
        dask_mpi("dask-mpi-no-dashboard", "dashboard=False"),
        gpumpi("gpumpi-no-dashboard", ranks, "--no-dashboard"),
        gpumpi("gpumpi-security-none", ranks, "--security", "none"),
        gpumpi("gpumpi-1-rank", 1),
        floor("floor", ranks),
        floor("floor-1-rank", 1),
    ]


def _environment() -> dict[str, str]:
    """The environment of the runs: defaults, whatever the user has set."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUMPI_", "DASK_"))
    }
    for name, value in {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":OVERSUBSCRIBE",
        "PRTE_MCA_rmaps_default_binding_policy": "none",
    }.items():
        environment.setdefault(name, value)
    # All cases alike; what is measured is this checkout, installed or not.
    path = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    return environment


def _run(
    command: Sequence[str], script: str | None, workers: int, timeout: float
) -> Outcome:
    """One job. ``{script}`` in the command is the file that holds the script."""
    with tempfile.TemporaryDirectory(prefix="gpumpi-startup-") as directory:
        folder = Path(directory)
        stamps, file = folder / "stamps", folder / "client.py"
        stamps.touch()
        file.write_text(script or "")
        ended = launch(
            [str(file) if word == "{script}" else word for word in command],
            timeout=timeout,
            environment={
                **_environment(),
                "GPUMPIBENCH_STAMPS": str(stamps),
                "GPUMPIBENCH_WORKERS": str(workers),
            },
            directory=folder,
        )
        lines = stamps.read_text().splitlines()
    if script is None:
        return Outcome.of(ended, {})
    times = {name: float(time) for name, time in map(str.split, lines)}
    observed = {
        f"{name}_s": time - ended.started
        for name, time in times.items()
        if name != "script_end"
    }
    if "script_end" in times and ended.code == 0:
        observed["exit_s"] = ended.ended - times["script_end"]
    names = [line.split()[0] for line in lines]
    problem = ""
    if names != list(_STAMPS):
        problem = f"the script stamped {names}, not each of {list(_STAMPS)} once"
    return Outcome.of(ended, observed, problem)


def _mpirun() -> str:
    """The launcher of the environment that runs us, else the one on PATH."""
    near = Path(sys.executable).parent / "mpirun"
    return str(near) if near.exists() else shutil.which("mpirun") or "mpirun"


def _host_kind(facts: Facts) -> str:
    gpus = facts.machine.get("gpus") or []
    model = gpus[0].replace(" ", "-").lower() if gpus else ""
    cores = f"{facts.machine.get('cores')}cores"
    return f"{cores}-{len(gpus)}x{model}" if gpus else cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 1 when it was cut short or a case has no good run."""
    parser = argparse.ArgumentParser(prog="startup", description=__doc__)
    parser.add_argument("--repeats", type=int, help="default 10, quick 2")
    parser.add_argument("--warmup", type=int, help="default 1, quick 0")
    parser.add_argument("--ranks", type=int, default=4, help="at least 3")
    parser.add_argument("--timeout", type=float, default=60.0, help="s per run")
    parser.add_argument("--cases", help="names, with commas; default all")
    parser.add_argument("--mpirun", default=_mpirun(), help="the launcher")
    parser.add_argument("--out", type=Path, help="file to append the records to")
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    parser.add_argument("--list", action="store_true", help="print the cases")
    asked = parser.parse_args(arguments)
    if asked.ranks < 3:
        parser.error("--ranks: dask-mpi needs at least 3")
    chosen = cases(asked.ranks, asked.mpirun)
    names = [case.name for case in chosen]
    if asked.list:
        print("\n".join(names))
        return 0
    if asked.cases:
        wanted = asked.cases.split(",")
        if unknown := sorted(set(wanted) - set(names)):
            parser.error(f"--cases: {unknown} are not among {names}")
        chosen = [case for case in chosen if case.name in wanted]
    repeats, warmup = (2, 0) if asked.quick else (10, 1)
    plan = Plan(
        repeats=repeats if asked.repeats is None else asked.repeats,
        warmup=warmup if asked.warmup is None else asked.warmup,
        timeout=asked.timeout,
    )
    facts = Facts.gather()
    quick = "-quick" if asked.quick else ""
    name = f"startup-{_host_kind(facts)}{quick}.jsonl"
    out = asked.out or ROOT / "benchmarks" / "results" / name
    records = measure("startup", chosen, plan, facts=facts)
    append(out, records)
    print(f"records appended to {out}", file=sys.stderr)
    print(markdown(records))
    ends = [record.statuses() for record in records]
    return int(any("ok" not in end or sum(end.values()) < plan.repeats for end in ends))


if __name__ == "__main__":
    sys.exit(main())
