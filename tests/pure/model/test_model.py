"""The real control plane of many simulated hosts under virtual time: new random schedules at each run, and its proof.

A failure prints its seeds; `MODEL_SEED=… make model` plays them again, `python -m tests.pure.model one SEED` tells one
event by event.
"""

from __future__ import annotations

import os
from random import SystemRandom

import pytest

from tests.pure.model import faults, runner
from tests.pure.model.world import draw, play

#: How long new seeds are played, seconds; how many at least.
SECONDS, LEAST = 60.0, 100
#: The share of new schedules that may fail: on 2026-11-27 none of 3,150 did, the day before 1 in 800. Those that do
#: are printed. This is to become 0.
OPEN = 0.01
#: Faults that few schedules find.
QUICK = ("an index key stays", "a change wakes nobody", "a lost session withdraws", "a new session is not announced")


@pytest.mark.timeout(1200)
def test_new_schedules_keep_every_invariant(request: pytest.FixtureRequest) -> None:
    """As many new seeds as run in a minute, at least a hundred: every invariant holds, but for the share in `OPEN`."""
    base = int(os.environ.get("MODEL_SEED") or SystemRandom().randrange(1_000_000_000))
    result = runner.run(base, LEAST, SECONDS)
    request.config.stash.setdefault(runner.TOLD, []).append(result.told())
    assert len(result.failures) <= OPEN * result.count, result.told()
    assert result.count >= LEAST


def test_a_seed_is_one_history() -> None:
    """The same seed befalls the same hosts in the same way, to the last step."""
    first, again = play(11), play(11)
    assert first.notes == again.notes
    assert (first.steps, first.told) == (again.steps, again.told)
    assert first.containers > 0
    assert play(12).notes != first.notes


def test_schedules_are_as_big_as_they_should_be() -> None:
    """A hundred events and more on five hosts and four overlays, of every kind in a few seeds."""
    kinds = {event.kind for seed in range(20) for event in draw(seed)}
    assert len(draw(1)) >= 100
    assert {
        "run",
        "remove",
        "move",
        "kill at a call",
        "power off",
        "cut from store",
        "cut hosts",
        "wipe",
        "roll back",
    } <= kinds


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", QUICK)
def test_planted_faults_are_found(fault: str) -> None:
    """The model is worth its while: a fault planted into the code makes a schedule fail."""
    result = runner.run(faults.BASE, 100, fault=fault, enough=runner.is_due_to_a_fault)
    assert result.failures
    assert runner.is_due_to_a_fault(result.failures[-1])


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_faults_fit_the_code(fault: str) -> None:
    """Each fault changes a line that is there, and everything is as before afterwards."""
    with faults.planted(fault):
        pass
    with faults.planted(fault):
        pass
