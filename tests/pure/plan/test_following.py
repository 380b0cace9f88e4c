"""What a follower does, as a table: plans, Docker's networks, what was said before."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.networks import Became, HeldNetwork, NetworkPlan
from myoverlay.plan.following import (
    Decided,
    Found,
    Make,
    Remove,
    Restore,
    Say,
    Unsay,
    decide,
    is_over,
    news,
    remaining,
)
from myoverlay.values import HostId, OverlayName, Subnet
from tests.pure.kit import ANN, BOB

WEB = OverlayName("web")
OLD, NEW = "1" * 32, "2" * 32


def plan(**changes: Any) -> NetworkPlan:
    fields: dict[str, Any] = {"name": WEB, "id": NEW, "subnet": Subnet("10.5.0.0/24"), "made_at": 100.0}
    return NetworkPlan(**(fields | changes))


def ours(of: str = NEW, made_at: float = 100.0, told: bool = True) -> Found:
    known = plan(id=of, made_at=made_at) if told else None
    return Found(id=f"docker-{of[:4]}", name="web", driver="myoverlay", plan=of, told=known)


THEIRS = Found(id="f" * 64, name="web", driver="bridge")
OTHER = Found(id="e" * 64, name="bridge", driver="bridge")


def decided(of: NetworkPlan | None, *there: Found, said: tuple[str, ...] = (), doubt: bool = False) -> Decided:
    return decide({WEB: of} if of else {}, (), (*there, OTHER), said, doubt)


def test_what_is_missing_is_made() -> None:
    """Docker has no network of that name, in a doubt too: making one takes nothing from anybody."""
    assert decided(plan()).steps == (Make(plan()),)
    assert decided(plan(), doubt=True).steps == (Make(plan()),)


def test_what_is_there_is_held() -> None:
    """It is known by the id in its label, not by what it looks like."""
    assert decided(plan(), ours()).steps == (Say(plan(), Became.HELD),)


def test_a_foreign_network_is_never_touched() -> None:
    """The conflict names it; nothing is made and nothing removed, whether the plan stays or goes."""
    (step,) = decided(plan(), THEIRS).steps
    assert isinstance(step, Say)
    assert step.became is Became.CONFLICT
    assert "network web (ffffffffffff, driver bridge)" in step.said
    assert decided(plan(going=True, forced=True), THEIRS).steps == ()
    assert decided(plan(going=True), THEIRS, said=("web",)).steps == (Unsay("web"),)


def test_a_plan_that_goes_takes_its_network_along() -> None:
    """Forced only where a person said so; in a doubt nothing goes."""
    going = plan(going=True)
    assert decided(going, ours(), said=("web",)).steps == (Remove(ours(), going, False), Unsay("web"))
    forced = plan(going=True, forced=True)
    assert decided(forced, ours()).steps[0] == Remove(ours(), forced, True)
    assert decided(going, ours(), said=("web",), doubt=True).steps == ()


@pytest.mark.parametrize(
    ("found", "goes"), [(ours(OLD, 50.0), True), (ours(OLD, 150.0), False), (ours(OLD, told=False), True)]
)
def test_a_removal_takes_older_networks_and_no_newer_ones(found: Found, goes: bool) -> None:
    """A host that was away has an older one; after a roll-back of the store the removal itself is the older."""
    steps = decided(plan(going=True), found).steps
    assert steps == ((Remove(found, plan(going=True), False), Unsay("web")) if goes else ())


def test_a_plan_in_place_of_another_replaces_its_network() -> None:
    """This host missed the removal: first the old one goes, then the new one is made; in a doubt neither."""
    assert decided(plan(), ours(OLD)).steps == (Remove(ours(OLD), plan(), False), Make(plan()))
    (step,) = decided(plan(), ours(OLD), doubt=True).steps
    assert isinstance(step, Say)
    assert step.became is Became.FAILED


def test_a_plan_that_is_merely_missing_removes_nothing() -> None:
    """Without a doubt its network is an orphan; in a doubt the store lost the plan, and it is restored."""
    assert decided(None, ours(), said=("web",)) == Decided((Unsay("web"),), (ours(),))
    assert decided(None, ours(), said=("web",), doubt=True) == Decided((Restore(plan()),), ())
    nameless = ours(told=False)
    assert decided(None, nameless, doubt=True) == Decided((), (nameless,))


def test_a_plan_that_cannot_be_read_means_nothing() -> None:
    """Its network stays, what was said of it stays, and it is no orphan."""
    assert decide({}, ("web",), (ours(),), ("web",), False) == Decided((), ())
    assert decide({}, ("web",), (ours(),), ("web",), True) == Decided((), ())


def held(host: HostId = ANN, became: Became = Became.HELD, of: str = NEW) -> HeldNetwork:
    return HeldNetwork(host=host, network=WEB, plan=of, became=became, host_name=host[:1])


def test_the_store_is_told_of_news_alone() -> None:
    """What it has is not written again; what cannot be read is; what is not there is not taken back."""
    assert news({"web": held()}, [held()], ["db"]) == ((), ())
    assert news({"web": held(), "db": None}, [held(became=Became.FAILED)], ["db"]) == (
        (held(became=Became.FAILED),),
        ("db",),
    )
    assert news({"web": None}, [held()], []) == ((held(),), ())


def test_a_removal_is_over_when_no_host_says_anything() -> None:
    """Not while a host has it, or an older one; and never for a plan that stays."""
    going = plan(going=True)
    assert is_over(going, {})
    assert not is_over(plan(), {})
    everywhere = {WEB: {BOB: held(BOB, of=OLD), ANN: held()}}
    assert not is_over(going, everywhere)
    assert [one.host for one in remaining(going, everywhere)] == [ANN, BOB]
