from __future__ import annotations

import dataclasses

import pytest

from gpumpi.cluster.security import Credentials
from gpumpi.cluster.start import Go, Refused, Start
from gpumpi.layout import Plan

PLAN = Plan(ranks=(), scheduler_address="127.0.0.1")
CREDENTIALS = Credentials(key="-----BEGIN PRIVATE KEY-----", certificate="c")
GO = Go(plan=PLAN, job="abc", scheduler_address="tls://x:1", credentials=CREDENTIALS)


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_a_refusal_carries_the_code_of_its_rank(code: int) -> None:
    assert Refused(code).exit_code == code


def test_the_answer_of_rank_0_shows_no_secret_and_stays_as_it_is() -> None:
    assert "PRIVATE" not in repr(GO)
    with pytest.raises(dataclasses.FrozenInstanceError):
        GO.job = "other"  # type: ignore[misc]


def test_a_door_needs_no_folder() -> None:
    start = Start(
        arguments={"nthreads": 2},
        prepare=lambda options: None,
        announce=lambda job: None,
        show_plan=lambda *words: None,
    )
    assert start.path is None
