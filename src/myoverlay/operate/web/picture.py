"""What the page shows, taken from memory: no call to the store, to Docker or to the kernel.

What the other hosts see is what they told (`host.outlooks`); where they told nothing it is None, and shown as that.
Times are Unix seconds, so that a picture in which nothing happened stays the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from myoverlay.errors import Unknown
from myoverlay.host.local import LocalOverlay
from myoverlay.host.outlooks import Onlooker, Seen
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, PeerWatch
from myoverlay.operate.lookout import Lookout, plain
from myoverlay.outlook import About, Glance, Tables
from myoverlay.plan.concerns import concerns
from myoverlay.plan.way import Side, first_wrong, way
from myoverlay.values import Address, HostId, Mac

Shown = dict[str, Any]


class Placed(NamedTuple):
    """An endpoint of an overlay, here or elsewhere. `host` None: an outsider's."""

    address: Address
    mac: Mac
    vtep: Address
    host: HostId | None
    names: tuple[str, ...]
    joined: bool = True


class Of(NamedTuple):
    """What is looked at: the daemon's own."""

    me: HostId
    name: str
    lookout: Lookout
    overlays: Overlays
    peers: PeerWatch
    fates: Fates
    onlooker: Onlooker
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Picture:
    """Takes the pictures. From one thread."""

    def __init__(self, of: Of) -> None:
        self._of = of

    def host(self) -> Shown:
        """This host, its overlays, those of others that it knows by name, and its view of each other host."""
        sight, wall = self._of.lookout.look(), self._of.wall()
        store = sight.store

        def at(age: float | None) -> int | None:
            return round(wall - age) if age is not None else None

        return {
            "id": sight.id,
            "name": plain(sight.name),
            "version": sight.version,
            "session": sight.session,
            "store": {
                "kind": store.kind, "where": store.where, "answers": store.answers, "since": at(store.since),
                "failure": store.failure,
            },
            "overlays": [_fields(one, "heard") for one in sight.overlays],
            "elsewhere": self._elsewhere({one.overlay for one in sight.overlays}),
            "peers": [
                _fields(one, "heard", "since", "state")
                | {"state": one.state.value, "since": at(one.since), "heard": at(one.heard)}
                for one in sight.peers
            ],
            "concerns": [one._asdict() for one in concerns(sight)],
        }  # fmt: skip

    def _elsewhere(self, mine: set[Any]) -> list[Shown]:
        found: dict[str, list[str]] = {}
        for host, listed in sorted(self._of.peers.known.listed.items()):
            for overlay in listed - mine:
                found.setdefault(overlay, []).append(self._called(host))
        return [{"overlay": overlay, "hosts": hosts} for overlay, hosts in sorted(found.items())]

    def endpoints(self) -> Shown:
        """Every endpoint of every overlay of this host, in the order of overlay and address."""
        rows = []
        for local in _sorted(self._of.overlays.all()):
            for one in self._placed(local).values():
                host = self._called(one.host) if one.host is not None else ""
                rows.append([local.network.overlay, one.address, one.mac, host, one.vtep, list(one.names), one.joined])
        return {"columns": ["overlay", "address", "mac", "host", "vtep", "names", "joined"], "rows": rows}

    def matrix(self) -> Shown:
        """What each host sees of each other one. A host that told nothing has None for cells."""
        of = self._of
        of.onlooker.view()
        seen, known = of.onlooker.seen, of.peers.known
        hosts = {of.me, *of.fates.all(), *(known.present or ())}
        shown = sorted((self._called(host), host) for host in hosts)
        return {
            "me": of.me,
            "hosts": [
                {
                    "id": host,
                    "name": name,
                    "version": self._version(host, seen.get(host)),
                    "mtu": seen[host].outlook.mtu if host in seen else None,
                    "told": self._told_at(host, seen),
                    "cells": _cells(seen[host].outlook.glances, hosts) if host in seen else None,
                }
                for name, host in shown
            ],
        }

    def _version(self, host: HostId, seen: Seen | None) -> str | None:
        if seen is not None and seen.outlook.version:
            return plain(seen.outlook.version)
        return plain(self._of.peers.known.versions.get(host, "")) or None

    def _told_at(self, host: HostId, seen: Mapping[HostId, Seen]) -> int | None:
        """When; None for this host itself, which is always asked, and for one that told nothing."""
        if host == self._of.me or host not in seen:
            return None
        return round(self._of.wall() - (self._of.now() - seen[host].at))

    def drawing(self, overlay: str, wanted: Iterable[str] = (), pair: tuple[str, str] | None = None) -> Shown:
        """One overlay: hosts with their endpoints, the tables of the `wanted` hosts, the way between a pair of
        addresses. Raises Unknown.
        """
        local = self._local(overlay)
        placed = self._placed(local)
        hosts = self._hosts(local, placed.values())
        ends = [placed[address] for address in pair or () if address in placed]
        about = self._about(local, [host for host in hosts if host in set(wanted)], ends)
        self._of.onlooker.view(about)
        told = {one.host: self._tables(one.host, local) for one in about}
        definition = local.network.definition
        return {
            "overlay": local.network.overlay,
            "vni": definition.vni,
            "port": definition.port,
            "mtu": definition.mtu,
            "subnet": definition.subnet,
            "hosts": [self._drawn(host, vtep, placed.values()) for host, vtep in hosts.items()],
            "outsiders": [_shown(one) for one in placed.values() if one.host is None],
            "tables": {host: self._shown_tables(host, tables) for host, tables in told.items()},
            "way": self._way(local, ends, told) if len(ends) == 2 and ends[0] != ends[1] else None,
        }

    def check_pair(self, overlay: str, one: str, other: str) -> None:
        """Raises Unknown where these are no two endpoints of an overlay of this host, by their addresses."""
        placed = self._placed(self._local(overlay))
        for address in (one, other):
            if address not in placed:
                raise Unknown(f"{plain(address) or 'nothing'} is no endpoint's address on {plain(overlay)}")

    def _local(self, overlay: str) -> LocalOverlay:
        local = next((one for one in self._of.overlays.all() if one.network.overlay == overlay), None)
        if local is None:
            raise Unknown(f"this host is on no overlay {plain(overlay)}")
        return local

    def _hosts(self, local: LocalOverlay, placed: Iterable[Placed]) -> dict[HostId, Address | None]:
        """All hosts of the overlay with their VTEPs, this one first."""
        found: dict[HostId, Address | None] = {self._of.me: local.network.vtep}
        where = self._of.peers.where()
        for host, overlays in self._of.peers.sharing().items():
            if local.network.overlay in overlays:
                found.setdefault(host, where.get(host))
        for one in placed:
            if one.host is not None and found.get(one.host) is None:
                found[one.host] = one.vtep
        order = sorted(found, key=lambda host: (host != self._of.me, self._called(host), host))
        return {host: found[host] for host in order}

    @staticmethod
    def _about(local: LocalOverlay, hosts: list[HostId], ends: list[Placed]) -> list[About]:
        """Whose tables are wanted, with the rows of the pair first."""
        overlay, keys = local.network.overlay, tuple(str(word) for one in ends for word in (one.address, one.mac))
        asked = dict.fromkeys((*(one.host for one in ends if one.host is not None), *hosts))
        return [About(host=host, overlay=overlay, keys=keys) for host in tuple(asked)[:3]]

    def _tables(self, host: HostId, local: LocalOverlay) -> Tables | None:
        seen = self._of.onlooker.seen.get(host)
        return seen.outlook.on(local.network.overlay) if seen is not None else None

    def _shown_tables(self, host: HostId, tables: Tables | None) -> Shown | None:
        if tables is None:
            return None
        rows = [[row.table, row.key, row.to, row.state] for row in tables.rows]
        told = self._told_at(host, self._of.onlooker.seen)
        return {
            "told": told,
            "rows": rows,
            "more": tables.more,
            "ports": tables.ports,
            "trouble": plain(tables.trouble),
        }

    def _drawn(self, host: HostId, vtep: Address | None, placed: Iterable[Placed]) -> Shown:
        fate = self._of.fates.fate(host)
        state = "here" if host == self._of.me else fate.state.value if fate is not None else None
        return {
            "id": host,
            "name": self._called(host),
            "vtep": vtep,
            "state": state,
            "endpoints": [_shown(one) for one in placed if one.host == host],
        }

    def _way(self, local: LocalOverlay, ends: list[Placed], told: Mapping[HostId, Tables | None]) -> Shown:
        source, target = (self._side(local, one, told) for one in ends)
        seen = self._of.onlooker.seen.get(ends[0].host) if ends[0].host is not None else None
        glances = seen.outlook.glances if seen is not None else ()
        there = next((one for one in glances if one.host == ends[1].host), None)
        at_home = ends[0].host is not None and ends[0].host == ends[1].host
        stations = way(source, target, there, seen.outlook.mtu if seen is not None else 0, at_home)
        shown = [one._asdict() | {"state": one.state.value} for one in stations]
        return {"stations": shown, "first_wrong": first_wrong(stations)}

    def _side(self, local: LocalOverlay, one: Placed, told: Mapping[HostId, Tables | None]) -> Side:
        host = self._called(one.host) if one.host is not None else ""
        tables = told.get(one.host) if one.host is not None else None
        return Side(host, one.address, one.mac, one.vtep, one.names[0] if one.names else "", tables, local.eager)

    def _placed(self, local: LocalOverlay) -> dict[str, Placed]:
        """All endpoints by address, in its order."""
        me, vtep = self._of.me, local.network.vtep
        found = {
            one.address: Placed(one.address, one.mac, vtep, me, one.names, one.joined) for one in local.endpoints()
        }
        for peer, names in _peers(local):
            found.setdefault(peer.address, Placed(peer.address, peer.mac, peer.vtep, peer.host, names))
        return {str(one): found[one] for one in sorted(found, key=lambda one: (one.version, one.number))}

    def _called(self, host: HostId) -> str:
        return plain(self._of.name if host == self._of.me else self._of.peers.known.names.get(host, "")) or host.short


