"""The requests that lay a container's cable, by struct: a `docker run` waits for them.

pyroute2 takes 1.7 ms of the processor for the same two (opening it, and each request), and is their oracle in tests.
Sources: linux/if_link.h, drivers/net/veth.c, net/core/rtnetlink.c.
"""

from __future__ import annotations

import struct

from myoverlay.kernel.linkforms import (
    BRPORTS,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    Form,
)
from myoverlay.kernel.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, Request, attribute
from myoverlay.values import Veth

RTM_NEWLINK, RTM_DELLINK = 16, 17
IFLA_NET_NS_FD, VETH_INFO_PEER = 28, 1
#: ifinfomsg of a link that is not there yet.
_NONE = IFINFO.pack(0, 0, 0, 0, 0)


def laid(veth: Veth, form: Form, bridge: int, home: int) -> Request:
    """Make both ends, each in its place, down: ours as a port of the bridge, the container's in the namespace `home`.

    In one request: moving an end later waits for RCU, 23 ms instead of 2.
    """
    far = _text(IFLA_IFNAME, veth.link or "") + attribute(IFLA_ADDRESS, veth.mac.packed)
    far += _number(IFLA_MTU, veth.mtu) + _number(IFLA_NET_NS_FD, home)
    near = _text(IFLA_IFNAME, form.name) + _number(IFLA_MTU, form.mtu) + _number(IFLA_MASTER, bridge)
    return _made(near, far)


def pair(near: str, link: str, mtu: int, home: int) -> Request:
    """The same of a cable without a bridge: `near` where it is asked for, `link` in the namespace `home`."""
    far = _text(IFLA_IFNAME, link) + _number(IFLA_MTU, mtu) + _number(IFLA_NET_NS_FD, home)
    return _made(_text(IFLA_IFNAME, near) + _number(IFLA_MTU, mtu), far)


def _made(near: bytes, far: bytes) -> Request:
    peer = attribute(VETH_INFO_PEER, _NONE + far)
    info = attribute(IFLA_INFO_KIND, b"veth") + attribute(IFLA_INFO_DATA, peer)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _NONE + near + attribute(IFLA_LINKINFO, info))


def fitted(form: Form, index: int) -> Request:
    """Label our end, give its port its flags, and then set it up, so that no frame passes one that floods or learns.

    The kernel does it in this order (rtnl_changelink: the port's data first, the link's flags last).
    """
    flags = b"".join(attribute(BRPORTS[name], bytes((value,))) for name, value in form.port.items())
    info = attribute(IFLA_INFO_SLAVE_KIND, b"bridge") + attribute(IFLA_INFO_SLAVE_DATA, flags)
    head = IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
    return Request(RTM_NEWLINK, 0, head + _text(IFLA_IFALIAS, form.alias or "") + attribute(IFLA_LINKINFO, info))


def removed(index: int) -> Request:
    """Delete a link, a veth with its other end."""
    return Request(RTM_DELLINK, 0, IFINFO.pack(0, 0, index, 0, 0))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))
