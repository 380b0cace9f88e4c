"""Rows in which the rows of the kernel, the plugin or the engine are what breaks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from lab.engine import EngineHost
from tests.engine.chaos.ground import Ground, Rows
from tests.engine.chaos.scene import Scene

#: How long peers are watched after the plugin was killed, seconds.
WATCH = 60
#: How soon containers start again once the plugin is started again, seconds.
RESTARTED = 2.0
DISABLED = 180
HEAL = 5.0
#: How the MACs of rows begin that belong to nobody.
STRANGER = "02:99"
#: The library in the process itself: to start `nft` twice takes as long as the rule shall live.
_RULE_FOR_A_WHILE = """
import ctypes, sys, time
nft = ctypes.CDLL("libnftables.so.1")
nft.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(nft.nft_ctx_new(0))
assert nft.nft_run_cmd_from_buffer(context, sys.argv[1].encode()) == 0
time.sleep(float(sys.argv[3]))
assert nft.nft_run_cmd_from_buffer(context, sys.argv[2].encode()) == 0
"""


def control(scene: Scene) -> None:
    """An nft rule on h1's underlay drops VXLAN for 100 ms, both directions."""
    rule = "add table ip chaos; add chain ip chaos {0} {{ type filter hook {0} priority -300; }};"
    rule += "add rule ip chaos {0} udp dport 4789 drop;"
    text = " ".join(rule.format(hook) for hook in ("prerouting", "output"))
    scene.ground.h1.run(["python3", "-ISc", _RULE_FOR_A_WHILE, text, "delete table ip chaos", "0.1"], timeout=10)


def fdb_row(scene: Scene) -> None:
    """The FDB row of the flow's far end is taken out on h1."""
    ground = scene.ground
    mac = ground.mac(ground.h2, "flow")
    before = ground.counter(ground.h1, "misses", "late")
    ground.in_overlay(ground.h1, "bridge", "fdb", "del", mac, "dev", "vxlan1", "dst", ground.h2.address)
    scene.within("the row is back", HEAL, lambda: ground.rows(ground.h1)[0].get(mac) == ground.h2.address)
    late = ground.counter(ground.h1, "misses", "late") - before
    scene.check("misses counted `late` on h1", late, late > 0, "1 at least")


def kill(scene: Scene) -> None:
    """kill -9 on h1 and h2 one after the other, started again at once; h3 watches them."""
    ground = scene.ground
    before = ground.alive_keys()
    for host in (ground.h1, ground.h2):
        ground.drivers[host.name].kill()
        began = time.time()
        ground.drivers[host.name].start()
        scene.note(f"the socket of {host.name} was there after {time.time() - began:.1f} s")
        # The small ground belongs to a test, which others may run beside: there a start's time says nothing.
        bound = 20.0 if ground.small else RESTARTED
        scene.starts(host, bound, "a container starts after the plugin was started again", began)
    _watch(scene, before, WATCH if not ground.small else 1)


def _watch(scene: Scene, before: dict[str, tuple[str, int]], seconds: float) -> None:
    """Nobody is ever anything but alive: as all three hosts say, and by the sessions' keys in the store."""
    ground, until = scene.ground, time.monotonic() + seconds
    names, seen, absent, asked = {"h1", "h2"}, set[str](), 0, 0
    while time.monotonic() < until:
        absent += bool(names - set(ground.alive_keys()))
        for host in (ground.h1, ground.h2, ground.h3):
            seen |= {state for name, state in ground.states(host).items() if name in names}
            asked += 1
        scene.last(0.5)
    after = ground.alive_keys()
    scene.check("rounds in which a host's `alive` was gone", absent, absent == 0, 0)
    _sessions_kept(scene, before, after)
    what = f"what the hosts called h1 and h2, asked {asked} times in {seconds:g} s"
    scene.check(what, ", ".join(sorted(seen)) or "nothing", seen == {"alive"}, "alive")


