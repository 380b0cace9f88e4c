"""Names in real namespaces: containers on paper ask the real resolver, by the route that Join gave them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address
from tests.kernel.host.hosts import Container, DockerNetwork, Host, Hosts
from tests.kernel.host.tools import ip, link_names, run_in, until

RESOLVER = "169.254.77.53"
ON = {"names": RESOLVER}


class Named:
    """`docker run --name`: one container, on one network or several, as Docker 29 with our IPAM makes it."""

    def __init__(self, host: Host, name: str, *networks: DockerNetwork) -> None:
        self.host, self.name = host, name
        self.sandbox = f"/var/run/docker/netns/{secrets.token_hex(6)}"
        self.ns: Namespace | None = None
        self.count = 0
        self.ends: list[tuple[DockerNetwork, str, Address]] = []
        for network in networks:
            self.connect(network)

    def connect(self, network: DockerNetwork) -> None:
        host = self.host
        options = {"com.docker.network.endpoint.name": self.name}
        got = host.call("IpamDriver.RequestAddress", PoolID=network.pool, Address="", Options=options)
        address, endpoint = Address(got["Address"].partition("/")[0]), secrets.token_hex(32)
        mac = host.create_endpoint(network, endpoint, address)
        answer = host.call(
            "NetworkDriver.Join", NetworkID=network.id, EndpointID=endpoint, SandboxKey=self.sandbox, Options={}
        )
        link = answer["InterfaceName"]["SrcName"]
        name = f"eth{self.count}"
        self.count += 1
        if self.ns is None:
            self.ns = host.hosts.space(f"{self.name}-{self.sandbox[-6:]}-h{host.number}")
            host.containers.append(Container(self.ns, address, mac, host, network, endpoint))
        ip(host.ns, f"link set {link} netns {self.ns.path}")
        ip(self.ns, f"link set {link} down", f"link set {link} name {name} address {mac}",
           f"addr add {address}/{network.subnet.prefixlen} dev {name}", f"link set {name} up",
           *(f"route add {way['Destination']} dev {name}" for way in answer["StaticRoutes"]))  # fmt: skip
        self.ends.append((network, endpoint, address))

    def disconnect(self, network: DockerNetwork) -> None:
        end = next(end for end in self.ends if end[0] is network)
        self.host.call("NetworkDriver.Leave", NetworkID=network.id, EndpointID=end[1])
        self.host.call("NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=end[1])
        self.host.release_address(network, end[2])
        self.ends.remove(end)

    @property
    def address(self) -> Address:
        return self.ends[0][2]

    def ask(self, name: str, kind: str = "A", tcp: bool = False, wait: float = 2.0) -> dns.message.Message:
        """One question to the resolver. Raises TimeoutError, or ConnectionRefusedError."""
        assert self.ns is not None
        return ask(self.ns, name, kind, tcp, wait)

    def finds(self, name: str) -> set[str]:
        """The addresses that the name has for this container."""
        try:
            return addresses(self.ask(name))
        except OSError:
            return set()


def ask(ns: Namespace, name: str, kind: str = "A", tcp: bool = False, wait: float = 2.0) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    raw = query.to_wire()
    with ns.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(wait)
        sock.connect((RESOLVER, 53))
        if tcp:
            sock.sendall(len(raw).to_bytes(2, "big") + raw)
            with sock.makefile("rb") as stream:
                answer = stream.read(int.from_bytes(stream.read(2), "big"))
        else:
            sock.send(raw)
            answer = sock.recv(65535)
    message = dns.message.from_wire(answer)
    assert message.id == query.id
    return message


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(one) for rrset in answer.answer for one in rrset}


@pytest.fixture
def pair(hosts: Hosts) -> tuple[Host, Host]:
    """Two hosts that answer names, on 10.5.0.0/24."""
    return hosts.pair_with(**ON)


def children(host: Host) -> int:
    pid = host.daemon.naming.resolver.state()["process"]  # type: ignore[union-attr]
    return int(pid or 0)


def awake(host: Host) -> int:
    """The resolver's process, once it answers in all overlays and on the host."""

    def ready() -> Any:
        state = host.daemon.naming.resolver.state()  # type: ignore[union-attr]
        return state["process"] if state["host"] and len(state["overlays"]) == len(host.networks) else 0

    return int(until(ready, 20.0, "the resolver"))


