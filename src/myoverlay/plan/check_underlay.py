"""Checks of what lies below and beside the overlays: VTEPs, the way to the other hosts, VNIs and ports, subnets,
firewalls.
"""

from __future__ import annotations

import re

import msgspec

from myoverlay.plan.findings import Finding, bad, count, few, ok, unknown, warn
from myoverlay.plan.measure import Reach
from myoverlay.values import Address, Subnet


class VtepSeen(msgspec.Struct, frozen=True):
    """The VTEP of one overlay here, and whether this host has that address."""

    overlay: str
    vtep: str
    here: bool


class Vteps(msgspec.Struct, frozen=True):
    """`chosen`: the address that the setting means, with its interface; `error`: why it means none."""

    chosen: str = ""
    device: str = ""
    error: str = ""
    seen: tuple[VtepSeen, ...] = ()


def judge_vtep(read: Vteps) -> Finding:
    lost = [one for one in read.seen if not one.here]
    if read.error:
        return bad(
            read.error,
            "this host has no underlay address: no packet of an overlay leaves it",
            "give the interface its address again, or set MYOVERLAY_VTEP to an address or interface of this host",
        )
    if lost:
        return bad(
            f"this host has not the address {lost[0].vtep} any more, the VTEP of {few([one.overlay for one in lost])}",
            "the others send to it, and nobody is there",
            f"give it back: `ip addr add {lost[0].vtep}/24 dev {read.device}`, or wait: a network without `-o vtep=`"
            " takes the new address within 6 s",
        )
    return ok(f"{read.chosen} on {read.device}")


class PeerSeen(msgspec.Struct, frozen=True):
    """One host that was asked through VXLAN. `pings`: does its VTEP answer outside of VXLAN? None: it was not asked.

    `carried`: bytes of the largest packet inside that came back, where full-size ones did not.
    """

    name: str
    vtep: str
    reach: Reach
    pings: bool | None = None
    carried: int = 0


class Peers(msgspec.Struct, frozen=True):
    """`port`: the UDP port, `size`: bytes inside that were tried, `overhead`: what VXLAN adds. `more`: hosts that were
    not asked, as they are many; `error`: why nobody could be.
    """

    port: int
    size: int
    seen: tuple[PeerSeen, ...] = ()
    device: str = ""
    overhead: int = 50
    more: int = 0
    error: str = ""


def judge_port(read: Peers) -> Finding:
    if read.error:
        return unknown(read.error)
    silent = [one for one in read.seen if one.reach in (Reach.SILENT, Reach.UNASKED)]
    if not silent:
        answer = "answers" if len(read.seen) == 1 else "answer"
        rest = f"; {read.more} more were not asked" if read.more else ""
        return ok(f"{count(len(read.seen), 'host')} {answer} through VXLAN{rest}")
    one = silent[0]
    saw = f"nothing comes back through VXLAN from {few([f'{x.name} ({x.vtep})' for x in silent])}"
    if one.reach is Reach.UNASKED:
        return bad(
            f"{saw}: it could not even be sent",
            "there is no route to it, or the interface has no carrier",
            f"look at `ip route get {one.vtep}`; set it up: `ip link set {read.device} up`",
        )
    if one.pings:
        return bad(
            f"{saw}, though the host answers pings",
            f"something on the way, on this host or on that one drops UDP port {read.port}: containers of the two hosts"
            " do not reach each other",
            f"let UDP port {read.port} pass on both hosts and in between: `nft insert rule ip filter INPUT udp dport"
            f" {read.port} accept`, with iptables `iptables -I INPUT -p udp --dport {read.port} -j ACCEPT`; or create"
            " overlays with another `-o port=` and set MYOVERLAY_PORT",
        )
    return bad(
        f"{saw}, and the host answers no ping",
        "the host is off or out of reach, though its session in the store lives, or pings are dropped too",
        f"look at that host and at the way: `ip route get {one.vtep}`, `ping {one.vtep}`",
    )