def _sessions_kept(scene: Scene, before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> None:
    for name in ("h1", "h2"):
        old, new = (keys.get(name, ("none", 0))[0] for keys in (before, after))
        scene.check(f"the session of {name} is kept", "yes" if old == new else f"{old[:8]} → {new[:8]}", old == new)


def half_rows(scene: Scene) -> None:
    """Half of both tables deleted on h1, the other half made wrong, rows of nobody put in; h2 the same."""
    ground = scene.ground
    hosts = (ground.h1, ground.h2)
    before = {host.name: _of_pool(ground, host) for host in hosts}
    began = time.monotonic()
    with scene.excused():
        for host in hosts:
            _spoil(ground, host, before[host.name])
        for host in hosts:
            scene.within(
                f"both tables of {host.name} are as before", HEAL, _healed(ground, host, before[host.name]), began
            )


def _of_pool(ground: Ground, host: EngineHost) -> Rows:
    """The rows of containers that stay; h3's come and go."""
    fdb, neigh = ground.rows(host)
    steady = set(ground.addresses.values())
    neigh = {address: mac for address, mac in neigh.items() if address in steady}
    return {mac: vtep for mac, vtep in fdb.items() if mac in neigh.values()}, neigh


def _healed(ground: Ground, host: EngineHost, before: Rows) -> Callable[[], bool]:
    def ask() -> bool:
        fdb, neigh = ground.rows(host)
        strangers = [mac for mac in fdb if mac.startswith(STRANGER)]
        wrong = [address for address in neigh if address.endswith((".240", ".241"))]
        right = all(fdb.get(mac) == vtep for mac, vtep in before[0].items())
        right = right and all(neigh.get(address) == mac for address, mac in before[1].items())
        return right and not strangers and not wrong

    return ask


def _spoil(ground: Ground, host: EngineHost, rows: Rows) -> None:
    fdb, neigh = rows
    lines = []
    flow = neigh.get(ground.addresses[("h2" if host is ground.h1 else "h1"), "flow"])
    # The flow's own row is among the wrong ones of h1 and among the deleted ones of h2.
    first = int(host is ground.h1)
    for number, (mac, vtep) in enumerate(sorted(fdb.items(), key=lambda row: row[0] != flow), first):
        lines.append(f"fdb del {mac} dev vxlan1 dst {vtep}")
        if number % 2:
            lines.append(f"fdb replace {mac} dev vxlan1 dst {ground.h3.address} self permanent")
    lines += [f"fdb add {STRANGER}:00:00:00:0{n} dev vxlan1 dst {ground.h3.address} self permanent" for n in range(4)]
    words = []
    for number, (address, _) in enumerate(sorted(neigh.items())):
        if number % 2:
            words.append(f"neigh replace {address} lladdr {STRANGER}:00:00:00:01 dev vxlan1 nud permanent")
        else:
            words.append(f"neigh del {address} dev vxlan1")
    words += [f"neigh replace 10.5.0.{n} lladdr {STRANGER}:00:00:00:02 dev vxlan1 nud permanent" for n in (240, 241)]
    ground.batch(host, "bridge", lines)
    ground.batch(host, "ip", words)


def live_restore(scene: Scene) -> None:
    """dockerd of h1, h2 and h3 restarted with live-restore."""
    ground = scene.ground
    for host in (ground.h1, ground.h2):
        host.restart_engine()
        began = time.time()
        scene.starts(host, 15.0, "a container starts after dockerd's restart", began)
    running = [host.docker("ps", "-q").count("\n") + 1 for host in (ground.h1, ground.h2)]
    scene.check("containers that run on h1 and h2", running, min(running) >= len(ground.pool) // 2 + 1)


def disable(scene: Scene) -> None:
    """`docker plugin disable -f` on h1 and h2, three minutes, `enable`."""
    ground = scene.ground
    for host in (ground.h1, ground.h2):
        ground.managed(host).disable()
    began = time.monotonic()
    scene.last(DISABLED)
    scene.note(f"disabled for {time.monotonic() - began:.0f} s on h1 and h2")
    began = time.time()
    for host in (ground.h1, ground.h2):
        ground.managed(host).start()
    for host in (ground.h1, ground.h2):
        scene.starts(host, 15.0, "a container starts after `enable` of both", began)


def upgrade(scene: Scene) -> None:
    """To another version and back, on h1 and h2."""
    ground = scene.ground
    ground.push("2", ground.h3)
    for host, version in itertools.product((ground.h1, ground.h2), ("2", "1")):
        driver = ground.managed(host)
        driver.disable()
        driver.upgrade(ground.reference(version))
        began = time.time()
        driver.start()
        scene.starts(host, 10.0, f"a container starts after the upgrade to {version}", began)


def reinstall(scene: Scene) -> None:
    """`docker plugin rm` and `install` on h1 and h2, with containers running."""
    ground = scene.ground
    for host in (ground.h1, ground.h2):
        driver = ground.managed(host)
        driver.disable()
        driver.remove()
        began = time.time()
        driver.install()
        scene.starts(host, 15.0, "a container starts after `install`", began)


def managed_kill(scene: Scene) -> None:
    """kill -9 of the plugin's processes on h1 and h2; the engines start them again."""
    ground = scene.ground
    before = ground.alive_keys()
    for host in (ground.h1, ground.h2):
        began = time.time()
        ground.drivers[host.name].kill()
        scene.starts(host, 10.0, "a container starts after the engine started the plugin again", began)
    _sessions_kept(scene, before, ground.alive_keys())
