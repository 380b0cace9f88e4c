"""A host that follows the tutorial by hand, and hosts with the plugin, on one overlay through the same keys."""

from __future__ import annotations

import pytest

from myoverlay.store.pooled import MARK
from tests.kernel.host.hosts import ByHand, Container, Host, Hosts, Refusal
from tests.kernel.host.tools import until

RECORDS = "demo-1"
OPTIONS = {"overlay": "demo", "records": RECORDS, "vni": 42, "subnet": "192.168.0.0/24"}


@pytest.fixture
def hand(hosts: Hosts) -> ByHand:
    """A host made with `ip` and `bridge` alone."""
    return hosts.by_hand(RECORDS)


@pytest.fixture
def host(hosts: Hosts) -> Host:
    """A host with the plugin, on the tutorial's overlay, under our own IPAM."""
    host = hosts.host()
    host.create_network(gateway="192.168.0.1", **OPTIONS)
    return host


def _meet(hand: ByHand, host: Host, outsider: Container, ours: Container) -> None:
    until(lambda: host.knows(outsider))
    hand.learn()
    assert None not in ours.ping(outsider.address, count=2) + outsider.ping(ours.address, count=2)


def test_an_outsider_and_the_plugin_reach_each_other(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """Keys that were PUT plainly are programmed, ours are found in the tutorial's places, both ways."""
    outsider, ours = hand.run("192.168.0.203"), host.run()
    hand.put(outsider)
    _meet(hand, host, outsider, ours)
    arp, fib = hosts.store.get(f"{RECORDS}/arp/{ours.address}"), hosts.store.get(f"{RECORDS}/fib/{ours.mac}")
    assert arp is not None
    assert fib is not None
    assert (arp.value.decode(), fib.value.decode()) == (ours.mac, host.vtep)


def test_an_outsider_who_was_first_is_known_at_the_first_container(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """Join waits for the first reading of the outsiders' keys too, so the first ping is answered."""
    outsider = hand.run("192.168.0.203")
    hand.put(outsider)
    ours = host.run()
    assert host.knows(outsider)
    hand.learn()
    assert ours.ping(outsider.address) != [None]


def test_an_outsider_that_moves_to_another_vtep_is_followed(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """Its fib key names another VTEP: the rows follow, and a pinging container reaches it within 5 seconds."""
    outsider, ours = hand.run("192.168.0.203"), host.run()
    hand.put(outsider)
    _meet(hand, host, outsider, ours)
    other = hosts.by_hand(RECORDS)
    with ours.pinging(outsider) as pinging:
        until(pinging.flows)
        outsider.die()
        moved = other.run("192.168.0.203")
        other.learn()
        hosts.put(f"{RECORDS}/fib/{moved.mac}", other.vtep)
        started = len(pinging.sent)
        until(lambda: len(pinging.sent) > started + 10 and pinging.flows(), 5.0)
    assert host.knows(moved)
    assert not set(outsider.rows[1:]) & host.rows()


def test_an_outsider_with_a_new_mac_is_followed(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """Its arp key names another MAC: warm caches on our side are told."""
    outsider, ours = hand.run("192.168.0.203"), host.run()
    hand.put(outsider)
    _meet(hand, host, outsider, ours)
    outsider.die()
    again = hand.run("192.168.0.203", "02:42:c0:a8:00:99")
    hand.put(again)
    until(lambda: host.knows(again))
    hand.learn()
    with ours.pinging(again) as pinging:
        until(pinging.flows)


def test_rows_of_an_outsider_go_with_its_keys(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """A deleted key takes the rows along; ours stay."""
    outsider, ours = hand.run("192.168.0.203"), host.run()
    hand.put(outsider)
    _meet(hand, host, outsider, ours)
    hosts.drop(f"{RECORDS}/arp/{outsider.address}", f"{RECORDS}/fib/{outsider.mac}")
    until(lambda: not set(outsider.rows) & host.rows())
    assert hosts.store.get(f"{RECORDS}/arp/{ours.address}") is not None


def test_an_outsiders_address_is_never_given_out(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """Neither by choice, with many containers, nor from a reserve made before it came, nor by --ip."""
    until(lambda: len(hosts.leases("reserve")) == 7)
    reserved = sorted(hosts.leases("reserve"))[:3]
    taken = ["192.168.0.20", "192.168.0.21", *reserved]
    for address in taken:
        hand.put(hand.run(address))
    network = host.networks[0]
    given = [host.request_address(network) for _ in range(40)]
    assert len(set(given)) == 40
    assert not set(given) & set(taken)
    assert "192.168.0.1" not in given
    for address in taken:
        with pytest.raises(Refusal) as said:
            host.request_address(network, address)
        assert f"{address} belongs to an outsider, by the key {RECORDS}/arp/{address}" in said.value.sentence
        assert "choose another --ip" in said.value.sentence


def test_half_an_outsider_is_respected_and_a_leftover_of_ours_is_not(hosts: Hosts, host: Host) -> None:
    """An arp key alone takes its address; a key with our mark that no host's list names takes nothing."""
    hosts.put(f"{RECORDS}/arp/192.168.0.30", "02:42:c0:a8:00:1e")
    for number in (12, 31):
        hosts.put(f"{RECORDS}/arp/192.168.0.{number}", f"02:42:c0:a8:00:{number:02x}", MARK)
        hosts.put(f"{RECORDS}/fib/02:42:c0:a8:00:{number:02x}", "172.30.0.99", MARK)
    network = host.networks[0]
    with pytest.raises(Refusal, match="belongs to an outsider"):
        host.request_address(network, "192.168.0.30")
    host.release_address(network, host.request_address(network, "192.168.0.31"))
    given = [host.run().address for _ in range(12)]
    assert "192.168.0.12" in given
    taken = hosts.store.get(f"{RECORDS}/fib/02:42:c0:a8:00:0c")
    assert taken is not None
    assert taken.value.decode() == host.vtep


def test_an_outsiders_keys_are_never_overwritten(hosts: Hosts, hand: ByHand) -> None:
    """Under Docker's own IPAM a clash is refused naming the key, which stays as its owner wrote it."""
    host = hosts.host()
    host.create_network(ipam=False, **OPTIONS)
    outsider = hand.run("192.168.0.203")
    hand.put(outsider)
    before = {entry.key: entry for entry in hosts.list(RECORDS + "/")}
    with pytest.raises(Refusal, match="belongs to an outsider") as said:
        host.run("192.168.0.203", "02:42:aa:00:00:01")
    assert f"{RECORDS}/arp/192.168.0.203" in said.value.sentence
    with pytest.raises(Refusal, match=f"MAC {outsider.mac}"):
        host.run("192.168.0.4", outsider.mac)
    assert {entry.key: entry for entry in hosts.list(RECORDS + "/")} == before
    ours = host.run("192.168.0.5")
    _meet(hand, host, outsider, ours)
    host.remove(ours)
    host.delete_network()
    assert {entry.key: entry for entry in hosts.list(RECORDS + "/")} == before


def test_bad_keys_are_passed_over(hosts: Hosts, hand: ByHand, host: Host) -> None:
    """What is no address, no MAC, or outside the subnet is left out; the good ones beside it work."""
    outsider = hand.run("192.168.0.203")
    for key, value in (
        ("arp/192.168.0.9", "not a mac"),
        ("arp/10.9.9.9", "02:42:0a:09:09:09"),
        ("arp/192.168.0.1", "02:42:c0:a8:00:01"),
        ("arp/192.168.0.8", "ff:ff:ff:ff:ff:ff"),
        ("fib/02:42:0a:09:09:09", "224.0.0.1"),
        ("fib/zz", "172.30.0.1"),
        ("else/x", "y"),
    ):
        hosts.put(f"{RECORDS}/{key}", value)
    hand.put(outsider)
    ours = host.run()
    _meet(hand, host, outsider, ours)
    assert host.rows() == set(outsider.rows)
    assert host.count("bugs", "outsiders") == 0
