"""The way from one container to another as it is drawn: its stations in order, and what is known of each. Pure.

Told is what the hosts of both ends read in their own tables; what was not told is said to be that.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from myoverlay.outlook import Glance, Tables
from myoverlay.plan.shape import BRIDGE, VXLAN
from myoverlay.values import Address, Mac


class State(enum.Enum):
    """`unseen`: it was not told, or nothing follows from what was."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSEEN = "unseen"


class Station(NamedTuple):
    """One station: on which host, what it is and what it is called, and what is known of it, in words."""

    where: str
    kind: str
    name: str
    state: State
    saw: str


class Side(NamedTuple):
    """One end. `host`: its name, "" for an outsider's; `tables`: what that host told of the overlay, if anything.

    `eager`: are all rows written ahead there? Else one that is missing is written once it is used.
    """

    host: str
    address: Address
    mac: Mac
    vtep: Address
    called: str
    tables: Tables | None
    eager: bool = True


def way(source: Side, target: Side, there: Glance | None, mtu: int, at_home: bool) -> tuple[Station, ...]:
    """All stations from source to target. `there`: the target's host as the source's sees it; `mtu`: the underlay's
    size that was asked with; `at_home`: both are on the same host.
    """
    if at_home:
        return (_container(source), _cable(source), _bridge(source), _cable(target), _container(target))
    return (
        _container(source),
        _cable(source),
        _bridge(source),
        *_tunnel(source, target),
        _underlay(source, target, there, mtu),
        *reversed(tuple(_tunnel(target, source))),
        _bridge(target),
        _cable(target),
        _container(target),
    )


def first_wrong(stations: tuple[Station, ...]) -> int | None:
    """The place of the first station that is wrong."""
    return next((place for place, one in enumerate(stations) if one.state is State.WRONG), None)


def _where(side: Side) -> str:
    return side.host or f"an outsider at {side.vtep}"


def _container(side: Side) -> Station:
    return Station(
        _where(side), "container", side.called or str(side.address), State.RIGHT, f"{side.address} {side.mac}"
    )


def _cable(side: Side) -> Station:
    port = side.tables.ports.get(side.address, "") if side.tables is not None else ""
    if port:
        return Station(_where(side), "veth", port, State.RIGHT, f"{port}, a port of {BRIDGE}")
    if side.tables is not None and not side.tables.trouble:
        return Station(_where(side), "veth", "veth", State.WRONG, f"the host has no container with {side.address}")
    return Station(_where(side), "veth", "veth", State.UNSEEN, "not told")


def _bridge(side: Side) -> Station:
    told = side.tables is not None and not side.tables.trouble
    trouble = side.tables.trouble if side.tables is not None else ""
    saw = "in the overlay namespace" if told else trouble or "not told"
    return Station(_where(side), "bridge", BRIDGE, State.RIGHT if told else State.UNSEEN, saw)


def _tunnel(own: Side, other: Side) -> Iterator[Station]:
    """The VXLAN device with its rows for the other end, and this host's VTEP."""
    where = _where(own)
    if own.tables is None or own.tables.trouble:
        saw = own.tables.trouble if own.tables is not None else "not told"
        yield Station(where, "neighbour", VXLAN, State.UNSEEN, saw)
        yield Station(where, "fdb", VXLAN, State.UNSEEN, saw)
    else:
        yield _row(own, "neighbour", "arp", str(other.address), str(other.mac))
        yield _row(own, "fdb", "fdb", str(other.mac), str(other.vtep))
    yield Station(where, "vtep", str(own.vtep), State.RIGHT, "the host's underlay address")


def _row(own: Side, kind: str, table: str, key: str, wanted: str) -> Station:
    row = own.tables.row(table, key) if own.tables is not None else None
    if row is None and own.tables is not None and key not in own.tables.keys:
        return Station(_where(own), kind, VXLAN, State.UNSEEN, f"the row for {key} was not told yet")
    if row is None and not own.eager:
        return Station(_where(own), kind, VXLAN, State.UNSEEN, f"no row for {key}: it is written when it is used")
    if row is None:
        return Station(_where(own), kind, VXLAN, State.WRONG, f"no row for {key}: it should lead to {wanted}")
    if row.to != wanted:
        saw = f"{key} leads to {row.to or 'nothing'}: it should lead to {wanted}"
        return Station(_where(own), kind, VXLAN, State.WRONG, saw)
    return Station(_where(own), kind, VXLAN, State.RIGHT, f"{key} leads to {row.to} ({row.state})")


def _underlay(source: Side, target: Side, there: Glance | None, mtu: int) -> Station:
    where = f"{_where(source)} → {_where(target)}"
    if there is None:
        return Station(where, "underlay", "underlay", State.UNSEEN, "not told")
    if there.state == "dead":
        return Station(where, "underlay", "underlay", State.WRONG, f"{_where(target)} is dead: its kernel is silent")
    if there.carries is False:
        saw = f"packets of {mtu} bytes do not come back, small ones do"
        return Station(where, "underlay", "underlay", State.WRONG, saw)
    if there.rtt is None:
        return Station(where, "underlay", "underlay", State.UNSEEN, "its kernel was not heard yet")
    size = f", packets of {mtu} bytes come back" if there.carries else ""
    loss = f", {there.loss:.0%} of the last questions lost" if there.loss else ""
    return Station(where, "underlay", "underlay", State.RIGHT, f"{there.rtt * 1000:.2g} ms there and back{size}{loss}")
