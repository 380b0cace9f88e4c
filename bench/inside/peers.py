"""10,000 peers into a fresh overlay namespace, and the comparison of all of them, by the code that does it in earnest.

    python -m bench.inside.peers COUNT ROUNDS

Prints a JSON object a line: seconds from peers in memory to rows in the kernel, seconds of the first full comparison,
and of the next, which knows the rows by their bytes as those of every 3 s do. Neither finds anything wrong.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from myoverlay.host.converge import Converger
from myoverlay.host.leftovers import Leftovers
from myoverlay.kernel.links import Links
from myoverlay.kernel.pins import Pins
from myoverlay.plan import rows
from myoverlay.tally import Tally
from myoverlay.values import Address, Definition, HostId, Mac, Network, OverlayName, Peer, Subnet

_PINS = Path("/run/bench-pins")
#: Clear of the overlays of the ground.
_VNI, _PORT = 7777, 4799


def peers(count: int) -> dict[Address, Peer]:
    """So many containers on 250 hosts."""
    hosts = [HostId.random() for _ in range(250)]
    found = {}
    for number in range(count):
        address = Address(f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
        mac = Mac.unpack(b"\x02\x42\x0b" + number.to_bytes(3, "big"))
        place = number % 250
        found[address] = Peer(address=address, mac=mac, vtep=Address(f"192.0.2.{2 + place}"), host=hosts[place])
    return found


def network(name: str) -> Network:
    """An overlay without endpoints."""
    overlay, subnet = OverlayName(name), Subnet("10.64.0.0/10")
    definition = Definition(overlay=overlay, subnet=subnet, vni=_VNI, mtu=1450, port=_PORT)
    return Network(
        network=name, overlay=overlay, subnet=subnet, vtep=Address("127.0.0.1"), underlay="lo", definition=definition
    )


def measure(count: int, rounds: int) -> None:
    """Print each round."""
    known = peers(count)
    with Links() as links:
        tally = Tally()
        converger = Converger(links, Pins(_PINS), tally, Leftovers(tally))
        for number in range(rounds):
            of = network(f"peers-{number}")
            ground = converger.overlay(of, (), time.monotonic() + 10)
            try:
                began = time.perf_counter()
                converger.peers(ground, rows.wanted(known, (), None), True, ())
                programmed = time.perf_counter()
                strayed = converger.has_strayed(ground, rows.wanted(known, (), None), True, ())
                compared = time.perf_counter()
                strayed |= converger.has_strayed(ground, rows.wanted(known, (), None), True, ())
                again = time.perf_counter()
                if strayed or tally.total("row_failures"):
                    raise SystemExit("the rows are not as they were written")
                took = {"programmed s": programmed - began, "reconciled s": compared - programmed}
                took["reconciled again s"] = again - compared
                print(json.dumps(took), flush=True)
            finally:
                ground.close()
                links.remove(of_namespace := Pins(_PINS).create(of.overlay), "vxlan1", deadline=time.monotonic() + 10)
                of_namespace.close()
                Pins(_PINS).delete(of.overlay)


if __name__ == "__main__":
    measure(int(sys.argv[1]), int(sys.argv[2]))
