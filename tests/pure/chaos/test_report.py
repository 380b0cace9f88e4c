"""The table and the JSON of `make chaos`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.engine.chaos import contacts, report
from tests.engine.chaos.counting import Bound, Check, Contact, Direction, Measured, Result, Start
from tests.engine.chaos.table import ROWS, chosen

GOOD = Result(
    "kill",
    "plugin kill -9",
    Bound(),
    Measured(
        (Direction("h1→h2", 5000, 5000, gap_ms=3.2), Direction("h2→h1", 5000, 5000, gap_ms=2.0)),
        (Contact("h1/c0", "h2/c0", 10.0, 1.5),),
        (Start("h3", 10.0, 0.7),),
    ),
    [Check("session kept", "yes", "", True)],
)
BAD = replace(GOOD, name="other", checks=[Check("healed | or not", "9.0 s", "5 s", False)])


def test_a_good_row() -> None:
    """Each direction, contacts, starts and the verdict stand in their cells."""
    event, flow, asked, starts, verdict = report.cells(GOOD)
    assert event == "plugin kill -9<br>session kept: yes"
    assert flow == "h1→h2 0 of 5000 (3 ms)<br>h2→h1 0 of 5000 (2 ms)"
    assert (asked, starts, verdict) == ("0 / 1", "1 started, slowest 0.7 s", "holds")


def test_a_bad_row_is_said_to_be_bad() -> None:
    """The verdict names what missed its bound, and the summary counts it."""
    assert report.cells(BAD)[-1] == "**FAILS**: healed | or not: 9.0 s (allowed: 5 s)"
    text = report.markdown([GOOD, BAD], {"Linux": "6.18"})
    assert "2 rows, 1 of them miss their bound." in text
    assert "healed \\| or not" in text


def test_json_holds_the_verdict_and_few_numbers() -> None:
    """A row that lost everything does not fill the file."""
    flow = (replace(GOOD.measured.flow[0], lost=tuple(range(5000))),)
    told = json.loads(report.as_json([replace(GOOD, measured=replace(GOOD.measured, flow=flow))], {}))["rows"][0]
    assert told["good"] is False
    assert told["measured"]["flow"][0]["lost_count"] == 5000
    assert len(told["measured"]["flow"][0]["lost"]) == 20


def test_rows_are_chosen_by_name() -> None:
    """Nothing chosen is all; a name that is none is refused with those that are."""
    assert chosen("") == list(ROWS)
    assert [row.name for row in chosen("kill, control")] == ["control", "kill"]
    with pytest.raises(ValueError, match=r"no row 'kil': control, "):
        chosen("kil")
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_pair_once_before_any_twice() -> None:
    """12 × 12 containers are 144 first contacts, each container in turn."""
    asked = contacts.pairs(12, 12)
    first = [next(asked) for _ in range(144)]
    assert len(set(first)) == 144
    assert [left for left, _ in first[:12]] == list(range(12))
    assert len({right for _, right in first[:12]}) == 12
    assert next(asked) == first[0]
