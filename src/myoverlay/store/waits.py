"""Waiting at Consul: its blocking queries, and what they would sleep through.

A blocking query says nothing until its index is passed. Where the store was restored or emptied before it came, that
may be minutes later: so a wait looks before it blocks again after a failure, and once more when it has begun to block.

https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from myoverlay.errors import Unavailable
from myoverlay.store import Keys, Listing, Reset, Unchanged
from myoverlay.store.wire import Meanwhile

#: Seconds that a blocked answer may take beyond its wait and the sixteenth that Consul adds to it.
WAIT_SLACK = 2.0
#: Seconds between two looks where Consul wakes a wait for something else: 1.8.7 does so for *any* key written while
#: there is none below the prefix, and a thousand hosts must not answer each write of the others with a read. Where the
#: index told is always an old one (a proxy in between), it is all that keeps a wait from turning on the spot.
SPURIOUS_PAUSE = 0.25
#: Seconds that a wait has blocked when it looks whether what it waits for is still to come, and what the look may take.
#: Longer than changes of a busy overlay are apart, so that it costs nothing there.
LOOK, LOOK_TIME = 2.0, 1.0
#: Seconds before its end from which a wait's answer is taken for its end.
_EARLY = 0.02
#: Prefixes of which it is remembered what was last told about them.
_REMEMBERED = 256
#: Asks the leader to make sure that it is one, and has all that was ever written.
CONSISTENT = (("consistent", "1"),)

Told = TypeVar("Told", Listing, Keys)
Params = Sequence[tuple[str, str]]


class _Overtaken(Exception):
    """The store went back before the wait began to block."""


class Waits:
    """The waits of one store. `_lock` guards `_told` and `_shaken`; it is not held while Consul is asked."""

    def __init__(
        self,
        names: Callable[[str, float, Params], Keys],
        absent: Callable[[str, float, Params], int],
        closed: threading.Event,
    ) -> None:
        """`names` reads the names below a prefix, `absent` the index of the whole store. `closed`: no more pauses."""
        self._names = names
        self._absent = absent
        self._closed = closed
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[int, int]] = {}  # (kind, prefix) -> (index, hash of what was told)
        self._shaken: set[tuple[str, str]] = set()  # (kind, prefix) of waits that failed

    def remember(self, kind: str, prefix: str, answer: Told) -> Told:
        """This was told of the prefix."""
        with self._lock:
            self._told.pop((kind, prefix), None)
            self._told[kind, prefix] = (answer.index, _digest(answer))
            while len(self._told) > _REMEMBERED:
                del self._told[next(iter(self._told))]
        return answer

    def wait(
        self,
        kind: str,
        read: Callable[[str, float, Params, Meanwhile | None], Told],
        prefix: str,
        index: int,
        timeout: float,
        values: bool,
    ) -> Told | Unchanged | Reset:
        """See `Store.wait`; `read` asks Consul once. Without `values` only names that came or went are news."""
        if index < 1:
            return self.remember(kind, prefix, read(prefix, timeout, [], None))
        known, ends = index, time.monotonic() + timeout
        while True:
            left = max(ends - time.monotonic(), 0.001)
            answer = self._ask(kind, read, prefix, known, left)
            if answer.index < known:
                return self._gone_back(kind, read, prefix, known)
            if answer.index > known and not self._is_told(kind, prefix, index, answer, values):
                return self.remember(kind, prefix, answer)
            known = answer.index
            if ends - time.monotonic() < _EARLY:
                self.remember(kind, prefix, answer)
                return Unchanged(known)
            self._closed.wait(min(SPURIOUS_PAUSE, max(ends - time.monotonic(), 0)))

    def _ask(
        self,
        kind: str,
        read: Callable[[str, float, Params, Meanwhile | None], Told],
        prefix: str,
        index: int,
        left: float,
    ) -> Told:
        """Consul's answer to a blocking query; after one that failed or ended early, to one that does not block.

        The Consul that is there now may be an emptied one, or have been restored (1.8.7 then ends the blocking queries
        with what it held before, measured). Asked to wait for what comes after an index that it has yet to reach, it
        says nothing until the wait's end, and meanwhile tells of no change.
        """
        with self._lock:
            shaken = (kind, prefix) in self._shaken
            self._shaken.add((kind, prefix))  # until it has answered
        began, wait = time.monotonic(), 0.001 if shaken else left
        params = [("index", str(index)), ("wait", f"{max(int(wait * 1000), 1)}ms")]
        # Names are not looked at again: a thousand hosts' are 52 kB, and their owners put back what is missing there.
        looks = kind == "list" and wait > LOOK
        try:
            look = Meanwhile(LOOK, lambda: self._has_looked(prefix, index)) if looks else None
            answer = read(prefix, left + left / 16 + WAIT_SLACK, params, look)
        except _Overtaken:  # it is shaken still, so that the next one does not block
            return self._ask(kind, read, prefix, index, max(began + left - time.monotonic(), 0.001))
        early = not shaken and answer.index == index and time.monotonic() - began < wait - _EARLY
        if not early:
            with self._lock:
                self._shaken.discard((kind, prefix))
        return answer

    def _has_looked(self, prefix: str, index: int) -> bool:
        """Can there still be something after `index`? Raises _Overtaken; False where Consul did not say.

        Asked while the wait blocks: a restore after that ends it, one before that is seen here, and none is in between.
        """
        try:
            now = self._names(prefix, LOOK_TIME, []).index
        except Unavailable:
            return False
        if now < index:
            raise _Overtaken
        return True

    def _gone_back(
        self, kind: str, read: Callable[[str, float, Params, Meanwhile | None], Told], prefix: str, index: int
    ) -> Told | Reset:
        # A server that was just made leader answers from what it has replayed so far: a consistent read waits for it.
        answer = self.remember(kind, prefix, read(prefix, 3.0, CONSISTENT, None))
        # A prefix's index also falls when Consul forgets its deleted keys, 15 to 30 minutes after. Then the whole
        # store's is still above; after a loss or a restore it is not.
        if answer.index >= index or self._absent(prefix, 3.0, CONSISTENT) >= index:
            return answer
        return Reset(answer.index)

    def _is_told(self, kind: str, prefix: str, index: int, answer: Told, values: bool) -> bool:
        """Is this what was told at that index: the same names where only these matter, or nothing again?"""
        if values and (answer.keys if isinstance(answer, Keys) else answer.entries):
            return False
        with self._lock:
            return self._told.get((kind, prefix)) == (index, _digest(answer))


def _digest(answer: Listing | Keys) -> int:
    return hash(answer.keys) if isinstance(answer, Keys) else len(answer.entries)
