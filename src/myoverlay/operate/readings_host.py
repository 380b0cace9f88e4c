"""Readings that only the daemon can take: of its overlays, its heartbeat, the other hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from myoverlay.errors import KernelRefused, MyoverlayError, Refused
from myoverlay.host.alive import Liveness
from myoverlay.host.binding import Binding
from myoverlay.host.carrying import Carrying, Standing
from myoverlay.host.egress import Egress
from myoverlay.host.guard import Guard
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.host.preflight import Asker
from myoverlay.host.resolver import Resolver
from myoverlay.kernel import netns, ping
from myoverlay.kernel.links import Links
from myoverlay.kernel.linkwork import BRIDGE_FILTERS
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import DEVICE, PIN, PROBE_VNI
from myoverlay.kernel.selftest import Offloading
from myoverlay.networks import CARRIED, Cannot, Carry, Question, fresh_id
from myoverlay.operate.doctor import Readings
from myoverlay.operate.readings_machine import MachineReadings, engine_servers, nameservers
from myoverlay.operate.readings_store import ahead
from myoverlay.plan import (
    check_egress,
    check_guard,
    check_hosts,
    check_kernel,
    check_plugin,
    check_store,
    check_underlay,
)
from myoverlay.plan.fates import State
from myoverlay.plan.measure import Reach
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import VXLAN_OVERHEAD, Address, HostId, OverlayName, Subnet

#: So many hosts are asked at once: with 50 packets a second more would not get their turn.
MANY, SELFTESTED = 32, 8
#: Seconds: for packets through VXLAN, for pings beside it, for one try of another size; for one look at the kernel.
_REACHING, _PINGING, _TRYING, _LOOK = 1.5, 1.0, 0.5, 2.0
#: How near the size that gets through is sought, bytes, and from where on.
_NEAR, _SMALL = 16, 576


class Parts(NamedTuple):
    """The daemon's own."""

    records: Records
    presence: Presence
    overlays: Overlays
    liveness: Liveness
    beat: Heartbeat
    peers: PeerWatch
    fates: Fates
    links: Links
    pins: Pins
    leftovers: Leftovers
    carrying: Carrying
    asker: Asker
    resolver: Resolver | None
    wall: Callable[[], float]
    guard: Guard
    binding: Binding | None
    egress: Egress | None
    tally: Tally


