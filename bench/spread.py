"""A median and how sure it is: its 95 % interval by bootstrap, the percentiles of resampled medians. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 2_000
#: The interval of the same values is the same in every reading of them.
SEED = 20
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """The median of `count` values, with the ends of its interval."""

    median: float
    low: float
    high: float
    count: int

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side."""
        return value < self.low or value > self.high


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError where there is no value, or one is not a number."""
    if not values:
        raise ValueError("there is no median of nothing")
    if any(value != value for value in values):
        raise ValueError("a value is not a number")
    chance, count = random.Random(SEED), len(values)
    medians = sorted(median(chance.choices(values, k=count)) for _ in range(RESAMPLES))
    cut = round(RESAMPLES * (1 - LEVEL) / 2)
    return Spread(median(values), medians[cut], medians[-1 - cut], count)


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round. Raises ValueError where the rounds do not pair, or one would be divided by nothing."""
    if len(over) != len(under):
        raise ValueError(f"{len(over)} rounds of one and {len(under)} of the other do not pair")
    if any(value == 0 for value in under):
        raise ValueError("a round has 0 to compare with")
    return [one / other for one, other in zip(over, under, strict=True)]


def words(ratio: Spread, more_is_better: bool) -> str:
    """What may be said of a ratio: `better` or `worse` only where the interval excludes 1.0."""
    if not ratio.excludes(1.0):
        return "no difference shown"
    return "better than" if (ratio.low > 1.0) == more_is_better else "worse than"
