from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi.cluster.verdict import (
    RankReport,
    Verdict,
    failure_text,
    judge,
    late_text,
    option_verdict,
)
from gpumpi.errors import OptionError, StartError

VERSIONS = {"python": "3.11", "dask": "2026.7.1"}


def report(rank: int, **changes: Any) -> RankReport:
    return RankReport(rank=rank, host=f"n{rank}", versions=VERSIONS, **changes)


def fail(rank: int, error: str, at: float, code: int = 1) -> RankReport:
    return report(rank, error=error, exit_code=code, failed_at=at)


def judged(*reports: RankReport, size: int | None = None, **options: Any) -> Verdict:
    by_rank = {each.rank: each for each in reports}
    return judge("the start", by_rank, size or len(reports), seconds=60.0, **options)


def test_all_good_is_go() -> None:
    assert judged(report(0), report(1), report(2)) == Verdict(go=True)


def test_one_failure_is_named_with_its_host_and_its_code() -> None:
    verdict = judged(report(0), fail(1, "no such script", at=5.0, code=2))
    assert not verdict.go
    assert verdict.exit_code == 2
    assert verdict.text.splitlines() == [
        "the start failed on 1 of 2 rank(s)",
        "rank 1 on host n1: no such script",
    ]


def test_the_first_failure_by_time_comes_last_and_gives_the_code() -> None:
    verdict = judged(
        fail(0, "late", at=30.0, code=1),
        fail(1, "first", at=10.0, code=2),
        fail(2, "second", at=20.0, code=1),
    )
    assert verdict.text.splitlines() == [
        "the start failed on 3 of 3 rank(s)",
        "rank 0 on host n0: late",
        "rank 2 on host n2: second",
        "rank 1 on host n1: first",
    ]
    assert verdict.exit_code == 2


def test_of_failures_at_one_time_the_lowest_rank_is_first() -> None:
    verdict = judged(fail(0, "a", at=1.0), fail(1, "b", at=1.0))
    assert verdict.text.splitlines()[-1] == "rank 0 on host n0: a"


def test_an_error_of_many_ranks_is_said_once_with_the_first() -> None:
    verdict = judged(*[fail(rank, "no space", at=9.0 - rank) for rank in range(5)])
    assert verdict.text.splitlines() == [
        "the start failed on 5 of 5 rank(s)",
        "rank 4 on host n4 (and 4 more): no space",
    ]


def test_silent_ranks_are_named_with_what_to_do() -> None:
    verdict = judged(report(0), report(2), size=4)
    assert verdict.exit_code == 1
    assert verdict.text == (
        "the start failed on 2 of 4 rank(s)\n"
        "no answer within 60 s from rank 1, rank 3. Next: look for a frozen process "
        "or file system there, or raise --start-timeout"
    )


def test_silent_ranks_are_named_with_their_hosts_where_these_are_known() -> None:
    verdict = judged(report(0), size=2, hosts_by_rank={0: "a", 1: "b"})
    assert "from rank 1 on host b. Next:" in verdict.text


def test_a_cause_comes_after_the_silent_ranks() -> None:
    verdict = judged(report(0), fail(1, "boom", at=1.0, code=2), size=3)
    lines = verdict.text.splitlines()
    assert lines[0] == "the start failed on 2 of 3 rank(s)"
    assert lines[1].startswith("no answer within 60 s from rank 2")
    assert lines[2] == "rank 1 on host n1: boom"
    assert verdict.exit_code == 2


def test_ranks_of_different_versions_are_refused_with_both() -> None:
    other = RankReport(rank=1, host="n1", versions=VERSIONS | {"dask": "2025.1.0"})
    verdict = judged(report(0), other)
    assert verdict == Verdict(
        go=False,
        exit_code=1,
        text="the start failed: rank 1 on host n1 has dask 2025.1.0, rank 0 on host n0 "
        "has 2026.7.1; all ranks need the same. Next: start all ranks in one "
        "environment",
    )


def test_a_failure_goes_before_different_versions() -> None:
    other = RankReport(rank=1, host="n1", versions={"python": "3.9"}, error="boom")
    assert judged(report(0), other).text.endswith("rank 1 on host n1: boom")


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "x", "y"]), st.floats(0, 100), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_a_verdict_is_go_exactly_when_all_ranks_are_well(ranks) -> None:
    reports = {
        rank: fail(rank, error, at) if error else report(rank)
        for rank, (error, at, silent) in enumerate(ranks)
        if not (silent and rank)
    }
    verdict = judge("it", reports, len(ranks), seconds=1.0)
    failed = [each for each in reports.values() if each.error]
    assert verdict.go == (len(reports) == len(ranks) and not failed)
    assert verdict.go == (verdict.text == "")
    assert verdict.go == (verdict.exit_code == 0)
    if failed:
        first = min(failed, key=lambda each: (each.failed_at, each.rank))
        last_line = verdict.text.splitlines()[-1]
        assert last_line.startswith(f"rank {first.rank} on host n{first.rank}")
        assert last_line.endswith(f": {first.error}")


# ------------------------------------------------------------------- reports


def test_the_report_of_an_error_of_ours_has_its_message_and_code() -> None:
    found = RankReport.of_failure(3, "n3", OptionError("bad option"))
    assert (found.rank, found.host) == (3, "n3")
    assert (found.error, found.exit_code) == ("bad option", 2)
    assert found.failed_at > 1e9


def test_the_report_of_any_other_error_has_its_type_and_place() -> None:
    try:
        {}["key"]
    except KeyError as error:
        found = RankReport.of_failure(0, "n0", error)
    assert found.exit_code == 1
    assert found.error.startswith("KeyError: 'key' (")
    assert __file__ in found.error
    assert ", line " in found.error


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert failure_text(OSError("disk")) == "OSError: disk"


@pytest.mark.parametrize(
    ("error", "code"), [(OptionError("a"), 2), (StartError("a"), 1)]
)
def test_an_error_in_the_plan_is_a_verdict(error, code) -> None:
    assert option_verdict(error) == Verdict(go=False, text="a", exit_code=code)


def test_of_many_silent_ranks_eight_are_named() -> None:
    verdict = judged(report(0), size=21)
    assert "from rank 1, rank 2," in verdict.text
    assert "rank 8 and 12 more. Next:" in verdict.text
    assert verdict.text.startswith("the start failed on 20 of 21 rank(s)")


# ---------------------------------------------------------------------- late


def test_late_ranks_are_named() -> None:
    assert late_text([1, 3], 4.2, {1: "b"}) == (
        "gpumpi: waiting for rank 1 on host b, rank 3 (4 s)"
    )


def test_of_many_late_ranks_eight_are_named() -> None:
    text = late_text(list(range(1, 21)), 10.0, {})
    assert "rank 8 and 12 more (10 s)" in text
    assert "rank 9" not in text
