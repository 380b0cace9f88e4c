"""Waiting for a whole round of somebody else's loop."""

from __future__ import annotations

import threading
import time

import pytest

from myoverlay.errors import Late, Unavailable
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.rounds import Rounds
from myoverlay.tally import Tally


class Loop:
    """Does a round whenever it is woken; `gates` let each of them begin to end."""

    def __init__(self) -> None:
        self.rounds = Rounds()
        self.woken = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.done = 0
        self.fails = False
        self._over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.woken.acquire() and not self._over:
            try:
                with self.rounds.counted():
                    self.begun.release()
                    self.gate.acquire()
                    self.done += 1
                    if self.fails:
                        raise Unavailable("the store is away")
            except Unavailable:
                continue

    def end(self) -> None:
        self._over = True
        self.woken.release()
        self.thread.join(5)
        assert not self.thread.is_alive()


def test_a_round_that_was_under_way_does_not_count() -> None:
    """Whoever asks while a round runs waits for the next one, which begins after the question."""
    loop = Loop()
    loop.woken.release()
    assert loop.begun.acquire(timeout=5)
    had: list[int] = []

    def have() -> None:
        loop.rounds.have(loop.woken.release, time.monotonic() + 5, "it")
        had.append(loop.done)

    asker = threading.Thread(target=have)
    asker.start()
    loop.gate.release()
    assert loop.begun.acquire(timeout=5)
    assert had == []
    loop.gate.release()
    asker.join(5)
    assert had == [2]
    loop.end()


def test_what_a_round_failed_with_is_raised_and_time_ends_the_wait() -> None:
    """Unavailable comes over from the loop's thread; a round that does not end is Late; the next may succeed."""
    loop = Loop()
    loop.fails = True
    loop.gate.release()
    with pytest.raises(Unavailable, match="the store is away"):
        loop.rounds.have(loop.woken.release, time.monotonic() + 5, "it")
    loop.fails = False
    with pytest.raises(Late, match="looking was not done in time"):
        loop.rounds.have(loop.woken.release, time.monotonic() + 0.05, "looking")
    loop.gate.release(2)
    loop.rounds.have(loop.woken.release, time.monotonic() + 5, "it")
    loop.end()


def test_what_was_let_go_lately_is_told_once() -> None:
    """By kind and overlay, from a mark on; what is brought again because its removal failed is one thing."""
    leftovers = Leftovers(Tally(), lambda: 0.0)
    leftovers.release("link", "old", ["a"], 9)
    mark = leftovers.mark()
    assert leftovers.since(mark) == ()
    leftovers.release("link", "demo", ["b", "c"], 9)
    leftovers.release("link", "demo", ["c"], 9)
    leftovers.release("lease", "demo", ["d"], 9)
    leftovers.release("lease", "demo", [], 9)
    assert [(one.kind, one.overlay, one.names) for one in leftovers.since(mark)] == [
        ("lease", "demo", ("d",)),
        ("link", "demo", ("b", "c")),
    ]
