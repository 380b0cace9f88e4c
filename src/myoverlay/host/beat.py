"""The heartbeat: asks the other hosts' kernels whether they are there, so that a host which is only cut off from the
store, or whose plugin is away, is told from a dead one.
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping

from myoverlay.errors import KernelRefused, MyoverlayError
from myoverlay.host.loop import Loop
from myoverlay.host.measure import Measures
from myoverlay.host.peers import Standing
from myoverlay.kernel.probe import Heard, Prober
from myoverlay.plan.measure import Reach
from myoverlay.plan.pulse import Pulse, Pulses
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId

log = logging.getLogger(__name__)

#: Seconds between two looks: at the targets, at the device; after a build that failed, at first and at most.
AIM, CHECK, REBUILD = 1.0, 10.0, (2.0, 60.0)
#: So many frames in one read that are no answers are a flood; then nothing is read for so many seconds.
FLOOD, REST = 128, 0.05
#: Seconds that making sure of the device may take.
_DEADLINE = 5.0
_NONCE = 4
#: What a measurement that must wait for its packets' turn waits, seconds.
_LEAST = 0.05


class Beat(Loop):
    """Owns the thread `beat`, which alone uses `prober`. `_lock` guards `_pulses`; it is held across no call."""

    def __init__(
        self,
        prober: Prober,
        targets: Callable[[], Mapping[HostId, Address]],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`targets`: whom this host shares overlays with, and the first VTEP of each."""
        super().__init__("beat", tally)
        self._prober, self._targets, self._now = prober, targets, now
        self._lock = threading.Lock()
        self._pulses = Pulses(prober.me)
        self._measures = Measures(now)
        self._vteps: dict[HostId, Address] = {}
        self._nonces: dict[HostId, bytes] = {}
        self._aim_at = self._check_at = float("-inf")
        self._rebuild = REBUILD[0]
        self._trouble = ""
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._retiring, self._retired = False, threading.Event()
        self._heard_on: tuple[socket.socket, ...] = ()
        #: Some host's `silent` changed. Called on the thread `beat`.
        self.on_change: Callable[[], None] = lambda: None

    def suspect(self, hosts: Collection[HostId]) -> None:
        """The whole set of hosts suspected now, in place of the former one. From any thread."""
        with self._lock:
            self._pulses.suspect(hosts, self._now())
        if not self.stopping.is_set():  # afterwards the number may be somebody else's
            self.wake()

    def pulse(self, host: HostId) -> Pulse:
        """What is known of a host's kernel; of one that was never asked nothing. From any thread."""
        with self._lock:
            return self._pulses.of(host)

    def measure(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]:
        """How far small packets and packets of `size` bytes get to these hosts at these VTEPs. From any thread."""
        return self._measures.run(targets, size, patience, self.wake)

    def state(self) -> Standing:
        """Can others be asked at all, and by packets of which size? From any thread."""
        return Standing(self._trouble, self._prober.mtu)

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout: float) -> None:
        """End the thread; namespace and device stay, since the kernel must go on answering."""
        super().stop(timeout)
        self._selector.close()
        os.close(self._wake)
        self._prober.close()

    def retire(self, timeout: float) -> bool:
        """Take the device away and ask nobody any more, until the next start; False where that took too long."""
        self._retiring = True
        self._check_at = float("-inf")
        self.wake()
        return self._retired.wait(timeout)

    def round(self) -> None:
        now = self._now()
        if self._retiring:
            self._retire()
        elif now >= self._check_at:
            self._ensure(now)
        if now >= self._aim_at:
            self._aim(now)
        if self._measures.changed():
            self._know()
        if self._prober.ready:
            # First what has come: had this thread, or the whole machine, stood still, nobody is silent for that.
            self._hear()
            self._ask(self._now())
            self._measures.turn(self._prober, self._may_send)
        if self._changed():
            self.on_change()
        self._wait(self._now())

    def _ensure(self, now: float) -> None:
        """Make sure of the device. What fails is said once, and tried again ever more slowly."""
        try:
            opened = self._prober.ensure(time.monotonic() + _DEADLINE)
        except MyoverlayError as error:
            self.tally.add("beat_builds", "failed")
            if str(error) != self._trouble:
                log.warning("%s", error)
            self._trouble = str(error)
            self._prober.shut()
            self._check_at = now + self._rebuild
            self._rebuild = min(REBUILD[1], self._rebuild * 2)
        else:
            if opened:
                self.tally.add("beat_builds", "built")
            self._trouble, self._rebuild, self._check_at = "", REBUILD[0], now + CHECK
        self._register()

    def _retire(self) -> None:
        self._check_at = float("inf")
        if self._retired.is_set():
            return
        self._prober.shut()
        self._register()
        self._prober.remove(time.monotonic() + _DEADLINE)
        self._retired.set()

    def _register(self) -> None:
        for sock in self._heard_on:
            self._selector.unregister(sock)
        self._heard_on = self._prober.sockets()
        for sock in self._heard_on:
            self._selector.register(sock, selectors.EVENT_READ)

    def _aim(self, now: float) -> None:
        self._aim_at = now + AIM
        vteps = {host: vtep for host, vtep in self._targets().items() if host != self._prober.me}
        if vteps == self._vteps:
            return
        self._vteps = vteps
        self._know()
        with self._lock:
            self._pulses.aim(vteps, now)
        self._nonces = {host: nonce for host, nonce in self._nonces.items() if host in vteps}

    def _know(self) -> None:
        self._prober.know({**self._measures.targets(), **self._vteps})

    def _may_send(self, packets: int) -> bool:
        with self._lock:
            return self._pulses.spend(packets, self._now())

    def _ask(self, now: float) -> None:
        with self._lock:
            before = self._pulses.unanswered
            asks = self._pulses.due(now)
            unanswered = self._pulses.unanswered - before
        full = {ask.host: secrets.token_bytes(_NONCE) for ask in asks if ask.full and self._prober.measures(ask.host)}
        sent = self._prober.ask({ask.host: self._vteps[ask.host] for ask in asks}, full)
        self._nonces |= full
        with self._lock:
            for ask in asks:
                if ask.host not in sent:
                    self._pulses.unsent(ask.host)
                elif ask.full and ask.host not in full:
                    self._pulses.unsent_full(ask.host)
        self._count(sent=len(sent), unsent=len(asks) - len(sent), unanswered=unanswered, full=len(sent & full.keys()))

    def _wait(self, now: float) -> None:
        """Until answers come, the next question's time, or a call."""
        until = min(self._check_at, self._aim_at) - now
        if self._prober.ready:
            with self._lock:
                until = min(until, self._pulses.wait(now))
        until = min(until, max(self._measures.wait(), _LEAST))
        if any(key.fd == self._wake for key, _ in self._selector.select(max(0.0, until))):
            os.eventfd_read(self._wake)
            self._aim_at = now

    def _hear(self) -> None:
        """Take the answers that have come."""
        try:
            found = self._prober.read()
        except KernelRefused as error:  # the device was down, or is gone
            log.info("%s", error)
            self._prober.shut()
            self._register()
            self._check_at = self._now()
            return
        self._take(found.heard, found.invalid)
        if found.invalid >= FLOOD:
            self.stopping.wait(REST)

    def _take(self, heard: tuple[Heard, ...], invalid: int) -> None:
        now, answered, carried = self._now(), 0, 0
        with self._lock:
            for host, nonce in heard:
                ours = self._measures.heard(host, nonce)
                if nonce is None:
                    answered += self._pulses.heard(host, now) or ours
                elif ours:
                    carried += 1
                elif self._nonces.get(host) == nonce:
                    carried += self._pulses.heard_full(host, now)
        unasked = len(heard) - answered - carried
        self._count(answered=answered, carried=carried, unasked=unasked, invalid=invalid)

    def _count(self, **outcomes: int) -> None:
        for outcome, number in outcomes.items():
            if number:
                self.tally.add("beats", outcome, number)

    def _changed(self) -> bool:
        with self._lock:
            return self._pulses.changed()
