"""An overlay's own way to the outside, tried from both ends: with the rules of ours taken away, and with them."""

from __future__ import annotations

import itertools
import socket

from myoverlay.kernel.netns import Namespace
from tests.attack.board import Board
from tests.attack.datagrams import PORT, Ear
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.test_egress import docker_bridge
from tests.kernel.host.tools import ip, run_in

_subnets = itertools.count(80)
_OURS = "delete table ip myoverlay-egress"


def scene(hosts: Hosts) -> tuple[Host, Container, Container, Namespace]:
    """A host with two overlays that lead out, a container on each, and a container of Docker's on docker0."""
    host = hosts.host()
    docker_bridge(host)
    made = []
    for _ in range(2):
        network = host.create_network(f"10.{next(_subnets)}.0.0/24")
        container = host.run(network=network)
        ip(container.ns, f"route add default via {network.gateway}")
        made.append(container)
    beside = hosts.space(f"beside-h{host.number}")
    ip(host.ns, f"link add vbeside type veth peer name eth0 netns {beside.path}", "link set vbeside master docker0 up")
    ip(beside, "addr add 172.17.0.2/16 dev eth0", "link set eth0 up")
    legs = [host.local(container.network).network.egress for container in made]
    ways = [f"route add {c.address}/32 via {leg} dev eth0 onlink" for c, leg in zip(made, legs, strict=True)]
    ip(beside, "route add default via 172.17.0.1", *ways)
    return host, made[0], made[1], beside


def hears(listener: Namespace, speaker: Namespace, address: str) -> bool:
    """Does a datagram from one to the other's address arrive?"""
    with Ear(listener) as ear, speaker.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (address, PORT))
        return bool(ear.hears())


def without_rules(host: Host, *containers: Container) -> None:
    """The daemon is gone, and somebody has taken our tables away, on the host and in the overlays."""
    host.stop()
    run_in(host.ns, "nft", _OURS)
    for container in containers:
        with host.overlay(container.network) as ns:
            run_in(ns, "nft", _OURS)


def test_nobody_gets_in_or_across(hosts: Hosts, board: Board) -> None:
    """By the cable a container on docker0 reaches none of an overlay, and one of those none on docker0 or of another.

    Without our rules the first two do, which is why they are there.
    """
    host, one, two, beside = scene(hosts)
    rows = {
        "a container on docker0 into an overlay, by its way out": lambda: hears(one.ns, beside, one.address),
        "a container of an overlay to one on docker0": lambda: hears(beside, one.ns, "172.17.0.2"),
        "a container of an overlay to another overlay, by both ways out": lambda: hears(two.ns, one.ns, two.address),
    }
    kept = {name: attempt() for name, attempt in rows.items()}
    assert one.ping("172.17.0.1") != [None], "the host, as from all of Docker's containers"
    without_rules(host, one, two)
    bare = {name: attempt() for name, attempt in rows.items()}
    for name in rows:
        board.write(name, "reached" if bare[name] else "not reached", "reached" if kept[name] else "not reached")
    assert list(kept.values()) == [False, False, False]
    assert list(bare.values()) == [True, True, False]
