"""The form of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import results
from bench.results import Measured, Results, ResultsWrong, Round, decode, encode

SOME = Results(
    {"date": "2026-11-26 06:00 UTC", "Linux": "6.18"},
    {
        "tcp1": Measured(
            (
                Round(("a", "b"), {"a": {"Gbit/s": 1.5}, "b": {"Gbit/s": 2.0}}),
                Round(("b", "a"), {"b": {"Gbit/s": 2.5}, "a": {"Gbit/s": 1.25}}),
            ),
            "2026-11-26T06:00:00Z",
            12.5,
            (0.1, 1.2),
        ),
        "size": Measured((Round(("a",), {"a": {"root MB": 55.0}}),)),
    },
)


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    """Every round with its order, and what it was measured on; through a file too."""
    assert decode(encode(SOME)) == SOME
    results.write(SOME, tmp_path / "new" / "latest.json")
    assert results.read(tmp_path / "new" / "latest.json") == SOME


def test_a_round_is_a_line() -> None:
    """So that two runs can be compared by reading."""
    assert sum('"order"' in line for line in encode(SOME).splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.update(form=2), "form 2"),
        (lambda one: one.pop("figures"), "no results"),
        (lambda one: one["figures"]["size"]["rounds"][0]["values"]["a"].update({"root MB": "x"}), "no figure"),
        (lambda one: one["figures"]["size"]["rounds"][0]["values"]["a"].update({"root MB": True}), "no figure"),
        (lambda one: one["figures"]["size"]["rounds"][0].update(order=["b"]), "names others"),
        (lambda one: one["figures"]["size"].update(load=[1]), "no results"),
        (lambda one: one.update(figures=[]), "no results"),
    ],
)
def test_what_is_no_result_is_refused(change: object, said: str) -> None:
    """Another form, a text for a number, a round whose order does not fit: one sentence each."""
    found = json.loads(encode(SOME))
    change(found)  # type: ignore[operator]
    with pytest.raises(ResultsWrong, match=said):
        decode(json.dumps(found))


def test_infinity_is_no_figure() -> None:
    """JSON has no such number, Python's reader takes it all the same."""
    with pytest.raises(ResultsWrong, match="no figure"):
        decode(encode(SOME).replace("55.0", "Infinity"))


def test_who_was_not_measured_is_named() -> None:
    """A round that lacks the contestant or the quantity says which."""
    with pytest.raises(ValueError, match="'c'"):
        SOME.figures["tcp1"].rounds[0].of("c", "Gbit/s")
    assert SOME.figures["tcp1"].of("a", "Gbit/s") == [1.5, 1.25]
    assert SOME.figures["tcp1"].of("c", "Gbit/s") == []


def test_some_figures_are_put_in_place_of_old_ones() -> None:
    """The others stay, and so do all rounds of the old ones, through a file too."""
    new = SOME
    for size in (60.0, 61.0):
        new = new.with_figures({"size": Measured((Round(("a",), {"a": {"root MB": size}}),))})
    assert new.figures["size"].of("a", "root MB") == [61.0]
    assert [one.of("a", "root MB") for one in new.figures["size"].earlier] == [[55.0], [60.0]]
    assert [one.earlier for one in new.figures["size"].earlier] == [(), ()]
    assert new.figures["tcp1"] == SOME.figures["tcp1"]
    assert decode(encode(new)) == new
