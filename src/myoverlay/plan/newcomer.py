"""May an endpoint come to an overlay beside those that this host has there?"""

from __future__ import annotations

from collections.abc import Collection

from myoverlay.errors import Clash, Refused
from myoverlay.plan import shape
from myoverlay.values import Definition, Endpoint


def check_newcomer(new: Endpoint, definition: Definition, others: Collection[Endpoint]) -> None:
    """Raises Refused or Clash in one sentence where it may not."""
    if not definition.subnet.is_host(new.address) or new.address == definition.gateway:
        raise Refused(f"{new.address} is no container's address in {definition.subnet} of {definition.overlay}")
    if len(others) >= shape.MAX_ENDPOINTS:
        raise Refused(
            f"overlay {definition.overlay} has {len(others)} endpoints on this host, as many as a bridge takes:"
            " start the container on another host"
        )
    for other in others:
        if other.address == new.address:
            raise Clash(f"{new.address} is in use by another container on this host")
        if other.mac == new.mac:
            raise Clash(f"MAC {new.mac} is in use by {other.address} on this host: choose another --mac-address")
