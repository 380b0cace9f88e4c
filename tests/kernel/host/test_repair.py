"""What somebody changed by hand, or left behind, is put right within one round: rows, links, devices, pins."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest

from myoverlay.host.journal import Journal
from myoverlay.host.reconcile import Reconciler
from myoverlay.kernel import netns
from myoverlay.plan import shape
from myoverlay.values import Address, Fdb, Mac, Neigh, OverlayName
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import ip, link_names, run_in, until

#: Seconds within which everything that somebody changed by hand is healed.
HEALED = 5.0


def talking(two: tuple[Host, Host]) -> tuple[Container, Container]:
    """A container on each host, that know of each other."""
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    return a, b


def reach(a: Container, b: Container) -> bool:
    return not a.reaches(b, timeout=0.3) and not b.reaches(a, timeout=0.3)


def test_missing_altered_and_surplus_rows_are_put_right(two: tuple[Host, Host]) -> None:
    """Whatever was done to neighbours and FDB, one comparison restores it, counted by reason."""
    here, there = two
    here.run()
    gone, bent, kept = there.run(), there.run(), there.run()
    until(lambda: here.knows(gone, bent, kept))
    right = here.rows()
    with here.tables() as tables:
        tables.unset(gone.rows)
        tables.set([Neigh(address=bent.address, mac=Mac("02:42:66:66:66:66"))])
        tables.set([Fdb(mac=bent.mac, vtep=Address("172.30.0.99"))])
        tables.set([Neigh(address=Address("10.5.0.250"), mac=Mac("02:42:66:66:66:67"))])
        tables.set([Fdb(mac=Mac("02:42:66:66:66:67"), vtep=Address("172.30.0.99"))])
    here.daemon.reconciler.compare()
    assert here.rows() == right
    assert here.count("repairs", "missing row") == 4
    assert here.count("repairs", "surplus row") == 2
    here.daemon.reconciler.compare()
    assert here.count("repairs", "missing row") == 4


def test_who_was_told_a_wrong_mac_is_told_the_right_one(two: tuple[Host, Host]) -> None:
    """A container that asked while the row was wrong learned that: once the row is right it reaches its peer again."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    with here.tables() as tables:
        tables.set([Neigh(address=peer.address, mac=Mac("02:42:66:66:66:66"))])
    assert asker.ping(peer.address, timeout=0.3) == [None]
    here.daemon.reconciler.compare()
    assert here.count("announcements", "repaired") == 1
    assert None not in asker.ping(peer.address, timeout=0.3)


def test_rows_made_by_hand_in_another_state_are_written_over(two: tuple[Host, Host]) -> None:
    """A reachable neighbour and a dynamic FDB row in place of ours count as missing."""
    here, there = two
    here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    with here.overlay() as ns:
        run_in(ns, "ip", "neigh", "replace", peer.address, "lladdr", peer.mac, "dev", "vxlan1", "nud", "stale")
    assert not here.knows(peer)
    here.daemon.reconciler.compare()
    assert here.knows(peer)


def test_the_loop_does_it_by_itself(two: tuple[Host, Host]) -> None:
    """Nobody calls `compare`: a loop whose time has come puts the rows back."""
    here, there = two
    here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    with here.tables() as tables:
        tables.unset(peer.rows)
    daemon = here.daemon
    loop = Reconciler(daemon.overlays, daemon.underlay, daemon.leftovers, daemon.tally)
    loop.start()
    loop.wake()
    until(lambda: here.knows(peer))
    loop.stop(3.0)


def test_an_incomplete_picture_removes_nothing(two: tuple[Host, Host]) -> None:
    """Before the peers were listed once, a comparison takes nothing away, but what leads to a container from here."""
    here, there = two
    mine = here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    here.stop()
    here.view.away = True
    here.start()
    stranger = Mac("02:42:66:66:66:67")
    with here.tables() as tables:
        tables.set([Neigh(address=mine.address, mac=stranger), Fdb(mac=mine.mac, vtep=Address("172.30.0.99"))])
        tables.set([Fdb(mac=stranger, vtep=Address("172.30.0.99"))])
    here.daemon.reconciler.compare()
    assert here.knows(peer)
    assert [row for row in here.rows() if getattr(row, "mac", None) == mine.mac] == []
    assert [row for row in here.rows() if getattr(row, "address", None) == mine.address] == []
    assert Fdb(mac=stranger, vtep=Address("172.30.0.99")) in here.rows()
    assert here.count("repairs", "surplus row") == 2


