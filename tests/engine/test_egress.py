"""The way out of a container on real engines of both ages: one interface, and Docker's second where it is wanted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.engine.conftest import BOTH, Cluster, Nets, eventually

#: Says to each who connects from which address it is seen.
_MIRROR = """
import socket
s = socket.create_server(("0.0.0.0", 7007))
print("ready", flush=True)
while True:
    c, (address, _) = s.accept()
    c.sendall(address.encode())
    c.close()
"""
_ASK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print(s.makefile().read())
"""


@contextmanager
def mirror(host: Any, *within: str) -> Iterator[None]:
    """The mirror, on a host or, by the words of `nsenter`, in one of its containers."""
    process = host.popen([*within, "python3", "-c", _MIRROR], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline().strip() == "ready"
        yield
    finally:
        process.kill()
        process.communicate(timeout=10)


def links(host: Any, name: str) -> set[str]:
    """The interfaces of a container, but for the loopback."""
    listed = host.in_container(name, ["ip", "-o", "link"])
    return {line.split(": ")[1].partition("@")[0] for line in listed.splitlines()} - {"lo"}


def seen_as(host: Any, name: str, address: str, port: int = 7007) -> str:
    """The address that a container is seen from by the mirror at another."""
    return str(host.in_container(name, ["python3", "-c", _ASK, address, str(port)])).strip()


@pytest.mark.parametrize("age", [0, 1])
def test_a_container_goes_out_by_its_overlays_gateway(cluster: Cluster, nets: Nets, age: int) -> None:
    """With one interface, under its host's address; also after a prune, and while other networks come and go."""
    host = cluster.engines[age]
    nets.create(host, "web", *BOTH, "--subnet", "10.5.40.0/24")
    nets.run(host, "app", "--network", "web")
    assert links(host, "app") == {"eth0"}
    assert "default via 10.5.40.1 dev eth0" in host.in_container("app", ["ip", "route"])
    with mirror(cluster.h3):
        assert seen_as(host, "app", cluster.h3.address) == host.address
        host.docker("network", "prune", "--force")
        assert seen_as(host, "app", cluster.h3.address) == host.address
        nets.create(host, "also", "--subnet", "10.99.0.0/24")
        host.docker("network", "connect", "also", "app")
        assert seen_as(host, "app", cluster.h3.address) == host.address
        host.docker("network", "disconnect", "also", "app")
        assert seen_as(host, "app", cluster.h3.address) == host.address
    assert links(host, "app") == {"eth0"}


@pytest.mark.parametrize("age", [0, 1])
def test_published_ports_are_dockers(cluster: Cluster, nets: Nets, age: int) -> None:
    """Who publishes a port has Docker's second interface, goes out by that, and is reached at its host's address."""
    host = cluster.engines[age]
    nets.create(host, "web", *BOTH, "--subnet", "10.5.41.0/24")
    nets.run(host, "app", "--network", "web", "-p", "7017:7007")
    assert links(host, "app") == {"eth0", "eth1"}
    pid = host.container_pid("app", of_machine=False)
    with mirror(host, "nsenter", f"--net=/proc/{pid}/ns/net"):
        asked = cluster.h3.run(["python3", "-c", _ASK, host.address, "7017"])
        assert asked.strip() == cluster.h3.address
    with mirror(cluster.h3):
        assert seen_as(host, "app", cluster.h3.address) == host.address


@pytest.mark.parametrize("age", [0, 1])
def test_the_way_out_may_be_left_to_docker(cluster: Cluster, nets: Nets, age: int) -> None:
    """With -o egress=docker each container has two interfaces, as on Swarm's overlay."""
    host = cluster.engines[age]
    nets.create(host, "web", *BOTH, "--subnet", "10.5.42.0/24", "-o", "egress=docker")
    nets.run(host, "app", "--network", "web")
    assert links(host, "app") == {"eth0", "eth1"}
    with mirror(cluster.h3):
        assert seen_as(host, "app", cluster.h3.address) == host.address


@pytest.mark.parametrize("age", [0, 1])
def test_an_internal_network_leads_nowhere(cluster: Cluster, nets: Nets, age: int) -> None:
    """One interface and no default route; who asks for both is told that they contradict each other."""
    host = cluster.engines[age]
    nets.create(host, "web", *BOTH, "--subnet", "10.5.43.0/24", "--internal")
    nets.run(host, "app", "--network", "web")
    assert links(host, "app") == {"eth0"}
    assert "default" not in host.in_container("app", ["ip", "route"])


def test_nothing_of_it_stays(cluster: Cluster) -> None:
    """With the networks their cables, routes and rules are gone from both hosts."""
    for host in cluster.engines:
        eventually("the cables are gone", lambda host=host: "myeg" not in host.run(["ip", "-o", "link"]))  # type: ignore[misc]
        assert "169.254.80." not in host.run(["ip", "route"])
        assert "myoverlay-egress" not in host.run(["nft", "list", "tables"])
