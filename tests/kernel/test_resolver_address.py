"""The resolver's address on bridges: in overlay namespaces, and on the host's own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from myoverlay.errors import Refused
from myoverlay.kernel.linkforms import Doorstep
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Bridge, Mac, Subnet

from .conftest import bridge, library, soon

RESOLVER = Address("169.254.77.53")


def test_a_bridge_has_the_resolvers_address_beside_its_own(links: Links, overlay: Namespace) -> None:
    """It is seen as asked for, corrected in both directions, of link scope, and refuses as often as it is asked."""
    asked = bridge(resolver=RESOLVER)
    links.ensure(overlay, asked, deadline=soon())
    assert {one.value for one in links.observe(overlay, deadline=soon())} == {asked}
    with library(overlay) as ipr:
        (found,) = [one for one in ipr.get_addr(family=socket.AF_INET) if one.get_attr("IFA_LOCAL") == RESOLVER]
        assert (found["scope"], found["prefixlen"]) == (253, 32)
        (index,) = ipr.link_lookup(ifname="br0")
        ipr.addr("del", index=index, address=RESOLVER, prefixlen=32)
        ipr.addr("add", index=index, address="169.254.77.54", prefixlen=32, scope=253)
    assert overlay.call(lambda: Path("/proc/sys/net/ipv4/icmp_ratelimit").read_text()).strip() == "0"
    assert {one.value for one in links.observe(overlay, deadline=soon())} != {asked}
    links.ensure(overlay, asked, deadline=soon())
    (found_one,) = links.observe(overlay, deadline=soon())
    assert (found_one.value, found_one.faults) == (asked, ())
    links.ensure(overlay, bridge(), deadline=soon())
    (found_one,) = links.observe(overlay, deadline=soon())
    assert (found_one.value, found_one.faults) == (bridge(), ())


def test_without_a_gateway_the_resolvers_address_brings_the_route(links: Links, overlay: Namespace) -> None:
    """Else its answers would have no way to the containers."""
    asked = bridge(address=None, prefixlen=0, resolver=RESOLVER, reach=Subnet("10.5.0.0/24"))
    links.ensure(overlay, asked, deadline=soon())
    links.ensure(overlay, asked, deadline=soon())
    (found_one,) = links.observe(overlay, deadline=soon())
    assert (found_one.value, found_one.faults) == (asked, ())
    with library(overlay) as ipr:
        routes = list(ipr.get_routes(family=socket.AF_INET, table=254))
        assert [(one.get_attr("RTA_DST"), one["dst_len"]) for one in routes] == [("10.5.0.0", 24)]
    with_gateway = bridge(resolver=RESOLVER)
    links.ensure(overlay, with_gateway, deadline=soon())
    (found_one,) = links.observe(overlay, deadline=soon())
    assert (found_one.value, found_one.faults) == (with_gateway, ())


def test_a_doorstep_changes_nothing_of_the_hosts_settings(links: Links, host: Namespace) -> None:
    """The bridge in the host's namespace has its address, is up, and is found by it; the rest is the host's."""
    keys = ("net/ipv4/icmp_ratelimit", "net/ipv6/conf/default/disable_ipv6")
    before = [host.call(lambda key=key: Path(f"/proc/sys/{key}").read_text()) for key in keys]
    form = {"name": "myoverlay0", "mac": Mac("02:6f:a9:fe:4d:35"), "mtu": 1500, "resolver": RESOLVER}
    assert links.bearer_of(RESOLVER, deadline=soon()) is None
    assert links.look_here("myoverlay0", deadline=soon()) is None
    links.ensure_here(Doorstep(**form), deadline=soon())  # type: ignore[arg-type]
    found_one = links.look_here("myoverlay0", deadline=soon())
    assert found_one is not None
    assert (found_one.value, found_one.faults) == (Bridge(**form), ())  # type: ignore[arg-type]
    assert links.bearer_of(RESOLVER, deadline=soon()) == "myoverlay0"
    assert [host.call(lambda key=key: Path(f"/proc/sys/{key}").read_text()) for key in keys] == before
    assert RESOLVER not in links.addresses(deadline=soon())
    with pytest.raises(Refused, match="there is no global address"):
        links.address_of("", deadline=soon())
    links.remove_here("myoverlay0", deadline=soon())
    assert links.bearer_of(RESOLVER, deadline=soon()) is None