# -- links ---------------------------------------------------------------------------------------------------------


def test_half_of_the_rows_gone_and_wrong_ones_in_are_healed_by_itself(two: tuple[Host, Host]) -> None:
    """Nobody calls anything: within 5 s both tables are as before."""
    here, there = two
    here.run()
    peers = [there.run() for _ in range(6)]
    until(lambda: here.knows(*peers))
    right = here.rows()
    with here.tables() as tables:
        for peer in peers[:3]:
            tables.unset(peer.rows)
        tables.set([Neigh(address=peers[4].address, mac=Mac("02:42:66:66:66:66"))])
        tables.set([Fdb(mac=peers[5].mac, vtep=Address("172.30.0.99"))])
        tables.set([Fdb(mac=Mac("02:42:66:66:66:67"), vtep=Address("172.30.0.99"))])
    until(lambda: here.rows() == right, HEALED)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (["link del vxlan1"], "missing link"),
        (["link set vxlan1 down"], "wrong link"),
        (["link set vxlan1 nomaster"], "wrong link"),
        (["link del br0"], "missing link"),
        (["link set br0 address 02:00:00:00:00:01"], "wrong link"),
        (["addr flush dev br0", "addr add 10.5.0.77/24 dev br0"], "wrong link"),
        (["link set br0 mtu 1000"], "wrong link"),
    ],
    ids=lambda value: value[0].replace(" ", "-") if isinstance(value, list) else "",
)
def test_a_device_that_was_changed_is_healed_by_itself(two: tuple[Host, Host], harm: list[str], reason: str) -> None:
    """Bridge or tunnel deleted or bent: within 5 s they and all rows are there again, and traffic flows."""
    here, _ = two
    a, b = talking(two)
    right, count = here.rows(), here.count("repairs", reason)
    with here.overlay() as ns:
        ip(ns, *harm)
    until(lambda: here.count("repairs", reason) > count and here.rows() == right and reach(a, b), HEALED)
    until(lambda: reach(a, b))
    assert here.local().check(time.monotonic() + 5) is False
    assert here.count("bugs", "watch") == 0


def test_a_device_made_anew_by_hand_gets_its_rows_again(two: tuple[Host, Host]) -> None:
    """Somebody deletes the tunnel and makes it as it was: only its index tells, and it has no rows."""
    here, _ = two
    a, b = talking(two)
    right, network = here.rows(), here.local().network
    with here.overlay() as ns:
        ip(ns, "link del vxlan1")
        here.daemon.links.ensure(ns, shape.vxlan(network), deadline=time.monotonic() + 5)
    until(lambda: here.rows() == right, HEALED)
    assert here.count("repairs", "device made anew") == 1
    until(lambda: reach(a, b))


def test_misses_are_heard_on_a_device_that_was_made_anew(two: tuple[Host, Host]) -> None:
    """After the repair the kernel's questions are still answered: a row taken out comes back by the miss."""
    here, _ = two
    a, b = talking(two)
    with here.overlay() as ns:
        ip(ns, "link del vxlan1")
    here.daemon.reconciler.compare()
    until(lambda: reach(a, b))
    late = here.count("misses", "late")
    with here.tables() as tables:
        tables.unset(b.rows)
    run_in(a.ns, "ip", "neigh", "flush", "all")
    until(lambda: a.ping(b.address) != [None])
    until(lambda: here.count("misses", "late") > late or here.count("repairs", "missing row"))