def judge_size(read: Peers) -> Finding:
    if read.error:
        return unknown(read.error)
    narrow = [one for one in read.seen if one.reach is Reach.NARROW]
    heard = [one for one in read.seen if one.reach is Reach.WHOLE]
    if not narrow:
        return ok(f"packets of {read.size} bytes come back from {count(len(heard), 'host')}")
    least = min((one.carried for one in narrow if one.carried), default=0)
    outer = read.size + read.overhead
    smaller = f" or create overlays with `-o mtu={least}`" if least else ""
    return bad(
        f"packets of {read.size} bytes do not come back from {few([f'{x.name} ({x.vtep})' for x in narrow])},"
        " small ones do" + (f", up to {least}" if least else ""),
        "connections open and then hang at the first big packet",
        f"let {outer} bytes pass on all devices on the way between the hosts: `ip link set dev DEVICE mtu {outer}`"
        + smaller,
    )


class OffloadSeen(msgspec.Struct, frozen=True):
    """Did datagrams to one host arrive whole, with checksums left to the device (`on`) and made before it (`off`)?"""

    name: str
    on: bool
    off: bool


class Offload(msgspec.Struct, frozen=True):
    device: str
    seen: tuple[OffloadSeen, ...] = ()
    error: str = ""


def judge_offload(read: Offload) -> Finding:
    if read.error:
        return unknown(read.error)
    broken = [one.name for one in read.seen if one.off and not one.on]
    if broken:
        return bad(
            f"datagrams to {few(broken)} arrive only where checksums are not left to {read.device}",
            f"{read.device} or what is behind it spoils checksums inside VXLAN: pings work, TCP hangs",
            f"`ethtool -K {read.device} tx-checksum-ip-generic off`, at each boot; it costs throughput",
        )
    spoilt = [one.name for one in read.seen if one.on and not one.off]
    if spoilt:
        return bad(
            f"datagrams to {few(spoilt)} arrive only where checksums are left to {read.device}",
            "something on the way changes what is inside VXLAN: what the device does not put right is dropped there",
            f"keep them there: `ethtool -K {read.device} tx-checksum-ip-generic on`; look for what changes packets on"
            " both hosts: `nft list ruleset`",
        )
    sure = [one for one in read.seen if one.on and one.off]
    if read.seen and not sure:
        return unknown("no host answered, so that nothing can be said", "look at the checks of the way first")
    return ok(f"datagrams arrive whole at {count(len(sure), 'host')}, with checksums made by either side")


class VniSeen(msgspec.Struct, frozen=True):
    """A VXLAN device that must be there. `holder`: who has its VNI and port in its place; `is_port`: the port alone.

    `stored`: the overlay that the store says has this VNI, where that is another.
    """

    overlay: str
    vni: int
    port: int
    there: bool
    holder: str = ""
    is_port: bool = False
    stored: str = ""


class Vnis(msgspec.Struct, frozen=True):
    seen: tuple[VniSeen, ...] = ()
    error: str = ""


_HOLDER = re.compile(r"device (\S+) in (?:the host's namespace|namespace (\S+))")


def judge_vnis(read: Vnis) -> Finding:
    if read.error:
        return unknown(read.error)
    for one in read.seen:
        what = f"VNI {one.vni} on UDP port {one.port}"
        if not one.there and one.holder:
            return bad(
                f"{f'UDP port {one.port}' if one.is_port else what} of {one.overlay} is taken by {one.holder}",
                f"the VXLAN device of {one.overlay} cannot be made: nothing of it comes or goes",
                release(one),
            )
    for vni in {(one.vni, one.port) for one in read.seen}:
        both = [one.overlay for one in read.seen if (one.vni, one.port) == vni]
        if len(both) > 1:
            return bad(
                f"VNI {vni[0]} on UDP port {vni[1]} is that of {few(both)}",
                "two overlays would be one wire",
                "remove one of them and create it with another `-o vni=`",
            )
    stored = [one for one in read.seen if one.stored]
    if stored:
        return bad(
            f"the store gives VNI {stored[0].vni} of overlay {stored[0].overlay} to overlay {stored[0].stored}",
            "other hosts would join the two into one wire",
            "remove the networks of one of them on all hosts, and create it with another `-o vni=`",
        )
    missing = [one.overlay for one in read.seen if not one.there]
    if missing:
        return bad(
            f"the VXLAN device of {few(missing)} is not there",
            "nothing of it comes or goes",
            "have it made anew: `myoverlay doctor --fix`",
        )
    return ok(f"{count(len(read.seen), 'VXLAN device')}, each with its VNI and port")


