"""VXLAN from strangers: with the guard off it gets into a container, with it on it does not, and all else goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from myoverlay.errors import KernelRefused
from myoverlay.kernel.bound import BoundTable
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Mac
from tests.attack.board import Board
from tests.attack.datagrams import Ear, frame, packet, send, send_raw, udp, vxlan
from tests.kernel.host.hosts import Container, Host, Hosts, Refusal
from tests.kernel.host.test_egress import docker_bridge
from tests.kernel.host.tools import in_parallel, ip, run_in, until

_subnets = itertools.count(20)
#: Given the attacked container, the host it is on, and the other one; what the attacker was told.
Attack = Callable[[Hosts, Container, Host, Host], str]


def pair(hosts: Hosts, guard: str) -> tuple[Host, Host, Container, Container]:
    """Two hosts with a container each, which reach each other."""
    subnet = f"10.{next(_subnets)}.0.0/24"
    one, two = hosts.host(guard=guard), hosts.host(guard=guard)
    in_parallel(*[lambda host=host: host.create_network(subnet) for host in (one, two)])
    a, b = one.run(), two.run()
    until(lambda: one.knows(b) and two.knows(a), what="the rows")
    assert a.ping(b.address) != [None]
    return one, two, a, b


def vni(host: Host) -> int:
    return host.local().network.definition.vni


def data(victim: Container) -> bytes:
    neighbour = victim.network.subnet.at(victim.network.subnet.first + 99)
    return vxlan(vni(victim.host), frame(victim.mac, neighbour, victim.address))


def reaches(ns: Namespace, host: Host) -> None:
    """What is no VXLAN arrives there by now: a new cable swallows the first packets."""
    with Ear(host.ns, host.vtep, 7002) as ear:
        until(lambda: send(ns, host.vtep, b"hello", 7002) or ear.hears(0.2), what="the way")


def stranger(hosts: Hosts, victim: Container, host: Host, _other: Host) -> str:
    """Any machine of the underlay."""
    ns = hosts.space("stranger" + str(host.number))
    ip(hosts.switch, f"link add s{host.number} type veth peer name eth0 netns {ns.path}",
       f"link set s{host.number} master br0 up")  # fmt: skip
    ip(ns, f"addr add 172.30.0.{200 + host.number}/24 dev eth0", "link set eth0 up", "link set lo up")
    reaches(ns, host)
    return send(ns, host.vtep, data(victim))


def of_another_overlay(hosts: Hosts, victim: Container, host: Host, _other: Host) -> str:
    """A host that shares another overlay with the attacked one, and may send on that."""
    third = hosts.host(guard=host._environ["MYOVERLAY_GUARD"])
    subnet = f"10.{next(_subnets)}.0.0/24"
    shared = [one.create_network(subnet) for one in (host, third)]
    here, there = host.run(network=shared[0]), third.run(network=shared[1])
    until(lambda: there.ping(here.address) != [None], what="the other overlay")
    return send(third.ns, host.vtep, data(victim))


def a_process(_hosts: Hosts, victim: Container, host: Host, other: Host) -> str:
    """A process of the other host, whose VTEP may send."""
    return send(other.ns, host.vtep, data(victim))


def on_docker_gwbridge(hosts: Hosts, host: Host) -> Namespace:
    """A container with a way out of its host, masqueraded, as each of an overlay has."""
    ns = hosts.space(f"gw{host.number}")
    ip(
        host.ns,
        "link add docker_gwbridge type bridge",
        "addr add 172.18.0.1/16 dev docker_gwbridge",
        "link set docker_gwbridge up",
        f"link add vethgw type veth peer name eth1 netns {ns.path}",
        "link set vethgw master docker_gwbridge up",
    )
    ip(ns, "addr add 172.18.0.2/16 dev eth1", "link set eth1 up", "route add default via 172.18.0.1")
    host.ns.sysctl("net/ipv4/ip_forward", "1")
    nat = "table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 172.18.0.0/16 masquerade; }; }"
    run_in(host.ns, "nft", "-f", "-", text=nat)
    return ns


def from_a_container(hosts: Hosts, victim: Container, host: Host, other: Host) -> str:
    """A container of the other host: masqueraded, it comes from a VTEP that may send."""
    return send(on_docker_gwbridge(hosts, other), host.vtep, data(victim))


def from_a_container_as_a_vtep(hosts: Hosts, victim: Container, host: Host, other: Host) -> str:
    """A container of the attacked host itself, by a raw socket, under the other host's address."""
    ns = on_docker_gwbridge(hosts, host)
    send_raw(ns, host.vtep, packet(other.vtep, host.vtep, udp(4789, 4789, data(victim)), 17))
    return ""


