"""The links thread's queue: what somebody waits for goes first, and nothing overtakes another job on its own link."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

Job = Callable[[], None]


class _Urgent(NamedTuple):
    number: int
    link: Hashable
    job: Job


class _Idle(NamedTuple):
    number: int
    job: Job


class Jobs:
    """For many who put and one who takes. `_turn` guards everything.

    Jobs somebody waits for are done in their order. Idle ones (a removal costs 18 ms and nobody waits for it) are done
    when there is nothing else, or just before the next job on the same link that was asked for after them.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._number = 0
        self._urgent: deque[_Urgent] = deque()
        self._idle: dict[Hashable, _Idle] = {}
        self._ended = False

    def put(self, job: Job, link: Hashable = None) -> None:
        """Somebody waits for it. `link`: the link that it works on, if it is one."""
        with self._turn:
            self._number += 1
            self._urgent.append(_Urgent(self._number, link, job))
            self._turn.notify()

    def put_idle(self, job: Job, link: Hashable) -> Job | None:
        """Nobody waits for it. Returns the job where it will not be done: the link has such a one already."""
        with self._turn:
            former = self._idle.get(link)
            if former is not None:
                if not any(one.link == link and one.number > former.number for one in self._urgent):
                    return job
                # Its turn is now, in front of the job that must not overtake it.
                self._urgent.appendleft(_Urgent(former.number, None, former.job))
                del self._idle[link]
            self._number += 1
            self._idle[link] = _Idle(self._number, job)
            self._turn.notify()
            return None

    def end(self) -> None:
        """No more is put: `take` says None once all is done."""
        with self._turn:
            self._ended = True
            self._turn.notify()

    def take(self) -> Job | None:
        """The next job, waiting for it; None at the end."""
        with self._turn:
            while not (self._urgent or self._idle or self._ended):
                self._turn.wait()
            if self._urgent:
                first = self._urgent[0]
                earlier = self._idle.get(first.link)
                if earlier is not None and earlier.number < first.number:
                    return self._idle.pop(first.link).job
                return self._urgent.popleft().job
            if self._idle:
                return self._idle.pop(next(iter(self._idle))).job
            return None
