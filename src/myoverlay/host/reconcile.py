"""The slow clock: what could not be done at once is done here, and the kernel is compared with what is wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from myoverlay.errors import Late, MyoverlayError, Unavailable
from myoverlay.host.leases import Leases
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
        self, overlays: Overlays, leases: Leases, tally: Tally, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("reconcile", tally)
        self._overlays = overlays
        self._leases = leases
        self._now = now
        self._compared = 0.0

    def wake(self) -> None:
        self._leases.wanted.set()

    def round(self) -> None:
        """Compare the kernel at its time, settle with the store when there is something. Raises Unavailable or Late."""
        self._leases.wanted.wait(ROUND)
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
        """Tell the store what it could not be told. Raises Unavailable or Late."""
        deadline = self._now() + _DEADLINE
        self._overlays.settle(deadline)
        self._leases.settle(deadline)

    def compare(self) -> None:
        """Compare each overlay's rows with what is wanted; build what could not be built before."""
        for local in self._overlays.all():
            try:
                local.build(self._now() + _DEADLINE)
            except MyoverlayError as error:
                log.error("overlay %s cannot be built: %s", local.network.overlay, error)
                continue
            self._overlays.bury(local)
            repaired = local.compare()
            if repaired:
                log.warning("overlay %s: %d rows were put right", local.network.overlay, repaired)
