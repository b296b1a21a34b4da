from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi.errors import OptionError
from gpumpi.units import (
    format_bytes,
    format_cpu_list,
    format_seconds,
    parse_bytes,
    parse_cpu_list,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4GiB", 4 * 2**30),
        ("4gib", 4 * 2**30),
        ("500 MB", 500_000_000),
        ("1.5KiB", 1536),
        ("1e9", 10**9),
        (1e9, 10**9),
        (4096, 4096),
        ("1", 1),
    ],
)
def test_bytes_are_read(text: str | float, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "-4GiB", "0.5", "many", "4 parsecs", "nan", "inf", "1e400", "x4"],
)
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_bytes(text)
    assert f"reading a number of bytes: got {text!r}" in str(caught.value)
    assert "write for example 4GiB, 500MB or 1000000000" in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "GiB", "MB"])
def test_bytes_without_a_number_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="a number above 0"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60", 60.0),
        ("60s", 60.0),
        ("1m", 60.0),
        ("2 h", 7200.0),
        ("500ms", 0.5),
        (60, 60.0),
        (0.25, 0.25),
    ],
)
def test_seconds_are_read(text: str | float, value: float) -> None:
    found = parse_seconds(text)
    assert found == value
    assert isinstance(found, float)


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "-1s", "soon", "nan", "inf", "1 year", 0, -2.0, float("nan"), True],
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(OptionError) as caught:
        parse_seconds(text)
    assert f"reading a duration: got {text!r}" in str(caught.value)
    assert "write for example 60, 60s, 500ms or 2m" in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "s", "ms", "1e400", float("inf")])
def test_a_duration_without_a_finite_number_is_refused(text: str | float) -> None:
    with pytest.raises(OptionError, match="a number of seconds above 0"):
        parse_seconds(text)


@given(st.text(max_size=12))
def test_any_text_is_a_number_of_bytes_or_is_refused(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert parse_bytes(text) > 0


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_is_refused(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert 0 < parse_seconds(text) < float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (6 * 2**30, "6.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
    ],
)
def test_bytes_are_written_for_people(value: int, text: str) -> None:
    assert format_bytes(value) == text


@given(st.integers(min_value=1, max_value=2**60))
def test_written_bytes_are_read_back_within_five_percent(value: int) -> None:
    assert parse_bytes(format_bytes(value)) == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4, "0.4 s"),
        (15, "15 s"),
        (15.04, "15 s"),
        (60.0, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3600, "60 min"),
    ],
)
def test_seconds_are_written_for_people(value: float, text: str) -> None:
    assert format_seconds(value) == text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", ()),
        ("\n", ()),
        ("0", (0,)),
        ("0-3,8", (0, 1, 2, 3, 8)),
        ("0-1,4-5\n", (0, 1, 4, 5)),
    ],
)
def test_a_list_of_cores_goes_both_ways(text, numbers) -> None:
    assert parse_cpu_list(text) == numbers
    assert format_cpu_list(numbers) == text.strip()


@given(st.sets(st.integers(0, 300)))
def test_any_cores_survive_a_list(numbers) -> None:
    ordered = tuple(sorted(numbers))
    assert parse_cpu_list(format_cpu_list(ordered)) == ordered


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3,x"])
def test_what_is_no_list_of_cores_is_refused(text) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list(text)
