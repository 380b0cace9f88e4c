"""10,000 peers into a fresh overlay namespace, and the comparison of all of them, by the code that does it in earnest.

    python -m bench.inside.peers COUNT ROUNDS

Prints a JSON object a line: with the guard, as in earnest, and without it, seconds from peers in memory to rows in the
kernel (and the VTEPs in the guard's set, before them), seconds of the first full comparison, and of the next, which
knows the rows by their bytes as those of every 3 s do. Neither finds anything wrong. The guard's table is in another
namespace: the host's has that of the plugin that runs there. The interpreter is set as the plugin's worker sets it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from bench.names import OURS, UNGUARDED
from myoverlay.cli.serve import TURN
from myoverlay.host.converge import Converger
from myoverlay.host.ground import Ground
from myoverlay.host.guard import Guard
from myoverlay.host.leftovers import Leftovers
from myoverlay.kernel import netns
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.links import Links
from myoverlay.kernel.pins import Pins
from myoverlay.plan import rows
from myoverlay.plan.guard import ON
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
    gc.freeze()
    sys.setswitchinterval(TURN)
    with Links() as links, netns.nameless() as apart:
        for number in range(rounds):
            took = {}
            for name in (OURS, UNGUARDED) if number % 2 == 0 else (UNGUARDED, OURS):
                tally = Tally()
                guard = Guard(FenceTable(lambda: apart), ON, tally) if name == OURS else None
                converger = Converger(links, Pins(_PINS), tally, Leftovers(tally), guard=guard)
                took[name] = _once(converger, guard, known, f"peers-{number}")
                if tally.total("row_failures") or tally.total("repairs") or (guard is not None and guard.trouble):
                    raise SystemExit("the rows, or the guard's set, are not as they were written")
                if guard is not None:
                    guard.close()
            print(json.dumps(took), flush=True)


def _once(converger: Converger, guard: Guard | None, known: dict[Address, Peer], name: str) -> dict[str, float]:
    """A fresh namespace, all peers into it, and both comparisons."""
    of = network(name)
    ground = converger.overlay(of, (), time.monotonic() + 10)
    try:
        began = time.perf_counter()
        if guard is not None:  # as `LocalOverlay` does
            guard.admit(of.overlay, {peer.vtep for peer in known.values()})
        converger.peers(ground, rows.wanted(known, (), None), True, ())
        programmed = time.perf_counter()
        strayed = _compared(converger, guard, ground, known)
        compared = time.perf_counter()
        strayed |= _compared(converger, guard, ground, known)
        again = time.perf_counter()
        if strayed:
            raise SystemExit("the rows are not as they were written")
    finally:
        converger.nothing(ground, of.overlay, time.monotonic() + 10)
    return {
        "programmed s": programmed - began,
        "reconciled s": compared - programmed,
        "reconciled again s": again - compared,
    }


def _compared(converger: Converger, guard: Guard | None, ground: Ground, known: dict[Address, Peer]) -> bool:
    if guard is not None:
        guard.check()
    return converger.has_strayed(ground, rows.wanted(known, (), None), True, ())


if __name__ == "__main__":
    measure(int(sys.argv[1]), int(sys.argv[2]))