class HostReadings:
    """`vtep` and `port`: the settings."""

    def __init__(self, parts: Parts, machine: MachineReadings, vtep: str, port: int) -> None:
        self._of = parts
        self._machine = machine
        self._vtep = vtep
        self._port = port
        self._offloading = Offloading(parts.pins, parts.records.me)

    def readings(self) -> Readings:
        return {
            "plugin": lambda _: check_plugin.Running(True),
            "host-id": self.identity,
            "names": self.names,
            "hosts": self.hosts,
            "vtep": self.vteps,
            "peers": self.peers,
            "offload": self.offload,
            "vni": self.vnis,
            "subnets": self.subnets,
            "guard": self.guarding,
            "egress": self.leading,
            "bridge-netfilter": self.filters,
            "leftovers": self.leftovers,
        }

    def identity(self, deadline: float) -> check_store.Identity:
        alive = self._of.liveness
        return check_store.Identity(alive.barred() or "", alive.announced.is_set())

    def names(self, deadline: float) -> check_plugin.Resolving:
        if self._of.resolver is None:
            return check_plugin.Resolving()
        state = self._of.resolver.state()
        trouble = "; ".join(state["troubles"])
        if not trouble and state["process"] is None:
            trouble = "the resolver's process does not answer"
        return check_plugin.Resolving(str(state["address"]), nameservers(), engine_servers(), trouble)

    def hosts(self, deadline: float) -> check_hosts.Others:
        """Ask the others, through the store: for the time, and whether they could carry this host's overlays."""
        of, me = self._of, self._of.records.me
        mine = sorted((local.network for local in of.overlays.all()), key=lambda network: network.overlay)
        carry = tuple(
            Carry(overlay=one.overlay, vni=one.definition.vni, port=one.definition.port) for one in mine[:CARRIED]
        )
        question = Question(
            id=fresh_id(),
            asker=me,
            overlay=OverlayName("doctor"),
            area=Subnet("255.255.255.255/32"),
            vnis=(),
            port=self._port,
            mtu=1280,
            carry=carry,
            brief=True,
        )
        before = of.wall()
        try:
            asked = of.asker.ask(question, deadline)
        except MyoverlayError as error:
            return check_hosts.Others(error=str(error))
        after = of.wall()
        heard = [
            (name, answer)
            for host, name in asked.names.items()
            if host != me and (answer := asked.answers.get(host)) is not None
        ]
        told = [(name, answer.clock) for name, answer in heard if answer.clock is not None]
        return check_hosts.Others(
            clocks=tuple(check_store.Clock(name, ahead(clock, before, after)) for name, clock in told),
            clashes=tuple(_clash(name, carry, one) for name, answer in heard for one in answer.cannot),
            # Those of a version that knows no such question looked at none.
            looked=tuple((name, answer.looked) for name, answer in heard),
            silent=tuple(name for host, name in asked.names.items() if host != me and host not in asked.answers),
            asked=len(carry),
            more=len(mine) - len(carry),
        )

    def vteps(self, deadline: float) -> check_underlay.Vteps:
        of = self._of
        here = of.links.addresses(deadline=deadline)
        seen = tuple(
            check_underlay.VtepSeen(one.overlay, str(one.vtep), one.vtep in here)
            for one in (local.network for local in of.overlays.all())
        )
        try:
            chosen, device, _ = of.links.address_of(self._vtep, deadline=deadline)
        except Refused as error:
            return check_underlay.Vteps(error=str(error), seen=seen)
        return check_underlay.Vteps(str(chosen), device, seen=seen)

    def _targets(self, many: int) -> tuple[dict[HostId, Address], int]:
        """Hosts that should answer, those first that share an overlay: not those known to be dead, which is said
        elsewhere. Where the store is away, those that were known before. And how many more there are than are asked.
        """
        of = self._of
        sharing = of.peers.where()
        try:
            alive = of.presence.alive(timeout=1.5)
            others = {host: held.value.vteps[0] for host, held in alive.items() if held.value.vteps}
        except MyoverlayError:
            others = {}
        dead = {host for host, fate in of.fates.all().items() if fate.state is State.DEAD}
        found = {h: vtep for h, vtep in (sharing | others).items() if h not in dead and h != of.records.me}
        order = sorted(found, key=lambda host: (host not in sharing, host))[:many]
        return {host: found[host] for host in order}, len(found) - len(order)

    def peers(self, deadline: float) -> check_underlay.Peers:
        of, (targets, more) = self._of, self._targets(MANY)
        local, device, mtu = of.links.address_of(self._vtep, deadline=time.monotonic() + _LOOK)
        overhead = VXLAN_OVERHEAD[local.version]
        size = max((one.network.definition.mtu for one in of.overlays.all()), default=mtu - overhead)
        reached = of.beat.measure(targets, size, _REACHING) if targets else {}
        silent = [targets[host] for host, far in reached.items() if far is Reach.SILENT]
        pinged = self._pinged(silent, min(deadline, time.monotonic() + _PINGING)) if silent else set()
        narrow = [host for host, far in reached.items() if far is Reach.NARROW]
        carried = self._carried(narrow[0], targets[narrow[0]], size, deadline) if narrow else 0
        seen = [
            check_underlay.PeerSeen(
                self._name(host),
                str(targets[host]),
                far,
                targets[host] in pinged if far is Reach.SILENT else None,
                carried if narrow and host == narrow[0] else 0,
            )
            for host, far in sorted(reached.items())
        ]
        return check_underlay.Peers(self._port, size, tuple(seen), device, overhead, more)

    def _pinged(self, vteps: Collection[Address], deadline: float) -> set[Address]:
        with self._of.links.home.dup() as home:
            return ping.answering(home, vteps, deadline)

    def _carried(self, host: HostId, vtep: Address, size: int, deadline: float) -> int:
        """The largest packet that comes back, within a few bytes; 0 where there was no time to find it."""
        low, high = 0, size
        tried = _SMALL
        while high - max(low, _SMALL) > _NEAR and time.monotonic() + _TRYING < deadline:
            whole = self._of.beat.measure({host: vtep}, tried, _TRYING).get(host) is Reach.WHOLE
            low, high = (tried, high) if whole else (low, tried)
            if not low:
                return 0
            tried = (low + high) // 2
        return low

    def _name(self, host: HostId) -> str:
        return self._of.peers.known.names.get(host) or host.short

    def offload(self, deadline: float) -> check_underlay.Offload:
        of, (targets, _) = self._of, self._targets(SELFTESTED)
        _, device, _ = of.links.address_of(self._vtep, deadline=time.monotonic() + _LOOK)
        if not targets:
            return check_underlay.Offload(device)
        arrived = self._offloading.run(targets, deadline)
        seen = [check_underlay.OffloadSeen(self._name(host), *both) for host, both in sorted(arrived.items())]
        return check_underlay.Offload(device, tuple(seen))

    def vnis(self, deadline: float) -> check_underlay.Vnis:
        seen = [self._vni(local, deadline) for local in self._of.overlays.all()]
        try:
            stored = self._of.records.vnis(timeout=_LOOK)
        except MyoverlayError:
            stored = {}  # the check of the store says so
        found = []
        for one in seen:
            holder = stored.get(one.vni)
            other = holder.overlay if holder is not None and holder.overlay != one.overlay else ""
            found.append(msgspec.structs.replace(one, stored=other))
        return check_underlay.Vnis((*found, self._probe(deadline)))

    def _vni(self, local: LocalOverlay, deadline: float) -> check_underlay.VniSeen:
        definition = local.network.definition
        standing = self._of.carrying.device(local, deadline)
        return _seen(local.network.overlay, definition.vni, definition.port, standing)

    def _probe(self, deadline: float) -> check_underlay.VniSeen:
        of = self._of
        there = False
        if of.pins.is_there(PIN):
            with netns.open_path(of.pins.path(PIN)) as ns:
                there = any(link.name == DEVICE for link in of.links.observe(ns, deadline=deadline))
        vtep = of.links.address_of(self._vtep, deadline=deadline)[0]
        standing = Standing(True) if there else of.carrying.room(PROBE_VNI, self._port, vtep, deadline)
        return _seen("the heartbeat", PROBE_VNI, self._port, standing)

    def subnets(self, deadline: float) -> check_underlay.Subnets:
        of = self._of
        networks = {local.network.network: local.network for local in of.overlays.all()}
        leads = of.links.leads(deadline=deadline)
        needed = [("an address of this host", address) for address in sorted(of.links.addresses(deadline=deadline))]
        needed += [("a name server that the host uses", address) for address in _addresses(nameservers())]
        try:
            listed = self._machine.docker_networks() if networks else ()
        except MyoverlayError:
            listed = None  # the check of the engine says so
        docker = None
        if listed is not None:
            docker = tuple((name, net) for id_, name, _, nets in listed if id_ not in networks for net in nets)
        return check_underlay.Subnets(
            tuple((one.overlay, one.subnet) for one in networks.values()),
            tuple(check_underlay.Lead(to, device) for to, device in leads),
            tuple(needed),
            docker,
        )

    def guarding(self, deadline: float) -> check_guard.Guarding:
        of = self._of
        here = {local.network.overlay for local in of.overlays.all()}
        unbound = {name: why for name, why in (of.binding.trouble if of.binding else {}).items() if name in here}
        repairs = of.tally.get("repairs", "guard") + of.tally.get("repairs", "binding")
        read = check_guard.Guarding(of.guard.mode, unbound=unbound, repairs=repairs)
        try:
            now = of.guard.standing()
        except KernelRefused as error:  # it is not there to be looked at
            return msgspec.structs.replace(read, trouble=of.guard.trouble or str(error), code=error.code)
        return msgspec.structs.replace(
            read, tunnels=now.tunnels, vteps=now.vteps, trouble=now.trouble, code=now.code, there=now.there
        )

    def leading(self, deadline: float) -> check_egress.Leading:
        egress = self._of.egress
        if egress is None:
            return check_egress.Leading("")
        led = [local.network.overlay for local in self._of.overlays.all() if local.network.egress is not None]
        trouble = {name: why for name, why in egress.trouble.items() if name in led}
        return check_egress.Leading(egress.bridge, len(led), trouble)

    def filters(self, deadline: float) -> check_kernel.Filters:
        on: dict[str, tuple[str, ...]] = {}
        locals_ = self._of.overlays.all()
        for local in locals_:
            found = local.inside(lambda ns: ns.read_sysctls(BRIDGE_FILTERS, unless="0"), deadline)
            if found:
                on[str(self._of.pins.path(local.network.overlay))] = tuple(found)
        return check_kernel.Filters(on, len(locals_))

    def leftovers(self, deadline: float) -> check_kernel.Left:
        """What is held; and pins and cables that nobody asks for, which the next rounds collect."""
        of = self._of
        held = of.leftovers.held()
        waiting = {name for one in held for name in one.names}
        asked = {local.network.overlay for local in of.overlays.all()}
        cables = {one.link for local in of.overlays.all() for one in local.endpoints()}
        pins = {name for name in of.pins.names() if name[0].isalnum()}
        nobodys = ({*(pins - asked), *(of.overlays.unclaimed() - cables)}) - waiting
        return check_kernel.Left(held, tuple(sorted(nobodys)))