def _peers(local: LocalOverlay) -> Iterator[tuple[Any, tuple[str, ...]]]:
    view = local.view
    named = {
        (host, record.address): record.names
        for host, held in (view.lists or {}).items()
        for record in held.value.records
        if record.names
    }
    for address, peer in view.peers.items():
        yield peer, named.get((peer.host, address), ()) if peer.host is not None else ()


def _cells(glances: Iterable[Glance], hosts: set[HostId]) -> dict[str, list[Any]]:
    """By host: state, latency in ms to two figures, loss, full size."""
    return {
        one.host: [
            one.state,
            float(f"{one.rtt * 1000:.2g}") if one.rtt is not None else None,
            round(one.loss, 3) if one.loss is not None else None,
            one.carries,
        ]
        for one in glances
        if one.host in hosts
    }


def _shown(one: Placed) -> Shown:
    return {"address": one.address, "mac": one.mac, "names": list(one.names), "vtep": one.vtep, "joined": one.joined}


def _fields(value: msgspec.Struct, *but: str) -> Shown:
    return {name: getattr(value, name) for name in value.__struct_fields__ if name not in but}


def _sorted(overlays: Iterable[LocalOverlay]) -> list[LocalOverlay]:
    return sorted(overlays, key=lambda local: local.network.overlay)
