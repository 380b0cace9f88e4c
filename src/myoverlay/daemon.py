"""The composition root: what is made of what, in which order it starts and stops.

    thread       object             does                                              stopped by
    http-n       gunicorn           Docker's calls                                    gunicorn
    links        kernel.links.Links links and addresses (pyroute2)                    Daemon.stop
    misses       MissLoop           the kernel's questions                            Daemon.stop
    lookup       Lookup             looks into the store for a miss; overruns         Daemon.stop
    watch-*      discover.Watch     one per overlay: the other hosts' lists           Daemon.stop, store.close
    outsiders-*  OutsiderWatch      one per overlay that has them on                  Daemon.stop, store.close
    publish      Publisher          this host's lists and index keys                  Daemon.stop
    alive        Liveness           this host's session; has the store lost anything  Daemon.stop
    peers        PeerWatch          whose session lives, who shares an overlay        Daemon.stop, store.close
    beat         Beat               asks the other hosts' kernels through VXLAN       Daemon.stop
    fates        Fates              who is alive, cut off, dead; their rows           Daemon.stop
    settle       Settler            what the store is told after the answer           Daemon.stop
    reconcile    Reconciler         compares kernel and guard with what is wanted     Daemon.stop
    mirror       MirrorKeeper       sees to it that the journal's copy is whole       Daemon.stop
    preflight, follow, catalogue: clusterwide.py; metrics, web: overview.py; doctor_n: diagnosis.py; more: insight.py
    names        Resolver           the process `myoverlay.names`, which answers      Daemon.stop
    docker       Follower           Docker's events: what containers are called       Daemon.stop

Locks are taken in this order and never across a call to the store or to Docker: an overlay's, then the journal's,
then the guard's or the egress's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from myoverlay.clusterwide import Clusterwide, Of
from myoverlay.diagnosis import doctor
from myoverlay.docker.app import create_app, create_refusing_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.errors import MyoverlayError
from myoverlay.host.alive import Liveness
from myoverlay.host.audit import Audit
from myoverlay.host.binding import Table as Bounds
from myoverlay.host.ceding import Ceding
from myoverlay.host.claiming import Claiming
from myoverlay.host.collect import Collector
from myoverlay.host.converge import Converger
from myoverlay.host.departure import Departure
from myoverlay.host.discover import Discovery
from myoverlay.host.egress import Egress
from myoverlay.host.elsewhere import Elsewhere
from myoverlay.host.epoch import Epoch
from myoverlay.host.farewell import Farewell
from myoverlay.host.graves import Graves
from myoverlay.host.ground import Ground
from myoverlay.host.guard import Table
from myoverlay.host.halves import Halves
from myoverlay.host.holdings import Holdings
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.mirror import Mirror, MirrorKeeper
from myoverlay.host.misses import Lookup, MissLoop
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.host.pools import Pools
from myoverlay.host.publish import Publisher
from myoverlay.host.reconcile import Reconciler, Settler
from myoverlay.host.telling import Telling
from myoverlay.host.underlay import Underlay
from myoverlay.host.upkeep import Upkeep
from myoverlay.insight import Insight
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.pins import Pins
from myoverlay.operate.control import Control
from myoverlay.operate.hosts import Hosts
from myoverlay.operate.lookout import Of as Seen
from myoverlay.operate.names import Names
from myoverlay.overview import Overview
from myoverlay.plan.concerns import Terms
from myoverlay.settings import Settings
from myoverlay.store import Store
from myoverlay.store.metered import Metered
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, OverlayName, Subnet
from myoverlay.wiring import Naming, make_binding, make_egress, make_guard, make_heartbeat, open_store, place_of

log = logging.getLogger(__name__)

_RESTORE = 60.0
_JOIN = 3.0
#: What a host that holds nothing may take to say so, seconds. Docker kills a plugin 10 s after it asked it to end.
_FAREWELL = 3.0


@dataclass(frozen=True)
class Parts:
    """What a daemon stands on: disk, kernel, clocks, threads. Hosts that are simulated bring their own."""

    journal: Journal
    links: Links
    pins: Pins
    open_ground: Callable[[netns.Namespace, int, Iterable[str]], Ground] = Ground
    begin: Callable[[Loop], None] = Loop.start
    #: Seconds that only grow, and seconds since 1970.
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    #: None: by the kernel.
    heartbeat: Heartbeat | None = None
    fence: Table | None = None
    bounds: Callable[[Callable[[], netns.Namespace]], Bounds] | None = None
    egress: Egress | None = None
    tally: Tally = field(default_factory=Tally)
    #: The log's last lines.
    log_lines: Callable[[], list[str]] = list


def parts_of(settings: Settings, log_lines: Callable[[], list[str]] = list) -> Parts:
    """This machine's own. Raises Refused where the journal, or the only copy of it, cannot be used."""
    pins, tally = Pins(Path(settings.run) / "netns"), Tally()

    def in_use() -> bool:
        """Namespaces of overlays; names of ours for other uses begin with a character that no overlay's does."""
        return any(name[0].isalnum() and pins.is_there(name) for name in pins.names())

    mirror = Mirror(Path(settings.run) / "state", tally, in_use)
    return Parts(Journal(Path(settings.state), mirror=mirror), Links(), pins, tally=tally, log_lines=log_lines)


