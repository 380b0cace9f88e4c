"""What a person asks for with `myoverlay network create`, made whole: checked, and fitted to what is there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from myoverlay.egress import DOCKER
from myoverlay.errors import Clash, Refused
from myoverlay.networks import NetworkPlan, fresh_id
from myoverlay.plan import definition as plan
from myoverlay.plan import egress, pools
from myoverlay.plan.definition import Options
from myoverlay.plan.following import LABEL, LABEL_PLAN
from myoverlay.values import Address, Definition, OverlayName, Pool, Subnet

#: VNIs that hosts are asked about where none is given.
CANDIDATES = 3
#: A subnet to check a wish by that leaves it open.
_ANY = Subnet("10.0.0.0/8")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The words of `myoverlay network create`, each in its form."""

    name: OverlayName
    subnet: Subnet | None = None
    ip_range: Subnet | None = None
    gateway: Address | None = None
    aux: Mapping[str, Address] = {}
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    internal: bool = False


class Known(msgspec.Struct, frozen=True):
    """What the store holds: plans, pools, who has which VNI (None: it cannot be read), the overlay's definition."""

    plans: tuple[NetworkPlan, ...]
    pools: tuple[Pool, ...]
    vnis: Mapping[int, tuple[OverlayName, Subnet] | None]
    definition: Definition | None


def overlay_of(wish: Wish) -> OverlayName:
    """The overlay that the network is to stand for."""
    try:
        return OverlayName(wish.options.get("overlay", wish.name))
    except ValueError as error:
        raise Refused(f"option overlay: {error}") from None


def check(wish: Wish) -> Options:
    """The options, checked. Raises Refused where the wish makes no sense, wherever it is to be."""
    options = plan.read_options(wish.options)
    egress.wants(options.egress, DOCKER, wish.internal, wish.gateway or _ANY.at(_ANY.first))
    if options.vtep is not None:
        try:
            Address(options.vtep)
        except ValueError:
            pass  # an interface's name is the same on all hosts
        else:
            raise Refused(f"option vtep: {options.vtep} is one host's address: give an interface that all hosts have")
    for label in (LABEL, LABEL_PLAN):
        if label in wish.labels:
            raise Refused(f"label {label} is ours: choose another name")
    for what, given in (("--gateway", wish.gateway), ("--ip-range", wish.ip_range), ("--aux-address", wish.aux)):
        if given and wish.subnet is None:
            raise Refused(f"{what} needs --subnet")
    _plan(wish, subnet=wish.subnet or _ANY, options=dict(wish.options))
    return options


def agree(wish: Wish, options: Options, known: Known) -> None:
    """Raises Refused or Clash where the wish contradicts what the store holds."""
    overlay = overlay_of(wish)
    for other in known.plans:
        if other.overlay == overlay and other.name != wish.name:
            raise Clash(f"overlay {overlay} is that of network {other.name} already: choose another -o overlay=")
    defined = known.definition
    if defined is not None:
        plan.agree(defined, options, wish.subnet or defined.subnet, wish.gateway)
        return
    if options.vni is not None and options.vni in known.vnis:
        holder = known.vnis[options.vni]
        raise plan.vni_taken(options.vni, f"overlay {holder[0]}" if holder else "a key that cannot be read")
    for other in known.plans:
        if options.vni is not None and other.options.get("vni") == str(options.vni) and _is_other(other, overlay):
            raise plan.vni_taken(options.vni, f"network {other.name}")
    if wish.subnet is None:
        return
    pools.check_pool(wish.subnet, overlay, known.pools)
    for name, subnet in _others(overlay, known):
        if subnet.overlaps(wish.subnet):
            raise Clash(f"subnet {wish.subnet} overlaps {subnet} of {name}: choose another --subnet")


def _others(overlay: OverlayName, known: Known) -> list[tuple[str, Subnet]]:
    found = [(f"overlay {one[0]}", one[1]) for one in known.vnis.values() if one is not None and one[0] != overlay]
    found += [(f"network {one.name}", one.subnet) for one in known.plans if _is_other(one, overlay)]
    return found


def _is_other(plan: NetworkPlan, overlay: OverlayName) -> bool:
    """Has a network for itself what it was given? One that is being removed does not."""
    return plan.overlay != overlay and not plan.going


def check_newcomers(new: NetworkPlan, others: Iterable[NetworkPlan]) -> None:
    """Raises Clash where one that was defined while hosts were asked was given what the new one was to have."""
    for other in others:
        if other.going or other.name == new.name:
            continue
        if other.overlay == new.overlay:
            what = f"overlay {new.overlay}"
        elif other.subnet.overlaps(new.subnet):
            what = f"subnet {other.subnet}"
        elif other.options.get("vni") == new.options.get("vni"):
            what = f"VNI {new.options['vni']}"
        else:
            continue
        raise Clash(f"network {other.name}, defined on host {other.maker} just now, was given {what}: try again")


def taken(known: Known) -> list[Subnet]:
    """All subnets that some overlay, pool or network has."""
    found = [pool.subnet for pool in known.pools]
    found += [one.subnet for one in known.plans]
    return found + [one[1] for one in known.vnis.values() if one is not None]


def subnet_of(wish: Wish, known: Known) -> Subnet | None:
    return wish.subnet or (known.definition.subnet if known.definition is not None else None)


def mtu_of(options: Options, known: Known) -> int | None:
    return known.definition.mtu if known.definition is not None else options.mtu


def port_of(options: Options, known: Known) -> int | None:
    return known.definition.port if known.definition is not None else options.port


def vnis_of(wish: Wish, options: Options, known: Known) -> tuple[int, ...]:
    """The VNI that is given or defined, else a few that no overlay or network has."""
    if known.definition is not None:
        return (known.definition.vni,)
    if options.vni is not None:
        return (options.vni,)
    planned = {one.options.get("vni") for one in known.plans}
    free = (vni for vni in plan.vnis(overlay_of(wish)) if vni not in known.vnis and str(vni) not in planned)
    return tuple(vni for vni, _ in zip(free, range(CANDIDATES), strict=False))


def complete(
    wish: Wish, *, subnet: Subnet, vni: int, mtu: int, known: Known, maker: str, made_at: float
) -> NetworkPlan:
    """The plan as all hosts will make it: what was chosen for all stands in its options."""
    options = {**wish.options, "vni": str(vni)}
    options.pop(plan.MTU_OF_DOCKER, None)
    options["mtu"] = str(mtu)
    defined = known.definition
    gateway = wish.gateway or (defined.gateway if defined is not None else None)
    return _plan(wish, subnet=subnet, options=options, gateway=gateway, maker=maker, made_at=made_at)


def _plan(wish: Wish, **more: Any) -> NetworkPlan:
    """Raises Refused where a value does not fit the others."""
    fields: dict[str, Any] = {
        "name": wish.name,
        "id": fresh_id(),
        "ip_range": wish.ip_range,
        "gateway": wish.gateway,
        "aux": dict(wish.aux),
        "labels": dict(wish.labels),
        "internal": wish.internal,
    }
    try:
        return NetworkPlan(**(fields | more))
    except ValueError as error:
        raise Refused(str(error)) from None
