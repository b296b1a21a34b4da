from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.spread import Ratio, Spread

seconds = st.floats(0.001, 1000)


def test_spread_of_five():
    made = Spread.of([5, 1, 3, 2, 4])
    assert (made.minimum, made.lower, made.median) == (1, 2, 3)
    assert (made.upper, made.maximum, made.count) == (4, 5, 5)
    assert str(made) == "3.00 [2.00, 4.00] min 1.00"


def test_spread_of_none():
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


@given(st.lists(seconds, min_size=2, max_size=20))
def test_quartiles_are_those_of_the_standard_library(values):
    made = Spread.of(values)
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    assert made.lower == pytest.approx(lower)
    assert made.upper == pytest.approx(upper)
    assert made.median == statistics.median(values)


@given(st.lists(seconds, min_size=1, max_size=8), st.floats(0.1, 10))
def test_a_case_that_is_always_k_times_its_reference(values, factor):
    reference = dict(enumerate(values))
    case = {round_: value * factor for round_, value in reference.items()}
    made = Ratio.of(case, reference)
    assert made.value == pytest.approx(factor)
    # Paired: however much the rounds differ, the interval has no width.
    assert made.low == pytest.approx(factor)
    assert made.high == pytest.approx(factor)
    assert made.pairs == len(values)


def test_only_rounds_that_both_have_count():
    made = Ratio.of({0: 1.0, 2: 3.0, 3: 100.0}, {0: 2.0, 1: 50.0, 2: 2.0})
    assert made.pairs == 2
    assert made.value == pytest.approx(1.0)


def test_the_interval_shows_the_noise_and_is_the_same_again():
    case = dict(enumerate([1.0, 1.1, 0.9, 1.2, 1.0, 2.0]))
    reference = dict(enumerate([1.0, 0.9, 1.1, 1.0, 1.3, 1.0]))
    made = Ratio.of(case, reference)
    assert made.low < made.value < made.high
    assert made == Ratio.of(case, reference)


@pytest.mark.parametrize(
    ("case", "reference"),
    [({}, {}), ({0: 1.0}, {}), ({0: 1.0}, {1: 1.0}), ({0: 1.0}, {0: 0.0})],
)
def test_no_ratio(case, reference):
    assert Ratio.of(case, reference) is None
