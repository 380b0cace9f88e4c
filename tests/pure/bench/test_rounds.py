"""The order of rounds, and when there are enough."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench import rounds
from bench.results import Round

CALM = [0.99, 1.01]
WILD = [0.7, 1.4]


def test_every_second_round_goes_backwards() -> None:
    """A B C, C B A: what drifts falls on all alike."""
    assert [rounds.order("ABC", number) for number in range(4)] == [tuple("ABC"), tuple("CBA")] * 2


@pytest.mark.parametrize(
    ("count", "pattern", "done"),
    [
        (14, CALM, False),
        (15, CALM, False),
        (16, CALM, True),
        (17, CALM, False),
        (16, WILD, False),
        (58, WILD, False),
        (59, CALM, False),
        (60, WILD, True),
    ],
)
def test_calm_ends_it_between_16_and_60_after_whole_pairs(count: int, pattern: list[float], done: bool) -> None:
    """Fewer than 16 never, more than 60 never, and in between only where A/A is calm and the pair is whole."""
    assert rounds.enough((pattern * 30)[:count]) is done


@pytest.mark.parametrize(("value", "calm"), [(0.951, True), (0.949, False), (1.049, True), (1.051, False)])
def test_calm_is_within_five_percent(value: float, calm: bool) -> None:
    """The whole interval, on both sides."""
    assert rounds.calm([value] * 16) is calm


def test_the_figure_under_test_does_not_decide() -> None:
    """With the same A/A there are as many rounds, whatever the others do."""

    def count(other: float) -> int:
        made = rounds.run(("A", "B", "A'"), lambda name: {"x": other if name == "B" else 1.0}, _same)
        return len(made)

    assert count(1.0) == count(50.0) == 16


def _same(made: Sequence[Round]) -> list[float]:
    return [each.of("A'", "x") / each.of("A", "x") for each in made]


def test_all_rounds_are_kept_and_those_beside_take_part_in_the_first() -> None:
    """Noise adds rounds up to 60, none is dropped; who is in no goal is measured in the first 16 alone."""
    asked: list[str] = []

    def measure(name: str) -> dict[str, float]:
        asked.append(name)
        return {"x": WILD[asked.count(name) % 2] if name == "A'" else 1.0}

    made = rounds.run(("A", "A'"), measure, _same, beside=("C",))
    assert len(made) == 60
    assert sum("C" in each.values for each in made) == 16
    assert asked == [name for each in made for name in each.order]
    assert made[0].order == ("A", "A'", "C")
    assert made[1].order == ("C", "A'", "A")


def test_without_a_noise_figure_there_are_the_least() -> None:
    """Absolute figures have nothing to wait for."""
    assert len(rounds.run(("A",), lambda _: {"x": 1.0}, None, least=3)) == 3
