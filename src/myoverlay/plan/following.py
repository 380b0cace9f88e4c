"""What a host that follows does about the networks that are defined for all hosts: which to make, which to remove.

Docker's networks are known as ours by a label that only we write. One of that name without it is somebody's, and is
never touched. A plan that is merely missing removes nothing: only one that says so (`going`) does, or another of the
same name in its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from myoverlay.networks import Became, HeldNetwork, NetworkPlan
from myoverlay.values import HostId, OverlayName

#: The labels of a network of ours: whose it is, and all that was asked for, should the store lose it.
LABEL, LABEL_PLAN = "myoverlay.network", "myoverlay.plan"


class Found(msgspec.Struct, frozen=True):
    """A network that Docker has on this host. `plan`: the id that its label names, where it is ours.

    `told`: the plan as the label keeps it, where that is readable.
    """

    id: str
    name: str
    driver: str
    plan: str | None = None
    told: NetworkPlan | None = None


class Make(NamedTuple):
    """Make the network in Docker."""

    plan: NetworkPlan


class Remove(NamedTuple):
    """Remove it from Docker; with `forced` its containers are taken off it first. `plan`: what asks for that."""

    network: Found
    plan: NetworkPlan
    forced: bool


class Say(NamedTuple):
    """Tell the store what became of the plan here."""

    plan: NetworkPlan
    became: Became
    said: str = ""


class Unsay(NamedTuple):
    """Nothing of that name is here any more."""

    name: str


class Restore(NamedTuple):
    """The store lost a plan that this host has a network of: write it again."""

    plan: NetworkPlan


Step = Make | Remove | Say | Unsay | Restore


class Decided(NamedTuple):
    """What to do, in order; and networks of ours that no plan asks for any more, which stay."""

    steps: tuple[Step, ...]
    orphans: tuple[Found, ...]


def decide(
    plans: Mapping[OverlayName, NetworkPlan],
    unreadable: Collection[str],
    there: Sequence[Found],
    said: Collection[str],
    doubt: bool,
) -> Decided:
    """What this host does. `there`: all networks that Docker has; `said`: names that this host told the store of.

    `doubt`: the store is known to have lost something lately: then nothing is removed, and what it lost is restored.
    """
    steps: list[Step] = []
    for plan in sorted(plans.values(), key=lambda plan: plan.name):
        steps += _leave(plan, there, said, doubt) if plan.going else _have(plan, there, doubt)
    orphans = []
    for found in there:
        if found.plan is None or found.name in unreadable or found.name in plans:
            continue
        if doubt and found.told is not None:
            steps.append(Restore(found.told))
        else:
            orphans.append(found)
    known = {*plans, *unreadable}
    if not doubt:
        steps += [Unsay(name) for name in sorted(said) if name not in known]
    return Decided(tuple(steps), tuple(orphans))


def _have(plan: NetworkPlan, there: Sequence[Found], doubt: bool) -> list[Step]:
    if any(found.plan == plan.id for found in there):
        return [Say(plan, Became.HELD)]
    named = [found for found in there if found.name == plan.name]
    foreign = next((found for found in named if found.plan is None), None)
    if foreign is not None:
        return [Say(plan, Became.CONFLICT, conflict(foreign))]
    if named and doubt:
        return [Say(plan, Became.FAILED, f"an older network {plan.name} is there, and the store is in doubt")]
    # An older plan of that name was replaced while this host did not look.
    return [*(Remove(found, plan, plan.forced) for found in named), Make(plan)]


def _leave(plan: NetworkPlan, there: Sequence[Found], said: Collection[str], doubt: bool) -> list[Step]:
    mine = [found for found in there if found.name == plan.name and _is_meant(found, plan)]
    if not mine:
        return [Unsay(plan.name)] if plan.name in said else []
    return [] if doubt else [*(Remove(found, plan, plan.forced) for found in mine), Unsay(plan.name)]


def _is_meant(found: Found, plan: NetworkPlan) -> bool:
    """Is a network one that the plan's removal is about: its own, or an older one that this host kept under that name?

    A newer one is not: the store went back to when the older was being removed.
    """
    if found.plan is None or found.plan == plan.id:
        return found.plan is not None
    return found.told is None or found.told.made_at <= plan.made_at


def conflict(found: Found) -> str:
    """Why a network is left alone."""
    return (
        f"Docker has a network {found.name} ({found.id[:12]}, driver {found.driver}) that was not made for it: remove"
        " or rename that one"
    )


def news(
    before: Mapping[str, HeldNetwork | None], said: Sequence[HeldNetwork], unsaid: Collection[str]
) -> tuple[tuple[HeldNetwork, ...], tuple[str, ...]]:
    """What the store is to be told of: what differs from what it has, and what is to be taken back there."""
    return (
        tuple(one for one in said if before.get(one.network) != one),
        tuple(sorted(name for name in unsaid if name in before)),
    )


def is_over(plan: NetworkPlan, everywhere: Mapping[OverlayName, Mapping[HostId, HeldNetwork]]) -> bool:
    """Is a plan that is to be removed on no host any more?"""
    return plan.going and not remaining(plan, everywhere)


def remaining(
    plan: NetworkPlan, everywhere: Mapping[OverlayName, Mapping[HostId, HeldNetwork]]
) -> tuple[HeldNetwork, ...]:
    """What hosts still say of a plan's name: those that have its network, or an older one, or could not make it."""
    said = everywhere.get(plan.name, {}).values()
    return tuple(sorted(said, key=lambda one: (one.host_name, one.host)))
