"""A container's route and neighbour where its namespace cannot be entered: told by how it answers an echo.

A managed plugin sees no process of the host and none of Docker's namespaces. It has the host's end of the container's
cable, where it can send an echo as if the other end had, and see by which way the answer goes.
"""

from __future__ import annotations

from typing import NamedTuple

from myoverlay.path import End, Heard, Hop, Link
from myoverlay.plan.hops import make, unread

ROUTE, NEIGHBOUR = "container route", "container neighbour"


class Told(NamedTuple):
    """What is judged. `far`: the container's end of the cable; `enter`: the word that runs a command in there."""

    own: End
    other: End
    heard: Heard | None
    far: Link | None
    enter: str
    subnet: str


def hops(told: Told) -> list[Hop]:
    """The route and the neighbour, in this order."""
    far, heard = told.far, told.heard
    if far is None or not far.up or far.mac != told.own.mac:
        note = "no echo comes in: see the container link"
        return [unread(ROUTE, note), unread(NEIGHBOUR, note)]
    if heard is None:
        note = "the container's namespace cannot be entered from here, and no echo could be sent to it"
        return [unread(ROUTE, note, _see(told, "route get")), unread(NEIGHBOUR, note, _see(told, "neigh show"))]
    if heard.to:
        return _answered(told, heard.to, heard.holder, far)
    if heard.asked:
        return [
            make(ROUTE, False, f"it asks for {told.other.address} by {far.name}", "", ""),
            make(NEIGHBOUR, False, "none yet: it asks", "", ""),
        ]
    return _silent(told, heard, far)


def _answered(told: Told, to: str, holder: str, far: Link) -> list[Hop]:
    """It answered by this interface. To whom, that is what it believes of the other end, or of a gateway to it."""
    other = told.other
    directly = make(ROUTE, False, f"{other.address} by {far.name}: its answer came out there", "", "")
    if to == other.mac:
        return [directly, make(NEIGHBOUR, False, f"{other.address} lladdr {to}: its answer went there", "", "")]
    if holder:
        saw = f"{other.address} by {far.name}, its answer to the MAC of {holder}: via that, or a wrong neighbour"
        return [_wrong_route(told, saw, far, f"{other.address}/32"), unread(NEIGHBOUR, "see the container route")]
    if to == far.mac:
        saw, remedy = (
            "its answer went to its own MAC: ARP is off on the interface",
            f"ip link set dev {far.name} arp on",
        )
    else:
        saw = f"{other.address} lladdr {to}: its answer went there"
        remedy = f"ip neigh del {other.address} dev {far.name}"
    wanted = f"{other.address} lladdr {other.mac}, or none yet"
    return [directly, make(NEIGHBOUR, True, saw, wanted, f"{told.enter} {remedy}")]


def _silent(told: Told, heard: Heard, far: Link) -> list[Hop]:
    sought = f"; it asked for the MAC of {', '.join(heard.sought)} meanwhile" if heard.sought else ""
    if heard.others:
        saw = f"an echo from {told.other.address} is not answered by {far.name}, one from elsewhere is{sought}"
        to = told.subnet if told.subnet and not heard.beside else f"{told.other.address}/32"
        return [_wrong_route(told, saw, far, to), unread(NEIGHBOUR, "see the container route")]
    note = (
        "the container's namespace cannot be entered from here, and the container answers no echo: ICMP is off or"
        f" filtered in it, or its route is wrong{sought}"
    )
    return [unread(ROUTE, note, _see(told, "route get")), unread(NEIGHBOUR, note, _see(told, "neigh show"))]


def _wrong_route(told: Told, saw: str, far: Link, to: str) -> Hop:
    remedy = f"{told.enter} ip route replace {to} dev {far.name} src {told.own.address}; or restart the container"
    return make(ROUTE, True, saw, f"{told.other.address} directly by {far.name}", remedy)


def _see(told: Told, what: str) -> str:
    return f"see `{told.enter} ip {what} {told.other.address}`"
