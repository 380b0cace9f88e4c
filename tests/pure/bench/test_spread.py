"""Medians, their intervals, and what may be said of a ratio."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.spread import Spread, ratios, spread, words

values = st.lists(st.floats(0.1, 1000), min_size=1, max_size=20)


@settings(deadline=None, max_examples=50)
@given(values)
def test_the_interval_holds_the_median_and_lies_within_the_values(found: list[float]) -> None:
    """However the values are spread."""
    told = spread(found)
    assert told.median == median(found)
    assert min(found) <= told.low <= told.median <= told.high <= max(found)
    assert told.count == len(found)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 300 samples of 31 from a known distribution about 95 % have the true median inside: 90 to 99 % here."""
    chance = random.Random(1)
    samples = [[chance.lognormvariate(0.0, 0.3) for _ in range(31)] for _ in range(300)]
    inside = sum(not spread(sample).excludes(1.0) for sample in samples)
    assert 270 <= inside <= 297


def test_the_same_values_have_the_same_interval() -> None:
    """Whoever reads the results again judges the same."""
    found = [1.0, 1.1, 0.9, 1.3, 0.97]
    assert spread(found) == spread(found)


def test_more_values_make_a_narrower_interval() -> None:
    """That is why rounds are added."""
    chance = random.Random(2)
    many = [chance.gauss(1.0, 0.1) for _ in range(60)]
    few, all_of_them = spread(many[:16]), spread(many)
    assert all_of_them.high - all_of_them.low < few.high - few.low


@pytest.mark.parametrize("wrong", [[], [1.0, float("nan")]])
def test_there_is_no_median_of_nothing(wrong: list[float]) -> None:
    """An empty figure, or one that is not a number, is refused rather than judged."""
    with pytest.raises(ValueError, match=r"median of nothing|not a number"):
        spread(wrong)


def test_ratios_pair_rounds() -> None:
    """The first with the first; what does not pair, or has nothing to compare with, is refused."""
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="do not pair"):
        ratios([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="0 to compare with"):
        ratios([1.0], [0.0])


@pytest.mark.parametrize(
    ("low", "high", "more", "said"),
    [
        (1.001, 1.2, True, "better than"),
        (1.001, 1.2, False, "worse than"),
        (0.8, 0.999, False, "better than"),
        (0.8, 0.999, True, "worse than"),
        (0.99, 1.2, True, "no difference shown"),
        (1.0, 1.2, True, "no difference shown"),
        (0.8, 1.0, False, "no difference shown"),
    ],
)
def test_better_is_said_only_where_the_interval_excludes_one(low: float, high: float, more: bool, said: str) -> None:
    """Touching 1.0 is not excluding it."""
    assert words(Spread((low + high) / 2, low, high, 16), more) == said
