"""`myoverlay host leave` on whole hosts: what is said, what goes, what stays, and how the host comes back."""

from __future__ import annotations

import logging

import pytest

from myoverlay.host import reconcile
from tests.kernel.host.hosts import Host, Hosts
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
