from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import Case, Outcome, Plan, measure, turns
from benchmarks.launch import launch
from benchmarks.record import Facts

quiet = partial(measure, "suite", facts=Facts(), say=lambda line: None)


@given(st.integers(0, 6), st.integers(0, 8))
def test_turns_are_fair(number, rounds):
    made = list(turns(number, rounds))
    for round_ in range(rounds):
        places = [place for at, place, _ in made if at == round_]
        cases = [case for at, _, case in made if at == round_]
        assert places == list(range(number))
        assert cases == sorted(cases, reverse=round_ % 2 == 1)
        assert len(set(cases)) == number
    # Over an even number of rounds each case has the same mean place.
    if rounds % 2 == 0:
        for case in range(number):
            total = sum(place for _, place, at in made if at == case)
            assert 2 * total == rounds * (number - 1)


def test_cases_take_turns_and_warm_up_first():
    seen = []

    def case(name):
        return Case(name=name, run=lambda timeout: seen.append(name) or {"x_s": 1.0})

    records = quiet([case("a"), case("b")], Plan(repeats=3, warmup=1))
    assert seen == ["a", "b", "b", "a", "a", "b", "b", "a"]
    first = records[0]
    assert (first.name, first.repeats) == ("a", 3)
    assert [run.warmup for run in first.runs] == [True, False, False, False]
    assert [run.round for run in first.runs] == [-1, 0, 1, 2]
    assert [run.place for run in first.runs] == [0, 1, 0, 1]
    assert first.values("x_s") == {0: 1.0, 1: 1.0, 2: 1.0}
    assert len({record.session for record in records}) == 1


def test_the_case_gets_the_timeout_and_it_is_recorded():
    got = []
    case = Case(
        name="a", run=lambda timeout: got.append(timeout) or {}, parameters={"n": 4}
    )
    (made,) = quiet([case], Plan(repeats=1, warmup=0, timeout=7.5))
    assert got == [7.5]
    assert made.parameters == {"n": 4, "timeout_s": 7.5}


def test_wall_and_cpu_seconds_of_a_plain_case():
    def burn(timeout):
        launch(
            ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], timeout=30
        )
        return {}

    (made,) = quiet([Case(name="a", run=burn)], Plan(repeats=1, warmup=0))
    (run,) = made.runs
    assert run.wall_s > 0
    assert 0 < run.cpu_s < 10


def test_an_exception_is_a_failed_run_and_the_others_go_on():
    def fail(timeout):
        raise RuntimeError("no such luck")

    bad, good = quiet(
        [Case(name="bad", run=fail), Case(name="good", run=lambda timeout: {})],
        Plan(repeats=2, warmup=0, give_up_after=0),
    )
    assert bad.statuses() == {"failed": 2}
    assert bad.runs[0].message == "RuntimeError: no such luck"
    assert "Traceback" in bad.runs[0].output
    assert good.statuses() == {"ok": 2}


def test_failing_and_hanging_commands_are_recorded_with_their_output():
    def command(script, observed, timeout):
        return Outcome.of(launch(["sh", "-c", script], timeout=timeout), observed)

    failing, hanging = quiet(
        [
            Case(name="fails", run=partial(command, "echo why; exit 3", {})),
            Case(
                name="hangs",
                run=partial(command, "echo begun; sleep 60", {"first_task_s": 0.1}),
            ),
        ],
        Plan(repeats=1, warmup=0, timeout=0.5),
    )
    (run,) = failing.runs
    assert (run.status, run.message, run.output) == ("failed", "exit code 3", "why\n")
    (run,) = hanging.runs
    assert (run.status, run.output) == ("timeout", "begun\n")
    assert "killed after 0.5 s" in run.message
    assert hanging.values("first_task_s") == {0: 0.1}
    assert hanging.values("wall_s") == {}


def test_a_problem_seen_by_the_caller_fails_a_good_launch_only():
    good = launch(["true"], timeout=30)
    bad = launch(["false"], timeout=30)
    assert Outcome.of(good, {}).status == "ok"
    assert Outcome.of(good, {}, "odd").message == "odd"
    assert Outcome.of(good, {}, "odd").status == "failed"
    assert Outcome.of(bad, {}, "odd").message == "exit code 1"


def test_a_case_that_keeps_failing_is_skipped_aloud():
    calls, lines = [], []

    def fail(timeout):
        calls.append(1)
        return Outcome(status="timeout", message="killed")

    (made,) = measure(
        "suite",
        [Case(name="bad", run=fail)],
        Plan(repeats=5, warmup=0, give_up_after=2),
        facts=Facts(),
        say=lines.append,
    )
    assert len(calls) == 2
    assert made.statuses() == {"timeout": 2, "skipped": 3}
    assert len(made.runs) == len(lines) == 5
    assert "SKIPPED (2 bad runs in a row before)" in lines[-1]


def test_a_good_run_between_bad_ones_keeps_a_case_going():
    ends = iter(["failed", "ok", "failed", "ok"])
    case = Case(name="a", run=lambda timeout: Outcome(status=next(ends)))
    (made,) = quiet([case], Plan(repeats=4, warmup=0, give_up_after=2))
    assert made.statuses() == {"failed": 2, "ok": 2}


def test_what_ran_before_an_interrupt_is_kept():
    left = iter([{"x_s": 1.0}, {"x_s": 2.0}])

    def run(timeout):
        for result in left:
            return result
        raise KeyboardInterrupt

    (made,) = quiet([Case(name="a", run=run)], Plan(repeats=9, warmup=0))
    assert made.values("x_s") == {0: 1.0, 1: 2.0}
    assert made.repeats == 9


def test_progress_goes_to_stderr(capsys):
    case = Case(name="a", run=lambda timeout: {"x_s": 1.0})
    measure("suite", [case], Plan(repeats=1, warmup=1), facts=Facts())
    out, err = capsys.readouterr()
    assert out == ""
    warm, counted = err.splitlines()
    assert warm.startswith("[warm-up] a:")
    assert counted.startswith("[    1/1] a:")
    assert "x_s=1.000" in counted


def test_names_are_unique():
    case = Case(name="a", run=lambda timeout: {})
    with pytest.raises(ValueError, match="same name"):
        quiet([case, case], Plan(repeats=1))
