"""The overlays of this host: a registry, and one object with one lock per overlay."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import msgspec

from myoverlay.errors import Clash, Late, MyoverlayError, Refused, Unavailable, Unknown
from myoverlay.host.converge import Converger, Ground
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.kernel.links import Links
from myoverlay.plan import definition as plan
from myoverlay.plan import rows, shape
from myoverlay.store.records import Held, Member, Records, believed
from myoverlay.values import (
    COUNT_LIMIT,
    Address,
    Definition,
    Endpoint,
    HostId,
    HostList,
    Mac,
    Neigh,
    Network,
    OverlayName,
    Peer,
    PoolUse,
    Record,
    Subnet,
)

log = logging.getLogger(__name__)

#: How long Docker waits for an endpoint's record to be in the store, and for the first listing of the peers.
PATIENCE = 0.5


class View(msgspec.Struct, frozen=True):
    """What this host knows about the rest of an overlay; swapped whole, so that readers need no lock."""

    lists: Mapping[HostId, Held[HostList]] | None = None
    outsiders: tuple[Peer, ...] | None = None
    peers: Mapping[Address, Peer] = {}
    macs: Mapping[Mac, Peer] = {}
    complete: bool = False


class LocalOverlay:
    """One overlay as this host holds it.

    `_lock` guards the ground, the view's replacement and the journal's endpoints of this overlay; it is never held
    across a store call, and never together with another overlay's.
    """

    def __init__(self, network: Network, journal: Journal, converger: Converger, eager: int) -> None:
        self.network = network
        self.view = View()
        #: Set when the peers were listed once.
        self.listed = threading.Event()
        self._journal = journal
        self._converger = converger
        self._eager = eager
        self._lock = threading.RLock()
        self._ground: Ground | None = None
        self._macs: dict[Address, Mac] = {}
        self._pulled: set[Address] = set()

    # -- life ------------------------------------------------------------------------------------------------------

    def build(self, deadline: float) -> None:
        """Make the kernel's side, or adopt it."""
        with self._locked(deadline):
            self._stand(deadline)

    def _stand(self, deadline: float) -> Ground:
        if self._ground is None:
            self._ground = self._converger.overlay(self.network, self.endpoints(), deadline)
            # Containers here may hold in a warm cache what was true before this run of ours.
            before = {row.address: row.mac for row in self._ground.rows.neigh}
            before |= {record.address: record.mac for record in self.present()}
            self._macs = before | self._macs
        return self._ground

    def bury(self) -> list[Endpoint]:
        """Forget endpoints whose cable is gone: their container's namespace took it along when it died."""
        with self._lock:
            if self._ground is None:
                return []
            self._converger.look(self._ground)
            dead = [one for one in self.endpoints() if one.port not in self._ground.ports]
            for endpoint in dead:
                self._journal.endpoints.drop(endpoint.endpoint)
            return dead

    def remove(self, deadline: float) -> None:
        """Take the kernel's side away."""
        with self._locked(deadline):
            ground, self._ground = self._ground, None
            self._converger.nothing(ground, self.network.overlay, deadline)

    def close(self) -> None:
        """Let go of the kernel's side; it stays as it is."""
        with self._lock:
            ground, self._ground = self._ground, None
            if ground is not None:
                ground.close()

    # -- endpoints -------------------------------------------------------------------------------------------------

    def endpoints(self) -> list[Endpoint]:
        return [one for one in self._journal.endpoints.all() if one.network == self.network.network]

    def records(self) -> tuple[Record, ...]:
        """This host's endpoints as the others are told them."""
        return _records(self.endpoints())

    def present(self) -> tuple[Record, ...]:
        """Those that have joined, so that they are reached over the bridge.

        Before that another host may still have the address, and be in the right: its rows stay until Join.
        """
        return _records(one for one in self.endpoints() if one.joined)

    def endpoint(self, endpoint: str) -> Endpoint:
        """Raises Unknown."""
        known = self._journal.endpoints.get(endpoint)
        if known is None:
            raise Unknown(f"endpoint {endpoint[:12]} does not exist on overlay {self.network.overlay}")
        return known

    def add_endpoint(self, endpoint: str, address: Address, mac: Mac | None, now: int, deadline: float) -> Endpoint:
        """An endpoint with its cable. The same call again finds it; `now` is the least generation, in ms."""
        with self._locked(deadline):
            known = self._journal.endpoints.get(endpoint)
            new = Endpoint(
                endpoint=endpoint,
                network=self.network.network,
                address=address,
                mac=mac or Mac.of(address),
                generation=self._generation(address, now),
            )
            if known is not None:
                if (known.network, known.address, known.mac) != (new.network, new.address, new.mac):
                    raise Clash(f"endpoint {endpoint[:12]} exists with {known.address} and {known.mac}")
                new = known
            else:
                self._make_room(new)
                self._check_new(new)
            self._journal.endpoints.put(endpoint, new)
            try:
                ground = self._stand(deadline)
                self._converger.endpoint(ground, self.network, new, deadline)
            except BaseException:
                if known is None:
                    self._journal.endpoints.drop(endpoint)
                raise
            return new

    def _generation(self, address: Address, now: int) -> int:
        peer = self.view.peers.get(address)
        return max(now, min(peer.generation + 1, COUNT_LIMIT) if peer else 0)

    def _make_room(self, new: Endpoint) -> None:
        """A container that died with its engine keeps no address: Docker may start it anew before we noticed."""
        if any(other.address == new.address or other.mac == new.mac for other in self.endpoints()):
            self.bury()

    def _check_new(self, new: Endpoint) -> None:
        definition, others = self.network.definition, self.endpoints()
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

    def join(self, endpoint: str, deadline: float) -> Endpoint:
        """Docker is about to put the endpoint's interface into a container."""
        with self._locked(deadline):
            known, ground = self.endpoint(endpoint), self._stand(deadline)
            self._converger.endpoint(ground, self.network, known, deadline)
            joined = msgspec.structs.replace(known, joined=True)
            self._journal.endpoints.put(endpoint, joined)
            self._rows(ground)
            self._tell_moved(ground, [Neigh(address=joined.address, mac=joined.mac)])
            return joined

    def leave(self, endpoint: str, deadline: float) -> None:
        """The container goes: take the cable by our end, wherever the other is. Unknown endpoints have left already."""
        with self._locked(deadline):
            known = self._journal.endpoints.get(endpoint)
            if known is not None and self._ground is not None:
                self._converger.without(self._ground, known, deadline)

    def delete_endpoint(self, endpoint: str, deadline: float) -> Endpoint | None:
        """Forget an endpoint, with its cable. Returns what it was, None where it is unknown."""
        with self._locked(deadline):
            known = self._journal.endpoints.drop(endpoint)
            if known is not None and self._ground is not None:
                self._converger.without(self._ground, known, deadline)
                self._rows(self._ground)
                peer = self.view.peers.get(known.address)
                if peer is not None:
                    self._tell_moved(self._ground, [Neigh(address=peer.address, mac=peer.mac)])
            return known

    # -- peers -----------------------------------------------------------------------------------------------------

    def learn(self, lists: Mapping[HostId, Held[HostList]], anew: bool, left: Collection[HostId] = ()) -> None:
        """These hosts' lists read so, and these hosts have left the overlay: program it.

        A list that was read before a newer one is passed over; `anew`: the store's order began again.
        """
        with self._lock:
            merged = {
                # In a new order any list is newer than what the old one left behind.
                host: Held(held.value, 0) if anew else held
                for host, held in (self.view.lists or {}).items()
                if host not in left
            }
            for host, held in lists.items():
                known = merged.get(host)
                if known is None or held.index >= known.index:
                    merged[host] = held
            self._see(msgspec.structs.replace(self.view, lists=merged))

    def learn_outsiders(self, outsiders: tuple[Peer, ...]) -> None:
        """These are all outsiders: program them."""
        with self._lock:
            self._see(msgspec.structs.replace(self.view, outsiders=outsiders))

    def _see(self, view: View) -> None:
        lists = {host: held.value for host, held in (view.lists or {}).items()}
        peers = rows.newest((*believed(self.network.definition, lists), *(view.outsiders or ())))
        macs = {peer.mac: peer for peer in peers.values()}
        complete = view.lists is not None and (view.outsiders is not None or not self.network.outsiders)
        self.view = View(view.lists, view.outsiders, peers, macs, complete)
        if self._ground is not None:
            self._rows(self._ground)
            self._tell_moved(self._ground, [Neigh(address=p.address, mac=p.mac) for p in peers.values()])
        if complete:
            self.listed.set()

    def answer(self, peer: Peer) -> None:
        """Somebody here asked for this peer: write its rows if they are not there, and tell whoever asked."""
        with self._lock:
            if self._ground is None:
                return
            self._pulled.add(peer.address)
            more = rows.wanted({peer.address: peer}, self.present())
            self._converger.refill(self._ground, more)
            self._converger.announce(self._ground, peer.address, peer.mac, "miss")

    def compare(self) -> int:
        """Compare the tables with what is wanted and put them right; returns how many rows that took."""
        with self._lock:
            if self._ground is None or not self.view.complete:
                return 0
            return self._converger.compare(self._ground, self._wanted())

    @property
    def eager(self) -> bool:
        """Are the peers programmed before anybody asks?"""
        return len(self.view.peers) <= self._eager

    @property
    def ground(self) -> Ground | None:
        return self._ground

    def _wanted(self) -> rows.Rows:
        return rows.wanted(self.view.peers, self.present(), None if self.eager else self._pulled)

    def _rows(self, ground: Ground) -> None:
        self._converger.peers(ground, self._wanted(), self.view.complete)

    def _tell_moved(self, ground: Ground, now: Iterable[Neigh]) -> None:
        """Containers here may hold the former MAC of an address that moved, wherever it moved from and to."""
        current = {neigh.address: neigh.mac for neigh in now}
        for neigh in rows.moved(self._macs, current):
            self._converger.announce(ground, neigh.address, neigh.mac, "moved")
        self._macs.update(current)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Late(f"overlay {self.network.overlay} is busy: try again")
        try:
            yield
        finally:
            self._lock.release()


