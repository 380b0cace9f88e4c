"""`myoverlay host leave` on whole hosts: what is said, what goes, what stays, and how the host comes back."""

from __future__ import annotations

import logging

import pytest

from myoverlay.host import reconcile
from myoverlay.values import Address
from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import until


def test_a_host_that_has_left_says_so_once(
    hosts: Hosts, two: tuple[Host, Host], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with the way back; then no thread complains that it may not write, whatever Docker goes on to do."""
    monkeypatch.setattr(reconcile, "SETTLE", 0.05)
    here, _ = two
    gone, stays = here.run(), here.run()
    until(lambda: not here.daemon.leases.wanted.is_set())
    before = here.count("loop_failures", "settle"), here.count("published", "failed")
    with caplog.at_level(logging.WARNING):
        here.call("Control.Leave", force=True)
        here.remove(gone)
        until(lambda: not here.daemon.leases.wanted.is_set())
        here.daemon.publisher.stop(3.0)
        here.daemon.settler.stop(3.0)
    assert caplog.text.count("takes no more part until its plugin is started again") == 1
    assert "10.5.0.0-24" in caplog.text
    assert "not announced" not in caplog.text
    assert (here.count("loop_failures", "settle"), here.count("published", "failed")) == before
    assert hosts.keys(here.daemon.records.me) == []
    here.restart()
    until(lambda: hosts.leases() == {stays.address: 1}, 10.0)


def test_namespaces_that_no_container_uses_go(two: tuple[Host, Host]) -> None:
    """With bridge, device and pin, and nobody makes them anew but the next start; Docker's calls are refused."""
    here, there = two
    empty, b = here.create_network("10.6.0.0/24"), there.run()
    a = here.run()
    assert len(here.pins()) == 2
    said = here.call("Control.Leave", force=True)
    assert (said["overlays"], said["kept"]) == (["10.5.0.0-24", "10.6.0.0-24"], ["10.5.0.0-24"])
    assert [pin.name for pin in here.all_pins()] == ["10.5.0.0-24"]
    here.daemon.reconciler.compare()
    with pytest.raises(Refusal, match="this host has left"):
        here.create_endpoint(empty, "e" * 64, Address("10.6.0.5"))
    assert [pin.name for pin in here.all_pins()] == ["10.5.0.0-24"]
    here.remove(a)
    assert here.call("Control.Leave")["kept"] == []
    assert here.all_pins() == []
    here.restart()
    assert len(here.pins()) == 2
    c = here.run()
    until(lambda: there.knows(c) and here.knows(b) and not c.reaches(b, timeout=0.3), 20.0)


def test_a_network_that_is_removed_after_its_host_left_takes_its_namespace_along(two: tuple[Host, Host]) -> None:
    """What containers used is not left for the next reboot if Docker says so while the plugin runs."""
    here, _ = two
    a = here.run()
    assert here.call("Control.Leave", force=True)["kept"] == ["10.5.0.0-24"]
    here.remove(a)
    here.delete_network()
    assert here.all_pins() == []
    here.stop()
    assert not here.run_folder.exists()
