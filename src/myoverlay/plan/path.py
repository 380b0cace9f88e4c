"""Two halves as one path: where the hosts disagree about each other, and which hop is the first that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from myoverlay.networks import plain
from myoverlay.path import SAID, End, Hop, PathAnswer, State
from myoverlay.plan.hops import make, unread
from myoverlay.plan.measure import Reach
from myoverlay.values import Address, HostId

#: What of a half the packets between hosts meet; where one of it is wrong, it is why nothing came back.
OUTSIDE = frozenset({"underlay route", "host firewall"})
#: The hop between the hosts.
UNDERLAY = "underlay"


class Step(NamedTuple):
    """A hop, and whose it is: a host's name, or both with a dash between them."""

    where: str
    hop: Hop


def underlay(reach: Reach | None, target: Address, mtu: int, port: int) -> Hop:
    """What comes back from the other host's kernel, asked through VXLAN on the heartbeat's port."""
    wanted = f"packets of {mtu} bytes come back from {target}"
    if reach is None:
        return unread(UNDERLAY, "nobody was asked what comes through")
    fix = f"see that UDP port {port} passes between the hosts: switch, router, cloud firewall, the other host's power"
    if reach is Reach.NARROW:
        fix = (
            "a link between the hosts carries less: raise its MTU, or make the overlay with a smaller -o mtu= (what a"
            " kernel learned of a small MTU it keeps for 10 minutes)"
        )
    if reach is Reach.UNASKED:
        return unread(UNDERLAY, str(reach.value), "the heartbeat's device is missing: see the plugin's log")
    return make(UNDERLAY, reach is not Reach.WHOLE, str(reach.value), wanted, fix)


def whole(near: PathAnswer, far: PathAnswer | None) -> list[Step]:
    """Both halves as one path; without `far` the two ends are on one host, or the other end is an outsider's.

    Where the two hosts do not agree about each other, that is a hop of its own. Nothing came back: if a hop of either
    half says why, that hop is the one to name.
    """
    steps = [Step(near.name, hop) for hop in near.hops]
    if far is None:
        return steps
    theirs = [Step(far.name, hop) for hop in far.hops]
    explained = any(step.hop.state is State.WRONG and step.hop.name in OUTSIDE for step in [*steps, *theirs])
    for place, step in enumerate(steps):
        if step.hop.name == UNDERLAY:
            hop = step.hop
            if hop.state is State.WRONG and explained:
                hop = unread(UNDERLAY, f"{hop.saw}: the hop that is wrong says why")
            steps[place] = Step(f"{near.name} – {far.name}", hop)
    place = next((i for i, step in enumerate(steps) if step.hop.name == "neighbour row"), len(steps))
    steps[place:place] = [Step(near.name, hop) for hop in disagreements(near, far)]
    back = next((i for i, step in enumerate(theirs) if step.hop.name == "FDB row"), len(theirs))
    theirs[back:back] = [Step(far.name, hop) for hop in disagreements(far, near)]
    return steps + theirs


def silent(host: HostId, name: str, saw: str) -> PathAnswer:
    """In place of the answer of a host that gave none."""
    remedy = "is its plugin running, and does it reach the store? `myoverlay host ls` says what is known of it"
    return PathAnswer(host=host, name=plain(name, SAID), hops=(unread("host", saw, remedy),))


def disagreements(one: PathAnswer, other: PathAnswer) -> list[Hop]:
    """What `one` holds true of the other's end, and of the overlay, and the other says otherwise."""
    if one.tunnel is None or other.tunnel is None:  # one of them could not look
        return []
    found = []
    truth = next((end for end in other.here if one.there is None or end.address == one.there.address), None)
    if truth is not None and one.there is None:
        found.append(_record("it does not know the other container", truth))
    elif truth is not None and one.there is not None and (one.there.mac, one.there.vtep) != (truth.mac, truth.vtep):
        found.append(_record(f"{one.there.address} is {one.there.mac} behind {one.there.vtep}", truth))
    if one.tunnel != other.tunnel:
        saw = f"VNI {one.tunnel.vni}, UDP port {one.tunnel.port}, MTU {one.tunnel.mtu}"
        wanted = f"as {other.name} has it: VNI {other.tunnel.vni}, UDP port {other.tunnel.port}, MTU {other.tunnel.mtu}"
        remedy = "the overlay was defined twice: remove the network on one of the hosts and create it again"
        found.append(make("definition", True, saw, wanted, remedy))
    return found


def _record(saw: str, truth: End) -> Hop:
    remedy = "it comes with the store: see in `myoverlay host ls` whether the hosts are alive, and the plugin's log"
    return make("record", True, saw, f"{truth.address} is {truth.mac} behind {truth.vtep}", remedy)


def first_wrong(steps: Sequence[Step]) -> int | None:
    """The place of the first hop that is wrong; None where none is."""
    return next((place for place, step in enumerate(steps) if step.hop.state is State.WRONG), None)