def release(one: VniSeen) -> str:
    """What frees the VNI, or the port, of one that is not there."""
    device = _HOLDER.fullmatch(one.holder)
    if device is None:
        return f"stop what has it: `ss -lunp 'sport = :{one.port}'` names the program"
    enter = f"nsenter --net={device[2]} " if device[2] else ""
    return (
        f"remove it, if nobody needs it: `{enter}ip link del {device[1]}`; or create the overlay with another `-o vni=`"
    )


class Lead(msgspec.Struct, frozen=True):
    """A route of the host's main table: where to, and by which device."""

    to: Subnet
    device: str


class Subnets(msgspec.Struct, frozen=True):
    """`overlays`: those of this host. `needed`: addresses that containers may have to reach outside, with what they
    are. `docker`: Docker's other networks by name, None where Docker was not asked.
    """

    overlays: tuple[tuple[str, Subnet], ...] = ()
    leads: tuple[Lead, ...] = ()
    needed: tuple[tuple[str, Address], ...] = ()
    docker: tuple[tuple[str, Subnet], ...] | None = None


def judge_subnets(read: Subnets) -> Finding:
    for overlay, subnet in read.overlays:
        for name, other in read.docker or ():
            if other.overlaps(subnet):
                return bad(
                    f"subnet {subnet} of overlay {overlay} overlaps {other} of Docker's network {name}",
                    "a container on both cannot start, and one on the overlay cannot reach the other's",
                    f"remove one of them and create it with another subnet: `docker network rm {name}`",
                )
        for what, address in read.needed:
            if address in subnet:
                return bad(
                    f"subnet {subnet} of overlay {overlay} holds {address}, {what}",
                    "containers of the overlay look for it inside the overlay and do not find it",
                    "create the overlay with another `--subnet`",
                )
        for lead in read.leads:
            if lead.to.overlaps(subnet):
                return warn(
                    f"subnet {subnet} of overlay {overlay} overlaps the route to {lead.to} by {lead.device}",
                    "containers of the overlay do not reach what is there; the host itself does",
                    f"if nobody needs the route: `ip route del {lead.to} dev {lead.device}`; else create the overlay"
                    " with another `--subnet`",
                )
    return ok(f"{count(len(read.overlays), 'subnet')}, which overlap nothing")


class Blocking(msgspec.Struct, frozen=True):
    """A rule that drops packets of the port. `place`: empty for the host's namespace, else a pin's path."""

    family: str
    table: str
    chain: str
    handle: int
    port: int
    place: str = ""


class Firewall(msgspec.Struct, frozen=True):
    """`closed`: chains at the forward hook that drop everything: policy drop and no rule, as `family table chain`.

    `legacy`: tables of the iptables before nft, which are not read.
    """

    rules: tuple[Blocking, ...] = ()
    closed: tuple[tuple[str, str, str], ...] = ()
    inside: tuple[tuple[str, str], ...] = ()
    error: str = ""
    legacy: tuple[str, ...] = ()


def judge_firewall(read: Firewall) -> Finding:
    if read.error:
        return unknown(read.error)
    if read.rules:
        one = read.rules[0]
        return bad(
            f"the host's firewall drops UDP port {one.port} by {count(len(read.rules), 'rule')}:"
            f" {few([f'{x.family} {x.table} {x.chain}' for x in read.rules])}",
            "packets of overlays do not get in or out",
            " ".join(f"`nft delete rule {x.family} {x.table} {x.chain} handle {x.handle}`" for x in read.rules[:8]),
        )
    if read.inside:
        path, chain = read.inside[0]
        return bad(
            f"chain {chain} in the overlay's namespace {path} drops what no rule accepts",
            "containers of one host may not reach each other, or not those of other hosts",
            f"no chain of ours does so, and ours are laid again: `nsenter --net={path} nft flush ruleset`",
        )
    if read.closed:
        family, table, chain = read.closed[0]
        return bad(
            f"chain {family} {table} {chain} drops all that is forwarded, and has no rule",
            "containers have no way out and published ports lead nowhere: Docker's rules were flushed",
            f"`nft chain {family} {table} {chain} '{{ policy accept; }}'`, or restart Docker, which writes its rules",
        )
    unjudged = f"; iptables-legacy has tables ({few(sorted(set(read.legacy)))}), which are not judged"
    return ok("no rule drops our port, and what is forwarded gets through" + unjudged * bool(read.legacy))
