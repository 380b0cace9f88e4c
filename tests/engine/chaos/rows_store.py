"""Rows in which the store is what breaks."""

from __future__ import annotations

import json
import time

from lab.engine import EngineHost
from tests.engine.chaos.counting import Start
from tests.engine.chaos.scene import Scene

STOPPED = 60
#: Agent killed, firewall, token revoked: five minutes together.
CUT = (100, 100, 100)
AGAIN = 5.0


def stopped(scene: Scene) -> None:
    """Consul is away for a minute; containers start on h3 (the load), and on h1 and h2."""
    ground = scene.ground
    ground.lab.consul.stop()
    began = time.monotonic()
    for host in (ground.h1, ground.h2):
        scene.starts(host, 15.0, "a container starts while Consul is away")
    scene.last(STOPPED - (time.monotonic() - began))
    ground.lab.consul.start()
    ground.rejoin()
    scene.starts(ground.h3, AGAIN, "a container starts when Consul is back")


def cut_off(scene: Scene) -> None:
    """h1 alone loses Consul: its agent is killed, then a firewall, then its token; h3 asks for its addresses."""
    ground = scene.ground
    agent, h1 = ground.agent, ground.h1
    assert agent is not None
    own = _addresses_of(scene, h1)
    scene.note(f"h1 holds {len(own)} addresses, its reserve included")
    agent.kill()
    _phase(scene, "the agent is dead", CUT[0], own)
    _firewall(h1)
    agent.launch()
    _phase(scene, "the firewall drops", CUT[1], own)
    ground.lab.consul.revoke(ground.tokens["h1"])
    h1.run(["nft", "delete", "table", "ip", "cutoff"])
    _phase(scene, "the token is revoked", CUT[2], own)
    ground.lab.consul.new_token(secret=ground.tokens["h1"])
    ground.rejoin()
    began = time.monotonic()
    scene.within("a container of h1 starts and is reached again", 15.0, lambda: scene.start_on(h1).answered, began)


def _firewall(host: EngineHost) -> None:
    """A black hole: between agent and server, and between the plugin and its agent."""
    table = "add table ip cutoff; add chain ip cutoff out { type filter hook output priority 0; };"
    table += "add chain ip cutoff in { type filter hook input priority 0; };"
    for port in ("tcp dport", "udp dport"):
        table += f"add rule ip cutoff out {port} {{ 8300, 8301, 8500 }} drop;"
        table += f"add rule ip cutoff in {port} {{ 8300, 8301, 8500 }} drop;"
    host.run(["nft", table])


def _phase(scene: Scene, what: str, seconds: float, own: set[str]) -> None:
    """Containers start on the cut-off host from its reserve, and nobody else is given an address of it."""
    ground, began = scene.ground, time.monotonic()
    starts: list[Start] = []
    taken = sorted(own)[:2] + sorted(own)[-2:]
    given = [address for address in taken if not scene.start_on(ground.h3, "--ip", address).refused]
    found = f"given: {', '.join(given)}" if given else "all refused"
    scene.check(f"{len(taken)} addresses of h1, asked for on h3 while {what}", found, not given)
    while time.monotonic() - began < seconds - 5:
        starts.append(scene.start_on(ground.h1))
        scene.last(10)
    scene.last(max(0.0, seconds - (time.monotonic() - began)))
    refused = [start.refused for start in starts if start.refused]
    slowest = max((start.seconds for start in starts), default=0.0)
    found = f"{len(starts)} started, slowest {slowest:.1f} s" + (f"; refused: {refused[0]}" if refused else "")
    good = bool(starts) and not refused and slowest <= 15
    scene.check(f"new containers on h1 while {what}", found, good, "15 s each")


def _addresses_of(scene: Scene, host: EngineHost) -> set[str]:
    """What a host holds in the store: containers' addresses and its reserve."""
    store = scene.ground.lab.consul
    alive = store.get("myoverlay/alive/").items()
    ids = {key.rpartition("/")[2] for key, value in alive if json.loads(value)["name"] == host.name}
    leases = [json.loads(value) for value in store.get("myoverlay/pools/").values()]
    return {lease["address"] for lease in leases if ids & set(lease.get("hosts", ()))}


def emptied(scene: Scene) -> None:
    """Consul comes back with nothing in it; whoever runs it gives the tokens again."""
    ground = scene.ground
    before = set(ground.lab.consul.keys("myoverlay/"))
    ground.lab.consul.wipe()
    ground.give_tokens_again()
    began = time.monotonic()
    ground.rejoin()
    _recovers(scene, began)
    steady = {key for key in before if "/records/" in key and key.endswith(tuple(ground.addresses.values()))}
    scene.within(
        f"all {len(steady)} records of containers are in the store again", 30.0,
        lambda: steady <= set(ground.lab.consul.keys("myoverlay/")), began,
    )  # fmt: skip


def rolled_back(scene: Scene) -> None:
    """Consul is put back to a snapshot from before a container came and another went."""
    ground = scene.ground
    ground.run(ground.h2, "goes")
    old = ground.lab.consul.snapshot()
    ground.h2.docker("rm", "-f", "goes")
    gone = ground.addresses.pop(("h2", "goes"))
    came = ground.run(ground.h2, "came")
    if came == gone:
        scene.note("the new container has the address of the one that went")
    scene.last(1)
    ground.lab.consul.restore(old)
    began = time.monotonic()
    _recovers(scene, began)
    scene.within("the container that came after it is in the store", 15.0, lambda: _recorded(scene, came), began)
    if came != gone:
        scene.within("the container that went before it is not", 15.0, lambda: not _recorded(scene, gone), began)
    scene.within("h1 reaches the one that came", 15.0, lambda: scene.reaches("h1", "flow", came), began)
    ground.h2.docker("rm", "-f", "came")
    ground.addresses.pop(("h2", "came"))


def _recorded(scene: Scene, address: str) -> bool:
    return any(key.endswith(f"/arp/{address}") for key in scene.ground.lab.consul.keys("myoverlay/"))


def _recovers(scene: Scene, began: float) -> None:
    """A container starts within the bound on the host that starts them all the time, and on h2."""
    for host in (scene.ground.h3, scene.ground.h2):
        tried = time.monotonic()
        start = scene.start_on(host)
        took = time.monotonic() - tried
        good = not start.refused and took <= AGAIN
        scene.check(
            f"a container starts on {host.name}, {tried - began:.1f} s after",
            start.refused or f"{took:.1f} s",
            good,
            f"{AGAIN:g} s",
        )
    scene.within(
        "a new container of h3 is answered at its first ping",
        20.0,
        lambda: scene.start_on(scene.ground.h3).answered,
        began,
    )
    scene.last(5)
