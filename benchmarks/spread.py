"""Spread: median, quartiles and ratios with their uncertainty.

Ratios are of medians, over the rounds that both cases went through. Their
interval comes from a paired bootstrap: rounds are drawn with replacement, and both
cases keep the round together, so that what slowed a whole round cancels.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Ratio", "Spread"]

_RESAMPLES = 2000
_COVERAGE = 0.95


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Linear between the two nearest; ``ordered`` is sorted."""
    position = part * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How some numbers lie."""

    count: int
    minimum: float
    lower: float
    median: float
    upper: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of at least one number."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("no values, no spread")
        return cls(
            count=len(ordered),
            minimum=ordered[0],
            lower=_quantile(ordered, 0.25),
            median=statistics.median(ordered),
            upper=_quantile(ordered, 0.75),
            maximum=ordered[-1],
        )

    def __str__(self) -> str:
        """Median, quartiles and minimum."""
        return (
            f"{self.median:.2f} [{self.lower:.2f}, {self.upper:.2f}]"
            f" min {self.minimum:.2f}"
        )


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A case against the reference case.

    Attributes
    ----------
    value : float
        Ratio of the medians over the rounds that both have.
    low, high : float
        95 % interval of the paired bootstrap.
    pairs : int
        Number of such rounds.
    """

    value: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(
        cls, case: Mapping[int, float], reference: Mapping[int, float]
    ) -> Ratio | None:
        """Compare by round; None where no round has both or a median is zero."""
        rounds = sorted(case.keys() & reference.keys())
        if not rounds:
            return None
        top = [case[round_] for round_ in rounds]
        bottom = [reference[round_] for round_ in rounds]
        if statistics.median(bottom) <= 0:
            return None
        # Seeded: the same records give the same report.
        dice = random.Random(0)
        drawn = []
        for _ in range(_RESAMPLES):
            picks = dice.choices(range(len(rounds)), k=len(rounds))
            below = statistics.median(bottom[pick] for pick in picks)
            if below > 0:
                drawn.append(statistics.median(top[pick] for pick in picks) / below)
        drawn.sort()
        return cls(
            value=statistics.median(top) / statistics.median(bottom),
            low=_quantile(drawn, (1 - _COVERAGE) / 2),
            high=_quantile(drawn, (1 + _COVERAGE) / 2),
            pairs=len(rounds),
        )

    def __str__(self) -> str:
        """Ratio and interval."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"
