"""What calls that were cut off by the end of a former run left here, told by what Docker says next."""

from __future__ import annotations

import logging
import time

from myoverlay.host.overlays import Overlays
from myoverlay.values import Address, Network

log = logging.getLogger(__name__)

_SHORTLY = 2.0


class Halves:
    """Called from Docker's calls and from the background; holds nothing."""

    def __init__(self, overlays: Overlays) -> None:
        self._overlays = overlays

    def make_room(self, network: Network, address: Address, returned: bool) -> None:
        """Forget whoever has the address on this host but cannot use it any more.

        With `returned` Docker needs the address no more. An endpoint that a former run made and that no container has
        is then one whose CreateEndpoint or DeleteEndpoint was not answered: Docker takes back the address alone.
        """
        local = self._overlays.find(network.network)
        if local is None:
            return
        self._overlays.bury(local)
        if returned and local.drop_unanswered(address, time.monotonic() + _SHORTLY) is not None:
            log.warning("%s is given back, and no container has its endpoint: that is forgotten", address)
            self._overlays.on_change(local, address)

    def drop_given_back(self, network: Network) -> None:
        """A network that Docker does not know, or no more: its pool was given back, and it is empty."""
        log.warning("network %s of %s is given up: Docker released its pool", network.network[:12], network.overlay)
        self._overlays.delete(network.network, time.monotonic() + _SHORTLY)
