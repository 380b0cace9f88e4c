"""The host's own address on the underlay: where a network's VTEP has gone, its successor is found and taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from myoverlay.errors import MyoverlayError, Refused
from myoverlay.host.local import LocalOverlay
from myoverlay.kernel.links import Links
from myoverlay.plan import definition as plan
from myoverlay.tally import Tally
from myoverlay.values import Address, Network

log = logging.getLogger(__name__)


class Underlay:
    """Follows the address that was asked for. Used by one thread at a time: at start, then the reconciler's."""

    def __init__(self, links: Links, tally: Tally, vtep: str) -> None:
        """`vtep` is the setting, for networks that were created without `-o vtep=`."""
        self._links = links
        self._tally = tally
        self._vtep = vtep
        self._lost: dict[str, str] = {}
        self._elsewhere: dict[str, tuple[Address, str]] = {}
        #: Called with an overlay whose VTEP is another now: the store and the other hosts must be told.
        self.on_move: Callable[[LocalOverlay], None] = lambda _: None

    def follow(self, overlays: Iterable[LocalOverlay], deadline: float) -> None:
        """See that each network's VTEP is an address of this host, and move those that can be.

        One on another interface is taken only when it is the answer a round later too: a link that flaps moves nobody.
        """
        here = self._links.addresses(deadline=deadline)
        for local in overlays:
            network = local.network
            if network.vtep in here:
                self._is_well(network)
                continue
            try:
                vtep, underlay, mtu = self._links.address_of(network.asked or self._vtep, deadline=deadline)
            except Refused as error:
                self._is_lost(network, error)
                continue
            if underlay != network.underlay and self._elsewhere.get(network.network) != (vtep, underlay):
                self._elsewhere[network.network] = (vtep, underlay)
                continue
            self._move(local, vtep, underlay, mtu, deadline)

    def _is_well(self, network: Network) -> None:
        self._elsewhere.pop(network.network, None)
        if self._lost.pop(network.network, None) is not None:
            self._tally.add("underlay", "found")
            log.warning("overlay %s: its VTEP %s is here again", network.overlay, network.vtep)

    def _is_lost(self, network: Network, error: Refused) -> None:
        """Traffic is left as it is; said once."""
        if self._lost.get(network.network) == str(error):
            return
        self._lost[network.network] = str(error)
        self._tally.add("underlay", "lost")
        log.error(
            "overlay %s: its VTEP %s is no address of this host any more, and none can be found in its place: %s",
            network.overlay,
            network.vtep,
            error,
        )

    def _move(self, local: LocalOverlay, vtep: Address, underlay: str, mtu: int, deadline: float) -> None:
        network = local.network
        log.warning("overlay %s: its VTEP %s has gone; from now on it is %s on %s", network.overlay, network.vtep, vtep, underlay)  # fmt: skip # noqa: E501
        try:
            plan.check_fits(network.definition, plan.carries(mtu, vtep), f"{underlay} of this host")
        except MyoverlayError as error:
            log.error("overlay %s: big packets will be lost: %s", network.overlay, error)
        self._lost.pop(network.network, None)
        self._elsewhere.pop(network.network, None)
        self._tally.add("underlay", "moved")
        try:
            local.move(msgspec.structs.replace(network, vtep=vtep, underlay=underlay), deadline)
        finally:
            self.on_move(local)  # where the device could not be made, the next round does it
