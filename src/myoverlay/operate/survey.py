"""What this host sees of its half of a path: everything read on it, from the container to the underlay's route."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from myoverlay.errors import KernelRefused, MyoverlayError
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Heartbeat
from myoverlay.kernel import path as kernel
from myoverlay.kernel.knock import Knock
from myoverlay.kernel.netns import Namespace
from myoverlay.networks import plain
from myoverlay.path import End, Heard, Hop, PathAnswer, PathQuestion, Rules, Tunnel
from myoverlay.plan import half, shape
from myoverlay.plan import path as plan
from myoverlay.plan.half import Half
from myoverlay.plan.hops import broken, unread
from myoverlay.values import Endpoint, HostId, Mac

log = logging.getLogger(__name__)

#: Seconds: for `nft` to list rules, for the other host's kernel to answer, for the overlay's lock.
NFT, REACHING, _LOCK = 2.0, 1.0, 1.0
#: Seconds that a container is given to answer an echo. It takes less than a millisecond.
ECHO = 0.3
#: Where Docker pins the namespaces of its containers.
SANDBOXES = (Path("/run/docker/netns"), Path("/var/run/docker/netns"))


class Home(Protocol):
    """Who knows the host's own namespace: `kernel.links.Links`."""

    @property
    def home(self) -> Namespace: ...