def by_its_gateway(hosts: Hosts, victim: Container, host: Host, other: Host) -> str:
    """A container of an overlay of the other host that leads out by itself: masqueraded twice, it comes from a VTEP."""
    docker_bridge(other)
    network = other.create_network(f"10.{next(_subnets)}.0.0/24", egress="own")
    container = other.run(network=network)
    ip(container.ns, f"route add default via {network.gateway}")
    assert container.ping(host.vtep) != [None], "the way out"
    return send(container.ns, host.vtep, data(victim))


ATTACKS: list[tuple[str, Attack]] = [
    ("VXLAN from an unknown machine", stranger),
    ("VXLAN from a live VTEP of another overlay", of_another_overlay),
    ("VXLAN from a process of a member host", a_process),
    ("VXLAN from a container on docker_gwbridge", from_a_container),
    ("VXLAN from a container by its overlay's gateway", by_its_gateway),
    ("VXLAN from a container, under a VTEP's address", from_a_container_as_a_vtep),
]


@pytest.mark.parametrize(("name", "attack"), ATTACKS, ids=[name.replace(" ", "-") for name, _ in ATTACKS])
def test_what_is_injected_is_kept_out(hosts: Hosts, board: Board, name: str, attack: Attack) -> None:
    """With the guard off the datagram's packet is read in the container; with it on it is not, and pings go on."""
    came = {}
    for guard in ("off", "on"):
        one, two, a, b = pair(hosts, guard)
        with Ear(a.ns) as ear:
            said = attack(hosts, a, one, two)
            came[guard] = "injected" if ear.hears() else (said or "dropped")
        assert None not in a.ping(b.address, 5)
        assert None not in b.ping(a.address, 5)
        for host in (one, two):
            host.stop()
    board.write(name, came["off"], came["on"])
    assert came["off"] == "injected"
    assert came["on"] in ("dropped", "EPERM")


def test_what_is_dropped_is_counted(hosts: Hosts) -> None:
    """The counter of the guard tells how many datagrams of which kind were kept out."""
    one, two, a, _ = pair(hosts, "on")
    stranger(hosts, a, one, two)
    a_process(hosts, a, one, two)
    until(lambda: one.count("guard", "unknown") == 3, 8, "the count of strangers'")
    until(lambda: two.count("guard", "local") == 1, 8, "the count of the process's")


def test_a_flushed_ruleset_is_laid_again(hosts: Hosts, board: Board) -> None:
    """After `nft flush ruleset` a stranger is kept out again within two rounds, and the repair is counted."""
    one, two, a, b = pair(hosts, "on")
    with Ear(a.ns) as ear:
        one.have_round()  # so that the next one is 3 s away
        run_in(one.ns, "nft", "flush", "ruleset")
        stranger(hosts, a, one, two)
        before = ear.hears()
        until(lambda: one.count("repairs", "guard") == 1, 8, "the repair")
        ns = hosts.space(f"later{one.number}")
        ip(hosts.switch, f"link add t{one.number} type veth peer name eth0 netns {ns.path}", f"link set t{one.number} master br0 up")  # fmt: skip # noqa: E501
        ip(ns, "addr add 172.30.0.250/24 dev eth0", "link set eth0 up")
        reaches(ns, one)
        while ear.hears(0.1):
            pass
        send(ns, one.vtep, data(a))
        after = ear.hears()
    assert None not in a.ping(b.address, 5)
    board.write("VXLAN from an unknown machine, after `nft flush ruleset`", "injected" if before else "dropped", "injected" if after else "dropped")  # fmt: skip # noqa: E501
    assert before
    assert not after


