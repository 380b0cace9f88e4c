"""Names as a person asks for them: `myoverlay names`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from myoverlay.engine.follower import Follower
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import PeerWatch
from myoverlay.host.registrar import Registrar
from myoverlay.host.resolver import Resolver
from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.values import HostId


class Names:
    """Answers about who is called what, and who answers."""

    def __init__(
        self,
        name: str,
        overlays: Overlays,
        peers: PeerWatch,
        resolver: Resolver | None,
        follower: Follower | None,
        registrar: Registrar | None = None,
    ) -> None:
        self._name, self._overlays, self._peers = name, overlays, peers
        self._resolver, self._follower, self._registrar = resolver, follower, registrar

    def methods(self) -> dict[str, Method]:
        return {"Control.Names": (Nothing, self.show)}

    def show(self, call: Nothing, deadline: float) -> Answer:
        """The resolver, whether Docker's events are heard, and every name this host knows."""
        rows = [row for local in self._overlays.all() for row in self._of(local)]
        return {**self.standing(), "names": sorted(rows, key=lambda row: (row["overlay"], row["address"]))}

    def standing(self) -> Answer:
        """The same without the names."""
        return {
            "resolver": self._resolver.state() if self._resolver is not None else None,
            "docker": self._follower.state() if self._follower is not None else None,
            "catalogue": self._registrar.state() if self._registrar is not None else None,
        }

    def _of(self, local: LocalOverlay) -> list[dict[str, Any]]:
        overlay, names = local.network.overlay, self._peers.known.names
        rows = [_row(overlay, one.address, self._name, one.names) for one in local.endpoints()]
        for host, held in (local.view.lists or {}).items():
            rows += [_row(overlay, one.address, _called(names, host), one.names) for one in held.value.records]
        return rows


def _called(names: Mapping[HostId, str], host: HostId) -> str:
    return names.get(host, host.short)


def _row(overlay: str, address: str, host: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {"overlay": overlay, "address": address, "host": host, "names": list(names)}
