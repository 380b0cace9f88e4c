"""What the answers of all hosts mean for a network that is about to be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from myoverlay.errors import Refused
from myoverlay.networks import Answer, Question
from myoverlay.plan import pools
from myoverlay.values import HostId, Subnet

#: So many hosts does each reach for beside the asker: all pairs where hosts are few, a ring where they are many.
NEIGHBOURS = 4


def to_reach(me: HostId, asker: HostId, hosts: Iterable[HostId]) -> tuple[HostId, ...]:
    """Whom this host tries to reach for a question: the asker, and those that come after it in the order of ids."""
    ring = sorted({*hosts, me})
    place = ring.index(me) + 1
    after = [host for host in (*ring[place:], *ring[: place - 1]) if host != asker][:NEIGHBOURS]
    return tuple(after if me == asker else (asker, *after))


class Verdict(NamedTuple):
    """What speaks against it: `refusals` unless a person says so all the same, `warnings` in any case."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def choose_subnet(base: Subnet, taken: Iterable[Subnet], answers: Mapping[HostId, Answer]) -> Subnet:
    """The first /24 of the base that is free on every host that answered. Raises Refused where none is."""
    routes = [route for answer in answers.values() for route in answer.routes]
    try:
        return pools.choose_pool(base, [*taken, *routes])
    except Refused:
        raise Refused(
            f"no /{pools.AUTOMATIC_PREFIXLEN} of {base} is free on all hosts: give one with --subnet"
        ) from None


def choose_vni(vnis: Sequence[int], answers: Mapping[HostId, Answer]) -> int:
    """The first that is free on every host that answered, else the first of all."""
    return next((vni for vni in vnis if all(vni not in answer.taken for answer in answers.values())), vnis[0])


def least_mtu(question: Question, answers: Mapping[HostId, Answer]) -> int:
    """What fits through the underlay of every host that answered."""
    return min((answer.carries for answer in answers.values() if answer.carries), default=question.mtu)


def judge(
    question: Question,
    subnet: Subnet,
    vni: int,
    mtu: int,
    answers: Mapping[HostId, Answer],
    names: Mapping[HostId, str],
) -> Verdict:
    """What the answers say to this subnet, VNI and MTU. `names`: all hosts that were asked; each is named by its own.

    A route, a VNI or port that is taken and an underlay that is too small are refusals: on that host the network
    would not work. A host that is silent, or that others do not reach, is a warning: it may be switched off.
    """
    refusals: list[str] = []
    warnings: list[str] = []
    for host, answer in sorted(answers.items(), key=lambda pair: names.get(pair[0], pair[0])):
        name = names.get(host, host.short)
        refusals += [
            f"subnet {subnet} overlaps the route {route} of host {name}"
            for route in answer.routes
            if route.overlaps(subnet)
        ][:1]
        if vni in answer.taken:
            refusals.append(f"VNI {vni} is taken on host {name} by {answer.taken[vni]}")
        if 0 in answer.taken:
            refusals.append(f"UDP port {question.port} is taken on host {name} by {answer.taken[0]}")
        warnings += [f"host {name}: {one}" for one in answer.unsure]
    refusals += _too_small(mtu, answers, names)
    warnings += _unreached(question, mtu, answers, names)
    missing = sorted(names[host] for host in names.keys() - answers.keys())
    if missing:
        warnings.append(f"{_hosts(missing)} did not answer in time: what is free there is not known")
    return Verdict(tuple(refusals), tuple(warnings))


def _too_small(mtu: int, answers: Mapping[HostId, Answer], names: Mapping[HostId, str]) -> list[str]:
    """One sentence for all hosts whose underlay carries the same, and less than that."""
    small: dict[int, list[str]] = {}
    for host, answer in answers.items():
        if answer.carries is not None and answer.carries < mtu:
            small.setdefault(answer.carries, []).append(names.get(host, host.short))
    return [
        f"MTU {mtu} does not fit through the underlay of {_hosts(sorted(hosts))}, which carries {carried}"
        for carried, hosts in sorted(small.items())
    ]


def _unreached(
    question: Question, mtu: int, answers: Mapping[HostId, Answer], names: Mapping[HostId, str]
) -> list[str]:
    """One sentence for each host that others do not reach through VXLAN, or that does not reach them."""
    silent = {frozenset((host, other)) for host, answer in answers.items() for other in answer.silent}
    narrow = {frozenset((host, other)) for host, answer in answers.items() for other in answer.narrow}
    size = min(mtu, question.mtu)
    told = [
        f"nothing comes through VXLAN (UDP port of the heartbeat) between host {one} and {_hosts(others)}"
        for one, others in _grouped(silent, names)
    ]
    told += [
        f"packets of MTU {size} do not come through between host {one} and {_hosts(others)}, smaller ones do"
        for one, others in _grouped(narrow - silent, names)
    ]
    return told


def _grouped(pairs: Iterable[frozenset[HostId]], names: Mapping[HostId, str]) -> list[tuple[str, list[str]]]:
    """Pairs of hosts by the host that is in most of them: that is where to look first."""
    left = {pair for pair in pairs if len(pair) == 2}
    found = []
    while left:
        count = Counter(host for pair in left for host in pair)
        worst = min(count, key=lambda host: (-count[host], names.get(host, host.short)))
        mine = {pair for pair in left if worst in pair}
        others = [names.get(host, host.short) for pair in mine for host in pair if host != worst]
        found.append((names.get(worst, worst.short), sorted(others)))
        left -= mine
    return found


def _hosts(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"host{'s' if len(names) > 1 else ''} {shown}"