def test_a_cable_pulled_out_of_the_bridge_is_put_back(two: tuple[Host, Host]) -> None:
    """A port that is no port any more, or has lost its static row, is one again; the container is not buried."""
    here, _ = two
    a, b = talking(two)
    (port,) = here.ports()
    with here.overlay() as ns:
        ip(ns, f"link set {port} nomaster")
    until(lambda: reach(a, b), HEALED)
    with here.overlay() as ns:
        run_in(ns, "bridge", "fdb", "del", a.mac, "dev", port, "master")
    count = here.count("repairs", "wrong link")
    until(lambda: here.count("repairs", "wrong link") > count, HEALED)
    assert len(here.daemon.journal.endpoints.all()) == 1


def test_links_that_nobody_asks_for_go(two: tuple[Host, Host]) -> None:
    """A cable without an endpoint and a stranger's device in the overlay namespace are taken away, counted."""
    here, _ = two
    a, b = talking(two)
    with here.overlay() as ns:
        foreign = here.hosts.space("foreign")
        ip(ns, "link add stranger type bridge", f"link add p0123456789ab type veth peer name far netns {foreign.path}")
        until(lambda: len(here.ports()) == 1, HEALED)
    until(lambda: here.count("repairs", "surplus link") == 2)
    assert reach(a, b)


# -- namespaces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "replaced"])
def test_a_pin_that_was_taken_away_is_set_again(two: tuple[Host, Host], replaced: bool) -> None:
    """The namespace lives on under the daemon with all cables: the same one is pinned again, and no ping is lost."""
    here, _ = two
    a, b = talking(two)
    ground, (pin,) = here.ground(), here.pins()
    with a.pinging(b) as out:
        until(out.flows)
        netns.delete(pin)
        if replaced:
            netns.create(pin).close()
        until(lambda: netns.holds(pin, ground.namespace), HEALED)
        until(lambda: out.flows(30))
    assert out.lost() == []
    assert here.count("repairs", "pin") == 1
    assert here.ground() is ground


def test_everything_taken_away_is_made_again(two: tuple[Host, Host]) -> None:
    """Tunnel deleted and pin gone, as by a thorough hand: both are there again with their rows."""
    here, _ = two
    a, b = talking(two)
    right = here.rows()
    (pin,) = here.pins()
    here.raze()
    until(lambda: netns.is_pinned(pin), HEALED)
    with here.overlay() as ns:
        until(lambda: "vxlan1" in link_names(ns), HEALED)
    until(lambda: here.rows() == right and reach(a, b), HEALED)