def test_others_on_the_same_port_are_left_alone(hosts: Hosts, board: Board) -> None:
    """A foreign VXLAN (Swarm's, flannel's) with a VNI of its own on our port works between guarded hosts."""
    one, two, a, b = pair(hosts, "off")
    reached = {"off": foreign_pings(one, two, a)}
    for host in (one, two):
        host.stop()
    one, two, a, b = pair(hosts, "on")
    reached["on"] = foreign_pings(one, two, a)
    board.write("none: another's VXLAN on the same port, as Swarm's and flannel's", reached["off"], reached["on"])
    assert reached == {"off": "reached", "on": "reached"}
    assert None not in a.ping(b.address, 5)
    assert one.count("guard", "unknown") == two.count("guard", "unknown") == 0


def foreign_pings(one: Host, two: Host, a: Container) -> str:
    """What becomes of pings through a VXLAN between the hosts that is not ours."""
    for host, other, address in ((one, two, "10.99.0.1"), (two, one, "10.99.0.2")):
        ip(
            host.ns,
            f"link add swarm type vxlan id 4097 dstport 4789 local {host.vtep} remote {other.vtep}",
            f"addr add {address}/24 dev swarm",
            "link set swarm up",
        )
    swarm = Container(one.ns, Address("10.99.0.1"), a.mac, one, None, "")
    return "lost" if None in swarm.ping("10.99.0.2", 3, 3.0) else "reached"


def test_a_vni_that_is_taken_stays_its_holder_s(hosts: Hosts) -> None:
    """A network that is refused because a foreign VXLAN has its VNI keeps none of its packets out."""
    one, two = hosts.host(), hosts.host()
    for host, other, address in ((one, two, "10.99.0.1"), (two, one, "10.99.0.2")):
        ip(
            host.ns,
            f"link add swarm type vxlan id 5000 dstport 4789 local {host.vtep} remote {other.vtep}",
            f"addr add {address}/24 dev swarm",
            "link set swarm up",
        )
    with pytest.raises(Refusal, match="VNI 5000 on UDP port 4789 is taken"):
        one.create_network("10.17.0.0/24", vni=5000)
    swarm = Container(one.ns, Address("10.99.0.1"), Mac("02:42:0a:63:00:01"), one, None, "")
    assert None not in swarm.ping("10.99.0.2", 3, 3.0)


def test_a_host_without_a_table_says_so(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no nf_tables, a network is refused in one sentence, or made with a warning."""

    def none(*_: object) -> None:
        raise KernelRefused("making the guard's table myoverlay", 95, "Operation not supported")

    for name in ("lay", "held"):
        monkeypatch.setattr(FenceTable, name, none)
    strict, warned = hosts.host(guard="on"), hosts.host(guard="warn")
    with pytest.raises(Refusal, match=r"cannot be guarded against VXLAN from strangers .*MYOVERLAY_GUARD=warn"):
        strict.create_network("10.18.0.0/24")
    warned.create_network("10.19.0.0/24")
    assert "Operation not supported" in warned.daemon.guard.trouble


def test_an_overlay_whose_containers_are_not_bound_says_so(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` names the overlay and why, needs a person, and no longer does when they are bound."""

    def none(*_: object) -> None:
        raise KernelRefused("making the overlay's table", 95, "Operation not supported")

    host = hosts.host(guard="warn")
    with monkeypatch.context() as broken:
        broken.setattr(BoundTable, "lay", none)
        host.create_network("10.16.0.0/24")
        host.run(network=host.networks[-1])
        (overlay,) = host.call("Control.Status")["overlays"]
        assert "Operation not supported" in overlay["unbound"]
        (said,) = [one for one in host.call("Control.Status")["concerns"] if "under any address" in one["what"]]
        assert "10.16.0.0-24" in said["what"]
    until(lambda: not host.call("Control.Status")["overlays"][0]["unbound"], 10, "they are bound")
    assert [one for one in host.call("Control.Status")["concerns"] if "under any address" in one["what"]] == []
