"""The requests of a container's cable: pyroute2 reads in them what is meant."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from myoverlay.kernel import cables, linkforms, rtnetlink
from myoverlay.values import Address, Mac, Veth

from .given import addresses, macs


def read(request: rtnetlink.Request) -> Any:
    """A request of ours as pyroute2 reads it."""
    (message,) = MarshalRtnl().parse(rtnetlink.whole(request, 1))
    return message


def cable(mac: Mac, address: Address, mtu: int) -> Veth:
    return Veth(port="p0123456789ab", link="mo0123456789ab", bridge="br0", mac=mac, mtu=mtu, address=address)


@given(macs, addresses, st.integers(576, 9000), st.integers(1, 1 << 20))
def test_both_ends_are_laid_at_once(mac: Mac, address: Address, mtu: int, bridge: int) -> None:
    """Ours is a port of the bridge, the container's has its MAC and is born elsewhere; what is there is never taken."""
    veth = cable(mac, address, mtu)
    request = cables.laid(veth, linkforms.veth_form(veth), bridge, 77)
    assert request.flags == rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    message = read(request)
    assert (message["event"], message["index"], message["flags"], message["change"]) == ("RTM_NEWLINK", 0, 0, 0)
    found = [message.get_attr(f"IFLA_{name}") for name in ("IFNAME", "MTU", "MASTER")]
    assert found == [veth.port, mtu, bridge]
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    far = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    found = [far.get_attr(f"IFLA_{name}") for name in ("IFNAME", "ADDRESS", "MTU", "NET_NS_FD")]
    assert found == [veth.link, mac, mtu, 77]


@given(macs, addresses, st.integers(1, 1 << 20))
def test_a_port_is_set_up_with_its_flags(mac: Mac, address: Address, index: int) -> None:
    """Label, every flag of the form, and up: in one message, so that it never forwards without them."""
    veth = cable(mac, address, 1450)
    form = linkforms.veth_form(veth)
    message = read(cables.fitted(form, index))
    assert (message["event"], message["index"]) == ("RTM_NEWLINK", index)
    assert (message["flags"], message["change"]) == (linkforms.IFF_UP, linkforms.IFF_UP)
    assert message.get_attr("IFLA_IFALIAS") == linkforms.label(veth)
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") == "bridge"
    flags = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    assert dict(flags["attrs"]) == dict(form.port)


def test_a_link_is_removed_by_its_index() -> None:
    """And by nothing else: another one may have its name by then."""
    message = read(cables.removed(12))
    assert (message["event"], message["index"], message["attrs"]) == ("RTM_DELLINK", 12, [])
