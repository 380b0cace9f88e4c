"""A host prepared with nothing but the tutorial's shell commands, and records PUT by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.conftest import BOTH, DRIVER, ICMP, Cluster, Nets, eventually, ping

NAMESPACE = """
ip netns add overlay-ns
ip netns exec overlay-ns ip link add br0 type bridge
ip netns exec overlay-ns ip addr add 192.168.0.1/24 dev br0
ip netns exec overlay-ns ip link set br0 up
ip link add vxlan1 type vxlan id 42 learning proxy l2miss l3miss dstport 4789
ip link set vxlan1 netns overlay-ns
ip netns exec overlay-ns ip link set vxlan1 master br0
ip netns exec overlay-ns ip link set vxlan1 up
ip netns add guest
ip link add veth1 mtu 1450 netns overlay-ns type veth peer name eth0 mtu 1450 netns guest
ip netns exec overlay-ns ip link set veth1 master br0 up
ip netns exec guest ip link set eth0 address 02:42:c0:a8:00:03
ip netns exec guest ip addr add 192.168.0.3/24 dev eth0
ip netns exec guest ip link set eth0 up
"""
ROW = """
ip netns exec overlay-ns ip neigh replace {ip} lladdr {mac} dev vxlan1
ip netns exec overlay-ns bridge fdb replace {mac} dev vxlan1 self dst {vtep}
"""
CLEAR = "ip netns exec overlay-ns ip link del vxlan1; ip netns del guest; ip netns del overlay-ns; true"
OPTIONS = ("-o", "overlay=demo", "-o", "vni=42", "-o", "records=demo-1")


@pytest.fixture
def by_hand(cluster: Cluster) -> Iterator[Cluster]:
    """h3 as the tutorial leaves it, with its guest's two keys in Consul."""
    cluster.h3.run(["sh", "-c", CLEAR])
    cluster.h3.run(["sh", "-ec", NAMESPACE])
    cluster.consul.put("demo-1/arp/192.168.0.3", b"02:42:c0:a8:00:03")
    cluster.consul.put("demo-1/fib/02:42:c0:a8:00:03", cluster.h3.address.encode())
    yield cluster
    for key in ("demo-1/arp/192.168.0.3", "demo-1/fib/02:42:c0:a8:00:03"):
        cluster.consul.delete(key)
    cluster.h3.run(["sh", "-c", CLEAR])


@pytest.mark.parametrize("ipam", ["ours", "Docker's"])
@pytest.mark.parametrize("age", [0, 1])
def test_the_tutorials_host_takes_part(by_hand: Cluster, nets: Nets, age: int, ipam: str) -> None:
    """Pings go both ways, a `fib/` key that moves is followed, the key is never overwritten, nor its address given."""
    host, h3, consul = by_hand.engines[age], by_hand.h3, by_hand.consul
    driver = BOTH if ipam == "ours" else DRIVER
    nets.create(host, "demo", *driver, "--subnet", "192.168.0.0/24", *OPTIONS)
    address = nets.run(host, "ours", "--network", "demo")
    arp = f"demo-1/arp/{address}"  # written in the background
    mac = eventually("its MAC", lambda: consul.get(arp).get(arp)).decode()
    fib = f"demo-1/fib/{mac}"
    assert eventually("its VTEP", lambda: consul.get(fib).get(fib)).decode() == host.address
    h3.run(["sh", "-ec", ROW.format(ip=address, mac=mac, vtep=host.address)])
    trips = eventually("the first ping", lambda: ping(host, "ours", "192.168.0.3"))
    assert len(trips) == 3
    assert h3.run(["ip", "netns", "exec", "guest", "python3", "-c", ICMP, address, "3"]).count("answered") == 3
    refusal = host.docker_complete("run", "--rm", "--network", "demo", "--ip", "192.168.0.3", "lab/base", "true")
    assert "192.168.0.3" in refusal.stderr
    assert "outsider" in refusal.stderr
    if ipam == "ours":
        others = [nets.run(host, f"other{number}", "--network", "demo") for number in range(4)]
        assert "192.168.0.3" not in others
    consul.put("demo-1/fib/02:42:c0:a8:00:03", b"172.30.99.99")
    pin = "--net=/run/docker/plugins/myoverlay/netns/demo"
    eventually(
        "the moved key is followed",
        lambda: "172.30.99.99" in host.run(["nsenter", pin, "bridge", "fdb", "show", "dev", "vxlan1"]),
        5,
    )
    consul.put("demo-1/fib/02:42:c0:a8:00:03", h3.address.encode())
    eventually("the key moved back", lambda: len(ping(host, "ours", "192.168.0.3", count=1)) == 1, 5)
    assert consul.get("demo-1/arp/192.168.0.3") == {"demo-1/arp/192.168.0.3": b"02:42:c0:a8:00:03"}
    consul.delete("demo-1/arp/192.168.0.3")
    eventually(
        "the row goes with the key",
        lambda: "192.168.0.3" not in host.run(["nsenter", pin, "ip", "neigh", "show", "nud", "permanent"]),
        5,
    )
