"""A thread that does rounds: it ends when told, tries again while the store is away, and outlives our own bugs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from myoverlay.errors import Late, Unavailable
from myoverlay.host.loop import RETRY, Loop
from myoverlay.tally import COUNTERS, Tally
from tests.pure.kit import together, until


class Rounds(Loop):
    """Does the given rounds, then waits to be woken."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        super().__init__("rounds-demo", Tally())
        self.steps = list(steps)
        self.woken = threading.Event()
        self.idle = threading.Event()
        self.done = 0

    def round(self) -> None:
        if self.steps:
            self.steps.pop(0)()
            self.done += 1
            return
        self.idle.set()
        self.woken.wait(20)

    def wake(self) -> None:
        self.woken.set()


def fail(error: Exception) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_a_loop_does_rounds_until_it_is_stopped() -> None:
    """Rounds follow each other in a thread of the loop's name; stopping ends the waiting of the last one."""
    names = []
    loop = Rounds(*[lambda: names.append(threading.current_thread().name)] * 3)
    loop.start()
    assert loop.idle.wait(5)
    assert names == ["rounds-demo"] * 3
    loop.stop(5)
    assert "rounds-demo" not in {thread.name for thread in threading.enumerate()}


def test_a_loop_that_never_started_stops_at_once() -> None:
    """Stopping and joining what was never started is no error."""
    loop = Rounds()
    loop.stop(0.1)
    assert loop.stopping.is_set()


@pytest.mark.parametrize("error", [Unavailable("the store is away"), Late("too late")])
def test_a_round_that_failed_is_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """With the store away the loop goes on; each failure is counted under its thread and logged in one line."""
    loop = Rounds(fail(error), fail(error), lambda: None)
    with caplog.at_level(logging.WARNING):
        loop.start()
        assert loop.idle.wait(5)
        loop.stop(5)
    assert loop.done == 1
    assert loop.tally.all() == {("loop_failures", "rounds"): 2}
    assert [entry.getMessage() for entry in caplog.records] == [f"rounds-demo: {error}"] * 2
    assert not any(entry.exc_info for entry in caplog.records)


def test_a_bug_is_told_and_outlived(caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody foresaw is logged with its traceback and counted, and the next round comes all the same."""
    loop = Rounds(fail(ZeroDivisionError("by zero")), lambda: None)
    loop.start()
    assert loop.idle.wait(5)
    loop.stop(5)
    assert loop.done == 1
    assert loop.tally.all() == {("bugs", "rounds"): 1}
    assert [bool(entry.exc_info) for entry in caplog.records] == [True]


def test_the_wait_after_a_failure_hears_the_stop() -> None:
    """A loop whose every round fails ends at once when it is told to."""
    loop = Rounds(*[fail(Unavailable("away"))] * 100)
    loop.start()
    until(lambda: loop.tally.get("loop_failures", "rounds"))
    loop.stop(5)
    assert not loop._thread.is_alive()
    assert len(loop.steps) > 90


class Told(threading.Event):
    """No pause takes any time; the sixth is ended by `retry`."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return len(self.pauses) == 6


def test_a_store_that_came_back_may_fail_once_more() -> None:
    """Told to try again, a loop's pauses are as short as at first: else one failure more cost the longest of all."""
    loop = Rounds(*[fail(Unavailable("away"))] * 7)
    loop._again = told = Told()
    loop.start()
    assert loop.idle.wait(5)
    loop.stop(5)
    assert told.pauses[5] > 10 * RETRY[0] > 0
    assert told.pauses[6] <= RETRY[0]


def test_a_failure_because_of_the_stop_is_silent() -> None:
    """The store that was closed under a waiting round is no failure worth counting."""
    loop = Rounds()

    def closed() -> None:
        loop.idle.set()
        loop.stopping.wait(5)
        raise Unavailable("closed")

    loop.steps.append(closed)
    loop.start()
    assert loop.idle.wait(5)
    loop.stop(5)
    assert loop.tally.all() == {}


def test_a_round_is_left_to_the_kind_of_loop() -> None:
    """The base does nothing of its own."""
    with pytest.raises(NotImplementedError):
        Loop("x", Tally()).round()


def test_the_tally_counts_what_has_a_meaning() -> None:
    """Counters of the table count by label from many threads; one without a meaning is a bug of ours."""
    tally = Tally()
    together(*[lambda: tally.add("misses", "late")] * 16)
    tally.add("misses", "pull", by=3)
    assert (tally.get("misses", "late"), tally.get("misses", "pull"), tally.get("overruns")) == (16, 3, 0)
    assert tally.all() == {("misses", "late"): 16, ("misses", "pull"): 3}
    with pytest.raises(KeyError):
        tally.add("mises")
    assert all(COUNTERS.values())
