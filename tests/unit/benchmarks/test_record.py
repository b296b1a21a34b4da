from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import record
from benchmarks.record import Facts, Record, Run, append, read

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=20)
runs = st.builds(
    Run,
    round=st.integers(-3, 100),
    place=st.integers(0, 9),
    warmup=st.booleans(),
    status=st.sampled_from(["ok", "failed", "timeout", "skipped"]),
    wall_s=st.none() | numbers,
    cpu_s=st.none() | numbers,
    observed=st.dictionaries(words, numbers, max_size=3),
    message=words,
    output=words,
)
records = st.builds(
    Record,
    suite=words,
    name=words,
    session=words,
    date=words,
    repeats=st.integers(0, 100),
    parameters=st.dictionaries(words, st.integers() | words, max_size=3),
    runs=st.lists(runs, max_size=3).map(tuple),
    facts=st.builds(
        Facts,
        machine=st.dictionaries(words, numbers | words, max_size=3),
        versions=st.dictionaries(words, st.none() | words, max_size=3),
        commit=st.none() | words,
        dirty=st.none() | st.booleans(),
    ),
)


@given(records)
def test_round_trip(made):
    line = made.to_json()
    assert "\n" not in line
    assert Record.from_json(line) == made


@given(st.lists(records, max_size=3))
def test_file_round_trip(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("records") / "new" / "file.jsonl"
    append(path, made[:1])
    append(path, made[1:])
    assert read(path) == made


def test_numbers_that_json_lacks_are_refused():
    bad = Run(round=0, observed={"first_task_s": float("nan")})
    made = Record(suite="s", name="n", session="x", date="d", repeats=1, runs=(bad,))
    with pytest.raises(ValueError, match="JSON"):
        made.to_json()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(schema=record.SCHEMA + 1),
        lambda content: content.pop("schema"),
        lambda content: content.update(surprise=1),
        lambda content: content.pop("name"),
        lambda content: content.pop("runs"),
        lambda content: content["runs"][0].update(surprise=1),
        lambda content: content["facts"].update(surprise=1),
    ],
)
def test_other_schemas_are_refused(make_record, change):
    content = json.loads(make_record("a", {}).to_json())
    change(content)
    with pytest.raises(ValueError, match="schema"):
        Record.from_json(json.dumps(content))


@pytest.mark.parametrize("line", ["[]", "3", '"text"', "{", "null"])
def test_a_bad_line_is_named(tmp_path, make_record, line):
    path = tmp_path / "file.jsonl"
    path.write_text(make_record("a", {}).to_json() + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match="line 3"):
        read(path)


def test_values_leave_out_warmup_and_what_was_cut_short():
    made = Record(
        suite="s",
        name="n",
        session="x",
        date="d",
        repeats=3,
        runs=(
            Run(round=-1, warmup=True, wall_s=9, cpu_s=9, observed={"first_task_s": 9}),
            Run(round=0, wall_s=1, cpu_s=2, observed={"first_task_s": 0.5}),
            Run(
                round=1,
                status="timeout",
                wall_s=60,
                cpu_s=70,
                observed={"first_task_s": 0.6},
            ),
            Run(round=2, status="skipped"),
        ),
    )
    assert made.values("wall_s") == {0: 1}
    assert made.values("cpu_s") == {0: 2}
    assert made.values("first_task_s") == {0: 0.5, 1: 0.6}
    assert made.values("exit_s") == {}
    assert made.statuses() == {"ok": 1, "timeout": 1, "skipped": 1}


def test_facts_of_here(monkeypatch):
    asked = []

    def ask(*command):
        asked.append(command)
        return {"rev-parse": "abc123", "status": " M file"}.get(
            command[3] if command[0] == "git" else "", "Some  MPI 1.2"
        )

    monkeypatch.setattr(record, "_ask", ask)
    facts = Facts.gather()
    assert facts.commit == "abc123"
    assert facts.dirty is True
    assert facts.machine["cores"] >= facts.machine["cores_usable"] >= 1
    assert facts.machine["memory_bytes"] > 2**20
    assert facts.versions["mpi"] == "Some MPI 1.2"
    assert facts.versions["distributed"]
    assert {"python", "dask", "dask-mpi", "mpi4py", "gpumpi"} <= facts.versions.keys()


def test_facts_without_git_or_mpi(monkeypatch):
    monkeypatch.setattr(record, "_ask", lambda *command: None)
    facts = Facts.gather()
    assert (facts.commit, facts.dirty, facts.versions["mpi"]) == (None, None, None)


def test_ask_takes_no_for_an_answer():
    assert record._ask("sh", "-c", "echo yes") == "yes"
    assert record._ask("sh", "-c", "exit 1") is None
    assert record._ask("no-such-program-here") is None