def _records(endpoints: Iterable[Endpoint]) -> tuple[Record, ...]:
    return tuple(
        Record(address=one.address, mac=one.mac, generation=one.generation)
        for one in sorted(endpoints, key=lambda one: one.address.number)
    )


class Publishing(Protocol):
    """What Docker's calls need of the one who writes this host's records."""

    def offer(self, overlay: OverlayName) -> int: ...
    def wait(self, overlay: OverlayName, ticket: int, address: Address, patience: float) -> None: ...
    def pardon(self, overlay: OverlayName, address: Address) -> None: ...


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `docker network create` asks for."""

    network: str
    options: plan.Options
    subnet: Subnet
    gateway: Address | None
    internal: bool


class Overlays:
    """All overlays of this host. `_lock` guards the two tables; creating and deleting go one at a time."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        leases: Leases,
        links: Links,
        converger: Converger,
        member: Callable[[Address], Member],
        vtep: str,
        port: int,
        eager: int,
    ) -> None:
        self._journal = journal
        self._records = records
        self._leases = leases
        self._links = links
        self._converger = converger
        self._member = member
        self._vtep = vtep
        self._port = port
        self._eager = eager
        self._lock = threading.Lock()
        self._creating = threading.Lock()
        self._overlays: dict[str, LocalOverlay] = {}
        #: Called with an overlay that has an endpoint for the first time, and with one that goes.
        self.on_use: Callable[[LocalOverlay], None] = lambda _: None
        self.on_gone: Callable[[LocalOverlay], None] = lambda _: None
        #: Called with an overlay whose endpoints changed without a call from Docker.
        self.on_change: Callable[[LocalOverlay], None] = lambda _: None
        #: Why this host may not take part, in one sentence; None while it may.
        self.barred: Callable[[], str | None] = lambda: None

    # -- looking up ------------------------------------------------------------------------------------------------

    def all(self) -> tuple[LocalOverlay, ...]:
        with self._lock:
            return tuple(self._overlays.values())

    def of(self, network: str) -> LocalOverlay:
        found = self.find(network)
        if found is None:
            raise Unknown(f"network {network[:12]} is not one of this host: remove it and create it again")
        return found

    def find(self, network: str) -> LocalOverlay | None:
        with self._lock:
            return self._overlays.get(network)

    def named(self, overlay: OverlayName) -> LocalOverlay | None:
        return next((one for one in self.all() if one.network.overlay == overlay), None)

    def check_allowed(self) -> None:
        """Raises Clash while this host may not take part."""
        reason = self.barred()
        if reason is not None:
            raise Clash(reason)

    # -- networks --------------------------------------------------------------------------------------------------

    def restore(self, deadline: float) -> None:
        """Rebuild everything from the journal, without the store.

        A network whose kernel side cannot be built stays known and is built at its next use.
        """
        for network in self._journal.networks.all():
            local = LocalOverlay(network, self._journal, self._converger, self._eager)
            with self._lock:
                self._overlays[network.network] = local
            try:
                local.build(deadline)
            except MyoverlayError as error:
                log.error("overlay %s is not rebuilt yet: %s", network.overlay, error)
                continue
            self.bury(local)
            if local.endpoints():
                self.on_use(local)

    def bury(self, local: LocalOverlay) -> None:
        """Forget an overlay's endpoints that died with their container, and free their addresses.

        After a power loss or a crash Docker sends no clean-up calls to a legacy plugin name.
        """
        for endpoint in local.bury():
            log.warning("endpoint %s (%s) died with its container", endpoint.endpoint[:12], endpoint.address)
            self._leases.free(local.network.pool, endpoint.address)
            self.on_change(local)

    def create(self, request: Request, deadline: float) -> LocalOverlay:
        """A network of this host joins its overlay, which is defined if nobody has. The same call again finds it."""
        self.check_allowed()
        if not self._creating.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Late("another network is being created: try again")
        try:
            known = self.find(request.network)
            return known if known is not None else self._create(request, deadline)
        finally:
            self._creating.release()

    def _create(self, request: Request, deadline: float) -> LocalOverlay:
        use = self._leases.use_of(request.subnet)
        name = plan.name_of(
            request.options.overlay, use.overlay if use else None, request.subnet, use.written if use else None
        )
        other = self.named(name)
        if other is not None:
            raise Clash(f"overlay {name} is joined already by network {other.network.network[:12]} of this host")
        vtep, underlay, mtu = self._links.address_of(request.options.vtep or self._vtep, deadline=deadline)
        if use is not None:
            self._leases.bind(use, name, deadline)
        held = self._agree(name, request, vtep, mtu, underlay, deadline)
        network = _network(request, held.value, vtep, underlay, use)
        local = LocalOverlay(network, self._journal, self._converger, self._eager)
        try:
            local.build(deadline)
        except BaseException:
            self._part(held.value)
            raise
        self._journal.leaving.drop(name)
        self._journal.networks.put(network.network, network)
        with self._lock:
            self._overlays[network.network] = local
        self._leases.wanted.set()
        return local

    def _agree(
        self, name: OverlayName, request: Request, vtep: Address, mtu: int, underlay: str, deadline: float
    ) -> Held[Definition]:
        """Join the overlay as it is defined, or define it. Raises Refused or Clash with both values."""
        member = self._member(vtep)
        while True:
            held = self._records.definition(name, timeout=_left(deadline))
            if held is None:
                new = self._propose(name, request, plan.carries(mtu, vtep), deadline)
                plan.check_fits(new, plan.carries(mtu, vtep), f"{underlay} of this host")
                failed = self._records.found(new, member, timeout=_left(deadline))
                if failed is None:
                    return Held(new, 0)
                if failed == "vni" and request.options.vni is not None:
                    raise self._vni_clash(request.options.vni, deadline)
                continue
            plan.agree(held.value, request.options, request.subnet, request.gateway)
            plan.check_fits(held.value, plan.carries(mtu, vtep), f"{underlay} of this host")
            self._check_paths(held.value, deadline)
            if self._records.join(held, member, timeout=_left(deadline)):
                return held

    def _propose(self, name: OverlayName, request: Request, carried: int, deadline: float) -> Definition:
        options = request.options
        vni = options.vni
        if vni is None:
            taken = self._records.vnis(timeout=_left(deadline))
            vni = next(vni for vni in plan.vnis(name) if vni not in taken)
        return Definition(
            overlay=name,
            subnet=request.subnet,
            gateway=request.gateway,
            vni=vni,
            mtu=options.mtu or carried,
            port=options.port or self._port,
            records=options.records,
            holders=(self._records.me,),
        )

    def _vni_clash(self, vni: int, deadline: float) -> Clash:
        holder = self._records.vnis(timeout=_left(deadline)).get(vni)
        return plan.vni_taken(vni, f"overlay {holder.overlay}" if holder else "another overlay")

    def _check_paths(self, definition: Definition, deadline: float) -> None:
        for host, member in self._records.members(definition.overlay, timeout=_left(deadline)).items():
            if host != self._records.me:
                carried = plan.carries(self._links.route_mtu(member.vtep, deadline=deadline), member.vtep)
                plan.check_fits(definition, carried, f"the route to host {member.name} ({member.vtep})")

    def delete(self, network: str, deadline: float) -> None:
        """The network goes, and with the last host its overlay. Unknown networks are gone already.

        With the store away this succeeds, and the store is told later.
        """
        with self._lock:
            local = self._overlays.pop(network, None)
        if local is None:
            return
        self._journal.leaving.put(local.network.overlay, local.network.definition)
        self._journal.networks.drop(network)
        for endpoint in self._journal.endpoints.all():
            if endpoint.network == network:
                self._journal.endpoints.drop(endpoint.endpoint)
        self.on_gone(local)
        local.remove(deadline)
        self._part(local.network.definition)

    def _part(self, definition: Definition) -> None:
        """Leave an overlay in the store now, or have it done in the background."""
        self._journal.leaving.put(definition.overlay, definition)
        try:
            self.settle(time.monotonic() + 2.0)
        except (Unavailable, Late) as error:
            log.info("leaving overlay %s will be told later: %s", definition.overlay, error)
        self._leases.wanted.set()

    def settle(self, deadline: float) -> None:
        """Tell the store which overlays this host has left. Raises Unavailable or Late when it could not be told."""
        for left in self._journal.leaving.all():
            if self.named(left.overlay) is not None:
                self._journal.leaving.drop(left.overlay)
                continue
            while True:
                held = self._records.definition(left.overlay, timeout=_left(deadline))
                if held is None or self._records.me not in held.value.holders:
                    break
                withdrawn = self._records.withdraw(held.value, timeout=_left(deadline))
                if withdrawn and self._records.leave(held, timeout=_left(deadline)):
                    break
            self._journal.leaving.drop(left.overlay)

    # -- the kernel's questions ------------------------------------------------------------------------------------

    def by_socket(self) -> dict[int, tuple[LocalOverlay, Ground]]:
        """Which overlay, and which ground of it, the miss socket with this number belongs to."""
        grounds = ((local, local.ground) for local in self.all())
        return {ground.misses.fileno(): (local, ground) for local, ground in grounds if ground is not None}


def _network(request: Request, definition: Definition, vtep: Address, underlay: str, use: PoolUse | None) -> Network:
    outsiders = request.options.outsiders
    return Network(
        network=request.network,
        overlay=definition.overlay,
        subnet=definition.subnet,
        vtep=vtep,
        underlay=underlay,
        definition=definition,
        internal=request.internal,
        outsiders=definition.records is not None if outsiders is None else outsiders,
        pool=use.pool if use else None,
    )


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Late("the store took too long: try again")
    return min(left, 3.0)
