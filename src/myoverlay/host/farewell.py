"""When the daemon ends and Docker has no network of ours: nothing of this host stays in the store or in memory.

Its id stays on its disk. `docker plugin rm` may follow, after which nobody of ours runs who could clean up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from myoverlay.errors import KernelRefused, Late, MyoverlayError
from myoverlay.host.departure import Departure
from myoverlay.host.guard import Guard
from myoverlay.host.journal import Journal
from myoverlay.host.pools import RELEASED
from myoverlay.kernel.pins import Pins

log = logging.getLogger(__name__)

_AGAIN = 0.1
#: What Docker was answered for a moment ago may take so long to be told, seconds; after it the next start tells it.
_REST, _LOOK = 0.5, 0.02


class Farewell:
    """Used by one thread, the one that stops the daemon."""

    def __init__(
        self, journal: Journal, departure: Departure, may_write: Callable[[], bool], pins: Pins, guard: Guard
    ) -> None:
        self._guard = guard
        self._journal = journal
        self._departure = departure
        self._may_write = may_write
        self._pins = pins

    def tell(self, deadline: float) -> None:
        """Give back what is left and end the session. The loops still run, and tell of what Docker released just now.

        Not on a host that was never announced: what its journal tells of may be another's. One that stays is only given
        the time to tell of addresses.
        """
        if self._may_write():
            self._rest(min(deadline, time.monotonic() + _REST))
        pools = [use for use in self._journal.uses.all() if use.at != RELEASED]
        if self._journal.networks.all() or pools or not self._may_write():
            return
        while True:
            try:
                if self._journal.uses.all():
                    raise Late("the store was not told in time of a pool that Docker released")
                self._departure.leave(False, deadline)
            except Late as error:  # another thread of ours is at it
                if time.monotonic() + _AGAIN < deadline:
                    time.sleep(_AGAIN)
                    continue
                log.warning("something of this host stays behind: %s", error)
            except MyoverlayError as error:
                log.warning("something of this host stays behind: %s", error)
            return

    def _rest(self, deadline: float) -> None:
        """Wait until the store was told of the addresses that were given out and back."""
        while self._journal.untold():
            if time.monotonic() >= deadline:
                log.info("the store was not told of all addresses: the next start tells it")
                return
            time.sleep(_LOOK)

    def tidy(self) -> None:
        """If the host has left, now or by a person's word: take away guard, journal's copy, empty directories."""
        if self._departure.done:
            try:
                self._guard.leave()
                self._journal.remove_mirror()
                self._pins.leave()
            except (OSError, KernelRefused) as error:
                log.warning("something of this host stays behind: %s", error)
