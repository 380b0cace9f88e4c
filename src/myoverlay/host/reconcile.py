"""The slow clocks: the kernel is compared with what is wanted, and what could not be told the store is told later.

Two threads: a store that hangs for seconds must not keep the kernel from being healed within 5 s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from myoverlay.errors import Late, MyoverlayError, Unavailable
from myoverlay.host.guard import Guard
from myoverlay.host.leases import Leases
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.rounds import Rounds
from myoverlay.host.underlay import Underlay
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: How often the kernel is compared, seconds: what somebody changed by hand is healed within this and the work.
ROUND = 3.0
#: How often the store is settled with when nothing hurries, seconds.
SETTLE = 5.0
#: What is wanted is done so much later, seconds: what comes meanwhile goes along, and Docker's next call about the same
#: container does not wait behind it for the disk.
_LULL = 0.1
#: A container's end that nobody has taken for so long, seconds, is nobody's: Docker forgot its endpoint.
ABANDONED = 300.0
_DEADLINE = 20.0


class Settler(Loop):
    """Owns the thread `settle`: what the store is told afterwards, what it lost, who is dead."""

    def __init__(
        self,
        leases: Leases,
        tally: Tally,
        may_write: Callable[[], bool],
        has_left: Callable[[], bool],
        settling: Sequence[Callable[[float], None]],
    ) -> None:
        super().__init__("settle", tally)
        self._may_write = may_write
        self._has_left = has_left
        self._settling = settling
        self._leases = leases
        self.rounds = Rounds()

    def wake(self) -> None:
        self._leases.wanted.set()

    def round(self) -> None:
        if self._leases.wanted.wait(SETTLE):
            self.stopping.wait(_LULL)
        if not self.stopping.is_set():
            with self.rounds.counted():
                self.step()

    def step(self) -> None:
        """Settle now. Raises Unavailable or Late, and then it is still wanted."""
        self._leases.wanted.clear()
        try:
            self.settle()
        except (Unavailable, Late):
            self._leases.wanted.set()
            raise

    def settle(self) -> None:
        """Do what is due in the store, in the order given. Raises Unavailable or Late.

        On a host that has left nothing is: the next start begins with what is in the journal.
        """
        if self._has_left():
            return
        if not self._may_write():
            raise Unavailable("this host is not announced in the store yet")
        deadline = time.monotonic() + _DEADLINE
        for settle in self._settling:
            settle(deadline)


class Reconciler(Loop):
    """Owns the thread `reconcile`: intent against the kernel, in both directions."""

    def __init__(
        self,
        overlays: Overlays,
        underlay: Underlay,
        leftovers: Leftovers,
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        abandoned: float = ABANDONED,
        guard: Guard | None = None,
    ) -> None:
        super().__init__("reconcile", tally)
        self._overlays = overlays
        self._underlay = underlay
        self._leftovers = leftovers
        self._now = now
        self._abandoned = abandoned
        self._guard = guard
        self._hurried = threading.Event()
        self._said: dict[str, str] = {}
        self._lying: dict[str, float] = {}
        self._strays: set[str] = set()
        #: When a round ended last, by `now`, and how many things it put right.
        self.compared_at: float | None = None
        self.drift = 0
        self.rounds = Rounds()

    @property
    def unguarded(self) -> str:
        """Why this host takes VXLAN from anyone, in one sentence; empty where it does not, or is told to."""
        return self._guard.trouble if self._guard is not None else ""

    def wake(self) -> None:
        """Have a round at once."""
        self._hurried.set()

    def round(self) -> None:
        self._hurried.wait(ROUND)
        self._hurried.clear()
        if not self.stopping.is_set():
            with self.rounds.counted():
                self.compare()

    def compare(self) -> None:
        """Compare each overlay with what is wanted, put it right, and collect what nobody asks for.

        What cannot be done for one overlay keeps nobody from the others.
        """
        before = self.tally.total("repairs")
        if self._guard is not None:
            self._attempt("the guard", self._guard.check)
        self._attempt("the underlay", lambda: self._underlay.follow(self._overlays.all(), _soon()))
        for local in self._overlays.all():
            self._attempt(f"overlay {local.network.overlay}", lambda local=local: self._compare(local))  # type: ignore[misc]
        self._attempt("pinned namespaces", lambda: self._overlays.sweep(_soon()))
        self._attempt("cables in the host's namespace", self._collect)
        self.compared_at, self.drift = self._now(), self.tally.total("repairs") - before

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        """A failure is said when it is another than the last time."""
        try:
            act()
        except MyoverlayError as error:
            self.tally.add("loop_failures", "reconcile")
            if self._said.get(what) != str(error):
                log.error("%s: cannot be put right now: %s", what, error)
            self._said[what] = str(error)
        else:
            self._said.pop(what, None)

    def _compare(self, local: LocalOverlay) -> None:
        if local.check(_soon()):
            self._overlays.bury(local)
        if local.endpoints():
            self._overlays.on_use(local)

    def _collect(self) -> None:
        """Forget endpoints whose container's end was never taken or lies here again, and cables of no endpoint at all.

        The names are read before the journal: an endpoint is in the journal before its cable is laid.
        """
        lying, now = self._overlays.unclaimed(), self._now()
        known: set[str] = set()
        since: dict[str, float] = {}
        for local in self._overlays.all():
            endpoints = local.endpoints()
            known.update(one.link for one in endpoints)
            mine = {one.endpoint for one in endpoints if one.link in lying}
            since |= {endpoint: self._lying.get(endpoint, now) for endpoint in mine}
            old = {endpoint for endpoint in mine if now - since[endpoint] >= self._abandoned}
            for endpoint in self._leftovers.release("endpoint", local.network.overlay, old, len(endpoints)):
                self._overlays.abandon(local, endpoint, _soon())
        self._lying = since
        strays, before = lying - known, self._strays
        self._strays = strays
        self._overlays.drop_loose(strays & before, len(lying), _soon())


def _soon() -> float:
    return time.monotonic() + _DEADLINE
