"""The ways out on a kernel of paper: led, refused, put right, and given up with their overlays."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.egress import Crossing
from myoverlay.tally import Tally
from myoverlay.values import Address, OverlayName
from tests.pure.kit import definition, network
from tests.pure.model.ways import Paper, on_paper

NAMESPACE: Any = object()


class Site:
    """A host with two networks, of which the first leads out by 169.254.80.1 and the second by .2."""

    def __init__(self) -> None:
        self.paper, self.tally = Paper(), Tally()
        self.egress = on_paper(self.paper, self.tally)
        self.one = network(egress=Address("169.254.80.1"))
        self.two = network(definition=definition(overlay=OverlayName("two")), egress=Address("169.254.80.2"))

    @property
    def repairs(self) -> int:
        return self.tally.get("repairs", "egress")


def test_each_network_is_led_and_given_up() -> None:
    """Rules and cable are there as long as the overlay is; with the last the host's rules go."""
    site = Site()
    assert site.egress.gateway(site.one) is None
    for each in (site.one, site.two):
        site.egress.lead(NAMESPACE, each)
        assert site.egress.gateway(each) == each.definition.gateway
    assert site.paper.outer == Crossing(frozenset({site.one.egress, site.two.egress}), frozenset({"docker0"}))  # type: ignore[arg-type]
    assert len(site.paper.cables) == site.paper.inner == 2
    site.egress.forget(site.one.overlay)
    assert site.paper.outer == Crossing(frozenset({site.two.egress}), frozenset({"docker0"}))  # type: ignore[arg-type]
    site.egress.forget(site.two.overlay)
    assert (site.paper.outer, site.paper.cables) == (None, {})
    assert site.repairs == 0


def test_a_network_without_a_way_of_its_own_is_let_alone() -> None:
    """Nothing is laid for it, and no gateway told."""
    site = Site()
    plain = network()
    site.egress.lead(NAMESPACE, plain)
    site.egress.forget(plain.overlay)
    assert site.egress.gateway(plain) is None
    assert (site.paper.outer, site.paper.cables, site.egress.trouble) == (None, {}, {})


@pytest.mark.parametrize("refuses", ["laying", "inner", "outer"])
def test_where_the_kernel_refuses_docker_leads_out(refuses: str) -> None:
    """No gateway is told, why is said once, and the next round that goes well tells it again."""
    site = Site()
    site.paper.refuses = refuses
    site.egress.lead(NAMESPACE, site.one)
    assert site.egress.gateway(site.one) is None
    assert "not permitted" in site.egress.trouble[site.one.overlay]
    site.paper.refuses = ""
    site.egress.lead(NAMESPACE, site.one)
    assert site.egress.gateway(site.one) == site.one.definition.gateway
    assert not site.egress.trouble


def test_a_bridge_that_goes_takes_the_gateway_from_new_containers() -> None:
    """And that it is back gives it to them again, at its new address."""
    site = Site()
    site.egress.lead(NAMESPACE, site.one)
    site.paper.there = None
    site.egress.lead(NAMESPACE, site.one)
    assert site.egress.gateway(site.one) is None
    site.paper.there = (Address("172.31.0.1"), 1400)
    site.egress.lead(NAMESPACE, site.one)
    assert site.egress.gateway(site.one) is not None
    (leg,) = site.paper.cables.values()
    assert (leg.via, leg.mtu) == site.paper.there


def test_what_was_put_right_is_counted_and_told() -> None:
    """By each thing in words; what is as it was left is nobody's news."""
    site, told = Site(), []
    site.egress.on_repair = lambda overlay, reason, things: told.append((overlay, reason, tuple(things)))
    site.egress.lead(NAMESPACE, site.one)
    site.egress.lead(NAMESPACE, site.one)
    assert told == []
    site.paper.cables.clear()
    site.paper.outer = None
    site.paper.untouched = False
    site.egress.lead(NAMESPACE, site.one)
    assert told == [(site.one.overlay, "egress", ("the host's rules", "its rules", "its cable"))]
    assert site.repairs == 3
    assert site.paper.outer is not None


def test_what_cannot_be_taken_away_keeps_nobody() -> None:
    """The network goes all the same: its namespace takes the cable along."""
    site = Site()
    site.egress.lead(NAMESPACE, site.one)
    site.paper.refuses = "removing"
    site.egress.forget(site.one.overlay)
    assert site.egress.gateway(site.one) is None


def test_what_a_former_run_led_out_goes_on_meanwhile() -> None:
    """The first overlay that a new run leads does not take the rules of the others away."""
    site = Site()
    for each in (site.one, site.two):
        site.egress.lead(NAMESPACE, each)
    next_run = on_paper(site.paper, site.tally)
    next_run.lead(NAMESPACE, site.one)
    assert site.paper.outer is not None
    assert site.paper.outer.addresses == {site.one.egress, site.two.egress}
    next_run.lead(NAMESPACE, site.two)
    next_run.forget(site.one.overlay)
    assert site.paper.outer.addresses == {site.two.egress}
