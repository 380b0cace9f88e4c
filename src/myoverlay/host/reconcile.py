"""The slow clock: what could not be done at once is done here, and the kernel is compared with what is wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from myoverlay.errors import MyoverlayError
from myoverlay.host.leases import Leases
from myoverlay.host.overlays import Overlays

log = logging.getLogger(__name__)

#: How often the kernel is compared, seconds.
ROUND = 5.0
_RETRY = 1.0
_DEADLINE = 20.0


class Reconciler:
    """Owns the thread `reconcile`."""

    def __init__(self, overlays: Overlays, leases: Leases, now: Callable[[], float] = time.monotonic) -> None:
        self._overlays = overlays
        self._leases = leases
        self._now = now
        self._stopping = False
        self._compared = 0.0
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stopping = True
        self._leases.wanted.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        pause = ROUND
        while True:
            self._leases.wanted.wait(pause)
            if self._stopping:
                return
            self._leases.wanted.clear()
            pause = ROUND if self._quietly(self.settle, "what the store was not told") else _RETRY
            if self._now() - self._compared >= ROUND:
                self._compared = self._now()
                self._quietly(self.compare, "the kernel's tables")

    def _quietly(self, act: Callable[[], None], about: str) -> bool:
        try:
            act()
        except MyoverlayError as error:
            log.warning("%s: tried again: %s", about, error)
            return False
        return True

    def settle(self) -> None:
        """Tell the store what it could not be told. Raises Unavailable or Late."""
        deadline = self._now() + _DEADLINE
        self._overlays.settle(deadline)
        self._leases.settle(deadline)

    def compare(self) -> None:
        """Compare each overlay's rows with what is wanted; build what could not be built before."""
        for local in self._overlays.all():
            local.build(self._now() + _DEADLINE)
            repaired = local.compare()
            if repaired:
                log.warning("overlay %s: %d rows were put right", local.network.overlay, repaired)
