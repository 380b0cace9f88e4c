"""What the flight recorder holds of the kernel's events on real links and tables: lost, foreign, repaired, overrun."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from myoverlay.host.hearing import listen
from myoverlay.kernel import observe
from myoverlay.kernel.linkforms import Seen
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import ip, run_in, until
from tests.kernel.host.tracing import WRONG_MAC, WRONG_VTEP


def notes(host: Host) -> list[dict[str, Any]]:
    """What it has noted of the kernel."""
    found = [json.loads(raw) for raw in host.daemon.insight.recorder.everything()]
    return [note for note in found if note["kind"] == "kernel"]


def told(host: Host) -> list[tuple[str, str]]:
    return [(note["event"], note["thing"]) for note in notes(host)]


def below(host: Host, *words: object) -> None:
    with host.overlay() as ns:
        run_in(ns, *map(str, words))


@pytest.fixture
def pair(hosts: Hosts) -> tuple[Host, Container, Container]:
    """A host whose reconciler does rounds when it is told to, its container, and another host's, which it knows."""
    near, far = hosts.pair()
    near.daemon.reconciler.stop(5)
    a, b = near.run(), far.run()
    until(lambda: near.knows(b) and far.knows(a))
    until(lambda: near.daemon.insight._hearing._ears)
    return near, a, b


def port(container: Container) -> str:
    return f"p{container.endpoint[:12]}"


def test_what_we_do_ourselves_is_no_event(hosts: Hosts) -> None:
    """Containers come, talk and go on both hosts, and with them links and rows: nothing of it is noted as the kernel's,
    though all of it was heard."""
    near, far = hosts.pair()
    heard = []
    for host in (near, far):
        judge = host.daemon.insight._hearing._judged

        def counted(ear: Any, changes: Any, judge: Any = judge) -> Any:
            heard.extend(changes)
            return judge(ear, changes)

        host.daemon.insight._hearing._judged = counted
    for _ in range(3):
        a, b = near.run(), far.run()
        until(lambda a=a, b=b: near.knows(b) and far.knows(a))
        assert None not in a.ping(b.address, timeout=2)
        far.remove(b)
        until(lambda b=b: not near.knows(b))
        near.remove(a)
    assert len(heard) > 20
    for host in (near, far):
        assert told(host) == []
        (ear,) = host.daemon.insight._hearing._ears.values()
        until(lambda ear=ear: ear._links.keys() == {"br0", "vxlan1"}, 5)
        assert {"br0", "vxlan1"} <= set(ear._names.values()) <= {"lo", "br0", "vxlan1"}, "what went is forgotten"


