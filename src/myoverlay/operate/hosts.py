"""The hosts as a person asks for them: `myoverlay host ls`, `forget` and `leave`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from myoverlay.host.departure import Departure
from myoverlay.host.graves import Graves
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.values import HostId


class Forget(msgspec.Struct, frozen=True, kw_only=True):
    """A host by name, id or the start of its id."""

    host: str
    force: bool = False


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """This host goes; with `force` also under its containers."""

    force: bool = False


class Hosts:
    """Answers about the other hosts, and what a person decides about them."""

    def __init__(
        self,
        me: HostId,
        name: str,
        overlays: Overlays,
        peers: PeerWatch,
        fates: Fates,
        beat: Heartbeat,
        graves: Graves,
        departure: Departure,
        now: Callable[[], float],
    ) -> None:
        self._me = me
        self._name = name
        self._overlays = overlays
        self._peers = peers
        self._fates = fates
        self._beat = beat
        self._graves = graves
        self._departure = departure
        self._now = now

    def methods(self) -> dict[str, Method]:
        return {
            "Control.Hosts": (Nothing, self.list),
            "Control.Forget": (Forget, self.forget),
            "Control.Leave": (Leave, self.leave),
        }

    def list(self, call: Nothing, deadline: float) -> Answer:
        """This host and all that share an overlay with it. Times are seconds before now."""
        names, now = self._peers.known.names, self._now()
        sharing, where = self._peers.sharing(), self._peers.where()
        rows: list[dict[str, Any]] = []
        for host, fate in sorted(self._fates.all().items()):
            pulse = self._beat.pulse(host)
            rows.append(
                {
                    "id": host,
                    "name": names.get(host, ""),
                    "vtep": where.get(host),
                    "state": fate.state.value,
                    "since": round(now - fate.since, 3),
                    "heard": round(now - pulse.heard, 3) if pulse.heard is not None else None,
                    "rtt": pulse.rtt,
                    "overlays": sorted(sharing.get(host, ())),
                }
            )
        mine = sorted(local.network.overlay for local in self._overlays.all())
        return {"me": {"id": self._me, "name": self._name, "overlays": mine}, "hosts": rows}

    def forget(self, call: Forget, deadline: float) -> Answer:
        """A host that will not come back: its addresses are free at once."""
        gone = self._graves.forget(call.host, call.force, deadline)
        overlays, pools = list(gone.overlays), list(gone.pools)
        return {"id": gone.host, "name": gone.name, "overlays": overlays, "pools": pools, "kept": gone.kept}

    def leave(self, call: Leave, deadline: float) -> Answer:
        """This host takes no more part, until its plugin is started again."""
        gone = self._departure.leave(call.force, deadline)
        return {"overlays": list(gone.overlays), "endpoints": gone.endpoints, "kept": list(gone.kept)}
