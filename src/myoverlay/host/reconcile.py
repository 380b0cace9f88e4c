"""The slow clock: what could not be done at once is done here, and the kernel is compared with what is wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from myoverlay.errors import Late, MyoverlayError, Unavailable
from myoverlay.host.leases import Leases
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: How often the kernel is compared, seconds.
ROUND = 5.0
_DEADLINE = 20.0


class Reconciler(Loop):
    """Owns the thread `reconcile`."""

    def __init__(
        self,
        overlays: Overlays,
        leases: Leases,
        tally: Tally,
        may_write: Callable[[], bool],
        settling: Sequence[Callable[[float], None]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("reconcile", tally)
        self._may_write = may_write
        self._settling = settling
        self._overlays = overlays
        self._leases = leases
        self._now = now
        self._compared = 0.0

    def wake(self) -> None:
        self._leases.wanted.set()

    def round(self) -> None:
        self._leases.wanted.wait(ROUND)
        self.step()

    def step(self) -> None:
        """Compare the kernel at its time, settle with the store when there is something. Raises Unavailable or Late."""
        if self._now() - self._compared >= ROUND:
            self._compared = self._now()
            self.compare()
        self._leases.wanted.clear()
        try:
            self.settle()
        except (Unavailable, Late):
            self._leases.wanted.set()
            raise

    def settle(self) -> None:
        """Do what is due in the store, in the order given: what it could not be told, what it lost, who is dead.

        Raises Unavailable or Late.
        """
        if not self._may_write():
            raise Unavailable("this host is not announced in the store yet")
        deadline = time.monotonic() + _DEADLINE
        for settle in self._settling:
            settle(deadline)

    def compare(self) -> None:
        """Compare each overlay's rows with what is wanted; build what could not be built before.

        What cannot be done for one overlay keeps nobody from the others.
        """
        for local in self._overlays.all():
            try:
                self._compare(local)
            except MyoverlayError as error:
                log.error("overlay %s cannot be compared: %s", local.network.overlay, error)
        try:
            self._overlays.remove_doomed(time.monotonic() + _DEADLINE)
        except MyoverlayError as error:
            log.error("a removed network's namespace stays: %s", error)

    def _compare(self, local: LocalOverlay) -> None:
        local.build(time.monotonic() + _DEADLINE)
        self._overlays.bury(local)
        if local.endpoints():
            self._overlays.on_use(local)
        repaired = local.compare()
        if repaired:
            log.warning("overlay %s: %d rows were put right", local.network.overlay, repaired)
