"""README's table."""

from __future__ import annotations

import pytest

from bench import report
from bench.goals import between
from bench.names import AGAIN, DOCKER, HAND, OURS
from bench.readme import FIRST, LAST, README, renewed
from bench.results import Measured, Results, Round
from bench.spread import Spread


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


def test_tables_are_tables() -> None:
    """Each line of a table has as many cells as its head, or it is shown as text."""
    storm = Measured((Round((OURS,), {OURS: {"first answer ms": 1.0}}),) * 2)
    text = report.table(Results(ABOUT, {"tcp1": tcp(1.0, 0.8), "storm": storm}))
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(part) for part in tables] == [3, 3]
    assert all(len({row.count("|") for row in part}) == 1 for part in tables)


def test_what_was_measured_again_is_told() -> None:
    """With what it was before: who measures until a goal is met says so."""
    again = Results(ABOUT, {"tcp1": tcp(1.0, 2.0)}).with_figures({"tcp1": tcp(1.0, 0.8)})
    text = report.table(again)
    assert "1.25 better" in text
    assert (
        f"- `tcp1` at ; at  it was: TCP, 1 stream, at least 1 × {DOCKER}: 0.5 in 16 rounds; TCP, 1 stream, at" in text
    )
    assert "again" not in report.table(Results(ABOUT, {"tcp1": tcp(1.0, 0.8)}))


def test_a_figure_tells_its_ratios() -> None:
    """While it runs: medians, each ratio that a goal speaks of, and the noise."""
    text = report.plain("tcp1", tcp(1.0, 0.8))
    assert f"  {OURS} ÷ {DOCKER}: Gbit/s 1.25\n  {OURS} ÷ {HAND}: Gbit/s 1\n  A/A 1" in text


def test_rounds_above_a_limit_are_counted() -> None:
    """A median hides them."""
    values = [2.0, 2.0, 2.0, 12.0]
    rounds = tuple(Round((OURS,), {OURS: {"first answer ms": value}}) for value in values)
    text = report.table(Results(ABOUT, {"storm": Measured(rounds)}))
    assert "(2 to 12) ms; 1 of 4 above the goal | 4 | at most 10 ms |" in text


def test_an_interval_says_whether_it_holds_one() -> None:
    """An end that would read as 1 and is not has a fourth digit."""
    assert between(Spread(1.08, 1.003, 1.1, 16)) == "1.08 (1.003 to 1.1)"
    assert between(Spread(1.08, 1.0004, 1.1, 16)) == "1.08 (1.0004 to 1.1)"
    assert between(Spread(1.0, 1.0, 1.1, 16)) == "1 (1 to 1.1)"


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
