"""Verdicts: when a goal is reached, and what is said where it is not."""

from __future__ import annotations

import json

import pytest

from bench import check, results
from bench.catalogue import FIGURES, chosen
from bench.goals import GOALS, SAME, Limit, Most, Ratio, judge, reached
from bench.names import DOCKER, NONE, OURS
from bench.results import Measured, Results, Round
from bench.spread import Spread
from tests.pure.bench.test_scale import whole


@pytest.mark.parametrize(
    ("median", "low", "met"),
    [(1.0, 0.95, True), (0.98, 0.95, True), (0.979, 0.97, False), (1.2, 0.949, False), (1.2, 1.1, True)],
)
def test_at_least_allows_two_and_five_hundredths(median: float, low: float, met: bool) -> None:
    """Median at least G - 0.02 and lower end at least G - 0.05; the upper end does not count."""
    assert reached(Spread(median, low, 9.0, 16), "at least", 1.0) is met


@pytest.mark.parametrize(
    ("median", "high", "met"),
    [(0.5, 0.55, True), (0.52, 0.55, True), (0.521, 0.53, False), (0.3, 0.551, False), (0.3, 0.4, True)],
)
def test_at_most_mirrors_it(median: float, high: float, met: bool) -> None:
    """Median at most G + 0.02 and upper end at most G + 0.05; the lower end does not count."""
    assert reached(Spread(median, 0.0, high, 16), "at most", 0.5) is met


def rounds(**columns: list[float]) -> Measured:
    """Rounds of one quantity `x`, by contestant."""
    count = len(next(iter(columns.values())))
    each = [{name: {"x": values[n]} for name, values in columns.items()} for n in range(count)]
    return Measured(tuple(Round(tuple(one), one) for one in each))


def test_what_is_taken_off_is_taken_off_both_in_each_round() -> None:
    """(ours - none) / (theirs - none), round by round, not of the medians."""
    ratio = Ratio("f", "x", "at most", 0.5, "ours", "theirs", "none")
    measured = rounds(ours=[11.0, 25.0] * 8, theirs=[12.0, 40.0] * 8, none=[10.0, 20.0] * 8)
    assert ratio.values(measured) == [0.5, 0.25] * 8
    assert ratio.judge(measured)[1]


def test_a_ratio_of_few_rounds_is_no_figure() -> None:
    """What `--short` measures meets none of them."""
    with pytest.raises(ValueError, match="15 rounds of at least 16"):
        Ratio("f", "x", "at least", 1.0, "a", "b").judge(rounds(a=[1.0] * 15, b=[1.0] * 15))


def test_rounds_that_one_took_no_part_in_do_not_pair() -> None:
    """Who is beside is compared in those rounds alone that it was measured in."""
    first, second = rounds(a=[2.0], b=[1.0]).rounds + rounds(a=[5.0]).rounds
    assert Ratio("f", "x", "at least", 1.0, "a", "b").values(Measured((first, second))) == [2.0]


def test_a_limit_is_for_the_median_and_most_for_every_round() -> None:
    """One bad round does not miss a limit; one lost packet misses `none`."""
    measured = rounds(**{OURS: [1.0, 2.0, 90.0]})
    assert Limit("f", "x", 2.0).judge(measured)[1]
    assert Limit("f", "x", 2.0).judge(measured)[0].endswith("in 3 rounds, 1 of them above")
    assert not Limit("f", "x", 1.9).judge(measured)[1]
    assert Most("f", "x", 90).judge(measured)[1]
    assert not Most("f", "x", 0).judge(measured)[1]


def test_what_was_not_measured_is_not_met() -> None:
    """A figure that is missing, or without the contestant, has no verdict, and the check fails."""
    empty = Results({}, {"first-ping": rounds(x=[1.0])})
    assert {verdict.met for verdict in judge(empty)} == {None}
    assert "NOT MEASURED" in str(judge(empty)[0])


def good() -> Results:
    """Results that meet every goal."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {}
    for goal in GOALS:
        rule = goal.rule
        values = found.setdefault(rule.figure, [{} for _ in range(16)])
        for each in values:
            if isinstance(rule, Ratio):
                each.setdefault(rule.under, {})[rule.quantity] = 3.0
                each.setdefault(rule.over, {})[rule.quantity] = 3.0 if rule.goal > 0.6 else 1.5
                if rule.less:
                    each.setdefault(rule.less, {})[rule.quantity] = 1.0
            else:
                each.setdefault(rule.contestant, {})[rule.quantity] = min(rule.limit, 3.0)
    return Results({}, {name: Measured(tuple(Round(tuple(e), e) for e in each)) for name, each in found.items()})


def test_the_check_fails_on_one_miss(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 where all goals are met; 1 where one of them is missed, is not measured, or there are no results, and
    where a promise about size is broken, or there are no results about it.
    """
    file, scale = tmp_path / "latest.json", tmp_path / "scale.json"  # type: ignore[operator]
    results.write(good(), file)
    asked = ["--results", str(file), "--scale", str(scale)]
    part = whole()
    del part["sizes"][-1]
    for found, said in (
        ({}, "nothing about size"), ([], "nothing about size"), (whole(cpu=40.0), "NOT MET      1 changes/s"),
        (part, "NOT MEASURED 1/s at 100000"),
    ):  # fmt: skip
        scale.write_text(json.dumps(found))
        assert check.main(asked) == 1
        told = capsys.readouterr()
        assert said in told.out + told.err
        assert f"{len(GOALS)} met, 0 not met" in told.out
    scale.write_text(json.dumps(whole()))
    assert check.main(asked) == 0
    assert f"{len(GOALS)} met, 0 not met" in capsys.readouterr().out
    slow = rounds(**{OURS: [1.0], DOCKER: [1.0]}).rounds[0]
    slow = Round(slow.order, {OURS: {"run ms": 4.0}, DOCKER: {"run ms": 4.0}, NONE: {"run ms": 1.0}})
    slow = Round((OURS, DOCKER, NONE), slow.values)
    results.write(good().with_figures({"docker-run": Measured((slow,) * 16)}), file)
    assert check.main(asked) == 1
    assert "NOT MET      what a network adds to `docker run`: at most 0.5 ×" in capsys.readouterr().out
    lacking = good()
    results.write(Results({}, {k: v for k, v in lacking.figures.items() if k != "size"}), file)
    assert check.main(asked) == 1
    assert "1 not measured" in capsys.readouterr().out
    assert check.main(["--results", str(tmp_path / "none.json")]) == 1  # type: ignore[operator]


def test_every_goal_has_a_figure_that_is_measured() -> None:
    """No goal, and no noise, speaks of a figure that nobody makes; names are what is chosen by."""
    names = {figure.name for figure in FIGURES}
    assert {goal.rule.figure for goal in GOALS} <= names
    assert {one.figure for one in SAME} <= names
    assert [figure.name for figure in chosen("tcp1,storm")] == ["tcp1", "storm"]
    assert chosen("") == list(FIGURES)
    with pytest.raises(ValueError, match="no figure nonsense: there are tcp1"):
        chosen("nonsense")
