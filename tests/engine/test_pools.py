"""Pools and addresses of our IPAM driver, by Docker's own options."""

from __future__ import annotations

from tests.engine.conftest import BOTH, Cluster, Nets, eventually, ping, refused


def test_ranges_gateway_and_addresses_set_aside(cluster: Cluster, nets: Nets) -> None:
    """Each host may have its own --ip-range; gateway and --aux-address are the same on both, and nobody else's."""
    common = ("--subnet", "10.7.0.0/24", "--gateway", "10.7.0.254", "--aux-address", "dns=10.7.0.65")
    for host, part in ((cluster.h1, "10.7.0.64/26"), (cluster.h2, "10.7.0.128/26")):
        nets.create(host, "ranges", *BOTH, *common, "--ip-range", part)
    mine = [nets.run(cluster.h1, f"r{number}", "--network", "ranges") for number in range(3)]
    theirs = nets.run(cluster.h2, "far", "--network", "ranges")
    assert all(64 <= int(address.rpartition(".")[2]) < 128 for address in mine)
    assert 128 <= int(theirs.rpartition(".")[2]) < 192
    assert "10.7.0.65" not in mine
    assert len(ping(cluster.h1, "r0", theirs)) == 3
    assert len(ping(cluster.h1, "r0", "10.7.0.254")) == 3
    run = ("run", "--rm", "--network", "ranges", "--ip")
    assert "--aux-address" in refused(cluster.h1, *run, "10.7.0.65", "lab/base", "true")
    assert "is the gateway of 10.7.0.0/24" in refused(cluster.h2, *run, "10.7.0.254", "lab/base", "true")


def test_a_small_pool_is_used_up_and_given_back(cluster: Cluster, nets: Nets) -> None:
    """The last address of a /29 is given out, the next is refused in words, and what is removed can be had again."""
    for host in cluster.engines:
        nets.create(host, "small", *BOTH, "--subnet", "10.7.1.0/29")
    names = [(cluster.engines[number % 2], f"s{number}") for number in range(5)]
    assert len({nets.run(host, name, "--network", "small") for host, name in names}) == 5
    assert "is full" in refused(cluster.h1, "run", "--rm", "--network", "small", "lab/base", "true")
    nets.remove(*names[1])
    assert nets.run(cluster.h1, "again", "--network", "small")


def test_nothing_is_left_of_a_removed_network(cluster: Cluster, nets: Nets) -> None:
    """With its last network an overlay goes from the store: definition, VNI, pool, leases, members, changes."""
    for host in cluster.engines:
        nets.create(host, "gone", *BOTH, "--subnet", "10.7.2.0/24", "-o", "overlay=gone")
        nets.run(host, "gone1", "--network", "gone")
    for host in cluster.engines:
        nets.remove(host, "gone1")
        nets.remove_network(host, "gone")
    eventually("it is gone", lambda: [key for key in cluster.consul.keys("myoverlay/") if _of_it(key)] == [], 10)


def _of_it(key: str) -> bool:
    return "/gone" in key or "10.7.2.0-24" in key
