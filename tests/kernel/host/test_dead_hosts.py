"""A host that is gone, and one that only seems so, on the real kernel. What 2 × TTL are, `make chaos` measures."""

from __future__ import annotations

import time

from tests.kernel.host.hosts import Host, Hosts
from tests.kernel.host.tools import ip, until

GRACE, LEASE_GRACE = 2, 6


def state(of: Host, other: Host) -> str:
    """What `myoverlay host ls` says there of the other host."""
    rows = of.call("Control.Hosts")["hosts"]
    return str(next((row["state"] for row in rows if row["id"] == other.daemon.records.me), "unknown"))


def end_session(hosts: Hosts, host: Host) -> None:
    """What the store does 2 × TTL after the last renewal."""
    hosts.drop(f"myoverlay/alive/{host.daemon.records.me}")


def pull_the_plug(hosts: Hosts, host: Host) -> None:
    """Power off: no process, and nothing answers on the underlay any more."""
    ip(host.ns, "link set eth0 down")
    host.stop()
    end_session(hosts, host)


def test_a_dead_host_goes_rows_first_addresses_later(hosts: Hosts) -> None:
    """Found dead within 5 s of its session's end, its rows go after the grace, its address after the lease grace."""
    here, there = hosts.pair_with(grace=GRACE, lease_grace=LEASE_GRACE)
    mine, theirs = here.run(), there.run()
    until(lambda: here.knows(theirs) and there.knows(mine))
    until(lambda: state(here, there) == "alive")
    pull_the_plug(hosts, there)
    until(lambda: state(here, there) == "dead", 5, "the other host's death")
    dead = time.monotonic()
    assert here.knows(theirs)
    until(lambda: not set(theirs.rows) & here.rows(), GRACE + 5, "the end of its rows")
    assert time.monotonic() - dead >= GRACE - 1
    assert theirs.address in hosts.leases()
    until(lambda: theirs.address not in hosts.leases(), LEASE_GRACE + 10, "its address")
    assert time.monotonic() - dead >= LEASE_GRACE - 1
    assert not hosts.keys(there.daemon.records.me)
    assert here.run(theirs.address).address == theirs.address


def test_a_host_whose_plugin_is_gone_is_cut_off(hosts: Hosts) -> None:
    """Its session ends, its kernel answers: rows and addresses stay, whatever the graces, and it comes back."""
    here, there = hosts.pair_with(grace=GRACE, lease_grace=LEASE_GRACE)
    mine, theirs = here.run(), there.run()
    until(lambda: here.knows(theirs) and there.knows(mine))
    there.stop()
    end_session(hosts, there)
    until(lambda: state(here, there) == "cut off", 5)
    since = time.monotonic()
    until(lambda: time.monotonic() - since > LEASE_GRACE + 4, LEASE_GRACE + 5)
    assert state(here, there) == "cut off"
    assert here.knows(theirs)
    assert theirs.address in hosts.leases()
    assert None not in mine.ping(theirs.address)
    there.start()
    until(lambda: state(here, there) == "alive", 10)
    assert None not in theirs.ping(mine.address)
