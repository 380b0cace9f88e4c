"""The composition root's part for what is said to all hosts and to others: networks defined once, names in Consul.

    thread       object             does                                              stopped by
    preflight    Respondent         answers other hosts: new networks, paths          Daemon.stop, store.close
    follow       NetworkFollower    makes and removes Docker's networks (setting)     Daemon.stop, store.close
    catalogue    Registrar          this host's names in Consul's catalogue (setting) Daemon.stop

They are started and stopped with the daemon's other loops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from myoverlay import __version__
from myoverlay.engine.networks import EngineNetworks
from myoverlay.host.alive import Liveness
from myoverlay.host.carrying import Carrying
from myoverlay.host.converge import FOREIGN_PINS
from myoverlay.host.deadline import left
from myoverlay.host.epoch import Epoch
from myoverlay.host.follow import NetworkFollower
from myoverlay.host.loop import Loop
from myoverlay.host.networks import ClusterNetworks
from myoverlay.host.outlooks import Observatory, OutlookAnswering
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.host.preflight import Asker, Hearing, Observer, Respondent
from myoverlay.host.registrar import Registrar
from myoverlay.kernel.links import Links
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.trial import Trial
from myoverlay.operate.control import Method
from myoverlay.operate.networks import Networks
from myoverlay.plan.definition import carries
from myoverlay.settings import Settings
from myoverlay.store.metered import consul_behind
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.outlooks import OutlookRecords
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import OverlayName

#: Seconds that taking back what a former run said may take, each time it is tried.
_TIDY = 5.0


class Of(NamedTuple):
    """What it is made of: the daemon's own."""

    records: Records
    presence: Presence
    overlays: Overlays
    liveness: Liveness
    epoch: Epoch
    beat: Heartbeat
    peers: PeerWatch
    fates: Fates
    links: Links
    pins: Pins
    tally: Tally
    now: Callable[[], float]
    wall: Callable[[], float]


class Clusterwide:
    """Networks that are defined once for all hosts."""

    def __init__(self, settings: Settings, of: Of, others: Iterable[Hearing] = ()) -> None:
        """`others`: who answers questions of other kinds, on the thread that answers these."""
        self._of = of
        self._vtep = settings.vtep
        self.records = NetworkRecords(of.records.store, settings.prefix, of.records.me)
        trial = Trial(of.links, (of.pins.folder, *FOREIGN_PINS))
        self.carrying = Carrying(of.overlays, of.links, trial)
        observer = Observer(
            of.records.me,
            settings.host_name,
            settings.follow,
            settings.vtep,
            of.links,
            trial,
            of.beat.measure,
            of.presence,
            self._has,
            self.carrying.all_of,
            of.wall,
        )
        # A host that follows no more keeps what it made, as its own: nobody is to wait for it.
        at_first = (lambda: None) if settings.follow else (lambda: self._unsay(time.monotonic() + _TIDY))
        self.outlooks = OutlookRecords(of.records.store, settings.prefix, of.records.me)
        self.observatory = Observatory(
            of.records.me, settings.host_name, __version__, of.overlays, of.peers, of.fates, of.beat, of.now
        )  # fmt: skip
        self._telling = OutlookAnswering(self.outlooks, self.observatory.look, of.tally, of.now)
        self.respondent = Respondent(
            self.records, observer.observe, self._may_act, of.epoch.went_back, of.tally, of.now, at_first,
            (*others, self._telling),
        )  # fmt: skip
        self.follow = self._follower(settings) if settings.follow else None
        self.registrar = self._registrar(settings) if settings.consul else None
        self.networks = ClusterNetworks(
            self.records,
            of.records,
            of.presence,
            Asker(self.records, of.presence),
            of.overlays.check_allowed,
            of.epoch.in_doubt,
            self._carried,
            settings.pools,
            settings.port,
            settings.host_name,
            wall=of.wall,
        )

    def _follower(self, settings: Settings) -> NetworkFollower:
        # Docker finds the plugin by its socket's name; the last one is that which all hosts have alike.
        driver = Path(settings.sockets.rpartition(",")[2].strip()).stem
        engine = EngineNetworks(settings.docker_socket, driver)
        return NetworkFollower(
            self.records,
            engine,
            settings.host_name,
            self._may_act,
            self._of.epoch.in_doubt,
            self._of.epoch.went_back,
            self._of.tally,
            self._of.now,
        )

    def _registrar(self, settings: Settings) -> Registrar | None:
        from myoverlay.store.catalogue import Catalogue

        of = self._of
        store = consul_behind(of.records.store)
        if store is None:
            return None
        return Registrar(
            Catalogue(store, settings.prefix), of.records.me, of.overlays, of.peers, of.fates, self._may_act,
            of.epoch.in_doubt, settings.lease_grace, of.tally, of.now, settings.catalogue,
        )  # fmt: skip

    def loops(self) -> tuple[Loop, ...]:
        return tuple(loop for loop in (self.respondent, self.follow, self.registrar) if loop is not None)

    def names_changed(self) -> None:
        """Containers came or went, or are called otherwise, or a host is another than it was."""
        if self.registrar is not None:
            self.registrar.wake()

    def methods(self) -> dict[str, Method]:
        return Networks(self.networks).methods()

    def leave(self, deadline: float) -> None:
        """Take back what this host has said, as it leaves. Raises Unavailable or Late."""
        if self.registrar is not None:
            self.registrar.retire(deadline)
        self._unsay(deadline)
        self._telling.retire(deadline)

    def _unsay(self, deadline: float) -> None:
        for name in self.records.held(timeout=left(deadline)):
            self.records.unsay(name, timeout=left(deadline))

    def _may_act(self) -> bool:
        """Not before it is known that nobody else has this host's id, and whether the store lost anything."""
        alive = self._of.liveness
        return alive.announced.is_set() and alive.barred() is None and self._of.epoch.looked.is_set()

    def _has(self, overlay: OverlayName, vni: int) -> bool:
        local = self._of.overlays.named(overlay)
        return local is not None and local.network.definition.vni == vni

    def _carried(self, vtep: str, deadline: float) -> int:
        address, _, mtu = self._of.links.address_of(vtep or self._vtep, deadline=min(deadline, time.monotonic() + 2.0))
        return carries(mtu, address)
