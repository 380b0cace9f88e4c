"""The queue to links: what somebody waits for goes first, and nothing overtakes another job on its own link."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

Job = Callable[[], None]


class _Asked(NamedTuple):
    number: int
    link: Hashable
    job: Job


class Jobs:
    """For many who put, one who does what somebody waits for, and one who does the rest. `_turn` guards everything.

    Jobs somebody waits for are done in their order. Idle ones (a removal costs 18 ms, most of it waiting for RCU) are
    done beside them by the other one, in their own order. Of two jobs on one link the one that was put first is done
    first, whoever does it; None is no link.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._number = 0
        self._urgent: deque[_Asked] = deque()
        self._idle: dict[Hashable, _Asked] = {}
        #: Links that somebody is at.
        self._busy: set[Hashable] = set()
        self._ended = False

    def put(self, job: Job, link: Hashable = None) -> None:
        """Somebody waits for it. `link`: the link that it works on, if it is one."""
        with self._turn:
            self._number += 1
            self._urgent.append(_Asked(self._number, link, job))
            self._turn.notify_all()

    def put_idle(self, job: Job, link: Hashable) -> Job | None:
        """Nobody waits for it. Returns the job where it will not be done: the link has such a one already."""
        with self._turn:
            former = self._idle.get(link)
            if former is not None:
                if not any(one.link == link and one.number > former.number for one in self._urgent):
                    return job
                # Its turn is now, in front of the job that must not overtake it.
                self._urgent.appendleft(former)
                del self._idle[link]
            self._number += 1
            self._idle[link] = _Asked(self._number, link, job)
            self._turn.notify_all()
            return None

    def end(self) -> None:
        """No more is put: what was put is still done."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()

    def work(self) -> bool:
        """Wait for the next job that somebody waits for, and do it; False at the end."""
        return self._do(self._next_urgent)

    def work_idle(self) -> bool:
        """The same for one that nobody waits for."""
        return self._do(self._next_idle)

    def _do(self, find: Callable[[], _Asked | None]) -> bool:
        with self._turn:
            while (asked := find()) is None:
                if self._ended and not self._urgent and not self._idle:
                    return False
                self._turn.wait()
            if asked.link is not None:
                self._busy.add(asked.link)
        try:
            asked.job()
        finally:
            with self._turn:
                self._busy.discard(asked.link)
                self._turn.notify_all()
        return True

    def _next_urgent(self) -> _Asked | None:
        if not self._urgent or self._urgent[0].link in self._busy:
            return None
        first = self._urgent[0]
        earlier = self._idle.get(first.link)
        if earlier is not None and earlier.number < first.number:
            return self._idle.pop(first.link)
        return self._urgent.popleft()

    def _next_idle(self) -> _Asked | None:
        waiting = {one.link for one in self._urgent} | self._busy
        link = next((link for link in self._idle if link not in waiting), None)
        return self._idle.pop(link) if link is not None else None
