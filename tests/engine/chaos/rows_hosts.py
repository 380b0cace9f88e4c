"""Rows in which a whole host is what breaks."""

from __future__ import annotations

import time
from functools import partial

from lab.engine import EngineHost
from lab.errors import LabError
from tests.engine.chaos.drivers import ProcessDriver
from tests.engine.chaos.ground import ADDRESS, FIXED, GRACE, LEASE_GRACE, Ground, eventually
from tests.engine.chaos.scene import DEAD, Scene, ping

UNPLUGGED = 40
KEPT = ("k0", "k1", "k2")


def unplugged(scene: Scene) -> None:
    """h2's cable is pulled at the switch for 40 s; only what was sent meanwhile may be lost.

    It is dead by then, and its rows stay for the grace: what comes back is reached without a word of the store's.
    """
    ground = scene.ground
    with scene.excused():
        ground.lab.switch.cut("h2")
        scene.last(UNPLUGGED)
        _, neigh = ground.rows(ground.h1)
        there = ground.addresses["h2", "flow"] in neigh
        scene.check(f"h1's row of a container of h2 after {UNPLUGGED} s", "there" if there else "gone", there, "there")
        ground.lab.switch.heal("h2")
        healed = time.monotonic()
        # The underlay carries when both hosts' kernels have found each other again (ARP asks once a second): before
        # that nothing that we do could carry a packet.
        eventually(
            "the underlay carries", lambda: _carries(ground.h1, ground.h2) and _carries(ground.h2, ground.h1), 10
        )
    scene.note(f"the underlay carried {time.monotonic() - healed:.2f} s after the plug was in again")
    scene.starts(ground.h2, 15.0, "a container starts when it is plugged in again")
    scene.last(10)


def _carries(one: EngineHost, other: EngineHost) -> bool:
    return ping({"net": one.netns}, other.address)


def underlay(scene: Scene) -> None:
    """h2 gets another underlay address while its containers run, and its own back."""
    ground = scene.ground
    other = ground.lab.underlay.address(62)
    for old, new in ((ground.h2.address, other), (other, ground.h2.address)):
        began = time.monotonic()
        with scene.excused():
            _move(scene, ground.h2, old, new)
            try:
                took = eventually("h1 and h2 reach each other again", lambda: _both(scene), 45)
            except LabError as error:
                scene.check(f"{old} → {new}: the flow goes on", error, False, "45 s")
            else:
                scene.check(f"{old} → {new}: the flow goes on", f"{took:.1f} s", True)
        scene.last(max(3.0, 8 - (time.monotonic() - began)))


def _move(scene: Scene, host: EngineHost, old: str, new: str) -> None:
    gateway = scene.ground.lab.underlay.address(1)
    lines = f"address del {old}/24 dev eth0\naddress add {new}/24 dev eth0\nroute replace default via {gateway}\n"
    host.run(["ip", "-batch", "-"], input=lines)


def _both(scene: Scene) -> bool:
    addresses = scene.ground.addresses
    return scene.reaches("h1", "flow", addresses["h2", "flow"]) and scene.reaches("h2", "c0", addresses["h1", "c0"])


def reboot(scene: Scene) -> None:
    """h4 loses its power and gets it back; Consul is not reachable from it until its containers run."""
    ground = scene.ground
    process = isinstance(ground.drivers["h4"], ProcessDriver)
    if process:
        ground.lab.switch.cut_between("h4", "consul")
    began = time.monotonic()
    ground.lab.reboot("h4", start_engine=False)
    up = time.monotonic()
    if process:  # what the machine's init does: the plugin's unit, then the engine's
        ground.drivers["h4"].start()
    ground.h4.start_engine()
    scene.note(f"h4 was up {up - began:.1f} s, its engine {time.monotonic() - began:.1f} s after the power went")
    scene.within("its containers run", 30.0, lambda: _running(ground) >= set(KEPT), up)
    if process:
        ground.lab.switch.heal_between()
        scene.note("Consul came within its reach only then")
    healed = time.monotonic()
    # Docker asks for any address when it starts a container again that was given no --ip: they may be others now.
    for name in KEPT:
        what = f"{name} of h4{', with --ip,' if name == KEPT[0] else ''} is reached from h1 and h2"
        scene.within(what, 15.0, partial(_reached, scene, name), healed)
    same = ground.addresses["h4", KEPT[0]]
    scene.check(f"the address of {KEPT[0]}", same, same == FIXED, FIXED)
    scene.starts(ground.h4, 30.0, "a container starts")
    scene.last(5)