def test_what_was_told_before_the_look_is_not_heard(
    spaces: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cable that is laid between the beginning to listen and the look at the links is seen once, as it is."""
    ns, look, laid = spaces("ns"), observe.links, []

    def late(wire: Wire) -> dict[str, Seen]:
        if not laid:
            laid.append(
                ip(ns, "link add br0 type bridge", "link add v type veth peer name w", "link set v up master br0")
            )
        return look(wire)

    monkeypatch.setattr(observe, "links", late)
    heard, there = listen(ns)
    with contextlib.closing(heard):
        assert there["v"].up
        assert heard.read(0) == []
        ip(ns, "link set v down")
        until(lambda: heard.read(0), 5)


ROWS: dict[str, tuple[Callable[[Host, Container, Container], None], str, str, str]] = {
    "a neighbour taken away": (
        lambda host, a, b: below(host, "ip", "neigh", "del", b.address, "dev", "vxlan1"),
        "row gone", "{b.address} lladdr {b.mac}", "missing row",
    ),
    "an FDB row taken away": (
        lambda host, a, b: below(host, "bridge", "fdb", "del", b.mac, "dev", "vxlan1", "self", "dst", b.host.vtep),
        "row gone", "{b.mac} dst {b.host.vtep}", "missing row",
    ),
    "a neighbour of another MAC": (
        lambda host, a, b: below(
            host, "ip", "neigh", "replace", b.address, "lladdr", WRONG_MAC, "dev", "vxlan1", "nud", "permanent"
        ),
        "foreign row", f"{{b.address}} lladdr {WRONG_MAC}", "missing row",
    ),
    "an FDB row to another VTEP": (
        lambda host, a, b: below(
            host, "bridge", "fdb", "replace", b.mac, "dev", "vxlan1", "self", "permanent", "dst", WRONG_VTEP
        ),
        "foreign row", f"{{b.mac}} dst {WRONG_VTEP}", "missing row",
    ),
    "a neighbour that is nobody's": (
        lambda host, a, b: below(
            host, "ip", "neigh", "add", "10.5.0.200", "lladdr", WRONG_MAC, "dev", "vxlan1", "nud", "permanent"
        ),
        "foreign row", f"10.5.0.200 lladdr {WRONG_MAC}", "surplus row",
    ),
    "a container's row at its port": (
        lambda host, a, b: below(host, "bridge", "fdb", "del", a.mac, "dev", port(a), "master"),
        "bridge row gone", "{a.mac} at p", "wrong link",
    ),
    "a cable down": (
        lambda host, a, b: below(host, "ip", "link", "set", port(a), "down"),
        "link changed", "down, MTU 1450, in br0", "wrong link",
    ),
    "a cable out of the bridge": (
        lambda host, a, b: below(host, "ip", "link", "set", port(a), "nomaster"),
        "link changed", "up, MTU 1450", "wrong link",
    ),
    "the tunnel's MTU": (
        lambda host, a, b: below(host, "ip", "link", "set", "vxlan1", "mtu", "1400"),
        "link changed", "vxlan1: up, MTU 1400", "wrong link",
    ),
    "the tunnel gone": (
        lambda host, a, b: below(host, "ip", "link", "del", "vxlan1"), "link gone", "vxlan1", "device made anew",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_others_do_is_noted_and_so_is_its_repair(pair: tuple[Host, Container, Container], name: str) -> None:
    """What somebody did to a link or a row is noted as it happens, and then that it was put right, and why."""
    host, a, b = pair
    harm, event, thing, reason = ROWS[name]
    until(lambda: not host.daemon.insight._hearing._written, 8)  # what we wrote just now is taken for ours
    harm(host, a, b)
    wanted = thing.format(a=a, b=b)
    until(lambda: any(one == event and wanted in what for one, what in told(host)), 5)
    assert {note["overlay"] for note in notes(host)} == {host.local().network.overlay}
    host.daemon.reconciler.compare()
    repaired = [note for note in notes(host) if note["event"] == "repaired"]
    assert reason in {note["reason"] for note in repaired}, notes(host)
    assert len(repaired) == host.daemon.tally.total("repairs")


def test_many_rows_are_few_notes(pair: tuple[Host, Container, Container]) -> None:
    """Somebody writes 3,000 rows at once: they are told in a few notes, within the cap of the ring."""
    host, _a, _b = pair
    lines = [
        f"neigh add 10.5.{n // 250 + 1}.{n % 250} lladdr {WRONG_MAC} dev vxlan1 nud permanent" for n in range(3000)
    ]
    with host.overlay() as ns:
        run_in(ns, "ip", "-batch", "-", text="\n".join(lines))

    def count() -> int:
        found = [what for event, what in told(host) if event == "foreign row"]
        return sum(int(what.split()[0]) if " of them, the first " in what else 1 for what in found)

    until(lambda: count() == 3000)
    assert len(told(host)) < 600
    host.daemon.reconciler.compare()
    repaired = [note["thing"] for note in notes(host) if note["event"] == "repaired"]
    assert len(repaired) == 1
    assert repaired[0].startswith("3000 of them, the first 10.5.")


def test_an_overrun_is_noted(pair: tuple[Host, Container, Container]) -> None:
    """More misses than the buffer holds: that some were lost is noted beside the counter, and the rows are compared."""
    host, _a, _b = pair
    ground = host.local().ground
    assert ground is not None
    small = 8
    ground.misses._socket.setsockopt(1, small, 2304)  # SO_RCVBUF
    before = host.count("overruns", "")
    host.daemon.misses._selector.unregister(ground.misses.fileno())  # nobody reads for a while
    with host.overlay() as ns:
        run_in(ns, "bridge", "link", "set", "dev", "vxlan1", "flood", "on")

        def storm() -> None:
            import socket

            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
                raw.bind(("vxlan1", 0))
                for n in range(4000):
                    source = bytes.fromhex("0242ee000001")
                    raw.send(bytes.fromhex(f"0242ee01{n:04x}") + source + b"\x08\x00" + bytes(46))

        ns.call(storm)
    import selectors

    host.daemon.misses._selector.register(ground.misses.fileno(), selectors.EVENT_READ)
    until(lambda: host.count("overruns", "") > before)
    until(lambda: ("overrun", "more misses came than could be heard: all rows are compared") in told(host))
