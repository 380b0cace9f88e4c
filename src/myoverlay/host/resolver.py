"""Keeps the resolver: its process alive, its sockets open in every overlay namespace, its knowledge as of now."""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from myoverlay.errors import Late, MyoverlayError
from myoverlay.host.answerer import Answerer
from myoverlay.host.doorstep import Doorstep
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.zones import Known, change_of, zone_of
from myoverlay.kernel.doors import open_doors
from myoverlay.kernel.netns import Namespace
from myoverlay.names.protocol import HOST, file_of, file_of_change
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, Network, OverlayName

log = logging.getLogger(__name__)

#: Seconds: how often what it should have is compared with what it was given, and the host's bridge looked at; how long
#: changes are collected; how long nothing is started anew after one that ended early, at first and at most.
COMPARE, COALESCE, AGAIN = 3.0, 0.02, (0.2, 30.0)
#: One that lived so long has not failed at its start.
_HEALTHY = 30.0
_DEADLINE = 5.0
#: While much changes and it is much work, four fifths of the time belong to others, but
#: nothing is put off for longer than this.
_REST = 0.5
#: What stands in the way of a young one, as the sockets of a former run, is looked at again so soon. Seconds.
_SOON, _YOUNG = 0.3, 10.0
#: Seconds that the end of it all may take.
_RETIRE = 4.0