class Surveyor:
    """Looks, and changes nothing. From any thread."""

    def __init__(
        self,
        me: HostId,
        name: str,
        overlays: Overlays,
        links: Home,
        beat: Heartbeat,
        port: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`port`: the heartbeat's."""
        self._me = me
        self._name = plain(name)
        self._overlays = overlays
        self._links = links
        self._beat = beat
        self._port = port
        self._now = now

    def look(self, question: PathQuestion) -> PathAnswer:
        """This host's half: from the source if that is here, to the target if that is. What it cannot see it says."""
        local = self._overlays.named(question.overlay)
        if local is None:
            saw = f"this host is not on overlay {question.overlay}"
            return self._said(broken("overlay", saw, "it is", "create the network on this host"))
        try:
            return self._halves(local, question)
        except MyoverlayError as error:
            log.warning("overlay %s: its path could not be looked at: %s", question.overlay, error)
            return self._said(unread("kernel", str(error)))

    def _said(self, *hops: Hop) -> PathAnswer:
        return PathAnswer(host=self._me, name=self._name, hops=hops)

    def _halves(self, local: LocalOverlay, question: PathQuestion) -> PathAnswer:
        here = [end for end in (question.source, question.target) if end.host == self._me]
        endpoints = {one.address: one for one in local.endpoints()}
        truth = [self._own(local, endpoints[end.address]) for end in here if end.address in endpoints]
        missing = [hop for end in here if (hop := _missing(end, endpoints.get(end.address))) is not None]
        if missing:
            return self._said(*missing)
        tunnel = _tunnel(local)
        with self._overlay(local) as ns:
            if ns is None:
                hop = broken("overlay", "its namespace is not there", "it is", half.HEALED)
                return self._said(hop)
            if len(truth) == 2:
                halves = [self._half(local, ns, truth[i], truth[1 - i], endpoints[truth[i].address]) for i in (0, 1)]
                hops, there = half.at_home(*halves), None
            else:
                own = truth[0]
                asked = question.target if question.source.host == self._me else question.source
                there = _believed(local, asked)
                mine = self._half(local, ns, own, there or asked, endpoints[own.address])
                if question.source.host == self._me:
                    hops = [*half.leaving(mine), self._through(there or asked, tunnel)]
                else:
                    hops = half.arriving(mine)
        return PathAnswer(
            host=self._me, name=self._name, hops=tuple(hops), here=tuple(truth), there=there, tunnel=tunnel
        )  # fmt: skip

    def _own(self, local: LocalOverlay, endpoint: Endpoint) -> End:
        return End(address=endpoint.address, mac=endpoint.mac, vtep=local.network.vtep, host=self._me)

    @contextlib.contextmanager
    def _overlay(self, local: LocalOverlay) -> Iterator[Namespace | None]:
        """The overlay's namespace under an fd of its own: nobody waits for the lock while it is looked at."""
        ns = local.inside(lambda held: held.dup(), self._now() + _LOCK)
        try:
            yield ns
        finally:
            if ns is not None:
                ns.close()

    def _half(self, local: LocalOverlay, ns: Namespace, own: End, other: End, endpoint: Endpoint) -> Half:
        network, ground = local.network, local.ground
        apart = other.host != self._me
        floor = kernel.floor(ns, half.BRIDGE, half.DEVICE, other.address if apart else None, (other.mac, own.mac))
        programmed = set(ground.rows.neigh) if ground is not None else set()
        sandbox = [Path(endpoint.sandbox)] if endpoint.sandbox.startswith("/") else []
        far, room, heard, enter = kernel.far_link(ns, endpoint.port), None, None, "in the container:"
        there = kernel.container_of(ns, endpoint.port, (*sandbox, *SANDBOXES))
        if there is not None:
            with there:
                room, enter = kernel.room(there, own.address, other.address), f"nsenter --net={there.path}"
        else:
            enter = f"nsenter --net={endpoint.sandbox}" if sandbox else enter
            heard = self._heard(local, ns, own, other, endpoint) if far is not None and far.up else None
        outer = kernel.outer(self._links.home, other.vtep, network.vtep) if apart else None
        return Half(
            tunnel=_tunnel(local),
            vtep=network.vtep,
            own=own,
            other=other,
            port=endpoint.port,
            floor=floor,
            far=far,
            room=room,
            heard=heard,
            outer=outer,
            host_rules=kernel.rules(self._links.home, NFT, [outer[0].out]) if outer is not None else Rules(),
            overlay_rules=kernel.rules(ns, NFT, [endpoint.port, half.DEVICE]),
            pulled=not local.eager and other.address not in programmed,
            enter=enter,
            overlay=network.overlay,
            subnet=network.subnet,
        )

    def _heard(self, local: LocalOverlay, ns: Namespace, own: End, other: End, endpoint: Endpoint) -> Heard | None:
        """How the container answers the other end, and others if it does not; None where no echo could be sent."""
        definition, who = local.network.definition, (own.mac, own.address)
        try:
            with contextlib.closing(Knock(ns, endpoint.port, who)) as knock:
                to, sought = knock.echo((other.mac, other.address), ECHO)
                if to or other.address in sought:
                    return Heard(to, _holder(local, to, own, other), other.address in sought)
                beside = others = False
                if local.resolver is not None and endpoint.route:
                    heard, asked = knock.echo((shape.bridge_mac(local.network), local.resolver), ECHO)
                    others = bool(heard) or local.resolver in asked
                if definition.gateway is not None and definition.gateway != other.address:
                    heard, asked = knock.echo((shape.bridge_mac(local.network), definition.gateway), ECHO)
                    beside = bool(heard) or definition.gateway in asked
        except KernelRefused as error:
            log.info("overlay %s: no echo to %s: %s", local.network.overlay, own.address, error)
            return None
        return Heard(sought=tuple(map(str, sorted(sought))), others=others or beside, beside=beside)

    def _through(self, target: End, tunnel: Tunnel) -> Hop:
        """Whether packets of full size come back from the other host's kernel; an outsider's is not asked."""
        reached = None
        if target.host is not None:
            reached = self._beat.measure({target.host: target.vtep}, tunnel.mtu, REACHING).get(target.host)
        return plan.underlay(reached, target.vtep, tunnel.mtu, self._port)


def _holder(local: LocalOverlay, mac: str, own: End, other: End) -> str:
    """Whose MAC that is on the overlay, if neither end's: an address, "" where nobody's."""
    if not mac or mac in (own.mac, other.mac):
        return ""
    definition = local.network.definition
    if mac == shape.bridge_mac(local.network):
        return definition.gateway or ""
    peer = local.view.macs.get(Mac(mac)) if not int(mac[:2], 16) & 1 else None
    mine = (one.address for one in local.endpoints() if one.mac == mac)
    return peer.address if peer is not None else next(mine, "")


def _tunnel(local: LocalOverlay) -> Tunnel:
    definition = local.network.definition
    return Tunnel(vni=definition.vni, port=definition.port, mtu=definition.mtu)


def _believed(local: LocalOverlay, end: End) -> End | None:
    """What this host knows of an end that is elsewhere."""
    peer = local.view.peers.get(end.address)
    return End(address=peer.address, mac=peer.mac, vtep=peer.vtep, host=peer.host) if peer is not None else None


def _missing(end: End, endpoint: Endpoint | None) -> Hop | None:
    """Why an end that others believe to be here is not."""
    if endpoint is None:
        remedy = "the others hold an old record: does the store take this host's list? See the plugin's log"
        return broken("endpoint", f"no container of this host has {end.address}", "one has", remedy)
    if not endpoint.joined:
        saw = f"{end.address} is no container's yet: Docker has not joined it"
        return broken("endpoint", saw, "it has joined", "see Docker's log for the container's start")
    return None
