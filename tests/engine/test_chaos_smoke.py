"""The harness of `make chaos` itself, on a small laboratory of its own: it counts what is lost, and says what holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab import leftovers
from tests.engine.chaos.counting import Bound
from tests.engine.chaos.ground import Ground
from tests.engine.chaos.rows_plugin import control, kill
from tests.engine.chaos.run import run_row
from tests.engine.chaos.table import Row

NAME = "chaossmoke"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    before = leftovers.snapshot()
    with Ground("process", NAME, small=True) as made:
        yield made
    assert [line for line in leftovers.compare(before, leftovers.snapshot(), [NAME]) if NAME in line] == []


def test_the_counter_counts(ground: Ground) -> None:
    """VXLAN dropped for 100 ms: about 100 numbers of 1,000 a second are missed in both directions.

    Under a bound of nothing the same figures fail the row, with a sentence for each direction.
    """
    result = run_row(ground, Row("control", "control", "process", Bound(lost=200, lost_least=60, contacts=1), control))
    assert result.complaints() == []
    assert all(one.doubled == 0 for one in result.measured.flow)
    strict = replace(result, bound=Bound(contacts=1))
    assert len([text for text in strict.complaints() if "packets lost, at most 0 allowed" in text]) == 2


def test_kill_9_loses_nothing(ground: Ground) -> None:
    """The plugin killed and started again on both hosts: no packet is lost, containers start, the session is kept."""
    result = run_row(ground, Row("kill", "kill -9", "process", Bound(), kill))
    assert result.complaints() == []
