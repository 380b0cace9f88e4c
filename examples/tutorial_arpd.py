"""The tutorial's resolver, and nothing more: one message of the kernel, one GET in Consul, one row.

    sudo python3 tutorial_arpd.py http://consul:8500 demo-1 overlay-ns vxlan1

It shows the idea in a page, and what it lacks shows why the driver does more. The row for the address comes without
the row for the MAC, so the first packet asks twice; and nobody tells whoever waits for an ARP reply that the answer is
there now, so it asks again after a second. Nothing is ever taken away.
"""

from __future__ import annotations

import socket
import sys
from typing import Any
from urllib.parse import urlsplit

from consul import Consul
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import RTMGRP_NEIGH
from pyroute2.netlink.rtnl.ndmsg import NTF_SELF, NUD_NOARP, NUD_PERMANENT


def look_up(consul: Consul, key: str) -> str | None:
    """What Consul holds under the key."""
    _, entry = consul.kv.get(key)
    return entry["Value"].decode().strip() if entry else None


def resolve(message: Any, consul: Consul, place: str, kernel: IPRoute, device: int) -> str | None:
    """Answer one of the kernel's questions, if it is one and Consul knows; in one phrase, what was done."""
    if message["event"] != "RTM_GETNEIGH" or message["ifindex"] != device:
        return None
    address, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
    if address is not None:
        found = look_up(consul, f"{place}/arp/{address}")
        if found:
            kernel.neigh("replace", dst=address, lladdr=found, ifindex=device, state=NUD_PERMANENT)
        return f"L3 miss {address}: {found}"
    found = look_up(consul, f"{place}/fib/{mac}")
    if found:
        state = NUD_NOARP | NUD_PERMANENT
        kernel.fdb("replace", lladdr=mac, dst=found, ifindex=device, flags=NTF_SELF, state=state)
    return f"L2 miss {mac}: {found}"


def main(url: str, place: str, namespace: str, name: str) -> None:
    where = urlsplit(url)
    consul = Consul(host=where.hostname or "127.0.0.1", port=where.port or 8500)
    # flags=0: pyroute2 would otherwise make a namespace whose name was misspelt.
    with IPRoute(netns=namespace, flags=0) as kernel, IPRoute(netns=namespace, flags=0) as events:
        (device,) = kernel.link_lookup(ifname=name)
        events.bind(groups=RTMGRP_NEIGH)
        print(f"listening to {name} in {namespace} on {socket.gethostname()}", flush=True)
        while True:
            for message in events.get():
                done = resolve(message, consul, place, kernel, device)
                if done:
                    print(done, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