class Daemon:
    """Everything of one host."""

    def __init__(self, settings: Settings, store: Store | None = None, parts: Parts | None = None) -> None:
        parts = parts or parts_of(settings)
        self.tally = parts.tally
        self.leftovers = Leftovers(self.tally, parts.now)
        self.journal = parts.journal
        stored = store or open_store(settings)
        took = lambda what, took, well: self.tally.took("store_call", _call(what, well), took)  # noqa: E731
        self.store = Metered(stored, took, bad=lambda: self.tally.add("quarantined"))
        self.records = Records(self.store, settings.prefix, self.journal.host_id())
        self.links = parts.links
        self.guard = make_guard(settings, parts.fence, parts.links, parts.tally)
        self._begin, self._vtep, self.pins, self.wall = parts.begin, settings.vtep, parts.pins, parts.wall
        self.presence = Presence(self.store, settings.prefix, self.records.me)
        self.epoch = Epoch(self.journal, self.presence, self.tally, settings.grace, parts.now, parts.wall)
        self.liveness = Liveness(self.journal, self.presence, self.epoch, settings.host_name, self._vteps, self.tally)
        self.peers = PeerWatch(
            self.presence, self.records, lambda: self.elsewhere.hosts(), self.epoch.went_back, self.tally, parts.now
        )  # fmt: skip
        self.beat = parts.heartbeat or make_heartbeat(
            settings.port, self.links, parts.pins, self.records.me, self._vteps, self.guard, self.peers.where,
            self.tally, parts.now,
        )  # fmt: skip
        self.fates = Fates(self.peers, self.beat, self.tally, settings.grace, settings.lease_grace, parts.now)
        self._make_holders(settings, parts)
        self._make_loops(parts)
        of = Of(
            self.records, self.presence, self.overlays, self.liveness, self.epoch, self.beat, self.peers, self.fates,
            self.links, parts.pins, self.tally, parts.now, parts.wall
        )  # fmt: skip
        self.insight = Insight(settings, of)
        self.clusterwide = Clusterwide(settings, of, self.insight.answering)
        self._connect()
        self._make_app(settings, parts, place_of(stored, settings))

    def _make_holders(self, settings: Settings, parts: Parts) -> None:
        """What this host holds: pools, addresses, overlays."""
        routes = lambda deadline: self.links.routes(deadline=deadline)  # noqa: E731 - it has no other user
        self.pools = Pools(self.journal, self.records, settings.pools, routes, parts.wall)
        claiming = Claiming()
        self.ceding = Ceding(self.journal, self.records, claiming, self.pools.wanted, self._name_of)
        self.leases = Leases(
            self.journal, self.records, self.presence, self.pools,
            claiming, self.ceding, self._name_of, self.tally, parts.wall,
        )  # fmt: skip
        self.telling = Telling(self.journal, self.records, self.leases, self._name_of, self.tally)
        self.underlay = Underlay(self.links, self.tally, settings.vtep)
        self.converger = Converger(
            self.links, parts.pins, self.tally, self.leftovers, parts.open_ground, settings.names, self.guard,
            make_binding(settings, parts.bounds, parts.tally),
            parts.egress or make_egress(settings, parts.links, parts.tally),
        )  # fmt: skip
        self.overlays = Overlays(
            self.journal, self.records, self.epoch, self.pools, self.leases, self.links, self.converger, self.underlay,
            self.liveness.member, settings.vtep, settings.port, settings.eager,
        )  # fmt: skip
        self.holdings = Holdings(
            self.journal, self.records, self.pools, self.leases, self.telling, self.leftovers, self._name_of, parts.wall
        )  # fmt: skip
        self.upkeep = Upkeep(self.journal, self.records, self.pools, self.leases, self.telling)
        self.graves = Graves(
            self.records, self.presence, self.peers, self.fates, self.epoch, self._pool_of, settings.lease_grace,
            parts.now,
        )  # fmt: skip
        self.elsewhere = Elsewhere(self.overlays, self.records, self.epoch, self.fates, self._name_of)

    def _make_loops(self, parts: Parts) -> None:
        """What goes on in the background, and what it uses."""
        self.publisher = Publisher(
            self.records,
            self.overlays.named,
            self._name_of,
            self.tally,
            self._may_write,
            lambda: self.epoch.vouched,
            self.fates.is_gone,
            lambda above: self.journal.next_serial(max(above, int(parts.wall() * 1000))),
            self.epoch.latest,
            self.epoch.believes,
            now=parts.now,
            in_doubt=self.epoch.in_doubt,
            look=self.epoch.look,
            has_left=lambda: self.liveness.has_left,
        )
        self.discovery = Discovery(
            self.records, self.epoch, self.fates.lost, self.tally, parts.now, parts.begin, self.fates.is_settled,
            self.fates.is_away, self.fates.is_dead, self.ceding.asked,
        )  # fmt: skip
        self.lookup = Lookup(self.records, self.discovery, self.tally, parts.now)
        self.misses = MissLoop(self.overlays, self.lookup, self.tally)
        self.audit = Audit(
            self.journal, self.epoch, self.overlays, self.pools, self.leases, self.holdings, self.publisher.distrust,
            self.tally, parts.now,
        )  # fmt: skip
        settling = (
            self.ceding.settle, self.overlays.settle, self.overlays.tell_moved, self.audit.settle, self.upkeep.settle,
            self.graves.settle,
        )  # fmt: skip
        self.settler = Settler(self.leases, self.tally, self._may_write, lambda: self.liveness.has_left, settling)
        held = (self.overlays, self.underlay, self.leftovers)
        self.reconciler = Reconciler(*held, self.tally, parts.now, guard=self.guard)
        self.mirror = MirrorKeeper(self.journal.mend, self.tally)

    def _make_app(self, settings: Settings, parts: Parts, where: tuple[str, str]) -> None:
        """Who answers: Docker's calls, and a person's."""
        self.naming = Naming(
            settings, self.overlays, self.fates, self.links, self.tally, self.publisher.offer,
            self.clusterwide.names_changed,
        )  # fmt: skip
        self.driver = NetworkDriver(self.overlays, self.publisher, self.naming.called, parts.wall, settings.egress)
        self.ipam = IpamDriver(self.pools, self.leases, self.naming.called)
        collector = Collector(
            self.leftovers, self.reconciler, self.settler, self.audit.want, self.overlays, self.converger.filters_off
        )  # fmt: skip
        self.control = Control(self.leftovers, self.tally, self.records.me, settings.host_name, collector.collect)
        departure = Departure(
            self.journal, self.overlays, self.holdings, self.graves, self.liveness, self.beat, self.clusterwide.leave
        )  # fmt: skip
        self.naming.connect(departure)
        self.farewell = Farewell(self.journal, departure, self._may_write, parts.pins, self.guard)
        self.hosts = Hosts(
            self.records.me, settings.host_name, self.overlays, self.peers, self.fates, self.beat, self.graves,
            departure, parts.now,
        )  # fmt: skip
        names = Names(
            settings.host_name, self.overlays, self.peers, self.naming.resolver, self.naming.follower,
            self.clusterwide.registrar if settings.catalogue else None,
        )  # fmt: skip
        terms = Terms(settings.grace, settings.lease_grace, settings.port)
        seen = Seen(
            self.records, self.store, where, self.journal, self.overlays, self.discovery, self.peers, self.fates,
            self.beat, self.liveness, self.epoch, self.leftovers, self.reconciler, names, self.tally, terms, parts.now
        )  # fmt: skip
        self.overview = Overview(settings, seen, parts.log_lines, self.clusterwide, self.insight.trace.trace)
        own = {
            **self.control.methods(), **self.hosts.methods(), **self.clusterwide.methods(), **names.methods(),
            **self.insight.methods(), **self.overview.methods(), **doctor(settings, self, collector).methods(),
        }  # fmt: skip
        self.overview.notes = self.insight.recorder.everything
        self.app = create_app(
            self.driver, self.ipam, self.tally, own, self.insight.recording.called, self.overview.pages()
        )  # fmt: skip

    def _connect(self) -> None:
        """Who is called when something happens."""
        self.overlays.on_use, self.overlays.on_gone = self._in_use, self._gone
        self.overlays.on_change = self._changed
        self.overlays.barred = self.liveness.barred
        self.overlays.rests = self.publisher.at_work.rests
        self.underlay.on_move = self._moved
        self.leftovers.on_let_go = self._let_go
        self.liveness.on_reborn = self.audit.want
        self.liveness.on_back = self._store_is_back
        self.epoch.on_doubt = self._doubted
        self.leases.elsewhere, self.telling.is_told = self.elsewhere, self.publisher.told.has
        self.publisher.on_told = self.telling.hurry
        halves = Halves(self.overlays)
        self.leases.make_room = halves.make_room
        self.pools.on_given_back = halves.drop_given_back
        self.peers.on_change = self._heard
        self.beat.on_change = self.fates.wake
        self.fates.on_lost = self._lost
        self.insight.connect(self.misses, self.lookup, self.discovery, self.converger)
        self.fates.on_found, self.discovery.on_accusing = self.discovery.revisit, self.publisher.offer
        self.overlays.dead_hosts, self.fates.on_dead = self.fates.dead, self.discovery.judge
        self.fates.on_expired = self.leases.wanted.set

    def _name_of(self, host: HostId) -> str:
        """What a host is called; the start of its id where that is not known."""
        return self.liveness.name if host == self.records.me else self.peers.known.names.get(host, host.short)

    def _pool_of(self, overlay: OverlayName) -> Subnet | None:
        local = self.overlays.named(overlay)
        return local.network.subnet if local is not None and local.network.pool is not None else None

    def _store_is_back(self) -> None:
        """Nobody waits out the pause that he took after the last failure."""
        self.graves.listen_anew()
        for loop in (*self._loops(), *self.discovery.loops()):
            loop.retry()
        for local in self.overlays.all():
            self.publisher.offer(local.network.overlay)

    def _doubted(self) -> None:
        self.discovery.begin_anew()
        self.audit.want()

    def _heard(self) -> None:
        self.guard.know((*self.peers.known.vteps.values(), *self.peers.where().values()))
        self.fates.wake()

    def _lost(self, host: HostId) -> None:
        for local in self.overlays.all():
            local.learn({}, anew=False, left=[host])

    def _vteps(self) -> tuple[Address, ...]:
        """This host's VTEPs: those in use, else the one that the next network would get.

        Only addresses that the machine really has: a clone's journal names the original's.
        """
        used = {local.network.vtep for local in self.overlays.all() if self._is_here(local.network.vtep)}
        if not used:
            try:
                used = {self.links.address_of(self._vtep, deadline=time.monotonic() + 1.0)[0]}
            except MyoverlayError as error:
                log.warning("this host has no VTEP yet: %s", error)
        return tuple(sorted(used))

    def _is_here(self, vtep: Address) -> bool:
        try:
            return self.links.address_of(vtep, deadline=time.monotonic() + 1.0)[0] == vtep
        except MyoverlayError:
            return False

    def _may_write(self) -> bool:
        """May this host's records and leases be changed? Not before it is known that nobody else has its id."""
        return self.liveness.announced.is_set() and self.liveness.barred() is None

    def _in_use(self, local: LocalOverlay) -> None:
        self.discovery.follow(local)
        self.misses.refresh()
        self.insight.refresh()

    def _changed(self, local: LocalOverlay, address: Address) -> None:
        self.publisher.pardon(local.network.overlay, address)
        self.publisher.offer(local.network.overlay)

    def _moved(self, local: LocalOverlay) -> None:
        self.overlays.moved(local)
        self.publisher.offer(local.network.overlay)

    def _let_go(self) -> None:
        self.reconciler.wake()
        self.leases.wanted.set()

    def _gone(self, local: LocalOverlay) -> None:
        self.leftovers.forget(local.network.overlay)
        self.discovery.drop(local)
        self.publisher.forget(local.network.overlay)
        self.naming.forget(local.network.overlay)
        self.misses.refresh()
        self.insight.refresh()

    def start(self) -> None:
        """Rebuild from the journal, then let the loops run. The store is not waited for."""
        self.links.start()
        self.guard.start()
        self.naming.begin(time.monotonic() + _JOIN)
        self.overlays.restore(time.monotonic() + _RESTORE)
        self.leases.wanted.set()  # what the run before this one could not tell any more
        for loop in self._loops():
            self._begin(loop)
        for local in self.overlays.all():
            self.publisher.offer(local.network.overlay)
        log.info("host %s serves %d networks", self.records.me.short, len(self.overlays.all()))

    def _loops(self) -> tuple[Loop, ...]:
        """In the order they are started."""
        own = (
            self.lookup,
            self.misses,
            self.publisher,
            self.liveness,
            self.peers,
            self.fates,
            self.settler,
            self.reconciler,
            self.mirror,
            *self.clusterwide.loops(),
            *self.naming.loops(),
            *self.overview.loops(),
            *self.insight.loops(),
        )
        return (*own, self.beat) if isinstance(self.beat, Loop) else own

    def stop(self) -> None:
        """End the loops and let go of everything; links, namespaces, rows and records stay as they are."""
        self.farewell.tell(time.monotonic() + _FAREWELL)
        self.discovery.cancel()
        self.store.close()
        for loop in reversed(self._loops()):
            loop.stop(_JOIN)
        self.discovery.join(_JOIN)
        for local in self.overlays.all():
            local.close()
        self.farewell.tidy()
        self.converger.close()
        self.links.stop(_JOIN)
        self.journal.close()


def _call(operation: str, answered: bool) -> str:
    return f"{operation} {'answered' if answered else 'failed'}"


class NoDaemon:
    """In place of the daemon of a host that cannot begin: nothing runs, and Docker's calls are told why."""

    def __init__(self, reason: MyoverlayError) -> None:
        log.error("this host does not begin: %s", reason)
        self.app = create_refusing_app(str(reason))

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def begin(settings: Settings, log_lines: Callable[[], list[str]] = list) -> Daemon | NoDaemon:
    """This host's daemon, not started yet; NoDaemon where its state or its settings do not allow one."""
    try:
        return Daemon(settings, parts=parts_of(settings, log_lines))
    except MyoverlayError as error:
        return NoDaemon(error)