def test_namespaces_that_no_network_names_go(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """An orphan is collected while the daemon runs and at its start, VNI and all; what is no overlay's name stays."""
    here, _ = two
    folder = here.run_folder / "netns"
    for start in (lambda: None, here.restart):
        ns = netns.create(folder / "orphan")
        ip(here.ns, "link add vxlan1 type vxlan id 99 dstport 4789", f"link set vxlan1 netns {ns.path}")
        ns.close()
        (folder / "empty").touch()
        netns.create(folder / "_other").close()
        start()
        until(lambda: {pin.name for pin in here.pins()} == {"10.5.0.0-24", "_other"}, HEALED)
        ip(here.ns, "link add vxlan9 type vxlan id 99 dstport 4789", "link del vxlan9")
    netns.delete(folder / "_other")


def test_an_orphan_that_containers_use_waits_for_a_word(two: tuple[Host, Host]) -> None:
    """The journal forgot a network whose containers talk: its namespace stays until a person lets it go."""
    here, _ = two
    # On one host: what the journal does not know is withdrawn from the others, so that they lose their rows soon.
    a, b = here.run(), here.run()
    until(lambda: reach(a, b))
    here.stop()
    name = OverlayName("10.5.0.0-24")
    journal = Journal(Path(here._environ["MYOVERLAY_STATE"]))
    for network in journal.networks.all():
        journal.networks.drop(network.network)
    for endpoint in journal.endpoints.all():
        journal.endpoints.drop(endpoint.endpoint)
    journal.close()
    here.start()
    here.daemon.reconciler.compare()
    assert [held.names for held in here.daemon.leftovers.held()] == [(name,)]
    assert here.count("braked", "namespace") == 1
    assert a.reaches(b) == b.reaches(a) == set()
    assert here.call("Control.Gc", yes=True)["held"][0]["names"] == [name]
    until(lambda: here.pins() == [], HEALED)
    here.networks.clear()


def test_a_network_being_removed_is_not_built_again(two: tuple[Host, Host]) -> None:
    """A round that still had the network in hand leaves nothing of it behind."""
    here, _ = two
    local = here.local()
    here.delete_network()
    assert local.check(time.monotonic() + 5) is False
    assert here.pins() == []


# -- leftovers and the brake ---------------------------------------------------------------------------------------


def test_the_brake_holds_fifty_one_and_lets_them_go(two: tuple[Host, Host]) -> None:
    """51 links that nobody asks for stay through rounds and a restart, with one alarm, and go after `gc --yes`."""
    here, _ = two
    a, b = talking(two)
    surplus = {f"b{number}" for number in range(51)}
    with here.overlay() as ns:
        ip(ns, *(f"link add {name} type bridge" for name in surplus))
        here.daemon.reconciler.compare()
        here.daemon.reconciler.compare()
        assert surplus <= link_names(ns)
        assert here.count("braked", "link") == 51
        here.restart()
        here.daemon.reconciler.compare()
        assert surplus <= link_names(ns)
        (held,) = here.call("Control.Gc")["held"]
        assert (held["kind"], held["overlay"], set(held["names"])) == ("link", "10.5.0.0-24", surplus)
        assert here.call("Control.Gc", yes=True)["let_go"] is True
        until(lambda: not surplus & link_names(ns), HEALED)
    assert here.call("Control.Gc")["held"] == []
    assert reach(a, b)


def test_many_removals_by_docker_are_no_alarm(two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cables that Docker had removed have a cause: they are no surplus, and a removal that failed is tried again."""
    here, _ = two
    network, links = here.networks[0], here.daemon.links
    here.run()
    for _ in range(5):
        endpoint, address = secrets.token_hex(32), here.request_address(network)
        here.create_endpoint(network, endpoint, address)
        with monkeypatch.context() as patch:
            patch.setattr(links, "remove", lambda *_, **__: None)
            here.call("NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=endpoint)
    assert len(here.ports()) == 6
    here.daemon.reconciler.compare()
    until(lambda: len(here.ports()) == 1)
    assert here.count("braked", "link") == here.count("repairs", "surplus link") == 0


def test_an_endpoint_that_nobody_took_is_forgotten(two: tuple[Host, Host]) -> None:
    """Created, even joined, and never moved into a container: after five minutes it goes, and its address is free."""
    here, _ = two
    network, now = here.networks[0], [0.0]
    daemon = here.daemon
    loop = Reconciler(daemon.overlays, daemon.underlay, daemon.leftovers, daemon.tally, lambda: now[0])
    used = here.run()
    address, endpoint = here.request_address(network), secrets.token_hex(32)
    here.create_endpoint(network, endpoint, address)
    loop.compare()
    now[0] = 299.0
    loop.compare()
    assert daemon.journal.endpoints.get(endpoint) is not None
    now[0] = 300.0
    loop.compare()
    assert [one.endpoint for one in daemon.journal.endpoints.all()] == [used.endpoint]
    until(lambda: len(here.ports()) == 1)
    until(lambda: address not in here.hosts.leases())


def test_a_cable_of_nobody_in_the_hosts_namespace_goes(two: tuple[Host, Host]) -> None:
    """Both ends in the host's namespace and named like ours: it goes; one that leads elsewhere is left alone."""
    here, _ = two
    foreign = here.hosts.space("foreign")
    ip(
        here.ns,
        "link add mo0123456789ab type veth peer name loose",
        f"link add mo0123456789ac type veth peer name far netns {foreign.path}",
        "link add mo-other type veth peer name mine",
    )
    for _ in range(2):
        here.daemon.reconciler.compare()
    assert link_names(here.ns) & {"mo0123456789ab", "mo0123456789ac", "mo-other"} == {"mo0123456789ac", "mo-other"}
    ip(here.ns, "link del mo0123456789ac", "link del mo-other")