class Resolver(Loop):
    """Owns the thread `names` and the process `myoverlay.names`.

    `_lock` guards `_answerer`, `_doors` and `_shown`; what is sent under it never waits.
    """

    def __init__(
        self,
        overlays: Overlays,
        doorstep: Doorstep,
        dead: Callable[[], Collection[HostId]],
        tally: Tally,
        home: Namespace,
        port: int = 53,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`dead`: whose names are not answered; `home`: the host's namespace, the resolver's from now on."""
        super().__init__("names", tally)
        self._overlays, self._doorstep, self._dead = overlays, doorstep, dead
        self._home, self._port, self._now = home, port, now
        self._lock = threading.Lock()
        self._answerer: Answerer | None = None
        #: Which namespace the sockets of each overlay were opened in, by its inode.
        self._doors: dict[str, int] = {}
        self._shown: dict[str, Known] = {}
        self._said: dict[str, str] = {}
        self._start_at = self._compare_at = float("-inf")
        self._pause, self._rest = AGAIN[0], COALESCE
        self._retiring, self._retired = False, threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)

    # -- asked by others -------------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        return self._doorstep.resolver

    def wake(self) -> None:
        """Something changed. From any thread."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def forget(self, overlay: str) -> None:
        """The overlay goes: an open socket would hold its namespace."""
        with self._lock:
            self._doors.pop(overlay, None)
            self._shown.pop(overlay, None)
            self._said.pop(f"overlay {overlay}", None)
            if self._answerer is not None:
                self._answerer.drop(overlay)

    def retire(self) -> None:
        """The host has left: nobody is answered on it any more, until the next start. Raises Late."""
        self._retiring = True
        self.wake()
        if not self._retired.wait(_RETIRE):
            raise Late("this host has left, but its resolver's bridge is not gone yet: ask again")

    def state(self) -> dict[str, Any]:
        """For a person: who answers where, and what stands in the way."""
        with self._lock:
            answerer = self._answerer
            return {
                "address": self.address,
                "process": answerer.pid if answerer is not None and answerer.answered else None,
                "overlays": sorted(name for name in self._doors if name != HOST),
                "host": HOST in self._doors,
                "troubles": sorted(self._said.values()),
            }

    def stop(self, timeout: float) -> None:
        """End the thread and the process. Addresses stay, so that whoever asks is refused at once.

        The host's bridge goes where no network is left: the plugin may be about to be removed.
        """
        super().stop(timeout)
        self._drop_answerer(lambda answerer: answerer.end())
        if not self._overlays.all() and not self._retired.is_set():
            self._attempt("the host itself", lambda: self._doorstep.retire(time.monotonic() + _DEADLINE))
        self._selector.close()
        with self._lock:
            os.close(self._wake)
            self._wake = -1
        self._home.close()

    # -- the thread ------------------------------------------------------------------------------------------------

    def round(self) -> None:
        now = self._now()
        if self._retiring:
            self._leave()
            self._wait(None)
            return
        if self._answerer is None and now >= self._start_at:
            self._start(now)
        answerer = self._answerer
        if answerer is None:
            self._wait(self._start_at)
        elif self._is_well(answerer):
            if not answerer.answered:  # it may take long to begin, and who asks at sockets that it has waits as long
                self._wait(answerer.ping())
                return
            self._bring_up_to_date(now)
            self._rest = min(_REST, max(COALESCE, 4 * (self._now() - now)))
            due = min(answerer.ping(), self._compare_at)
            self._wait(min(due, now + _SOON) if self._said and self._is_young(answerer) else due)

    def _is_young(self, answerer: Answerer) -> bool:
        return self._now() - answerer.started < _YOUNG

    def _leave(self) -> None:
        if not self._retired.is_set():
            self._drop_answerer(lambda answerer: answerer.end())
            self._doorstep.retire(time.monotonic() + _DEADLINE)
            self._retired.set()

    def _wait(self, until: float | None) -> None:
        """Until something changes, the process says something, or so late; changes are taken together."""
        seconds = max(0.0, until - self._now()) if until is not None else None
        woken = {key.fd for key, _ in self._selector.select(seconds)}
        if self._wake in woken:
            self.stopping.wait(self._rest)
            os.eventfd_read(self._wake)

    def _start(self, now: float) -> None:
        self._start_at = now + self._pause
        self._pause = min(AGAIN[1], self._pause * 2)
        try:
            answerer = Answerer(self._home, self.address, self._now)
        except (OSError, MyoverlayError) as error:
            self._tell("its process", f"the resolver cannot be started: {error}")
            return
        self._said.pop("its process", None)
        self.tally.add("resolver", "started")
        self._selector.register(answerer.control, selectors.EVENT_READ)
        with self._lock:
            self._answerer = answerer
            self._doors, self._shown = {}, {}

    def _is_well(self, answerer: Answerer) -> bool:
        """Hear what it says. One that says nothing, or has ended, goes, and the next round starts another."""
        counts = answerer.hear()
        for outcome, count in (counts or {}).items():
            self.tally.add("names", outcome, count)
        if counts is None:
            self.tally.add("resolver", "ended")
            log.error("the resolver's process %d has ended", answerer.pid)
        elif answerer.is_frozen:
            self.tally.add("resolver", "frozen")
            log.error("the resolver's process %d does not answer, and is killed", answerer.pid)
        else:
            if self._now() - answerer.started >= _HEALTHY:
                self._pause, self._start_at = AGAIN[0], self._now()
            return True
        self._drop_answerer(lambda answerer: answerer.kill())
        return False

    def _drop_answerer(self, end: Callable[[Answerer], None]) -> None:
        with self._lock:
            answerer, self._answerer = self._answerer, None
            self._doors, self._shown = {}, {}
        if answerer is not None:
            self._selector.unregister(answerer.control)
            end(answerer)

    def _bring_up_to_date(self, now: float) -> None:
        """Give it what it has not: first what an overlay holds, then the sockets, so that nobody is passed over."""
        young = self._answerer is not None and self._is_young(self._answerer)
        if now >= self._compare_at or (young and HOST not in self._doors):
            self._compare_at = now + COMPARE
            self._attempt("the host itself", self._renew_host)
        for local in self._overlays.all():
            if local.resolver is not None:
                what = f"overlay {local.network.overlay}"
                self._attempt(what, lambda local=local: self._renew(local))  # type: ignore[misc]

    def _renew_host(self) -> None:
        self._doorstep.ensure(time.monotonic() + _DEADLINE)
        if HOST not in self._doors:
            self._open(HOST, self._home)

    def _renew(self, local: LocalOverlay) -> None:
        overlay, known, ground = local.network.overlay, Known(local, self._dead()), local.ground
        if ground is None:
            return
        shown = self._shown.get(overlay)
        if known.differs(shown):
            self._show(local.network, shown, known)
        if overlay in self._shown and self._doors.get(overlay) != ground.namespace.inode:
            local.inside(lambda namespace: self._open(overlay, namespace), time.monotonic() + _DEADLINE)

    def _show(self, network: Network, shown: Known | None, known: Known) -> None:
        """Tell it what is otherwise; everything only where nothing of the overlay was shown yet."""
        overlay = network.overlay
        if shown is None:
            whole = zone_of(network, known)
            size, file = len(whole.ends), file_of(whole)
        else:
            change = change_of(network, shown, known)
            size, file = len(change.ends) + len(change.went), file_of_change(change)
        try:
            with self._lock:
                answerer = self._answerer
                if answerer is None or self._shown.get(overlay) is not shown:
                    return  # it is another process, or the overlay has gone
                tell = answerer.show if shown is None else answerer.alter
                if tell(overlay, file, size):
                    self._shown[overlay] = known
        finally:
            os.close(file)

    def _open(self, overlay: str, namespace: Namespace) -> None:
        """Open the sockets of one namespace and hand them over. Raises MyoverlayError."""
        doors = open_doors(namespace, self.address, self._port)
        with self._lock:
            there = overlay == HOST or self._overlays.named(OverlayName(overlay)) is not None
            if there and self._answerer is not None and self._answerer.listen(overlay, doors):
                self._doors[overlay] = namespace.inode
            for door in doors:  # the resolver has its own by now
                door.close()

    def _attempt(self, what: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except (MyoverlayError, OSError, ValueError) as error:  # ValueError: closed under our hands
            self._tell(what, f"{what}: names are not answered: {error}")
        else:
            self._said.pop(what, None)

    def _tell(self, what: str, sentence: str) -> None:
        """A failure is said when it is another than the last time."""
        if self._said.get(what) != sentence:
            log.error("%s", sentence)
        self._said[what] = sentence
