"""One overlay over two engines of different age."""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.engine import EngineHost
from tests.engine.conftest import BOTH, DRIVER, ICMP, Cluster, Nets, eventually, heard, ping, sniff


def both(nets: Nets, name: str, *arguments: str) -> None:
    """The same `docker network create` on both hosts."""
    for host in nets.cluster.engines:
        nets.create(host, name, *arguments)


def test_engines_are_the_oldest_and_the_newest(cluster: Cluster) -> None:
    """The laboratory runs what the project promises to serve."""
    old, new = (host.engine_version for host in cluster.engines)
    print(f"engines: {old} and {new}")
    assert old.startswith("20.10.")
    assert int(new.split(".")[0]) >= 28


def test_first_contact_is_fast_and_loses_nothing(cluster: Cluster, nets: Nets) -> None:
    """A container that runs reaches one that was just started on the other host, at the first try, both directions."""
    both(nets, "web", *BOTH, "--subnet", "10.5.0.0/24")
    first = {host.name: nets.run(host, f"waits-{host.name}", "--network", "web") for host in cluster.engines}
    for asker, other in (cluster.engines, cluster.engines[::-1]):
        address = nets.run(other, f"new-{other.name}", "--network", "web")
        trips = ping(asker, f"waits-{asker.name}", address)
        print(f"{asker.name} to {other.name}: {trips} ms")
        assert len(trips) == 3
        assert trips[0] < 5
        assert address not in first.values()


