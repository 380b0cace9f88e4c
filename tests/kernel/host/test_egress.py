"""The own way of an overlay to the outside: through its namespace and Docker's bridge, under the host's own address."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

import pytest

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace
from tests.kernel.host.hosts import Container, Host, Hosts, Refusal
from tests.kernel.host.tools import ip, link_names, run_in, until

#: What iptables-nft writes for Docker's bridge: nothing is forwarded but from there, and what answers that.
_RULES = """
table ip filter {
  chain FORWARD {
    type filter hook forward priority 0; policy drop;
    oifname "docker0" ct state related,established accept
    iifname "docker0" oifname != "docker0" accept
    iifname "docker0" oifname "docker0" accept
  }
}
table ip nat {
  chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
}
"""


def docker_bridge(host: Host, name: str = "docker0") -> None:
    """The bridge of an engine that has no container there, and its rules."""
    ip(host.ns, f"link add {name} type bridge", f"addr add 172.17.0.1/16 dev {name}", f"link set {name} up")
    host.ns.sysctl("net/ipv4/ip_forward", "1")
    run_in(host.ns, "nft", "-f", "-", text=_RULES)


@pytest.fixture
def world(hosts: Hosts) -> Iterator[Namespace]:
    """A machine of the underlay that knows no way to any overlay, nor to Docker's bridge."""
    ns = hosts.space("world")
    ip(hosts.switch, f"link add pworld type veth peer name eth0 netns {ns.path}", "link set pworld master br0 up")
    ip(ns, "addr add 172.30.0.254/24 dev eth0", "link set eth0 up")
    with netns.open_path(ns.path) as there:  # type: ignore[arg-type]
        yield there


def led(hosts: Hosts, **options: str) -> Host:
    host = hosts.host()
    docker_bridge(host)
    host.create_network(**options)
    return host


def run(host: Host, published: bool = False) -> tuple[Container, str]:
    """A container with the default route that Docker would give it by Join's answer, which comes with it."""
    network, endpoint = host.networks[0], secrets.token_hex(32)
    address = host.request_address(network)
    mac = host.create_endpoint(network, endpoint, address)
    ports = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostPort": 8080}] if published else []}
    answer = host.call(
        "NetworkDriver.Join", NetworkID=network.id, EndpointID=endpoint, SandboxKey=f"/{endpoint}", Options=ports
    )
    link, gateway = answer["InterfaceName"]["SrcName"], answer.get("Gateway", "")
    container = host.give_interface(network, endpoint, address, mac, link)
    if gateway:
        ip(container.ns, f"route add default via {gateway}")
    return container, gateway


def exchange(container: Container, world: Namespace) -> str:
    """One TCP connection from the container to the world; who the world saw."""
    with world.socket(socket.AF_INET, socket.SOCK_STREAM) as ear:
        ear.settimeout(5)
        ear.bind(("172.30.0.254", 0))
        ear.listen(1)
        with container.socket(socket.SOCK_STREAM) as mouth:
            mouth.connect(ear.getsockname())
            heard, who = ear.accept()
            with heard:
                mouth.sendall(b"here")
                assert heard.recv(4) == b"here"
    return str(who[0])


def test_a_container_reaches_the_outside_under_its_hosts_address(hosts: Hosts, world: Namespace) -> None:
    """By the gateway that Join names, over Docker's bridge, though the firewall drops what is forwarded otherwise."""
    host = led(hosts)
    container, gateway = run(host)
    assert gateway == "10.5.0.1"
    assert exchange(container, world) == host.vtep
    assert container.ping("172.30.0.254") != [None]


def test_two_overlays_of_a_host_have_ways_of_their_own(hosts: Hosts, world: Namespace) -> None:
    """Each by its own cable and address; by those they do not reach each other."""
    host = led(hosts)
    first, _ = run(host)
    second = host.create_network("10.6.0.0/24")
    host.networks = [second, host.networks[0]]
    other, gateway = run(host)
    assert gateway == "10.6.0.1"
    for container in (first, other):
        assert exchange(container, world) == host.vtep
    assert first.ping(other.address) == [None], "from one overlay to another"


def test_ports_are_published_by_docker(hosts: Hosts) -> None:
    """Who publishes ports gets no gateway: Docker maps them on its own bridge."""
    host = led(hosts)
    assert run(host, published=True)[1] == ""
    assert run(host)[1] == "10.5.0.1"


