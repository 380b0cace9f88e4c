"""Traces for visitors of the page: one at a time, each for so long and no longer, and seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from myoverlay.errors import Refused
from myoverlay.operate.trace import Ask
from myoverlay.operate.web.tracing import LIMIT, PAUSE, Tracing
from myoverlay.tally import Tally
from tests.pure.kit import Clock, until

ONE, OTHER = Ask(overlay="web", a="10.5.0.2", b="10.5.0.3"), Ask(overlay="web", a="10.5.0.3", b="10.5.0.2")
FOUND = {"first": None, "steps": []}


class Bench:
    """A tracing whose traces end when they are let."""

    def __init__(self) -> None:
        self.clock, self.tally = Clock(100.0), Tally()
        self.begun: list[tuple[Ask, float]] = []
        self.go = threading.Event()
        self.trouble: Exception | None = None
        self.tracing = Tracing(self._trace, self.tally, self.clock, lambda: 1700.4)
        self.tracing.start()

    def _trace(self, pair: Ask, deadline: float) -> dict[str, Any]:
        self.begun.append((pair, deadline - time.monotonic()))
        assert self.go.wait(20)
        if self.trouble is not None:
            raise self.trouble
        return FOUND

    def say(self, pair: Ask) -> str:
        return str(self.tracing.ask(pair)["state"])

    def done(self, pair: Ask) -> Any:
        return until(lambda: (told := self.tracing.ask(pair))["state"] == "done" and told)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.go.set()
    bench.tracing.stop(10)


def test_what_came_of_a_trace_is_told(bench: Bench) -> None:
    """Nobody waits for it: it runs, and then it is told with the time of its end; it had so many seconds."""
    assert bench.say(ONE) == "running"
    until(lambda: bench.begun)
    assert bench.say(ONE) == "running"
    bench.go.set()
    assert bench.done(ONE) == {"state": "done", "number": 1, "at": 1700, "found": FOUND, "refused": ""}
    ((pair, patience),) = bench.begun
    assert pair == ONE
    assert LIMIT - 1 < patience <= LIMIT


def test_one_at_a_time_and_seldom_whoever_asks(bench: Bench) -> None:
    """A hundred visitors with other pairs make no second trace beside the first, nor soon after; then one of them."""
    assert bench.say(ONE) == "running"
    assert {bench.say(OTHER) for _ in range(100)} == {"waits"}
    bench.go.set()
    bench.done(ONE)
    assert {bench.say(OTHER) for _ in range(100)} == {"waits"}
    assert {bench.say(ONE) for _ in range(100)} == {"done"}
    assert len(bench.begun) == 1
    bench.clock.now += PAUSE
    assert bench.say(OTHER) == "running"
    bench.done(OTHER)
    assert [pair for pair, _ in bench.begun] == [ONE, OTHER]


def test_an_old_result_is_not_told(bench: Bench) -> None:
    """Who asks for the same pair again after a while gets a new trace: it may have been repaired meanwhile."""
    bench.go.set()
    bench.say(ONE)
    bench.done(ONE)
    bench.clock.now += PAUSE
    assert bench.say(ONE) == "running"
    bench.done(ONE)
    assert len(bench.begun) == 2


def test_who_has_it_gets_a_newer_one(bench: Bench) -> None:
    """He waits for the pause, and is not told once more what he knows; who has it not is told it."""
    bench.go.set()
    bench.say(ONE)
    number = bench.done(ONE)["number"]
    assert bench.tracing.ask(ONE, number) == {"state": "waits"}
    assert bench.tracing.ask(ONE, number - 1)["state"] == "done"
    bench.clock.now += PAUSE
    assert bench.tracing.ask(ONE, number) == {"state": "running"}
    assert until(lambda: (told := bench.tracing.ask(ONE, number))["state"] == "done" and told)["number"] == number + 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(Refused("these are the same"), "these are the same"), (ValueError("x"), "see the plugin's log")],
)
def test_what_fails_is_said_and_the_next_is_traced(bench: Bench, trouble: Exception, said: str) -> None:
    """A refusal by its sentence, a bug of ours as that; nobody waits for ever, and it goes on."""
    bench.go.set()
    bench.trouble = trouble
    bench.say(ONE)
    told = bench.done(ONE)
    assert (told["found"], said in told["refused"]) == (None, True)
    assert bench.tally.total("bugs") == isinstance(trouble, ValueError)
    bench.trouble, bench.clock.now = None, bench.clock.now + PAUSE
    bench.say(OTHER)
    assert bench.done(OTHER)["found"] == FOUND


def test_it_ends_while_nobody_asks() -> None:
    """A daemon that stops does not wait for visitors."""
    bench = Bench()
    begun = time.monotonic()
    bench.tracing.stop(10)
    assert time.monotonic() - begun < 2
