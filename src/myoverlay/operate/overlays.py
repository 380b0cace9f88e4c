"""The overlays of this host as commands need them that work on their namespaces: `Control.Overlays`."""

from __future__ import annotations

from typing import Any

from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.operate.control import Answer, Method, Nothing


class OverlayList:
    """Answers about this host's own overlays and endpoints."""

    def __init__(self, overlays: Overlays) -> None:
        self._overlays = overlays

    def methods(self) -> dict[str, Method]:
        return {"Control.Overlays": (Nothing, self.list)}

    def list(self, call: Nothing, deadline: float) -> Answer:
        """Each with Docker's network, its tunnel, and the ports of this host's containers."""
        shown = sorted(self._overlays.all(), key=lambda local: local.network.overlay)
        return {"overlays": [_shown(local) for local in shown]}


def _shown(local: LocalOverlay) -> dict[str, Any]:
    network, definition = local.network, local.network.definition
    return {
        "overlay": network.overlay,
        "network": network.network,
        "subnet": network.subnet,
        "vni": definition.vni,
        "port": definition.port,
        "mtu": definition.mtu,
        "vtep": network.vtep,
        "underlay": network.underlay,
        "endpoints": [
            {
                "id": one.endpoint,
                "address": one.address,
                "mac": one.mac,
                "port": one.port,
                "names": list(one.names),
            }
            for one in sorted(local.endpoints(), key=lambda one: one.address.number)
        ],
    }