def test_full_size_tcp_and_udp(cluster: Cluster, nets: Nets) -> None:
    """TCP carries data unchanged in full segments both ways, and a UDP datagram of 1400 bytes needs no fragments."""
    both(nets, "web", *BOTH, "--subnet", "10.5.1.0/24")
    addresses = {host.name: nets.run(host, f"c-{host.name}", "--network", "web") for host in cluster.engines}
    for sender, receiver in (cluster.engines, cluster.engines[::-1]):
        pid = receiver.container_pid(f"c-{receiver.name}", of_machine=False)
        process = receiver.popen(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", _RECEIVE], stdout=subprocess.PIPE
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        sent = sender.in_container(f"c-{sender.name}", ["python3", "-c", _SEND, addresses[receiver.name]])
        got = process.communicate(timeout=20)[0].split()
        digest, segment = sent.split()
        assert got == [digest, "1400"]
        assert int(segment) == 1450 - 20 - 20 - 12  # the MTU less IPv4, TCP and its timestamps


_RECEIVE = """
import hashlib, socket
tcp, udp = socket.create_server(("", 7000)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 7001))
for s in (tcp, udp):
    s.settimeout(15)
print("ready", flush=True)
connection, digest = tcp.accept()[0], hashlib.sha256()
while data := connection.recv(1 << 16):
    digest.update(data)
print(digest.hexdigest(), len(udp.recv(2000)))
"""
_SEND = """
import hashlib, os, socket, sys
data = os.urandom(1 << 22)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER = IP_PMTUDISC_DO: Don't Fragment
s = socket.create_connection((sys.argv[1], 7000), 5)
s.sendall(data)
u.sendto(b"x" * 1400, (sys.argv[1], 7001))
print(hashlib.sha256(data).hexdigest(), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""


def test_forty_containers_at_once(cluster: Cluster, nets: Nets) -> None:
    """40 starts in parallel over two hosts: 40 addresses, all reach all; removed, they leave nothing."""
    both(nets, "web", *BOTH, "--subnet", "10.5.2.0/24")
    names = [(host, f"m{number}-{host.name}") for number in range(20) for host in cluster.engines]
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda one: nets.run(*one, "--network", "web"), names))
    assert len(set(addresses)) == 40
    script = "for a in {}; do ping -c 1 -W 2 $a >/dev/null && echo $a; done; true".format(" ".join(addresses))

    def reached(one: tuple[EngineHost, str]) -> set[str]:
        return set(one[0].docker("exec", one[1], "sh", "-c", script, timeout=150).split())

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(names), 8):
            some = names[start : start + 8]
            assert [set(addresses) - seen for seen in pool.map(reached, some)] == [set()] * len(some)
            _forget_neighbours(cluster, names)
    for host in cluster.engines:
        host.docker("rm", "-f", *(name for one, name in names if one is host), timeout=180)
    nets._containers.clear()
    eventually("nothing is left", lambda: _left(cluster, "10.5.2.0-24") == [], 15)
    assert _left(cluster, "10.5.2.0-24") == []


def _forget_neighbours(cluster: Cluster, names: list[tuple[EngineHost, str]]) -> None:
    """All hosts here share one kernel, whose neighbour table takes 1,024 entries: 40 x 39 pairs are more."""
    for host in cluster.engines:
        pids = host.docker("inspect", "-f", "{{.State.Pid}}", *(name for one, name in names if one is host)).split()
        host.run(["sh", "-ec", f"for p in {' '.join(pids)}; do nsenter --net=/proc/$p/ns/net ip neigh flush all; done"])


def _left(cluster: Cluster, overlay: str) -> list[str]:
    """Endpoints, records, leases, cables and rows of an overlay."""
    left = []
    for key, value in cluster.consul.get("myoverlay/").items():
        reserve = b'"use":"reserve"' in value
        if f"pools/{overlay}/" in key and not reserve:
            left.append(key)
        if key.startswith(f"myoverlay/overlays/{overlay}/records/"):
            left.append(key)
        if key.endswith(f"/overlays/{overlay}") and b"records" in value:
            left.append(key)
    for host in cluster.engines:
        pin = f"/run/docker/plugins/myoverlay/netns/{overlay}"
        links = host.run(["nsenter", f"--net={pin}", "ip", "-o", "link"])
        own = (": lo:", ": br0:", ": vxlan1", ": egress0")
        left += [line for line in links.splitlines() if not any(name in line for name in own)]
        left += host.run(["nsenter", f"--net={pin}", "ip", "neigh", "show", "nud", "permanent"]).splitlines()
        rows = host.run(["nsenter", f"--net={pin}", "bridge", "fdb", "show", "dev", "vxlan1"])
        left += [line for line in rows.splitlines() if " dst " in line]
        left += [line for line in host.run(["ip", "-o", "link"]).splitlines() if ": mo" in line]
    return left


@pytest.mark.parametrize("age", [0, 1])
def test_a_third_container_sees_no_unicast(cluster: Cluster, nets: Nets, age: int) -> None:
    """Nothing of what two containers say to each other reaches a third on the host, also after the ageing time."""
    host, other = cluster.engines[age], cluster.engines[1 - age]
    both(nets, "web", *BOTH, "--subnet", "10.5.3.0/24")
    nets.run(host, "one", "--network", "web")
    nets.run(host, "third", "--network", "web")
    local = nets.run(host, "two", "--network", "web")
    remote = nets.run(other, "far", "--network", "web")
    pin = "/run/docker/plugins/myoverlay/netns/10.5.3.0-24"
    host.run(["nsenter", f"--net={pin}", "ip", "link", "set", "br0", "type", "bridge", "ageing_time", "100"])
    for aged in (False, True):
        if aged:
            time.sleep(1.5)  # the bridge's ageing time, shortened above, has to pass
        watcher = sniff(host, "third", "icmp")
        assert len(ping(host, "one", local)) == 3
        assert len(ping(host, "one", remote)) == 3
        assert heard(watcher) == []
    # the watcher hears what is meant for it: it could have heard the rest
    watcher = sniff(host, "third", "icmp")
    assert len(ping(host, "one", nets.address(host, "third"))) == 3
    assert len(heard(watcher)) == 6


def test_a_container_moves_with_its_address(cluster: Cluster, nets: Nets) -> None:
    """Same address, other host, new MAC: whoever was pinging it without a pause reaches it within a second."""
    both(nets, "web", *BOTH, "--subnet", "10.5.4.0/24")
    h1, h2 = cluster.engines
    for asker, (old, new) in ((h1, (h1, h2)), (h1, (h2, h1)), (h2, (h1, h2))):
        nets.run(asker, "asks", "--network", "web")
        nets.run(old, "moves", "--network", "web", "--ip", "10.5.4.77", "--mac-address", "02:42:00:00:00:01")
        pid = asker.container_pid("asks", of_machine=False)
        ask = ["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", ICMP, "10.5.4.77", "100000"]
        process = asker.popen(ask, stdout=subprocess.PIPE)
        times: list[float] = []
        assert process.stdout is not None
        reader = threading.Thread(target=_collect, args=(process.stdout, times))
        reader.start()
        time.sleep(0.5)  # the pinger's cache is warm
        nets.remove(old, "moves")
        nets.run(new, "moves", "--network", "web", "--ip", "10.5.4.77", "--mac-address", "02:42:00:00:00:02")
        back = time.time()
        time.sleep(1.5)  # what is measured is what is answered within the second after
        process.terminate()
        reader.join(10)
        first = min((moment for moment in times if moment > back), default=back + 99)
        print(f"{asker.name} asked, moved {old.name} to {new.name}: answered {first - back:.3f} s after docker run")
        assert times
        assert times[0] < back
        assert first - back < 1.0
        nets.remove(new, "moves")
        nets.remove(asker, "asks")


def _collect(lines: Iterable[str], times: list[float]) -> None:
    times.extend(float(line.split()[1]) for line in lines)


def test_connect_disconnect_and_several_overlays(cluster: Cluster, nets: Nets) -> None:
    """A running container joins two overlays and leaves one; what is left goes on."""
    both(nets, "web", *BOTH, "--subnet", "10.5.5.0/24")
    both(nets, "db", *BOTH, "--subnet", "10.5.6.0/24")
    for host, other in (cluster.engines, cluster.engines[::-1]):
        nets.run(host, "app", "--network", "web")
        far = {net: nets.run(other, f"far-{net}", "--network", net) for net in ("web", "db")}
        host.docker("network", "connect", "db", "app")
        assert len(ping(host, "app", far["web"])) == 3
        assert len(ping(host, "app", far["db"])) == 3
        assert len(ping(other, "far-db", nets.address(host, "app", "db"))) == 3
        host.docker("network", "disconnect", "db", "app")
        assert ping(host, "app", far["db"], count=1) == []
        assert len(ping(host, "app", far["web"])) == 3
        for where, name in ((host, "app"), (other, "far-web"), (other, "far-db")):
            nets.remove(where, name)


def test_egress_published_ports_and_internal(cluster: Cluster, nets: Nets) -> None:
    """Docker's own bridge gives the way out and published ports, unless the network is internal."""
    both(nets, "web", *BOTH, "--subnet", "10.5.7.0/24")
    both(nets, "inner", *BOTH, "--subnet", "10.5.8.0/24", "--internal")
    for host, other in (cluster.engines, cluster.engines[::-1]):
        nets.run(host, "open", "--network", "web", "-p", "8080:80")
        nets.run(host, "closed", "--network", "inner")
        inside = nets.run(other, "inside", "--network", "inner")
        host.docker("exec", "-d", "open", "sh", "-c", "while true; do echo hello | nc -l -p 80; done")
        read = ["python3", "-c", _READ, host.address]
        said = eventually("the published port", functools.partial(cluster.h3.run, read, check=False))
        assert said == "hello"
        assert len(ping(host, "open", cluster.h3.address)) == 3
        assert ping(host, "closed", cluster.h3.address, count=1) == []
        assert len(ping(host, "closed", inside)) == 3
        for where, name in ((host, "open"), (host, "closed"), (other, "inside")):
            nets.remove(where, name)


_READ = "import socket, sys; s = socket.create_connection((sys.argv[1], 8080), 2); print(s.recv(99).decode().strip())"


def test_chosen_address_and_mac(cluster: Cluster, nets: Nets) -> None:
    """--ip and --mac-address are given as asked, and an address in use is refused naming the host that has it."""
    both(nets, "web", *BOTH, "--subnet", "10.5.9.0/24")
    for host, other in (cluster.engines, cluster.engines[::-1]):
        asked = ("--network", "web", "--ip", "10.5.9.99", "--mac-address", "02:42:de:ad:be:ef")
        assert nets.run(host, "mine", *asked) == "10.5.9.99"
        assert "02:42:de:ad:be:ef" in host.docker("inspect", "mine")
        theirs = other.docker_complete("run", "--rm", "--network", "web", "--ip", "10.5.9.99", "lab/base", "true")
        assert f"10.5.9.99 is in use by a container on host {host.name}" in theirs.stderr
        nets.remove(host, "mine")


def test_default_ipam_with_a_clash(cluster: Cluster, nets: Nets) -> None:
    """With Docker's own IPAM both hosts start at the same address: the second is refused, naming host and remedy."""
    h1, h2 = cluster.engines
    for host in cluster.engines:
        nets.create(host, "plain", *DRIVER, "-o", "overlay=plain", "--subnet", "10.5.10.0/24")
    assert nets.run(h1, "one", "--network", "plain") == "10.5.10.2"
    second = h2.docker_complete("run", "--name", "two", "--network", "plain", "lab/base", "true")
    h2.docker("rm", "-f", "two")
    assert "10.5.10.2 of overlay plain is in use on host h1" in second.stderr
    assert "--ip-range" in second.stderr
    assert nets.run(h2, "three", "--network", "plain", "--ip", "10.5.10.200") == "10.5.10.200"
    assert len(ping(h2, "three", "10.5.10.2")) == 3
    nets.remove(h1, "one")
    assert nets.run(h2, "two", "--network", "plain", "--ip", "10.5.10.2") == "10.5.10.2"


def test_compose(cluster: Cluster, nets: Nets) -> None:
    """A Compose file's network of ours is made, used and removed."""
    h2 = cluster.h2
    nets.create(cluster.h1, "shared", *BOTH, "--subnet", "10.5.11.0/24", "-o", "overlay=composed")
    far = nets.run(cluster.h1, "far", "--network", "shared")
    (h2.folder / "compose.yaml").write_text(_COMPOSE)
    h2.docker("compose", "-f", str(h2.folder / "compose.yaml"), "-p", "stack", "up", "-d", timeout=120)
    try:
        assert len(ping(h2, "stack-web-1", far)) == 3
    finally:
        h2.docker("compose", "-f", str(h2.folder / "compose.yaml"), "-p", "stack", "down", "-t", "0", timeout=120)
    assert "stack_shared" not in h2.docker("network", "ls")


_COMPOSE = """
services:
  web:
    image: lab/base
    networks: [shared]
networks:
  shared:
    driver: myoverlay
    driver_opts: {overlay: composed}
    ipam:
      driver: myoverlay
      config: [{subnet: 10.5.11.0/24}]
"""
