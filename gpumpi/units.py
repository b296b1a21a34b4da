"""Bytes and seconds between text and numbers, with errors that show the way."""

from __future__ import annotations

import math

from gpumpi.errors import OptionError, describe

__all__ = [
    "format_bytes",
    "format_cpu_list",
    "format_seconds",
    "parse_bytes",
    "parse_cpu_list",
    "parse_seconds",
]

_KIB = 1024
_MINUTE_SECONDS = 60


def parse_bytes(text: str | float) -> int:
    """Number of bytes of a text such as ``"4GiB"``, ``"500 MB"`` or ``1e9``.

    Raises
    ------
    OptionError
        When the text is not a number of bytes above zero.
    """
    from dask.utils import parse_bytes as dask_parse_bytes

    try:
        # Dask reads "GiB" as 1 GiB; a person who leaves the number out is asked.
        value = int(dask_parse_bytes(text)) if _has_digit(text) else 0
    except (ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise OptionError(
            describe(
                "reading a number of bytes",
                f"got {text!r}",
                "a number above 0 with an optional unit is allowed",
                "write for example 4GiB, 500MB or 1000000000",
            )
        )
    return value


def parse_seconds(text: str | float) -> float:
    """Number of seconds of a text such as ``"60"``, ``"1m"`` or ``"500ms"``.

    Raises
    ------
    OptionError
        When the text is not a finite number of seconds above zero.
    """
    from dask.utils import parse_timedelta

    try:
        value = 0.0
        if _has_digit(text) and not isinstance(text, bool):
            value = float(parse_timedelta(text, default="seconds"))
    except (ValueError, KeyError, TypeError, OverflowError):
        value = 0.0
    if not (0 < value < math.inf):
        raise OptionError(
            describe(
                "reading a duration",
                f"got {text!r}",
                "a number of seconds above 0, with an optional unit, is allowed",
                "write for example 60, 60s, 500ms or 2m",
            )
        )
    return value


def _has_digit(text: object) -> bool:
    return any(letter.isascii() and letter.isdigit() for letter in str(text))


def format_bytes(value: int) -> str:
    """Text of a number of bytes for people, in binary units, e.g. ``5.8 GiB``."""
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < _KIB or unit == "TiB":
            break
        number /= _KIB
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def format_seconds(value: float) -> str:
    """Text of a duration for people, e.g. ``0.4 s``, ``15 s`` or ``2 min``."""
    if value >= 2 * _MINUTE_SECONDS:
        return f"{value / _MINUTE_SECONDS:.0f} min"
    return f"{value:.3g} s"


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Numbers of a list as the kernel writes it, e.g. ``0-3,8``; empty for none.

    Raises
    ------
    ValueError
        When it is no such list.
    """
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(found))


def format_cpu_list(numbers: tuple[int, ...]) -> str:
    """The shortest list, as the kernel writes it, of sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
