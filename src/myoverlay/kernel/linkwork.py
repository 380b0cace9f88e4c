"""What the links thread does: links made so that they are as wanted, and observed, by pyroute2.

pyroute2 objects belong to the thread that made them (another thread's call opens a socket that is never closed), and
opening one by a namespace's name forks. So a Worker lives on one thread and gives each object a socket that was born in
its namespace. Only the host's is kept open: one kept in an overlay namespace would keep that alive after its pin is
gone, and with it the VNI.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from myoverlay.errors import KernelRefused, Unknown
from myoverlay.kernel import cables, linkforms, netns, observe, tap, underlay
from myoverlay.kernel.channel import Channel, attempt
from myoverlay.kernel.linkaddresses import SCOPES, correct_addresses, correct_resolver, of_resolvers, resolving_of
from myoverlay.kernel.linkforms import Doorstep, Form, Observed, Resolving, Seen, Thing
from myoverlay.kernel.neigh import bridge_rows, del_static_row, port_rows, static_row
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Bridge, Mac, Subnet, Veth, Vxlan

BR_STATE_FORWARDING = 3
#: A resolver that is gone must be refused each time: who is told nothing waits 4 s for each question.
_REFUSE_ALWAYS = {"net/ipv4/icmp_ratelimit": "0"}
#: Off, a bridge hands no frame to the host's firewall: +6 % TCP, +14 % small UDP. Per namespace since Linux 5.3.
BRIDGE_FILTERS = tuple(f"net/bridge/bridge-nf-call-{table}" for table in ("iptables", "ip6tables", "arptables"))


class Memory:
    """What a former observation of one namespace made of the same bytes: taking a link apart costs 0.1 ms.

    It holds no more than the last observation.
    """

    def __init__(self) -> None:
        self._links: dict[bytes, Seen | None] = {}
        self._made: dict[tuple[object, ...], Observed] = {}
        self._before: dict[tuple[object, ...], Observed] = {}

    def links(self, bodies: Sequence[bytes]) -> list[Seen]:
        """The links of those messages; what `observed` made before is kept until the next time."""
        before = self._links
        self._links = {body: before[body] if body in before else linkforms.decode_link(body) for body in bodies}
        self._before, self._made = self._made, {}
        return [link for link in self._links.values() if link is not None]

    def observed(
        self,
        link: Seen,
        master: Seen | None,
        addresses: tuple[tuple[Address, int], ...],
        rows: frozenset[Mac],
        resolving: tuple[Resolving, ...],
    ) -> Observed:
        """As `linkforms.observed`. The link is kept alive by `_links`, so its identity tells it."""
        key = (id(link), (master.name, master.ipv6_off) if master else None, addresses, rows, resolving)
        found = self._before.get(key) or linkforms.observed(link, master, addresses, rows, resolving)
        self._made[key] = found
        return found


def remove(ns: Namespace, name: str) -> None:
    """Delete a link, a veth with its other end; absent is success. For any thread."""
    with contextlib.closing(Channel(ns)) as channel:
        channel.delete(name)


class Worker:
    """Not for more than one thread. `host` is where containers' ends and VXLAN sockets are born."""

    def __init__(self, host: Namespace) -> None:
        self._host = host
        self._home: Channel | None = None

    def close(self) -> None:
        if self._home is not None:
            self._home.close()
            self._home = None

    def _at_home(self) -> Channel:
        if self._home is None:
            self._home = Channel(self._host)
        return self._home

    @contextlib.contextmanager
    def _at(self, ns: Namespace) -> Iterator[Channel]:
        if ns.inode == self._host.inode:
            yield self._at_home()
            return
        with contextlib.closing(Channel(ns)) as channel:
            yield channel

    def ensure(self, ns: Namespace, thing: Thing, ipv6: bool) -> tuple[str, ...]:
        form = linkforms.form_of(thing)
        with self._at(ns) as channel:
            if isinstance(thing, Veth) and thing.link is not None and channel.index_of(form.name) is None:
                self._lay(channel, thing, form)
                return ()
            bridge = channel.need(form.master) if form.master else None
            master = bridge.index if bridge else None
            link = channel.find(form.name)
            if link is not None and _must_go(thing, form, link):
                channel.delete(form.name)
                link = None
            if link is None and isinstance(thing, Veth) and thing.link is not None:
                self._lay(channel, thing, form)
                return ()
            fresh = link is None
            if link is None:
                self._create(ns, channel, thing, linkforms.born(form, master))
                link = channel.need(form.name)
                if form.kind != "tun":  # whose maker takes no attributes
                    link = linkforms.newborn(form, link.index, master)
            ipv6 = ipv6 or (bridge is not None and bridge.ipv6_off is False)
            shortfalls = _set_sysctls(ns, thing, link, ipv6)
            with attempt(f"setting up {form.name}"):
                for step in linkforms.corrections(form, link, master):
                    channel.set(link.index, **step)
            if isinstance(thing, Bridge):
                own = {(thing.address, thing.prefixlen)} if thing.address is not None else set()
                resolving = {Resolving(thing.resolver, thing.reach)} if thing.resolver is not None else set()
                correct_resolver(channel, link.index, thing.name, resolving, "del")
                correct_addresses(channel, link.index, thing.name, own)
                correct_resolver(channel, link.index, thing.name, resolving, "add")
            elif isinstance(thing, Veth):
                there = set() if fresh else port_rows(channel.wire, link.index)
                _correct_rows(channel, thing, link, there)
                if not fresh:
                    self._correct_far_end(thing, link)
        return shortfalls

    def _create(self, ns: Namespace, channel: Channel, thing: Thing, given: dict[str, Any]) -> None:
        if isinstance(thing, Vxlan):
            # Asked for from the host, born in `ns`: its UDP socket stays here (vxlan_newlink: link net is the asker's).
            given["IFLA_NET_NS_FD"] = ns.fd
            with attempt(f"creating the VXLAN device {thing.name}, VNI {thing.vni}, port {thing.port}"):
                self._at_home().ipr.link("add", **given)
            return
        if isinstance(thing, Veth) and thing.link is None:
            with attempt(f"creating the tap {thing.port}"):
                ns.call(lambda: tap.create(thing.port))
            return
        with attempt(f"creating {thing!r}"):
            channel.ipr.link("add", **given)

    def _lay(self, channel: Channel, veth: Veth, form: Form) -> None:
        """A new cable: a port is born silent (`_set_sysctls`), so that its link and its row are all there is to do."""
        link = veth.link or ""
        if self._at_home().index_of(link) is not None:
            # The kernel would say "file exists" without saying which of the two names it means.
            raise KernelRefused(f"creating {link}", errno.EEXIST, "the host's namespace has a link of that name")
        bridge = channel.need_index(form.master or "")
        for failure in channel.wire.commit([cables.laid(veth, form, bridge, self._host.fd)]):
            raise KernelRefused(f"creating {veth!r}", failure.code, failure.reason)
        index = channel.need_index(form.name)
        attempts = f"setting up {form.name}", f"tying {veth.mac} to {veth.port}"
        for failure in channel.wire.commit([cables.fitted(form, index), static_row(veth.mac, index)]):
            raise KernelRefused(attempts[failure.place], failure.code, failure.reason)

    def _correct_far_end(self, veth: Veth, port: Seen) -> None:
        """Mend the container's end while it is still in the host's namespace; elsewhere it is no more ours."""
        home = self._at_home()
        far = home.find(veth.link) if veth.link is not None else None
        if far is None or far.kind != "veth" or far.far != port.index or port.far != far.index:
            return
        wrong: dict[str, Any] = {}
        if far.mac != veth.mac:
            wrong["IFLA_ADDRESS"] = str(veth.mac)
        if far.mtu != veth.mtu:
            wrong["IFLA_MTU"] = veth.mtu
        if wrong:
            with attempt(f"correcting {veth.link}"):
                home.set(far.index, **wrong)

    def equip(self, ns: Namespace, name: str, address: Address, prefixlen: int) -> None:
        with self._at(ns) as channel:
            link = channel.need(name)
            correct_addresses(channel, link.index, name, {(address, prefixlen)}, keep=True)
            if not link.up:
                with attempt(f"setting up {name}"):
                    channel.set(link.index, flags=linkforms.IFF_UP, change=linkforms.IFF_UP)

    def far_ends(self, ns: Namespace) -> dict[str, str]:
        there = {link.index: link.name for link in self._at_home().all()}
        with self._at(ns) as channel:
            # The dump is what gives the other namespace its number, where it had none (rtnl_fill_link_netnsid).
            here = channel.all()
            nsid = channel.nsid(self._host)
            ours = [link for link in here if link.kind == "veth" and link.far_ns is not None and link.far_ns == nsid]
            return {link.name: there[link.far] for link in ours if link.far in there}

    def forwards(self, ns: Namespace, name: str) -> bool:
        with self._at(ns) as channel:
            return bool(channel.need(name).port.get("IFLA_BRPORT_STATE") == BR_STATE_FORWARDING)

    def ifindex(self, ns: Namespace, name: str) -> int | None:
        with self._at(ns) as channel:
            link = channel.find(name)
            return link.index if link else None

    def observe(self, ns: Namespace, memory: Memory | None = None) -> tuple[Observed, ...]:
        addresses: dict[int, list[tuple[Address, int]]] = {}
        resolving: dict[int, list[Resolving]] = {}
        rows: dict[int, set[Mac]] = {}
        memory = memory if memory is not None else Memory()
        with self._at(ns) as channel:
            there = memory.links(channel.bodies())
            held = underlay.places_of(channel.wire, SCOPES)
            for place in held[underlay.RT_SCOPE_UNIVERSE]:
                addresses.setdefault(place.index, []).append((place.address, place.prefixlen))
            for place in of_resolvers(held[underlay.RT_SCOPE_LINK]):
                resolving.setdefault(place.index, []).append(resolving_of(place))
            for link in there:
                if link.kind == "bridge":
                    rows |= bridge_rows(channel.wire, link.index)
        by_index = {link.index: link for link in there}
        return tuple(
            memory.observed(
                link,
                by_index.get(link.master or 0),
                tuple(addresses.get(link.index, ())),
                frozenset(rows.get(link.index, ())),
                tuple(resolving.get(link.index, ())),
            )
            for link in there
            if link.name != "lo"
        )

    def look_here(self, name: str) -> Observed | None:
        """Of this one link alone: a host has thousands of others."""
        home = self._at_home()
        link = home.find(name)
        if link is None:
            return None
        held = underlay.places_of(home.wire, SCOPES)
        own = {scope: [one for one in places if one.index == link.index] for scope, places in held.items()}
        addresses = tuple((one.address, one.prefixlen) for one in own[underlay.RT_SCOPE_UNIVERSE])
        resolving = tuple(resolving_of(one) for one in of_resolvers(own[underlay.RT_SCOPE_LINK]))
        return linkforms.observed(link, None, addresses, frozenset(), resolving)

    def bearer_of(self, address: Address) -> str | None:
        wire = self._at_home().wire
        for place in (place for places in underlay.places_of(wire, SCOPES).values() for place in places):
            if place.address == address and (link := observe.link(wire, place.index)) is not None:
                return link.name
        return None

    def addresses(self) -> frozenset[Address]:
        return frozenset(place.address for place in underlay.places(self._at_home().wire))

    def loose_ends(self, prefix: str) -> set[str]:
        return {
            link.name
            for link in self._at_home().all()
            if link.name.startswith(prefix) and link.kind == "veth" and link.far is not None and link.far_ns is None
        }

    def routes(self) -> tuple[Subnet, ...]:
        return underlay.routes(self._at_home().wire)

    def leads(self) -> tuple[tuple[Subnet, str], ...]:
        home = self._at_home()
        names = {link.index: link.name for link in home.all()}
        return tuple((net, names.get(index, "?")) for net, index in underlay.leads(home.wire))

    def address_of(self, text: str) -> tuple[Address, str, int]:
        home = self._at_home()
        address, link = underlay.choose(home.wire, home.all(), text)
        return address, link.name, link.mtu

    def route_mtu(self, address: Address) -> int:
        home = self._at_home()
        return underlay.route_mtu(home.wire, home.all(), address)

    def holder_of(self, vni: int, port: int, search: Sequence[Path]) -> str | None:
        for link in _vxlans(self._at_home(), vni, port):
            if link.far_ns is None:
                return f"device {link.name} in the host's namespace"
        for path in (path for folder in search for path in _listed(folder)):
            try:
                with netns.open_path(path) as ns:
                    if ns.inode == self._host.inode:
                        continue
                    for name in self._vxlans_of_host(ns, vni, port):
                        return f"device {name} in namespace {path}"
            except (Unknown, KernelRefused):
                continue  # gone meanwhile, or not to be entered: then it cannot be named
        return None

    def _vxlans_of_host(self, ns: Namespace, vni: int, port: int) -> list[str]:
        with self._at(ns) as channel:
            there = [link for link in _vxlans(channel, vni, port) if link.far_ns is not None]
            if not there:
                return []
            nsid = channel.nsid(self._host)
            return [link.name for link in there if link.far_ns == nsid]