def test_containers_of_two_hosts_find_each_other(pair: tuple[Host, Host]) -> None:
    """Either finds the other, itself, the name in other letters and the way back; over TCP too; what goes is gone."""
    one, two = pair
    a, b = Named(one, "a", one.networks[0]), Named(two, "B", two.networks[0])
    awake(one), awake(two)
    until(lambda: a.finds("b") == {b.address}, 2.0)
    until(lambda: b.finds("A") == {a.address}, 2.0)
    assert a.finds("a") == {a.address}
    answer = a.ask("b", tcp=True)
    assert addresses(answer) == {b.address}
    assert answer.flags & dns.flags.AA
    assert 0 < answer.answer[0].ttl <= 5
    back = a.ask(".".join(reversed(b.address.split("."))) + ".in-addr.arpa", "PTR")
    assert addresses(back) == {"b."}
    empty = a.ask("b", "AAAA")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    b.disconnect(two.networks[0])
    until(lambda: not a.finds("b"), 2.0)
    gone = a.ask("b")
    assert gone.rcode() == dns.rcode.NXDOMAIN
    assert gone.flags & dns.flags.AA


def test_a_container_on_two_networks_finds_both_sides_and_they_not_each_other(hosts: Hosts) -> None:
    """Two routes of different length lead to the resolver; when the longer goes, the other does."""
    host = hosts.host(**ON)
    web, data = host.create_network("10.5.0.0/24", overlay="web"), host.create_network("10.6.0.0/24", overlay="data")
    both, w, d = Named(host, "both", web, data), Named(host, "w", web), Named(host, "d", data)
    awake(host)
    assert both.ns is not None
    ways = run_in(both.ns, "ip", "route")
    assert f"{RESOLVER} dev eth0" in ways
    assert "169.254.77.52/31 dev eth1" in ways
    until(lambda: both.finds("w") == {w.address}, 2.0)
    assert both.finds("d") == {d.address}
    assert w.finds("both") == {both.address}
    for name in ("d", "nobody"):
        answer = w.ask(name)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert answer.flags & dns.flags.AA
    assert w.ask("1.0.6.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN
    both.disconnect(web)
    until(lambda: both.finds("d") == {d.address}, 2.0)
    until(lambda: both.ask("w").rcode() == dns.rcode.NXDOMAIN, 1.0)
    both.connect(web)
    until(lambda: both.finds("w") == {w.address}, 2.0)


def test_the_bridge_is_healed_and_goes_with_the_last_network(pair: tuple[Host, Host]) -> None:
    """Address and bridge come back when taken away; where the plugin ends without networks nothing of it stays."""
    one, two = pair
    a, b = Named(one, "a", one.networks[0]), Named(one, "b", one.networks[0])
    awake(one)
    until(lambda: a.finds("b") == {b.address}, 2.0)
    with one.overlay() as ns:
        assert run_in(ns, "cat", "/proc/sys/net/ipv4/icmp_ratelimit").strip() == "0"
        ip(ns, f"addr del {RESOLVER}/32 dev br0")
        until(lambda: RESOLVER in run_in(ns, "ip", "addr", "show", "br0"), 10.0)
    ip(one.ns, "link del myoverlay0")
    until(lambda: "myoverlay0" in link_names(one.ns), 10.0)
    until(lambda: a.finds("b") == {b.address}, 10.0)
    two.delete_network()
    assert "myoverlay0" in link_names(two.ns)
    two.stop()
    assert "myoverlay0" not in link_names(two.ns)
    one.stop()
    assert "myoverlay0" in link_names(one.ns)
    with pytest.raises(ConnectionRefusedError):
        a.ask("b")


def test_a_frozen_resolver_is_killed_and_another_answers(pair: tuple[Host, Host]) -> None:
    """Stopped by a signal it takes questions and answers none; within 5 s askers are refused, or answered again."""
    one, _ = pair
    a = Named(one, "a", one.networks[0])
    before = awake(one)
    until(lambda: a.finds("a") == {a.address}, 2.0)
    os.kill(before, signal.SIGSTOP)
    began = time.monotonic()

    def refused_or_answered() -> bool:
        try:
            a.ask("a", wait=0.2)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return True

    until(refused_or_answered, 10.0)
    assert time.monotonic() - began < 5.0
    after = awake(one)
    assert after != before
    until(lambda: a.finds("a") == {a.address}, 5.0)
    assert one.count("resolver", "frozen") == 1


def test_a_killed_resolver_is_started_again(pair: tuple[Host, Host]) -> None:
    """Its end is seen at once, and the new one knows and hears all."""
    one, two = pair
    a, b = Named(one, "a", one.networks[0]), Named(two, "b", two.networks[0])
    before = awake(one)
    until(lambda: a.finds("b") == {b.address}, 2.0)
    os.kill(before, signal.SIGKILL)
    until(lambda: children(one) not in (0, before), 10.0)
    until(lambda: a.finds("b") == {b.address}, 5.0)


def test_names_outlast_a_restart_of_the_plugin(pair: tuple[Host, Host]) -> None:
    """The journal keeps names, sandboxes and routes; another network of the same container gets another route."""
    one, _ = pair
    first = one.networks[0]
    a, b = Named(one, "a", first), Named(one, "b", first)
    awake(one)
    one.restart()
    awake(one)
    until(lambda: a.finds("b") == {b.address}, 5.0)
    more = one.create_network("10.6.0.0/24", overlay="more")
    a.connect(more)
    assert a.ns is not None
    assert "169.254.77.52/31 dev eth1" in run_in(a.ns, "ip", "route")


def test_an_address_that_the_host_has_otherwise_is_left_alone(hosts: Hosts) -> None:
    """The host's own address is nobody's to take: it is said, and overlays are answered all the same."""
    host = hosts.host(**ON)
    host.stop()
    ip(host.ns, f"addr add {RESOLVER}/32 dev eth0")
    host.start()
    network = host.create_network()
    a = Named(host, "a", network)
    until(lambda: a.finds("a") == {a.address}, 20.0)
    resolver = host.daemon.naming.resolver
    assert resolver is not None
    (trouble,) = resolver.state()["troubles"]
    assert f"{RESOLVER} is an address of eth0 on this host" in trouble


def test_switched_off_nothing_of_it_is_left(hosts: Hosts) -> None:
    """The next run takes bridge and address away, and gives containers no way there; on again, all is as before."""
    host = hosts.host(**ON)
    network = host.create_network()
    a = Named(host, "a", network)
    awake(host)
    host.stop()
    host._environ["MYOVERLAY_NAMES"] = "off"
    host.start()
    assert "myoverlay0" not in link_names(host.ns)
    with host.overlay() as ns:
        until(lambda: RESOLVER not in run_in(ns, "ip", "addr"), 10.0)
    endpoint = secrets.token_hex(32)
    host.create_endpoint(network, endpoint, host.request_address(network))
    body = {"NetworkID": network.id, "EndpointID": endpoint, "SandboxKey": "/y", "Options": {}}
    assert "StaticRoutes" not in host.call("NetworkDriver.Join", **body)
    host.stop()
    host._environ["MYOVERLAY_NAMES"] = RESOLVER
    host.start()
    awake(host)
    until(lambda: a.finds("a") == {a.address}, 5.0)


def test_names_come_with_dockers_word_and_go_with_their_host(pair: tuple[Host, Host]) -> None:
    """What Docker's events say reaches the other host at once, replaces what was, and outlasts the store's absence."""
    one, two = pair
    a, b = Named(one, "a", one.networks[0]), Named(two, "b", two.networks[0])
    awake(one), awake(two)
    called = two.daemon.naming.called
    assert called.say(two.networks[0].id, b.ends[0][1], ("b", "shop", "db.internal"))
    for name in ("shop", "db.internal"):
        until(lambda name=name: a.finds(name) == {b.address}, 1.0)
    resolver = one.daemon.naming.resolver
    assert resolver is not None
    resolver._dead = lambda: {two.daemon.records.me}
    one.daemon.fates.on_fate()
    until(lambda: a.ask("db.internal").rcode() == dns.rcode.NXDOMAIN, 1.0)
    assert a.finds("a") == {a.address}


def test_a_host_that_leaves_answers_nobody_any_more(pair: tuple[Host, Host]) -> None:
    """`host leave`: the bridge goes, and the namespaces that the resolver's sockets would hold."""
    one, _ = pair
    awake(one)
    one.call("Control.Leave")
    assert "myoverlay0" not in link_names(one.ns)
    assert children(one) == 0
    assert one.pins() == []
    one.restart()
    awake(one)
    assert "myoverlay0" in link_names(one.ns)
