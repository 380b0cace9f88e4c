"""Counts and durations, and what keeps them small."""

from __future__ import annotations

import pytest

from myoverlay.tally import BOUNDS, LABELS, OTHER, Tally
from tests.pure.kit import Clock, together


def test_what_was_counted_last_and_when() -> None:
    """The age is that of the last count that was one."""
    clock = Clock(10.0)
    tally = Tally(clock)
    tally.add("misses", "late")
    clock.now = 15.0
    tally.add("misses", "late", 0)
    tally.add("misses", "pull", 2)
    clock.now = 16.0
    assert tally.ages() == {("misses", "late"): 6.0, ("misses", "pull"): 1.0}
    assert tally.total("misses") == 3
    assert tally.total("repairs") == 0


def test_a_duration_falls_where_it_belongs() -> None:
    """At most as long as a bound is within it; what is longer than the last has a place of its own."""
    tally = Tally()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] * 2):
        tally.took("docker_call", "Join", seconds)
    (spread,) = tally.durations().values()
    assert (spread.counts[0], spread.counts[1], spread.counts[-2], spread.counts[-1]) == (2, 1, 1, 1)
    assert spread.total == pytest.approx(sum((0.0, BOUNDS[0] * 2.01, BOUNDS[-1] * 3)))
    spread.counts[0] = 99
    assert next(iter(tally.durations().values())).counts[0] == 2, "what is handed out is a copy"


def test_unknown_names_are_refused() -> None:
    """A name that no table has would be documented nowhere."""
    with pytest.raises(KeyError):
        Tally().add("mises")
    with pytest.raises(KeyError):
        Tally().took("docker_cal", "Join", 1.0)


def test_labels_are_bounded() -> None:
    """Whatever invents labels fills one more and no memory; counts are kept, those that were there first by name."""
    tally = Tally()
    for number in range(LABELS * 3):
        tally.add("repairs", f"r{number}")
        tally.took("docker_call", f"m{number}", 0.1)
    tally.add("repairs", "r0")
    assert len(tally.all()) == len(tally.durations()) == LABELS + 1
    assert tally.get("repairs", OTHER) == LABELS * 2
    assert tally.get("repairs", "r0") == 2
    assert tally.total("repairs") == LABELS * 3 + 1


def test_many_threads_lose_no_count() -> None:
    """Eight at once add up."""
    tally = Tally()

    def work() -> None:
        for _ in range(500):
            tally.add("bugs", "x")
            tally.took("store_call", "get answered", 0.001)

    together(*[work] * 8)
    assert tally.get("bugs", "x") == 4000
    assert sum(tally.durations()["store_call", "get answered"].counts) == 4000
