"""What this host's containers are called: by our IPAM call (Engine 29 on), and by Docker's events if heard."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from myoverlay.host.overlays import Overlays
from myoverlay.naming import MAX_NAMES, MAX_TOGETHER, clean, left_out
from myoverlay.values import Address, OverlayName

log = logging.getLogger(__name__)

#: Addresses whose endpoint has not come yet; endpoints with names too many that are remembered, so as to be named once.
_LIMIT = 1024


class Called:
    """Safe for many threads. `_lock` guards `_hints` and `_crowded`; no other lock is taken under it."""

    def __init__(self, overlays: Overlays, offer: Callable[[OverlayName], object]) -> None:
        """`offer`: what of this host's records is to be written anew."""
        self._overlays = overlays
        self._offer = offer
        self._lock = threading.Lock()
        self._hints: dict[tuple[str, Address], tuple[str, ...]] = {}
        self._crowded: dict[str, None] = {}

    def hint(self, pool: str, address: Address, name: str) -> None:
        """Docker asked for the address for a container of that name; its endpoint follows."""
        with self._lock:
            self._hints.pop((pool, address), None)
            names = clean([name])
            if names:
                self._hints[pool, address] = names
            while len(self._hints) > _LIMIT:
                del self._hints[next(iter(self._hints))]

    def take(self, pool: str | None, address: Address) -> tuple[str, ...]:
        """The names by the hint, which has served then."""
        with self._lock:
            return self._hints.pop((pool or "", address), ())

    def networks(self) -> frozenset[str]:
        """Docker's ids of our networks."""
        return frozenset(local.network.network for local in self._overlays.all())

    def say(self, network: str, endpoint: str, names: tuple[str, ...]) -> bool:
        """The endpoint's container is called so; True where that is news, which the other hosts are told."""
        local = self._overlays.find(network)
        if local is None:
            return False
        self._tell(endpoint, names)
        if not local.name(endpoint, clean(names)):
            return False
        self._offer(local.network.overlay)
        return True

    def _tell(self, endpoint: str, names: tuple[str, ...]) -> None:
        """Of names that are too many, once for each endpoint."""
        more = left_out(names)
        if not more:
            return
        with self._lock:
            known = endpoint in self._crowded
            self._crowded[endpoint] = None
            while len(self._crowded) > _LIMIT:
                del self._crowded[next(iter(self._crowded))]
        if not known:
            log.warning(
                "endpoint %s of %s is not called %s: it may have %d names of %d characters together",
                endpoint[:12],
                names[0],
                ", ".join(more),
                MAX_NAMES,
                MAX_TOGETHER,
            )
