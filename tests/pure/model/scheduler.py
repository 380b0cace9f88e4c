"""Virtual time and one thread: whatever happens is an item with a moment, and nothing waits for real.

Concurrency is nesting: inside a call to the store, and while a call waits, other items that are due may run to their
end. Which do is drawn from the schedule's seed, so that a seed is one history.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from random import Random
from typing import Any

from myoverlay.errors import Late

#: Where virtual time begins: beyond any real clock, so that a virtual deadline never passes on a real one.
EPOCH = 1_800_000_000.0
#: How deep items may nest inside each other by chance, and because a call waits.
BY_CHANCE, BY_WAITING = 4, 25
#: What stands for a deadline: so many calls to the store.
BUDGET = 1000


class Scheduler:
    """Items by their moment. Calling it tells the time."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = EPOCH
        self.rush = 0.3
        self.steps = 0
        #: Calls to the store that the running item may still make: it may wait for one that it has overtaken.
        self.budget = BUDGET
        #: Which item runs: what takes the place of a thread's identity.
        self.fibre = 0
        self._fibres = itertools.count(1)
        self._depth = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()

    def __call__(self) -> float:
        return self.now

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (moment, next(self._sequence), act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def run_until(self, moment: float, ready: Callable[[], bool] = lambda: False) -> None:
        """Run what is due until then, or until `ready`."""
        while not ready():
            if not self._heap or self._heap[0][0] > moment:
                self.now = max(self.now, moment)
                return
            self._next()

    def _next(self) -> None:
        moment, _, act = heapq.heappop(self._heap)
        self.now = max(self.now, moment)
        self.steps += 1
        before, self.fibre = self.fibre, next(self._fibres)
        budget, self.budget = self.budget, BUDGET
        self._depth += 1
        try:
            act()
        finally:
            self._depth -= 1
            self.fibre, self.budget = before, budget

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """A call waits: others go on meanwhile."""
        moment = self.now + max(0.0, seconds)
        if self._depth < BY_WAITING:
            self.run_until(moment, ready)
        else:
            self.now = moment
        return ready()

    def elapse(self, seconds: float) -> None:
        """Time passes inside a call; what becomes due may run before it goes on."""
        self.now += seconds
        if self._depth <= BY_CHANCE and self._heap and self.random.random() < self.rush:
            for _ in range(2):
                if self._heap and self._heap[0][0] <= self.now:
                    self._next()


class Turn:
    """A `threading.Condition` under virtual time."""

    def __init__(self, scheduler: Scheduler, check: Callable[[], None], told: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._check = check
        self._told = told
        self._count = 0

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        """Nobody else runs between."""

    def wait(self, timeout: float | None = None) -> bool:
        before = self._count
        heard = self._scheduler.wait(lambda: self._count != before, 60.0 if timeout is None else timeout)
        self._check()
        return heard

    def wait_for(self, ready: Callable[[], bool], timeout: float) -> bool:
        heard = self._scheduler.wait(ready, timeout)
        self._check()
        return heard

    def notify_all(self) -> None:
        self._count += 1
        self._told()


class Bell(threading.Event):
    """A `threading.Event` under virtual time."""

    def __init__(self, scheduler: Scheduler, check: Callable[[], None]) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._check = check

    def wait(self, timeout: float | None = None) -> bool:
        self._scheduler.wait(self.is_set, 60.0 if timeout is None else timeout)
        self._check()
        return self.is_set()


class Latch:
    """A lock that is held across calls to the store: who meets it held by another item has waited in vain."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner = 0
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._depth and self._owner != self._scheduler.fibre:
            return False
        self._owner = self._scheduler.fibre
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1

    def __enter__(self) -> bool:
        if not self.acquire():
            raise Late("it is held by what this has overtaken")
        return True

    def __exit__(self, *_: Any) -> None:
        self.release()
