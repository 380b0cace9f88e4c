"""What is asked of all hosts before a network is made for them: asking, and answering, through the store.

Every host's answer is its own observation: its routes, its kernel's word on VNI and port, what comes through to others.
A host that does not answer in time is named, not waited for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from myoverlay.errors import MyoverlayError
from myoverlay.host.carrying import Trying
from myoverlay.host.deadline import left
from myoverlay.host.loop import WAIT, Loop
from myoverlay.networks import ANSWERED, Answer, Cannot, Carry, Question, plain
from myoverlay.plan import preflight
from myoverlay.plan.definition import carries
from myoverlay.plan.measure import Reach
from myoverlay.store import Entry, Reset, Unchanged
from myoverlay.store.networks import NetworkRecords, Questions
from myoverlay.store.presence import Presence
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, OverlayName, Subnet

log = logging.getLogger(__name__)

#: How long hosts are waited for, seconds; how long one tries to reach others meanwhile.
PATIENCE, REACHING = 3.0, 1.5
#: A question that stays longer than this is nobody's any more: whoever sees it takes it away. By the own clock.
STALE = 60.0
#: Questions looked at in one round: more are a flood.
_AT_ONCE = 16
#: Seconds that looking at this host's kernel may take.
_LOOK = 2.0


class Kernel(Protocol):
    """What is looked at on this host."""

    def routes(self, *, deadline: float) -> tuple[Subnet, ...]: ...
    def address_of(self, name_or_address: str, *, deadline: float) -> tuple[Address, str, int]: ...


Reaching = Callable[[Mapping[HostId, Address], int, float], Mapping[HostId, Reach]]
#: What of these overlays a host cannot carry, and how many it looked at until the deadline: `Carrying.all_of`.
Carried = Callable[[tuple[Carry, ...], Address, float], tuple[tuple[Cannot, ...], int]]


class Observer:
    """This host's answer to a question. From one thread."""

    def __init__(
        self,
        me: HostId,
        name: str,
        follows: bool,
        vtep: str,
        kernel: Kernel,
        trial: Trying,
        reach: Reaching,
        presence: Presence,
        has: Callable[[OverlayName, int], bool],
        carried: Carried,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`vtep`: the setting; `has`: is this host on the overlay, with that VNI, already?"""
        self._me = me
        self._name = plain(name)
        self._follows = follows
        self._vtep = vtep
        self._kernel = kernel
        self._trial = trial
        self._reach = reach
        self._presence = presence
        self._has = has
        self._carried = carried
        self._wall = wall

    def observe(self, question: Question) -> Answer:
        """Look, and reach for the others. What could not be found out is said in the answer."""
        deadline, unsure = time.monotonic() + _LOOK, list[str]()
        found: dict[str, object] = {}
        try:
            routes = self._kernel.routes(deadline=deadline)
            found["routes"] = tuple(route for route in routes if route.overlaps(question.area))[:ANSWERED]
            local, _, mtu = self._kernel.address_of(question.vtep or self._vtep, deadline=deadline)
            carried = carries(mtu, local)
            found["carries"] = carried
            found["taken"] = self._taken(question, local, deadline)
            found["cannot"], found["looked"] = self._carried(question.carry, local, deadline)
            if not question.brief:
                found |= self._reached(question, min(question.mtu, carried))
        except MyoverlayError as error:
            unsure.append(plain(str(error)))
        found |= {"unsure": tuple(unsure), "clock": self._wall()}
        return Answer(host=self._me, name=self._name, follows=self._follows, **found)  # type: ignore[arg-type]

    def _taken(self, question: Question, local: Address, deadline: float) -> dict[int, str]:
        taken: dict[int, str] = {}
        for vni in question.vnis:
            if self._has(question.overlay, vni):
                continue
            holder = self._trial.taken(vni, question.port, local, deadline)
            if holder is not None:
                is_port, who = holder
                taken[0 if is_port else vni] = plain(who)
        return taken

    def _reached(self, question: Question, size: int) -> dict[str, tuple[HostId, ...]]:
        alive = self._presence.alive(timeout=_LOOK)
        vteps = {host: held.value.vteps[0] for host, held in alive.items() if held.value.vteps}
        vteps.pop(self._me, None)
        chosen = preflight.to_reach(self._me, question.asker, vteps)
        targets = {host: vteps[host] for host in chosen if host in vteps}
        reached = self._reach(targets, size, REACHING) if targets else {}
        # What could not even be sent is as good as lost: there is no route, or no device.
        silent = tuple(sorted(h for h, far in reached.items() if far in (Reach.SILENT, Reach.UNASKED)))
        return {"silent": silent, "narrow": tuple(sorted(h for h, far in reached.items() if far is Reach.NARROW))}


class Hearing(Protocol):
    """Who answers questions of another kind, which lie in the same place, so that one wait serves all."""

    def hear(self, entries: Iterable[Entry], may_answer: bool) -> None: ...
    def sweep(self, stale: float) -> None: ...


class Respondent(Loop):
    """Owns the thread `preflight`: every question that any host asks is answered once."""

    def __init__(
        self,
        networks: NetworkRecords,
        observe: Callable[[Question], Answer],
        may_act: Callable[[], bool],
        on_loss: Callable[[], None],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        at_first: Callable[[], None] = lambda: None,
        others: Iterable[Hearing] = (),
    ) -> None:
        """`at_first`: called once this host may act; until it succeeded it is called again. `others` are told of all
        that lies where the questions do."""
        super().__init__("preflight", tally)
        self._at_first: Callable[[], None] | None = at_first
        self._others = tuple(others)
        self._networks = networks
        self._observe = observe
        self._may_act = may_act
        self._on_loss = on_loss
        self._now = now
        self._index = 0
        self._seen: dict[str, float] = {}
        self._answered: set[str] = set()
        self._swept_at = now()

    def round(self) -> None:
        self.step()

    def step(self, wait: float = WAIT) -> bool:
        """One answer of the store; True where it told of a question. Raises Unavailable."""
        # Nothing may be done before this host is announced: what comes first shall not wait for a question then.
        soon = self._index == 0 or self._at_first is not None
        seen = self._networks.questions(self._index, timeout=min(1.0, wait) if soon else wait)
        if isinstance(seen, Reset):
            self._on_loss()
            self._index = 0
            return False
        if self._at_first is not None and self._may_act():
            self._at_first()
            self._at_first = None
        if not isinstance(seen, Unchanged):
            for one in self._others:  # before our own: it takes less, and whoever asks waits for it
                one.hear(seen.entries, self._may_act())
            self._note(seen)
            self._index = seen.index
        if self._now() - self._swept_at >= STALE:
            self._swept_at = self._now()
            self._sweep()
        return not isinstance(seen, Unchanged) and bool(seen.questions)

    def _note(self, seen: Questions) -> None:
        now = self._now()
        self._seen = {one: self._seen.get(one, now) for one in seen.questions}
        self._answered &= set(seen.questions)
        if self._may_act():
            for held in [held for one, held in seen.questions.items() if one not in self._answered][:_AT_ONCE]:
                self._answer(held)

    def _answer(self, held: Held[Question]) -> None:
        answer = self._observe(held.value)
        done = self._networks.answer(held, answer)
        self._answered.add(held.value.id)
        self.tally.add("asked", "answered" if done else "late")

    def _sweep(self) -> None:
        """Take away what whoever asked left: it was killed, or cut off. Answers of no question too."""
        now = self._now()
        for question, since in tuple(self._seen.items()):
            if now - since >= STALE:
                self._networks.take_back(question)
                self.tally.add("asked", "stale")
        for one in self._others:
            one.sweep(STALE)
        for question in self._networks.answered() - self._seen.keys():
            try:
                self._networks.take_back(question)
            except ValueError:
                continue  # no question's id: somebody else's key, which is left alone


class Asked(msgspec.Struct, frozen=True):
    """What came of a question: answers, and the names of all hosts that it went to."""

    answers: dict[HostId, Answer]
    names: dict[HostId, str]


class Asker:
    """Asks all hosts that are there. From any thread."""

    def __init__(self, networks: NetworkRecords, presence: Presence, now: Callable[[], float] = time.monotonic) -> None:
        self._networks = networks
        self._presence = presence
        self._now = now

    def ask(self, question: Question, deadline: float) -> Asked:
        """Ask, and wait until all have answered, `PATIENCE` seconds at most. Raises Unavailable or Late."""
        alive = self._presence.alive(timeout=left(deadline))
        names = {host: plain(held.value.name) for host, held in alive.items()}
        self._networks.ask(question, timeout=left(deadline))
        try:
            until = min(deadline, self._now() + PATIENCE)
            answers = self._collect(question.id, set(names), until)
        finally:
            self._networks.take_back(question.id)
        return Asked({host: answer for host, answer in answers.items() if host in names}, names)

    def _collect(self, question: str, hosts: Iterable[HostId], until: float) -> dict[HostId, Answer]:
        index, found, missing = 0, dict[HostId, Answer](), set(hosts)
        while missing and (patience := until - self._now()) > 0.02:
            seen = self._networks.answers(question, index, timeout=patience)
            if isinstance(seen, Reset):
                index = 0
            elif not isinstance(seen, Unchanged):
                found, index = seen.answers, max(1, seen.index)
                missing -= found.keys()
        return found