def _running(ground: Ground) -> set[str]:
    return set(ground.h4.docker("ps", "--format", "{{.Names}}").split())


def _reached(scene: Scene, name: str) -> bool:
    """Whether a container of h4 is reached, at the address that it has now."""
    ground = scene.ground
    address = ground.h4.docker("inspect", "-f", ADDRESS, name)
    ground.addresses["h4", name] = address or ground.addresses["h4", name]
    return bool(address) and all(scene.reaches(host, "c0", address) for host in ("h1", "h2"))


def power(scene: Scene) -> None:
    """h4 loses its power for good; its addresses come free after the lease grace."""
    ground = scene.ground
    scene.within("k1 of h4 is reached from h1 and h2", 15.0, lambda: _reached(scene, "k1"))
    address = ground.addresses["h4", "k1"]
    watchers, host_id = [ground.h1, ground.h2, ground.h3], ground.id_of("h4")
    began = _off(scene)
    scene.within("h1, h2 and h3 call h4 dead", DEAD, lambda: _all_say(scene, watchers, "dead"), began)
    marked = time.monotonic()
    scene.last(LEASE_GRACE / 4)
    scene.check("an address of h4 on h3 before the lease grace", *_asked(scene, address, False))
    scene.within("its rows are gone on h1 and h2", DEAD + GRACE, lambda: not _rows_of_h4(scene), began)
    scene.within(
        "its address is free on h3", LEASE_GRACE + 5.0,
        lambda: not scene.start_on(ground.h3, "--ip", address).refused, marked,
    )  # fmt: skip
    _nothing_left(scene, host_id)


def _left_of(scene: Scene, host_id: str) -> list[str]:
    """Keys that are a host's, or whose value names it; the rings of what changed lately tell of its going."""
    found = scene.ground.lab.consul.get("myoverlay/")
    named = [key for key, value in found.items() if host_id in key or host_id.encode() in value]
    return [key for key in named if "/changes/" not in key]


def _nothing_left(scene: Scene, host_id: str) -> None:
    try:
        eventually("nothing of h4 is left in the store", lambda: not _left_of(scene, host_id), 15)
    except LabError:
        scene.check("what is left of h4 in the store", ", ".join(_left_of(scene, host_id)), False, "nothing")


def forget(scene: Scene) -> None:
    """h4 comes back, loses its power again, and `myoverlay host forget h4` frees its addresses at once."""
    ground = scene.ground
    ground.lab.reboot("h4", start_engine=False)
    ground.drivers["h4"].start()
    ground.h4.start_engine()
    scene.within("k1 of h4 is reached from h1 and h2", 30.0, lambda: _reached(scene, "k1"))
    address = ground.addresses["h4", "k1"]
    watchers, host_id = [ground.h1, ground.h3], ground.id_of("h4")
    began = _off(scene)
    scene.within("h1 and h3 call h4 dead", DEAD, lambda: _all_say(scene, watchers, "dead"), began)
    scene.check("an address of h4 on h3 before that", *_asked(scene, address, False))
    said = ground.words_of(ground.h1, "host", "forget", "h4")
    scene.check("`myoverlay host forget h4`", (said.stdout + said.stderr).strip()[-200:], said.returncode == 0)
    scene.check("the address on h3 at once", *_asked(scene, address, True))
    _nothing_left(scene, host_id)


def _off(scene: Scene) -> float:
    began = time.monotonic()
    scene.ground.h4.power_off()
    scene.ground.lab.switch.unplug("h4")
    return began


def _all_say(scene: Scene, watchers: list[EngineHost], state: str) -> bool:
    said = scene.states_of("h4", watchers)
    if set(said.values()) != {state}:
        raise LabError(f"they say {said}")
    return True


def _asked(scene: Scene, address: str, given: bool) -> tuple[str, bool, str]:
    """Ask for an address on h3: what came of it, whether that is right, what is right."""
    start = scene.start_on(scene.ground.h3, "--ip", address)
    return start.refused[-160:] or "given", bool(start.refused) != given, "given" if given else "refused"


def _rows_of_h4(scene: Scene) -> list[str]:
    found = []
    for host in (scene.ground.h1, scene.ground.h2):
        fdb, _ = scene.ground.rows(host)
        found += [mac for mac, vtep in fdb.items() if vtep == scene.ground.h4.address]
    return found
