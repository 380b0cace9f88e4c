"""README's table."""

from __future__ import annotations

import pytest

from bench import report
from bench.names import AGAIN, DOCKER, HAND, OURS
from bench.readme import FIRST, LAST, README, renewed
from bench.results import Measured, Results, Round


def tcp(ours: float, docker: float, again: float = 1.0, count: int = 16) -> Measured:
    """Rounds without noise."""
    one = {OURS: ours, DOCKER: docker, HAND: 1.0, AGAIN: again}
    values = {name: {"Gbit/s": value} for name, value in one.items()}
    return Measured(tuple(Round(tuple(values), values) for _ in range(count)))


ABOUT = {"date": "2026-11-26 06:00 UTC", "Linux": "6.18", "took": "3 min"}


def test_a_row_has_ratios_noise_rounds_and_medians() -> None:
    """Ours by theirs, by hand, and by itself; what was not measured is empty."""
    text = report.table(Results(ABOUT, {"tcp1": tcp(1.0, 0.8)}))
    assert "| TCP, 1 stream | 1.25 better | 1 |  |  | 1 | 16 |" in text
    assert f"{OURS} 1, {DOCKER} 0.8, {HAND} 1 Gbit/s |" in text
    assert text.startswith("2026-11-26 06:00 UTC; Linux 6.18; 3 min in all.")


def test_better_and_worse_stand_only_where_they_are_shown() -> None:
    """A ratio of 1 has no word."""
    assert "| 0.5 **worse** |" in report.table(Results(ABOUT, {"tcp1": tcp(1.0, 2.0)}))
    assert "| 1 |" in report.table(Results(ABOUT, {"tcp1": tcp(1.0, 1.0)}))


def test_missed_goals_are_listed() -> None:
    """What is not measured too; a reader sees no table that hides a miss."""
    text = report.table(Results(ABOUT, {"tcp1": tcp(1.0, 2.0)}))
    assert "- TCP, 1 stream: at least 1 × Docker's overlay; 0.5 in 16 rounds" in text
    assert "- root file system: at most 70 MB; the results lack it" in text


def test_lost_packets_stand_beside_the_time() -> None:
    """A first ping that loses packets is not told by its time alone."""
    lost = Round(("tutorial",), {"tutorial": {"first answer ms": 1018.0, "packets lost": 2.0}})
    text = report.table(Results(ABOUT, {"first-ping-tutorial": Measured((lost, lost))}))
    assert "| first ping with the tutorial's script | 1.02e+03 ms; 4 of 6 packets lost | 2 |  |" in text


def test_the_table_takes_its_place() -> None:
    """Between the markers, and refused where one is missing."""
    page = f"before\n{FIRST}old\n{LAST}after\n"
    assert renewed(page, "new\n") == f"before\n{FIRST}new\n{LAST}after\n"
    with pytest.raises(ValueError, match="<!-- /bench -->"):
        renewed(page.replace(LAST, ""), "new\n")


def test_readme_has_a_place_for_it() -> None:
    """`make bench-docs` finds where to write."""
    text = README.read_text()
    assert renewed(text, "x\n") != text
    assert text.count(FIRST) == text.count(LAST) == 1
