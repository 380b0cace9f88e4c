"""The heartbeat's plan: whom to ask now, and what a host's answers and silence mean.

All hosts are asked in a slow rotation; a suspected one (the store no longer says that it lives) at once and quickly,
until it answers or has been silent for long enough, and then every few seconds, since either may change. Not more than
`LIMIT` packets leave in any second, whatever the number of hosts. Not having been able to ask proves nothing.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from myoverlay.values import HostId, Value

#: Packets a second, at most: so many at once and so many a second come to that in any second there is.
BURST, RATE = 5, 45.0
LIMIT = BURST + RATE
#: A host that nobody suspects is asked once in this time, seconds; where hosts are more than the limit allows, slower.
ROTATION = 15.0
#: A suspected host: seconds between questions, questions without an answer that make it silent.
QUICK, ENOUGH = 0.4, 4
#: A suspected host that answered, or is silent: seconds between questions.
WATCHED = 2.0
#: An answer that comes later than this after the last question counts as unasked for, seconds.
PATIENCE = 5.0
#: A packet of full size: seconds between two that came back, and how many must be lost, while small ones come back, to
#: say that the path does not carry them. Such a question is one packet more.
FULL_ROTATION, FULL_ENOUGH, FULL_COST = 300.0, 3, 1
#: So many questions are remembered, to say how many of them had no answer: 8 minutes of the rotation.
REMEMBERED = 32


class Pulse(Value, frozen=True, kw_only=True):
    """What is known of a host's kernel. Times in seconds; `heard` is the (monotonic) time of its last answer.

    `silent`: it is suspected, and enough questions since have had no answer. `carries`: do packets of this host's
    underlay MTU reach it and come back whole? None where that is not known. `loss`: the share of the last questions
    that had no answer; None before the first is decided.
    """

    heard: float | None = None
    silent: bool = False
    rtt: float | None = None
    carries: bool | None = None
    loss: float | None = None


class Ask(NamedTuple):
    """A host to ask now; `full`: by a packet of full size, after the small one."""

    host: HostId
    full: bool


@dataclass(slots=True)
class _Patient:
    """One host. `open`: questions without an answer since the last one; `due`: when the next is.

    `waiting`: the last question has no answer yet; `lost`: a bit for each of the last `decided` ones, 1 without answer.
    """

    due: float
    pulse: Pulse = field(default_factory=Pulse)
    suspected: bool = False
    asked: float | None = None
    open: int = 0
    full_due: float = 0.0
    full_asked: float | None = None
    full_lost: int = 0
    waiting: bool = False
    lost: int = 0
    decided: int = 0

    def decide(self, lost: bool) -> None:
        """The last question had an answer, or has none by the time of the next."""
        self.waiting = False
        self.lost = (self.lost << 1 | lost) & (1 << REMEMBERED) - 1
        self.decided = min(REMEMBERED, self.decided + 1)

    @property
    def loss(self) -> float | None:
        return self.lost.bit_count() / self.decided if self.decided else None


class Pulses:
    """Time is an argument, in monotonic seconds. Not safe for many threads: its owner locks."""

    def __init__(self, me: HostId) -> None:
        self._me = me
        self._patients: dict[HostId, _Patient] = {}
        self._suspects: set[HostId] = set()
        self._urgent: set[HostId] = set()
        # (due, host) of those that are not urgent; one whose `due` has changed since is passed over.
        self._queue: list[tuple[float, HostId]] = []
        self._tokens, self._filled = float(BURST), 0.0
        self._changed = False
        #: Questions that had no answer before the next was due.
        self.unanswered = 0

    def aim(self, hosts: Collection[HostId], now: float) -> None:
        """All hosts that can be asked; what is known of others is forgotten."""
        for host in [host for host in self._patients if host not in hosts]:
            self._changed |= self._patients.pop(host).pulse.silent
            self._urgent.discard(host)
        for host in hosts:
            if host not in self._patients:
                # Spread, and differently by every host: else all would ask one at the same moment after a power cut.
                share = hashlib.blake2b(f"{self._me}{host}".encode(), digest_size=4).digest()
                self._patients[host] = _Patient(now + ROTATION * int.from_bytes(share, "big") / (1 << 32))
                if host in self._suspects:
                    self._begin(host, now)
                else:
                    self._put(host, self._patients[host].due)

    def suspect(self, hosts: Iterable[HostId], now: float) -> None:
        """The whole set of those suspected now. Verdicts on the others end; those on who still is stay."""
        before, self._suspects = self._suspects, set(hosts)
        for host in self._suspects - before:
            if host in self._patients:
                self._begin(host, now)
        for host in before - self._suspects:
            if (patient := self._patients.get(host)) is not None:
                self._say(patient, silent=False)
                patient.suspected, patient.open = False, 0
                self._put(host, now + ROTATION)

    def _begin(self, host: HostId, now: float) -> None:
        patient = self._patients[host]
        patient.suspected, patient.open, patient.asked, patient.due = True, 0, None, now
        self._urgent.add(host)

    def _put(self, host: HostId, due: float) -> None:
        self._patients[host].due = due
        self._urgent.discard(host)
        heapq.heappush(self._queue, (due, host))

    def due(self, now: float) -> list[Ask]:
        """Whom to ask now; they count as asked, unless `unsent` is said of them.

        Those come first whose verdict has begun, then those whose has not, then all others in the order of their time:
        so a verdict takes the shortest time, and a host that is silent for long does not keep the others from theirs.
        """
        self._judge(now)
        self._fill(now)
        asks: list[Ask] = []
        urgent = [host for host in self._urgent if self._patients[host].due <= now]
        first = heapq.nsmallest(
            BURST, urgent, key=lambda host: (not self._patients[host].open, self._patients[host].due)
        )
        for host in first:
            if self._tokens < 1.0:
                return asks
            asks.append(self._ask(host, now))
        while self._tokens >= 1.0 and (other := self._next(now)) is not None:
            asks.append(self._ask(other, now))
        return asks

    def spend(self, packets: int, now: float) -> bool:
        """May so many packets more leave now? They count; what `due` gives waits for its turn."""
        self._fill(now)
        if self._tokens < packets:
            return False
        self._tokens -= packets
        return True

    def _fill(self, now: float) -> None:
        self._tokens = min(float(BURST), self._tokens + max(0.0, now - self._filled) * RATE)
        self._filled = now

    def _judge(self, now: float) -> None:
        for host in [host for host in self._urgent if self._patients[host].open >= ENOUGH]:
            patient = self._patients[host]
            if patient.due <= now:
                self.unanswered += 1
                self._say(patient, silent=True)
                self._put(host, now + WATCHED - QUICK)

    def _next(self, now: float) -> HostId | None:
        """The first of the queue that is due, if any, taken out of it."""
        while self._queue and self._queue[0][0] <= now:
            due, host = heapq.heappop(self._queue)
            patient = self._patients.get(host)
            if patient is not None and patient.due == due and host not in self._urgent:
                return host
        return None

    def _ask(self, host: HostId, now: float) -> Ask:
        patient = self._patients[host]
        self.unanswered += patient.open > 0
        full = not patient.suspected and patient.full_due <= now and self._tokens >= 1 + FULL_COST
        self._tokens -= 1 + FULL_COST if full else 1
        if patient.waiting:
            patient.decide(lost=True)
        patient.asked, patient.open, patient.waiting = now, patient.open + 1, True
        if full:
            self._lose_full(patient)
            patient.full_asked = now
        if not patient.suspected:
            self._put(host, now + ROTATION)
        elif patient.pulse.silent:
            self._put(host, now + WATCHED)
        else:
            patient.due = now + QUICK
            self._urgent.add(host)
        return Ask(host, full)

    def _lose_full(self, patient: _Patient) -> None:
        """Was the last packet of full size lost, while the small one before it came back?"""
        asked, heard = patient.full_asked, patient.pulse.heard
        if asked is not None and heard is not None and heard >= asked:
            patient.full_lost += 1
            if patient.full_lost >= FULL_ENOUGH:
                self._say(patient, carries=False)

    def unsent(self, host: HostId) -> None:
        """The question that `due` gave could not be sent: it does not count."""
        if (patient := self._patients.get(host)) is not None:
            patient.open = max(0, patient.open - 1)
            patient.full_asked, patient.waiting = None, False

    def unsent_full(self, host: HostId) -> None:
        """The small question was sent, that of full size could not be."""
        if (patient := self._patients.get(host)) is not None:
            patient.full_asked = None

    def heard(self, host: HostId, now: float) -> bool:
        """It answered. False where nothing had been asked, or long ago: such an answer is worth nothing."""
        patient = self._patients.get(host)
        if patient is None or not patient.open or patient.asked is None or now - patient.asked > PATIENCE:
            return False
        patient.open = 0
        if patient.waiting:
            patient.decide(lost=False)
        self._say(patient, heard=now, silent=False, rtt=now - patient.asked)
        if patient.suspected:
            self._put(host, now + WATCHED)
        return True

    def heard_full(self, host: HostId, now: float) -> bool:
        """It answered by a packet of full size. False as `heard`."""
        patient = self._patients.get(host)
        if patient is None or patient.full_asked is None or now - patient.full_asked > PATIENCE:
            return False
        patient.full_asked, patient.full_lost, patient.full_due = None, 0, now + FULL_ROTATION
        self._say(patient, carries=True)
        return True

    def _say(
        self,
        patient: _Patient,
        *,
        heard: float | None = None,
        silent: bool | None = None,
        rtt: float | None = None,
        carries: bool | None = None,
    ) -> None:
        old = patient.pulse
        patient.pulse = Pulse(
            heard=old.heard if heard is None else heard,
            silent=old.silent if silent is None else silent,
            rtt=old.rtt if rtt is None else rtt,
            carries=old.carries if carries is None else carries,
        )
        self._changed |= patient.pulse.silent != old.silent

    def wait(self, now: float) -> float:
        """Seconds until `due` may have something new."""
        dues = [self._patients[host].due for host in self._urgent]
        while self._queue:
            due, host = self._queue[0]
            patient = self._patients.get(host)
            if patient is not None and patient.due == due and host not in self._urgent:
                dues.append(due)
                break
            heapq.heappop(self._queue)
        if not dues:
            return ROTATION
        # The rotation goes in small groups, which wakes the thread more seldom; nobody waits long for a suspect.
        enough = 1.0 if any(self._patients[host].due <= now for host in self._urgent) else float(BURST)
        lacking = (enough - self._tokens) / RATE - (now - self._filled) if min(dues) <= now else 0.0
        return max(0.0, min(dues) - now, lacking)

    def of(self, host: HostId) -> Pulse:
        patient = self._patients.get(host)
        if patient is None:
            return Pulse()
        return msgspec.structs.replace(patient.pulse, loss=patient.loss)

    def changed(self) -> bool:
        """Has some host's `silent` changed since this was asked last?"""
        changed, self._changed = self._changed, False
        return changed
