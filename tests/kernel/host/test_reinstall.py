"""The plugin's own state is lost under running containers; and a host that Docker has no network of goes entirely."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from myoverlay.daemon import NoDaemon, begin
from myoverlay.settings import load
from tests.kernel.host.hosts import Host, Hosts
from tests.kernel.host.tools import until


def _state(host: Host) -> Path:
    return host.daemon.journal.path.parent


def test_installed_again_under_running_containers(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """The state directory is gone: traffic flows on, no row is touched, the host is who it was and serves on."""
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    me, rows = here.daemon.records.me, here.rows()
    with a.pinging(b) as out, b.pinging(a) as back:
        until(lambda: out.flows() and back.flows())
        here.stop()
        shutil.rmtree(_state(here))
        here.start()
        until(lambda: here.local().listed.is_set() and here.daemon.liveness.announced.is_set())
        here.daemon.reconciler.compare()
        until(lambda: out.flows(30) and back.flows(30))
    assert out.lost() == back.lost() == []
    assert here.daemon.records.me == me
    assert here.rows() == rows
    assert here.count("session", "renewed") == 1
    assert here.count("repairs", "missing row") == here.count("repairs", "surplus row") == 0
    new = here.run()
    assert new.address != a.address
    until(lambda: there.knows(a, new))
    here.remove(a)
    until(lambda: a.address not in hosts.leases())


def test_an_unreadable_copy_stops_nothing_that_runs(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """State gone and copy spoilt: no daemon, every call is told why, the kernel is left alone; a mended copy serves."""
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    state, copy = _state(here), here.run_folder / "state" / "journal.db"
    here.stop()
    shutil.rmtree(state)
    good = copy.read_bytes()
    copy.write_bytes(b"rubbish" * 1000)
    nothing = begin(load(here._environ))
    assert isinstance(nothing, NoDaemon)
    nothing.start()
    client = nothing.app.test_client()
    assert client.post("/Plugin.Activate").get_json() == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert client.post("/NetworkDriver.GetCapabilities").get_json()["Scope"] == "local"
    for method in ("NetworkDriver.CreateEndpoint", "IpamDriver.RequestAddress", "NetworkDriver.Leave"):
        answer = client.post(f"/{method}", data="{}")
        assert answer.status_code == 503
        assert "the only copy of its state" in answer.get_json()["Err"] == answer.get_json()["Error"]
    nothing.stop()
    with a.pinging(b) as pinging:
        until(pinging.flows)
    copy.write_bytes(good)
    shutil.rmtree(state, ignore_errors=True)
    here.start()
    assert here.run().ping(b.address) != [None]


def test_a_host_without_networks_leaves_nothing(hosts: Hosts) -> None:
    """Its last network removed and the daemon ended: no key of the host, no pin, no file in memory; its id stays."""
    host = hosts.host()
    host.create_network()
    until(host.daemon.liveness.announced.is_set)
    host.remove(host.run())
    host.delete_network()
    me = host.daemon.records.me
    host.stop()
    assert [key for key in hosts.keys("myoverlay/") if "/incarnation" not in key] == []
    assert not host.run_folder.exists()
    host.start()
    assert host.daemon.records.me == me
    host.create_network()
    assert host.run()


def test_a_host_with_a_network_stays(hosts: Hosts) -> None:
    """Ended with a network, even an empty one: session, copy and pin are there for the next run."""
    host = hosts.host()
    host.create_network()
    until(host.daemon.liveness.announced.is_set)
    host.stop()
    assert any("/alive/" in key for key in hosts.keys("myoverlay/"))
    assert (host.run_folder / "state" / "journal.db").exists()
    assert len(host.pins()) >= 1


def test_it_ends_in_time_while_the_store_is_away(hosts: Hosts) -> None:
    """Nothing can be told then: the end is not held up, and the next run knows what is left to tell."""
    host = hosts.host()
    host.create_network()
    until(host.daemon.liveness.announced.is_set)
    host.view.away = True
    host.delete_network()
    began = time.monotonic()
    host.stop()
    assert time.monotonic() - began < 8
    assert (host.run_folder / "state" / "journal.db").exists()
    with closing(sqlite3.connect(_state(host) / "journal.db")) as db:
        assert db.execute("SELECT count(*) FROM leaving").fetchone() == (1,)
    host.view.away = False
    host.start()
    until(lambda: not hosts.keys("myoverlay/", without=["/alive/", "/incarnation"]), 12.0)