def _clash(host: str, asked: Iterable[Carry], said: Cannot) -> check_hosts.Clash:
    """What a host said of one of the overlays that it was asked about; of another one nothing is known but its name."""
    vni, port = next(((one.vni, one.port) for one in asked if one.overlay == said.overlay), (0, 0))
    return check_hosts.Clash(host, said.overlay, vni, port, said.holder, said.is_port, said.member)


def _seen(overlay: str, vni: int, port: int, standing: Standing) -> check_underlay.VniSeen:
    return check_underlay.VniSeen(overlay, vni, port, standing.there, standing.holder, standing.is_port)


def macs(overlays: Overlays) -> Mapping[str, int]:
    """How many MACs each overlay has elsewhere."""
    return {local.network.overlay: len(local.view.macs) for local in overlays.all()}


def expected(overlays: Overlays) -> int:
    """How many neighbours this host's containers have, if each of them talks to all others of its overlay."""
    found = ((len(local.endpoints()), len(local.view.peers)) for local in overlays.all())
    return sum(here * (here - 1 + elsewhere) for here, elsewhere in found if here)


def written(overlays: Overlays) -> int:
    """How many neighbour rows of IPv4 this host has in the kernel for its overlays."""
    grounds = (local.ground for local in overlays.all())
    return sum(address.version == 4 for ground in grounds if ground is not None for address in ground.rows.neigh)


def _addresses(texts: Iterable[str]) -> Iterable[Address]:
    for text in texts:
        try:
            yield Address(text)
        except ValueError:
            continue  # with a zone, or nothing that is an address