def _must_go(thing: Thing, form: Form, link: Seen) -> bool:
    """Is what bears this name something that correcting cannot turn into what is wanted?"""
    if linkforms.must_be_made_anew(form, link):
        return True
    labelled = linkforms.read_label(link.alias)
    return isinstance(thing, Veth) and labelled is not None and labelled[0] != thing.link


def _set_sysctls(ns: Namespace, thing: Thing, link: Seen, ipv6: bool) -> tuple[str, ...]:
    """Before the link is up, since that is when IPv6 starts to speak. Returns what could not be set."""
    settings: dict[str, str] = {}
    if isinstance(thing, Bridge):
        # What is born later, the ports above all, is born silent.
        if not isinstance(thing, Doorstep):
            settings = dict.fromkeys(BRIDGE_FILTERS, "0") | {"net/ipv6/conf/default/disable_ipv6": "1"}
            settings |= _REFUSE_ALWAYS if thing.resolver is not None else {}
        ipv6 = ipv6 or (thing.address is not None and thing.address.version == 6)
    off = isinstance(thing, Veth) or not ipv6
    # Not known of a newborn: a port has it from the default above, the others are told.
    if link.ipv6_off != off and not (link.ipv6_off is None and isinstance(thing, Veth)):
        settings[f"net/ipv6/conf/{link.name}/disable_ipv6"] = "1" if off else "0"
    if not settings:
        return ()
    failed = ns.sysctls(settings)
    # Absent is as good: no br_netfilter, or no IPv6 in this kernel.
    return tuple(f"{key} was not set: {os.strerror(code)}" for key, code in failed.items() if code != errno.ENOENT)


def _correct_rows(channel: Channel, veth: Veth, port: Seen, there: set[Mac]) -> None:
    """The container's MAC as the one static row of its port; `there` are those it has."""
    requests = [static_row(veth.mac, port.index)]
    requests += [del_static_row(mac, port.index) for mac in there - {veth.mac}]
    for failure in channel.wire.commit(requests):
        if failure.code != errno.ENOENT:
            raise KernelRefused(f"tying {veth.mac} to {veth.port}", failure.code, failure.reason)


def _vxlans(channel: Channel, vni: int, port: int) -> list[Seen]:
    """The VXLAN devices that are there with this VNI and port, wherever their sockets live."""
    wanted = ("vxlan", vni, port)
    return [
        link
        for link in channel.all()
        if (link.kind, link.data.get("IFLA_VXLAN_ID"), link.data.get("IFLA_VXLAN_PORT")) == wanted
    ]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
