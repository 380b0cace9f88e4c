"""The loops of `myoverlay arpd`.

thread   does                                                        ended by
main     hears misses, answers from memory; looks whether the tunnel is there; settles
watch    follows the keys by the store's blocking wait               Stop, then the store's close
lookup   asks the store what nobody here knows                       Stop, then the store's close
"""

from __future__ import annotations

import logging
import queue
import random
import selectors
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from myoverlay.cli.resolver import Resolver
from myoverlay.cli.tunnel import Tunnel
from myoverlay.cli.within import Stop
from myoverlay.errors import Late, Unavailable
from myoverlay.host.loop import COALESCE, RETRY, WAIT
from myoverlay.kernel.listener import Overrun
from myoverlay.plan.gate import BURST, QUIET, RATE, Gate
from myoverlay.store import Reset, Unchanged
from myoverlay.store.index import Index, Pairs
from myoverlay.values import Miss

log = logging.getLogger(__name__)

#: Seconds: until what the bridge has learned is looked at again; after the store's index went back, until keys that
#: are missing count as deleted; a look-up.
SETTLE, GRACE, DEADLINE = 10.0, 60.0, 1.0
_LOOK = 1.0


class Outage:
    """One sentence when the store stops answering, one when it does again, whoever noticed. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def failed(self, who: str, error: Exception) -> None:
        with self._lock:
            fresh = not self._failing
            self._failing.add(who)
        if fresh:
            log.warning("%s: rows stay as they are, it is tried again", error)

    def worked(self, who: str) -> None:
        """The watch speaks for the whole store; that single keys can be read says nothing of watching."""
        with self._lock:
            before, self._failing = self._failing, set() if who == "watch" else self._failing - {who}
            healed = bool(before) and not self._failing
        if healed:
            log.info("the store answers again")


class _Question(NamedTuple):
    miss: Miss
    born: float

    @property
    def name(self) -> str:
        return str(self.miss.address or self.miss.mac)


class Arpd:
    """The threads around a resolver. `on_miss_only`: one look-up per miss and nothing else, as in the tutorial."""

    def __init__(
        self,
        tunnel: Tunnel,
        resolver: Resolver,
        index: Index,
        stop: Stop,
        on_miss_only: bool = False,
        count: int | None = None,
    ) -> None:
        """`count`: end after so many misses that were looked up."""
        self._tunnel, self._resolver, self._index, self._stop = tunnel, resolver, index, stop
        self._outage = Outage()
        self._gate_lock = threading.Lock()  # guards _gate
        self._gate = Gate(BURST, RATE, QUIET)
        self._queue: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        loops = [self._look_up] if on_miss_only else [self._look_up, self._follow]
        self._threads = [threading.Thread(target=self._guard, args=(loop,), daemon=True) for loop in loops]
        for thread, name in zip(self._threads, ("lookup", "watch"), strict=False):
            thread.name = name
        self._passed_over: frozenset[tuple[str, str]] = frozenset()
        self._count = count
        self._done = 0

    def run(self, close: Callable[[], None]) -> None:
        """Until told to stop, or `count` misses were looked up. `close` ends the store's waits.

        Raises Unknown where the tunnel goes away, and whatever a thread failed with.
        """
        for thread in self._threads:
            thread.start()
        try:
            self._hear()
        finally:
            self._stopping.set()
            self._queue.put(None)
            close()
            for thread in self._threads:
                thread.join(3.0)
        if self._failures:
            self._tunnel.check()  # most likely its sentence is the better one
            raise self._failures[0]

    @property
    def _ending(self) -> bool:
        return self._stop.wanted or self._stopping.is_set()

    def _guard(self, loop: Callable[[], None]) -> None:
        """A thread that fails ends the process: one that had died silently would leave rows to go stale."""
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            if not self._ending:
                self._failures.append(error)
                self._stop.set()

    def _hear(self) -> None:
        settled = looked = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._tunnel.misses, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            while not self._stop.wanted:
                selector.select(_LOOK)
                self._step()
                now = time.monotonic()
                if now - looked >= _LOOK:
                    self._tunnel.check()
                    looked = now
                if now - settled >= SETTLE:
                    self._resolver.settle()
                    settled = now

    def _step(self) -> None:
        try:
            misses = self._tunnel.misses.read()
        except Overrun:
            self._resolver.refill()
            return
        for miss in misses:
            if miss.ifindex != self._tunnel.ifindex:
                continue
            if self._resolver.miss(miss) is None:
                continue
            question = _Question(miss, time.monotonic())
            with self._gate_lock:
                admitted = self._gate.admits(question.name, question.born)
            if admitted:
                self._queue.put(question)

    # -- lookup ----------------------------------------------------------------------------------------------------

    def _look_up(self) -> None:
        while (question := self._queue.get()) is not None and not self._ending:
            # Who asked that long ago has asked again, or given up.
            if time.monotonic() - question.born > QUIET:
                continue
            try:
                outcome = self._find(question)
                self._outage.worked("lookup")
            except (Unavailable, Late) as error:
                if not self._ending:
                    self._outage.failed("lookup", error)
                continue
            took = (time.monotonic() - question.born) * 1000
            log.info("L%d miss %s: %s after %.1f ms", question.miss.layer, question.name, outcome, took)
            self._done += 1
            if self._done == self._count:
                self._stop.set()

    def _find(self, question: _Question) -> str:
        miss = question.miss
        if miss.address is not None:
            peer = self._index.lookup(miss.address, timeout=DEADLINE)
            known = peer is not None and self._resolver.found(peer, miss)
            row = f"{peer.mac} behind {peer.vtep}" if peer is not None else ""
        else:
            assert miss.mac is not None
            vtep = self._index.lookup_mac(miss.mac, timeout=DEADLINE)
            known = vtep is not None and self._resolver.found_mac(miss.mac, vtep)
            row = f"behind {vtep}" if vtep is not None else ""
        if known:
            with self._gate_lock:
                self._gate.answered(question.name)
        return row if known else f"{row}, which is here: no row" if row else "no record"

    # -- watch -----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        index, delay, trusted = 0, RETRY[0], 0.0
        while not self._ending:
            try:
                grace = max(1.0, trusted - time.monotonic()) if trusted else WAIT
                seen = self._index.wait(index, timeout=min(WAIT, grace) if index else 3.0)
                self._outage.worked("watch")
                delay = RETRY[0]
            except (Unavailable, Late) as error:
                if self._ending:
                    return
                self._outage.failed("watch", error)
                self._stopping.wait(delay * random.uniform(0.5, 1.0))
                delay = min(RETRY[1], delay * 2)
                continue
            if isinstance(seen, Reset):
                log.warning("the store's index went back to %d: no row is taken away for %g s", seen.index, GRACE)
                index, trusted = 0, time.monotonic() + GRACE
            elif isinstance(seen, Pairs):
                keep = time.monotonic() < trusted
                self._learn(seen, keep)
                self._stopping.wait(COALESCE if index else 0)
                index = seen.index
            elif isinstance(seen, Unchanged) and 0.0 < trusted < time.monotonic():
                index, trusted = 0, 0.0  # all is read again, to take away what is really gone

    def _learn(self, pairs: Pairs, keep: bool) -> None:
        self._resolver.learn(pairs, keep)
        bad = frozenset(self._index.quarantine.items())
        for key, reason in sorted(bad - self._passed_over):
            log.warning("%s is passed over: %s", key, reason)
        self._passed_over = bad
