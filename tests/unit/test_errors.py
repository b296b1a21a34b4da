from __future__ import annotations

import inspect

import pytest

from gpumpi import errors
from gpumpi.errors import GpumpiError, OptionError, describe

KINDS = [
    value
    for name in errors.__all__
    if inspect.isclass(value := getattr(errors, name)) and value is not GpumpiError
]


def test_a_message_has_its_four_parts_in_order() -> None:
    text = describe("reading a number", "got 'x'", "numbers are allowed", "write 1")
    assert text == "reading a number: got 'x'; numbers are allowed. Next: write 1"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_one_of_ours_and_says_what_it_was_given(
    kind: type[GpumpiError],
) -> None:
    assert issubclass(kind, GpumpiError)
    assert str(kind("all of it")) == "all of it"


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_request_that_cannot_be_right_ends_with_2(
    kind: type[GpumpiError],
) -> None:
    assert kind.exit_code == (2 if kind is OptionError else 1)


def test_the_base_is_a_failure() -> None:
    assert GpumpiError.exit_code == 1


@pytest.mark.parametrize(
    ("kind", "standard"),
    [
        (errors.OptionError, ValueError),
        (errors.DeadlineError, TimeoutError),
        (errors.SessionError, RuntimeError),
    ],
)
def test_an_error_that_python_has_a_kind_for_is_of_that_kind_too(
    kind: type[GpumpiError], standard: type[Exception]
) -> None:
    assert issubclass(kind, standard)


def test_every_error_of_the_module_is_in_its_public_list() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert found <= set(errors.__all__)
