"""Networks under Docker's own IPAM driver, which gives every host the same addresses."""

from __future__ import annotations

import time

import pytest

from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import in_parallel, until


@pytest.fixture
def pair(hosts: Hosts) -> tuple[Host, Host]:
    """Two hosts whose Docker gives out addresses by itself."""
    return hosts.pair(ipam=False, overlay="demo", subnet="172.18.0.0/16")


def test_the_overlays_name_is_required(hosts: Hosts) -> None:
    """Without `-o overlay=` strangers with Docker's default subnet would be joined; nothing is left of the attempt."""
    host = hosts.host()
    with pytest.raises(Refusal, match="-o overlay=NAME is required") as said:
        host.create_network(ipam=False, subnet="172.18.0.0/16")
    assert said.value.status == 400
    assert host.pins() == []
    assert hosts.keys("overlays/") == hosts.keys("vni/") == []


def test_containers_of_two_hosts_meet(pair: tuple[Host, Host]) -> None:
    """Addresses that do not clash work as under our own IPAM."""
    a, b = pair[0].run("172.18.0.2"), pair[1].run("172.18.0.3")
    until(lambda: pair[0].knows(b) and pair[1].knows(a))
    assert None not in a.ping(b.address) + b.ping(a.address)


def test_an_address_in_use_elsewhere_is_refused_naming_the_host(hosts: Hosts, pair: tuple[Host, Host]) -> None:
    """The second container is refused in Join, with the remedy; the first goes on; afterwards the address is free."""
    first, second = pair
    owner, asker, other = first.run("172.18.0.2"), first.run("172.18.0.9"), second.run("172.18.0.3")
    with asker.pinging(owner) as near, other.pinging(owner) as far:
        with pytest.raises(Refusal, match=r"172\.18\.0\.2 of overlay demo is in use on host h1") as said:
            second.run("172.18.0.2", "02:42:aa:00:00:02")
        until(lambda: near.flows() and far.flows())
    assert said.value.status == 409
    assert said.value.method == "NetworkDriver.Join"
    assert "--ip" in said.value.sentence
    assert "--ipam-driver myoverlay" in said.value.sentence
    assert near.lost() == far.lost() == []
    until(lambda: second.ports() == {f"p{other.endpoint[:12]}"})
    assert second.knows(owner)
    first.remove(owner)
    again = second.run("172.18.0.2", "02:42:aa:00:00:02")
    until(lambda: first.knows(again))
    assert asker.ping(again.address) != [None]


def test_a_refused_claim_with_the_same_mac_ends(pair: tuple[Host, Host]) -> None:
    """Docker derives the MAC from the address, so both have the same one: afterwards the owner is reached again."""
    first, second = pair
    owner, other = first.run("172.18.0.2"), second.run("172.18.0.3")
    until(lambda: second.knows(owner) and first.knows(other))
    with other.pinging(owner) as far:
        until(far.flows)
        with pytest.raises(Refusal, match=r"172\.18\.0\.2 of overlay demo is in use on host h1"):
            second.run("172.18.0.2")
        refused = time.time()
        until(lambda: far.answered_after(refused), 1.0)
        until(far.flows)
    assert second.knows(owner)


def test_a_mac_in_use_elsewhere_is_refused_naming_the_host(pair: tuple[Host, Host]) -> None:
    """Two containers with one MAC would answer for each other."""
    owner = pair[0].run("172.18.0.2", "02:42:aa:00:00:02")
    with pytest.raises(Refusal, match=r"MAC 02:42:aa:00:00:02 of overlay demo is in use by 172\.18\.0\.2 on host h1"):
        pair[1].run("172.18.0.3", "02:42:aa:00:00:02")
    free = pair[1].run("172.18.0.3", "02:42:aa:00:00:03")
    until(lambda: pair[1].knows(owner))
    assert free.ping(owner.address) != [None]


def test_two_hosts_starting_the_same_address_at_once_do_not_both_win(pair: tuple[Host, Host]) -> None:
    """One of them has it, the other is refused: never both, never none."""
    outcomes = []

    def start(host: Host) -> None:
        try:
            outcomes.append(host.run("172.18.0.2", f"02:42:aa:00:00:0{host.number}"))
        except Refusal as said:
            outcomes.append(said.sentence)

    in_parallel(*[lambda host=host: start(host) for host in pair])
    assert sorted(isinstance(outcome, str) for outcome in outcomes) == [False, True], outcomes


def test_an_address_twice_on_one_host_is_refused(pair: tuple[Host, Host]) -> None:
    """Docker's IPAM never does it; an endpoint it forgot might."""
    pair[0].run("172.18.0.2")
    with pytest.raises(Refusal, match="is in use by another container on this host"):
        pair[0].run("172.18.0.2", "02:42:aa:00:00:02")
    with pytest.raises(Refusal, match=r"is in use by 172\.18\.0\.2 on this host"):
        pair[0].run("172.18.0.3", "02:42:ac:12:00:02")
