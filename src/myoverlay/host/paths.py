"""Asking the hosts of a path what they see of it, through the store, and answering. See `preflight` for the waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from myoverlay.host.deadline import left
from myoverlay.path import PathAnswer, PathQuestion
from myoverlay.store import Entry, Reset, Unchanged
from myoverlay.store.paths import PathRecords
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import HostId

#: How long hosts are waited for, seconds.
PATIENCE = 4.0
#: Questions looked at in one round: more are a flood.
_AT_ONCE = 8


class PathAnswering:
    """Answers questions about paths, for the thread `preflight`, which waits for them with its own."""

    def __init__(
        self,
        records: PathRecords,
        look: Callable[[PathQuestion], PathAnswer],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look`: this host's half of the path."""
        self._records = records
        self._look = look
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

    def _concerns(self, question: PathQuestion) -> bool:
        return self._records.me in question.hosts() and question.asker != self._records.me

    def _answer(self, held: Held[PathQuestion]) -> None:
        done = self._records.answer(held, self._look(held.value))
        self._answered.add(held.value.id)
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


class PathAsker:
    """Asks the hosts of a path. From any thread."""

    def __init__(self, records: PathRecords, now: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._now = now

    def ask(self, question: PathQuestion, hosts: Iterable[HostId], deadline: float) -> dict[HostId, PathAnswer]:
        """The answers of these hosts that came within PATIENCE seconds. Raises Unavailable or Late."""
        missing = set(hosts)
        self._records.ask(question, timeout=left(deadline))
        try:
            return self._collect(question.id, missing, min(deadline, self._now() + PATIENCE))
        finally:
            self._records.take_back(question.id)

    def _collect(self, question: str, hosts: set[HostId], until: float) -> dict[HostId, PathAnswer]:
        index, found = 0, dict[HostId, PathAnswer]()
        while hosts - found.keys() and (patience := until - self._now()) > 0.02:
            seen = self._records.answers(question, index, timeout=patience)
            if isinstance(seen, Reset):
                index = 0
            elif not isinstance(seen, Unchanged):
                found = {host: answer for host, answer in seen.answers.items() if host in hosts}
                index = max(1, seen.index)
        return found
