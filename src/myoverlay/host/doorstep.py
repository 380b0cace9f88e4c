"""The resolver's address in the host's own namespace, for containers that are on no overlay, and for the host itself.

It is there as long as the plugin runs, with networks of ours or without: who wrote it into `daemon.json` has every
container of the host ask there.
"""

from __future__ import annotations

import logging

from myoverlay.errors import Clash
from myoverlay.kernel.linkforms import Doorstep as Form
from myoverlay.kernel.links import Links
from myoverlay.plan import shape
from myoverlay.tally import Tally
from myoverlay.values import Address, Bridge

log = logging.getLogger(__name__)

BRIDGE = "myoverlay0"
_MTU = 1500


class Doorstep:
    """A bridge without ports. For one thread, but for `retire`."""

    def __init__(self, links: Links, tally: Tally, resolver: Address) -> None:
        self._links, self._tally = links, tally
        self.resolver = resolver
        given = {"name": BRIDGE, "mac": shape.mac_for(resolver), "mtu": _MTU, "resolver": resolver}
        self._form, self._wanted = Form(**given), Bridge(**given)  # type: ignore[arg-type]
        self._was_there = self._retired = False

    def ensure(self, deadline: float) -> None:
        """See that it is there as it should be. Raises Clash where the host has the address otherwise."""
        if self._retired:
            return
        bearer = self._links.bearer_of(self.resolver, deadline=deadline)
        if bearer not in (None, BRIDGE):
            raise Clash(
                f"{self.resolver} is an address of {bearer} on this host: containers that are on no overlay are not"
                " answered there; set MYOVERLAY_NAMES to another address, or to off"
            )
        seen = self._links.look_here(BRIDGE, deadline=deadline)
        if seen is not None and seen.value == self._wanted and not seen.faults:
            self._was_there = True
            return
        self._links.ensure_here(self._form, deadline=deadline)
        if self._was_there:
            self._tally.add("repairs", "wrong link" if seen else "missing link")
            log.warning("%s was put right", BRIDGE)
        self._was_there = True

    def retire(self, deadline: float) -> None:
        """Take it away for good."""
        self._retired = True
        self._links.remove_here(BRIDGE, deadline=deadline)