def test_a_network_may_leave_it_to_docker(hosts: Hosts) -> None:
    """With -o egress=docker no gateway is named, and no cable laid."""
    host = led(hosts, egress="docker")
    assert run(host)[1] == ""
    assert not [name for name in link_names(host.ns) if name.startswith("myeg")]


def test_without_the_bridge_docker_leads_out_and_it_is_said(hosts: Hosts) -> None:
    """A host whose engine has no docker0 names no gateway and says why, until the bridge is there."""
    host = hosts.host()
    host.create_network(egress="own")
    assert run(host)[1] == ""
    egress = host.daemon.converger.egress
    assert egress is not None
    assert "docker0" in egress.trouble["10.5.0.0-24"]
    docker_bridge(host)
    host.daemon.reconciler.wake()
    until(lambda: not egress.trouble, 10, "the way that is there by now")
    assert run(host)[1] == "10.5.0.1"


def test_what_is_refused(hosts: Hosts) -> None:
    """A word that is none of the two is refused with both."""
    host = hosts.host()
    with pytest.raises(Refusal, match="'both' is neither own nor docker"):
        host.create_network(egress="both")


@pytest.mark.parametrize(
    "spoil",
    [
        "link set {link} nomaster",
        "link set {link} down",
        "link del {link}",
        "route del {leg}/32",
        "link del docker0",
    ],
)
def test_what_somebody_breaks_on_the_host_is_mended(hosts: Hosts, world: Namespace, spoil: str) -> None:
    """Cable, port, route, and the bridge itself made anew: the next round leads out again, and counts it."""
    host = led(hosts)
    container, _ = run(host)
    leg = host.local().network.egress
    (link,) = (name for name in link_names(host.ns) if name.startswith("myeg"))
    ip(host.ns, spoil.format(link=link, leg=leg))
    if "docker0" in spoil:
        ip(host.ns, "link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up")
    host.daemon.reconciler.wake()
    until(lambda: container.ping("172.30.0.254") != [None], 10, "the way out")
    assert exchange(container, world) == host.vtep
    assert host.count("repairs", "egress") or "docker0" in spoil


@pytest.mark.parametrize(
    "spoil",
    ["link set egress0 down", "route del default", "addr flush dev egress0", "link del egress0"],
)
def test_what_somebody_breaks_inside_is_mended(hosts: Hosts, world: Namespace, spoil: str) -> None:
    """The same of what lies in the overlay's namespace."""
    host = led(hosts)
    container, _ = run(host)
    with host.overlay() as ns:
        ip(ns, spoil)
    host.daemon.reconciler.wake()
    until(lambda: container.ping("172.30.0.254") != [None], 10, "the way out")
    assert exchange(container, world) == host.vtep
    assert host.count("repairs", "egress") > 0


@pytest.mark.parametrize("where", ["host", "overlay"])
def test_flushed_rules_are_laid_again(hosts: Hosts, world: Namespace, where: str) -> None:
    """Either table, taken away by somebody, is there again after the next round."""
    host = led(hosts)
    container, _ = run(host)
    if where == "host":
        run_in(host.ns, "nft", "delete table ip myoverlay-egress")
    else:
        with host.overlay() as ns:
            run_in(ns, "nft", "delete table ip myoverlay-egress")
    host.daemon.reconciler.wake()
    until(lambda: host.count("repairs", "egress"), 10, "the rules")
    assert exchange(container, world) == host.vtep


def test_the_way_outlives_the_daemon_and_goes_with_the_network(hosts: Hosts, world: Namespace) -> None:
    """It leads out while no daemon runs, is adopted by the next as it is, and leaves nothing with its network."""
    host = led(hosts)
    container, _ = run(host)
    host.stop()
    assert exchange(container, world) == host.vtep
    host.start()
    assert host.count("repairs", "egress") == 0
    assert run(host)[1] == "10.5.0.1"
    assert exchange(container, world) == host.vtep
    for one in list(host.containers):
        host.remove(one)
    host.delete_network()
    assert not [name for name in link_names(host.ns) if name.startswith("myeg")]
    assert "myoverlay-egress" not in run_in(host.ns, "nft", "list", "tables")
    assert "169.254.8" not in run_in(host.ns, "ip", "route")
