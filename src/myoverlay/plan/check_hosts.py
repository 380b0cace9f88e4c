"""Checks that the other hosts answer, asked through the store: their clocks, and what they cannot carry."""

from __future__ import annotations

import msgspec

from myoverlay.plan.check_store import Clock, Clocks, judge_clocks
from myoverlay.plan.check_underlay import VniSeen, release
from myoverlay.plan.findings import Finding, bad, count, few, ok, unknown, warn


class Clash(msgspec.Struct, frozen=True):
    """A host that cannot carry an overlay of this one: `holder` has its VNI and port there, or the port alone.

    `member`: it is on the overlay, so that its containers are cut off; else it could not be.
    """

    host: str
    overlay: str
    vni: int
    port: int
    holder: str
    is_port: bool = False
    member: bool = False


class Others(msgspec.Struct, frozen=True):
    """`looked`: of how many of the `asked` overlays each host said whether it can carry them; `silent`: hosts that did
    not answer; `more`: overlays that were not asked about, as they are many; `error`: why nobody could be asked.
    """

    clocks: tuple[Clock, ...] = ()
    clashes: tuple[Clash, ...] = ()
    looked: tuple[tuple[str, int], ...] = ()
    silent: tuple[str, ...] = ()
    asked: int = 0
    more: int = 0
    error: str = ""


def judge_peer_clocks(read: Others) -> Finding:
    told = {one.who for one in read.clocks}
    silent = (*read.silent, *(name for name, _ in read.looked if name not in told))
    return judge_clocks(Clocks(read.clocks, silent, read.error))


def judge_carrying(read: Others) -> Finding:
    if read.error:
        return unknown(read.error)
    clashes = sorted(read.clashes, key=lambda one: (not one.member, one.overlay, one.host))
    if clashes:
        one = clashes[0]
        what = f"UDP port {one.port}" if one.is_port else f"VNI {one.vni} on UDP port {one.port}"
        rest = few([f"{other.overlay} on {other.host}" for other in clashes[1:]])
        found = bad if one.member else warn
        return found(
            f"on host {one.host} {what} of {one.overlay} is taken by {one.holder}" + (f"; also {rest}" if rest else ""),
            f"containers of {one.overlay} there are cut off from all other hosts"
            if one.member
            else f"{one.host} is not on {one.overlay}, and could not be: its network would have no VXLAN device",
            f"on {one.host}: {release(VniSeen(one.overlay, one.vni, one.port, False, one.holder, one.is_port))}",
        )
    short = sorted({*read.silent, *(name for name, looked in read.looked if looked < read.asked)})
    whole = len(read.looked) - sum(looked < read.asked for _, looked in read.looked)
    rest = f"; {read.more} more were not asked about" if read.more else ""
    said = f" ({few(short)} did not say)" if short else ""
    return ok(f"{count(whole, 'host')} can carry {count(read.asked, 'overlay')} of this one{rest}{said}")
