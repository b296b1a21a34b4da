from __future__ import annotations

import pytest

from benchmarks import report
from benchmarks.record import append
from benchmarks.report import markdown, sessions


def cells(text, case):
    """Rows of a case, one per table, as lists of cells."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {case} |")
    ]


def test_values_and_ratios(make_record):
    old = make_record("old", *({"first_task_s": 2.0, "cpu_s": 4.0} for _ in range(5)))
    new = make_record("new", *({"first_task_s": 1.0, "cpu_s": 5.0} for _ in range(5)))
    text = markdown([old, new], references=["old"])
    assert "| case | runs | first task, s | launcher, s | CPU, s |" in text
    assert "exit" not in text
    values, ratios = cells(text, "new")
    assert values[:3] == ["new", "5/5", "1.00 [1.00, 1.00] min 1.00"]
    assert ratios == [
        "new",
        "0.50 [0.50, 0.50]",
        "1.00 [1.00, 1.00]",
        "1.25 [1.25, 1.25]",
    ]
    assert len(cells(text, "old")) == 1
    assert "to `old`" in text
    assert "Fewest" not in text


def test_the_first_case_is_the_default_reference(make_record):
    records = [make_record("a", {"exit_s": 1.0}), make_record("b", {"exit_s": 3.0})]
    text = markdown(records)
    assert "to `a`" in text
    assert cells(text, "b")[1][1] == "3.00 [3.00, 3.00]"
    with pytest.raises(ValueError, match="not there"):
        markdown(records, references=["not there"])
    assert "Fewest good runs of a case: 1." in text


def test_a_suite_has_its_own_references_where_they_ran(make_record):
    names = ["gpumpi", "dask-mpi", "dask-mpi-no-dashboard"]
    records = [make_record(name, {"exit_s": 1.0}) for name in names]
    text = markdown(records)
    assert text.index("to `dask-mpi`") < text.index("to `dask-mpi-no-dashboard`")
    assert "to `gpumpi`" not in text
    assert "to `gpumpi`" in markdown([*records[:1], make_record("b", {})])
    both = markdown(records, references=["gpumpi", "dask-mpi"])
    assert both.count("Ratio of medians") == 2


def test_failures_are_told_once_and_not_compared(make_record):
    good = make_record("good", {"first_task_s": 1.0}, {"first_task_s": 1.0})
    bad = make_record("bad", None, None)
    text = markdown([good, bad])
    values, ratios = cells(text, "bad")
    assert values == ["bad", "0/2 (2 failed)", "-", "-", "-"]
    assert ratios == ["bad", "-", "-", "-"]
    assert "- `bad`, 2 x failed: exit code 1; output: `boom`" in text


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("", ""),
        ("----\n\n", ""),
        ("first\nlast\n-----\n", "last"),
        ("ValueError: no\nmpirun: a rank ended\n", "ValueError: no"),
        ("say `x`", "say 'x'"),
    ],
)
def test_the_line_that_tells(output, line):
    assert report._telling(output) == line


def test_a_reference_that_failed_gives_no_ratios(make_record):
    text = markdown([make_record("bad", None), make_record("good", {"exit_s": 1.0})])
    assert cells(text, "good")[1] == ["good", "-", "-", "-"]


def test_where_it_ran(make_record):
    text = markdown([make_record("a", {})])
    assert text.startswith("## startup, 2026-01-02T03:04:05+00:00\n")
    assert "16 GiB" in text
    assert "session s1" in text
    assert "Ratio" not in text


def test_sessions_are_kept_apart(make_record):
    one = [make_record("a", {}), make_record("b", {})]
    two = [make_record("a", {}, session="s2")]
    assert sessions([*one, *two]) == [one, two]
    with pytest.raises(ValueError, match="one session"):
        markdown([*one, *two])
    with pytest.raises(ValueError, match="one session"):
        markdown([])


def test_main_prints_and_writes_the_last_session(tmp_path, capsys, make_record):
    path, out = tmp_path / "r.jsonl", tmp_path / "r.md"
    append(path, [make_record("a", {}), make_record("a", {}, session="s2")])
    assert report.main([str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed == out.read_text()
    assert "session s2" in printed
    assert "session s1" not in printed
    assert report.main([str(path), "--all"]) == 0
    assert "session s1" in capsys.readouterr().out


def test_main_refuses_a_reference_that_did_not_run(tmp_path, capsys, make_record):
    path = tmp_path / "r.jsonl"
    append(path, [make_record("a", {}), make_record("b", {})])
    assert report.main([str(path), "--reference", "b,nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert report.main([str(path), "--reference", "b"]) == 0
    assert "to `b`" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "not json\n", None])
def test_main_says_what_is_wrong_with_the_file(tmp_path, capsys, content):
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_text(content)
    assert report.main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err
