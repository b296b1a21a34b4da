from __future__ import annotations

import pytest

from benchmarks import report, run, startup
from benchmarks.record import read

#: Stands in for mpirun: no ranks, only the stamps that a script would write.
STAMP = 'stamp() { echo "$1 $(date +%s.%N)" >> "$GPUMPIBENCH_STAMPS"; }\n'
ALL = "".join(
    f"stamp {name}\n"
    for name in ("script_start", "connected", "first_task", "all_workers", "script_end")
)


@pytest.fixture
def launcher(tmp_path):
    def make(lines):
        path = tmp_path / "mpirun"
        path.write_text("#!/bin/sh\n" + STAMP + lines)
        path.chmod(0o755)
        return str(path)

    return make


def one(name, mpirun, timeout=30.0):
    (case,) = (case for case in startup.cases(4, mpirun) if case.name == name)
    return case.run(timeout)


def test_what_the_script_stamps_is_observed(launcher):
    outcome = one("gpumpi", launcher("sleep 0.1\n" + ALL + "sleep 0.2\n"))
    assert (outcome.status, outcome.message) == ("ok", "")
    seen = outcome.observed
    assert list(seen) == [
        "script_start_s",
        "connected_s",
        "first_task_s",
        "all_workers_s",
        "exit_s",
    ]
    assert 0.1 <= seen["script_start_s"] <= seen["first_task_s"] < 10
    assert 0.2 <= seen["exit_s"] < 10
    assert seen["all_workers_s"] + seen["exit_s"] <= outcome.wall_s + 0.1


@pytest.mark.parametrize("lines", [ALL + ALL, "stamp script_start\n", ""])
def test_a_script_that_did_not_run_once_failed(launcher, lines):
    outcome = one("dask-mpi", launcher(lines))
    assert outcome.status == "failed"
    assert "once" in outcome.message


def test_a_job_that_hangs_at_its_end_keeps_its_first_task(launcher):
    outcome = one("dask-mpi", launcher(ALL + "sleep 60\n"), timeout=0.5)
    assert outcome.status == "timeout"
    assert "first_task_s" in outcome.observed
    assert "exit_s" not in outcome.observed


def test_the_floor_has_no_script(launcher):
    outcome = one("floor", launcher('printf "%s " "$@"; exit 5'))
    assert outcome.message == "exit code 5"
    assert outcome.output.startswith("-n 4 ")
    assert outcome.observed == {}


def test_jobs_get_defaults_whatever_the_user_has_set(launcher, monkeypatch):
    monkeypatch.setenv("GPUMPI_SECURITY", "none")
    monkeypatch.setenv("DASK_DISTRIBUTED__X", "1")
    outcome = one("floor", launcher("env; exit 1"))
    names = [line.partition("=")[0] for line in outcome.output.splitlines()]
    assert not [name for name in names if name.startswith(("GPUMPI_", "DASK_"))]
    assert "GPUMPIBENCH_STAMPS" in names


def test_all_scripts_are_one_body_and_compile():
    for case in startup.cases(4, "mpirun"):
        script = case.parameters.get("script")
        if script is not None:
            compile(script, case.name, "exec")
            assert startup.BODY in script


def test_main_records_and_reports(launcher, tmp_path, capsys):
    out = tmp_path / "startup.jsonl"
    words = ["startup", "--quick", "--cases", "dask-mpi,gpumpi", "--out", str(out)]
    assert run.main([*words, "--mpirun", launcher(ALL)]) == 0
    assert [record.name for record in read(out)] == ["dask-mpi", "gpumpi"]
    assert [record.statuses() for record in read(out)] == [{"ok": 2}, {"ok": 2}]
    printed = capsys.readouterr()
    assert "| gpumpi | 2/2 |" in printed.out
    assert "[    2/2] gpumpi:" in printed.err
    assert run.main([*words, "--mpirun", launcher("exit 1\n")]) == 1
    assert len(read(out)) == 4


def test_the_references_of_the_report_are_cases():
    names = [case.name for case in startup.cases(4, "mpirun")]
    assert set(report.REFERENCES["startup"]) <= set(names)


def test_main_refuses_what_it_does_not_know(capsys):
    for words in (["--cases", "nothing"], ["--ranks", "2"]):
        with pytest.raises(SystemExit):
            startup.main(words)
    assert "nothing" in capsys.readouterr().err


def test_the_front_door_lists(capsys):
    assert run.main([]) == 0
    assert "startup" in capsys.readouterr().out
    assert run.main(["startup", "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "dask-mpi"
