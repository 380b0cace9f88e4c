"""What this host holds, compared with what the store says of it, in both directions.

It runs at start, after the session was lost (the others may have buried this host), when the store lost something, and
slowly in between. Afterwards the host vouches for the store's incarnation: its lists say that its leases are there too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from myoverlay.errors import Clash
from myoverlay.host.epoch import Epoch
from myoverlay.host.holdings import Holdings
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.pools import RELEASED, Pools
from myoverlay.tally import Tally
from myoverlay.values import OverlayName

log = logging.getLogger(__name__)

#: Seconds between two audits that nothing calls for.
SLOW = 300.0


class Audit:
    """Used by the reconciler's thread; `want` may be called by any."""

    def __init__(
        self,
        journal: Journal,
        epoch: Epoch,
        overlays: Overlays,
        pools: Pools,
        leases: Leases,
        holdings: Holdings,
        distrust: Callable[[OverlayName], None],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._epoch = epoch
        self._overlays = overlays
        self._pools = pools
        self._leases = leases
        self._holdings = holdings
        self._distrust = distrust
        self._tally = tally
        self._now = now
        self._wanted = threading.Event()
        self._wanted.set()
        self._done_at = now()

    def want(self) -> None:
        """Have it done at the next settling."""
        self._wanted.set()
        self._leases.wanted.set()

    def settle(self, deadline: float) -> None:
        """Do it where it is wanted or due; what failed calls left goes each time.

        Raises Unavailable or Late; it is then done again.
        """
        self._holdings.abandon()
        if not self._wanted.is_set() and self._now() - self._done_at < SLOW:
            return
        self._wanted.clear()
        try:
            incarnation = self._epoch.id
            for local in self._overlays.all():
                self._reassert(local, deadline)
            self._overlays.disown(deadline)
            self._pools.disown(deadline)
        except BaseException:
            self._wanted.set()
            raise
        self._done_at = self._now()
        self._epoch.vouch(incarnation)
        for local in self._overlays.all():
            self._distrust(local.network.overlay)

    def _reassert(self, local: LocalOverlay, deadline: float) -> None:
        """One overlay's trouble is its own: it is named, and the others go on."""
        network = local.network
        try:
            self._overlays.reassert(local, deadline)
            use = self._journal.uses.get(network.pool) if network.pool is not None else None
            if use is not None and use.at != RELEASED:
                self._pools.reassert(use, network, deadline)
                for sentence in self._holdings.reassert(use, network, deadline):
                    self._contradicted(sentence)
        except Clash as error:
            self._contradicted(str(error))

    def _contradicted(self, sentence: str) -> None:
        self._tally.add("contradictions")
        log.error("%s", sentence)
