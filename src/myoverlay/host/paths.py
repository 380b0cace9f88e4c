"""Asking a few hosts through the store, and answering: what they see of a path, who is meant by a word.

See `preflight` for the waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic

from myoverlay.host.deadline import left
from myoverlay.store import Entry, Reset, Unchanged
from myoverlay.store.paths import A, AskedRecords, Q
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import HostId

#: How long hosts are waited for, seconds.
PATIENCE = 4.0
#: Questions looked at in one round: more are a flood.
_AT_ONCE = 8


class PathAnswering(Generic[Q, A]):
    """Answers questions of one kind, for the thread `preflight`, which waits for them with its own."""

    def __init__(
        self,
        records: AskedRecords[Q, A],
        look: Callable[[Q], A | None],
        concerns: Callable[[Q], bool],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look`: this host's answer, None where it has none to give; `concerns`: is a question of another for it?"""
        self._records = records
        self._look = look
        self._is_ours = concerns
        self._tally = tally
        self._now = now
        self._seen: dict[str, float] = {}
        self._answered: set[str] = set()
        #: Answers whose question was not there at the last sweep: one that was asked since may be among them.
        self._orphans: set[str] = set()

    def hear(self, entries: Iterable[Entry], may_answer: bool) -> None:
        """These lie where questions do now: answer those about this host's ends. Raises Unavailable."""
        held = [one for entry in entries if (one := self._records.question(entry)) is not None]
        now = self._now()
        self._seen = {one.value.id: self._seen.get(one.value.id, now) for one in held}
        self._answered &= self._seen.keys()
        mine = [one for one in held if self._concerns(one.value) and one.value.id not in self._answered]
        for one in mine[:_AT_ONCE] if may_answer else ():
            self._answer(one)

    def _concerns(self, question: Q) -> bool:
        return question.asker != self._records.me and self._is_ours(question)

    def _answer(self, held: Held[Q]) -> None:
        answer = self._look(held.value)
        self._answered.add(held.value.id)
        if answer is None:
            return
        done = self._records.answer(held, answer)
        self._tally.add("asked", "answered" if done else "late")

    def sweep(self, stale: float) -> None:
        """Take away what was left for `stale` seconds: whoever asked was killed, or cut off. Raises Unavailable."""
        now = self._now()
        for question, since in tuple(self._seen.items()):
            if now - since >= stale:
                self._records.take_back(question)
                self._tally.add("asked", "stale")
        orphans = self._records.answered() - self._seen.keys()
        for question in orphans & self._orphans:
            self._records.take_back(question)
        self._orphans = orphans - self._orphans


class PathAsker(Generic[Q, A]):
    """Asks hosts a question of one kind. From any thread."""

    def __init__(self, records: AskedRecords[Q, A], now: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._now = now

    def ask(
        self, question: Q, hosts: Iterable[HostId], deadline: float, patience: float | None = None
    ) -> dict[HostId, A]:
        """The answers of these hosts that came within `patience` seconds, else PATIENCE. Raises Unavailable or Late."""
        missing = set(hosts)
        self._records.ask(question, timeout=left(deadline))
        try:
            within = PATIENCE if patience is None else patience
            return self._collect(question.id, missing, min(deadline, self._now() + within))
        finally:
            self._records.take_back(question.id)

    def _collect(self, question: str, hosts: set[HostId], until: float) -> dict[HostId, A]:
        index, found = 0, dict[HostId, A]()
        while hosts - found.keys() and (patience := until - self._now()) > 0.02:
            seen = self._records.answers(question, index, timeout=patience)
            if isinstance(seen, Reset):
                index = 0
            elif not isinstance(seen, Unchanged):
                found = {host: answer for host, answer in seen.answers.items() if host in hosts}
                index = max(1, seen.index)
        return found
