"""Whole hosts in small: each a namespace on one underlay bridge, with a real daemon born inside it, all on one store.

Docker is played by its own JSON through the daemon's HTTP application, libnetwork by `ip`. A container is a namespace.
"""

from __future__ import annotations

import itertools
import json
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from myoverlay.daemon import Daemon
from myoverlay.host.ground import Ground
from myoverlay.host.local import LocalOverlay
from myoverlay.kernel import netns
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.netns import Namespace
from myoverlay.settings import load
from myoverlay.store import Delete, Listing, Op, Put, Store
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Fdb, Mac, Neigh, OverlayName, Subnet
from tests.kernel.host.echo import Echo, Pinging, Sniffer
from tests.kernel.host.tools import in_parallel, ip, is_running, link_names, run_in, until
from tests.kernel.host.view import StoreView

H = TypeVar("H", bound="Host")


class Refusal(Exception):
    """What the plugin answered instead of doing it: the sentence Docker shows."""

    def __init__(self, method: str, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.method, self.status, self.sentence = method, status, sentence


class Container:
    """A namespace with an address on some overlay. `endpoint` is Docker's; a container by hand has none."""

    def __init__(
        self, ns: Namespace, address: Address, mac: Mac, host: Any, network: DockerNetwork | None, endpoint: str
    ) -> None:
        self.ns, self.address, self.mac = ns, address, mac
        self.host, self.network, self.endpoint = host, network, endpoint

    @property
    def rows(self) -> tuple[Neigh, Fdb]:
        """What other hosts' tables hold of it."""
        return Neigh(address=self.address, mac=self.mac), Fdb(mac=self.mac, vtep=self.host.vtep)

    def ping(
        self, address: Address | str, count: int = 1, timeout: float = 1.0, gap: float = 0.01
    ) -> list[float | None]:
        """Round trips in seconds, None for what was lost; all are sent, `gap` apart, before any is missed."""
        target = Address(address)
        with closing(Echo(self.ns)) as echo:
            sent: list[float] = []
            times: dict[int, float] = {}
            deadline = time.monotonic() + timeout + count * gap
            while len(times) < count and time.monotonic() < deadline:
                if len(sent) < count:
                    sent.append(echo.send(target, len(sent)))
                heard = echo.receive(gap if len(sent) < count else deadline - time.monotonic())
                if heard is not None:
                    times[heard[1]] = heard[2] - sent[heard[1]]
            return [times.get(number) for number in range(count)]

    def reaches(self, *others: Container, timeout: float = 2.0) -> set[Address]:
        """Ping all others once, at the same time; returns those that did not answer."""
        missing = {other.address for other in others}
        with closing(Echo(self.ns)) as echo:
            for number, address in enumerate(sorted(missing)):
                echo.send(address, number)
            deadline = time.monotonic() + timeout
            while missing and (heard := echo.receive(max(0.0, deadline - time.monotonic()))):
                missing.discard(heard[0])
        return missing

    @contextmanager
    def pinging(self, other: Container | Address, interval: float = 0.01) -> Iterator[Pinging]:
        thread = Pinging(self.ns, other if isinstance(other, Address) else other.address, interval)
        thread.start()
        try:
            yield thread
        finally:
            thread.stop()

    def sniff(self) -> Sniffer:
        return Sniffer(self.ns, self.mac)

    def socket(self, kind: socket.SocketKind, port: int = 0) -> socket.socket:
        sock = self.ns.socket(socket.AF_INET, kind)
        sock.settimeout(10)
        sock.bind((self.address, port))
        return sock

    def die(self) -> None:
        """The namespace goes with all that is in it, as when the machine or the engine is killed."""
        assert self.ns.path is not None
        self.ns.close()
        netns.delete(self.ns.path)


class DockerNetwork:
    """What Docker knows of a network. `pool` is None with an IPAM driver of its own."""

    def __init__(self, network: str, subnet: Subnet, gateway: Address, pool: str | None) -> None:
        self.id, self.subnet, self.gateway, self.pool = network, subnet, gateway, pool


class Machine:
    """A host's namespace on the underlay."""

    def __init__(self, hosts: Hosts, number: int, mtu: int = 1500) -> None:
        self.hosts, self.number = hosts, number
        self.vtep = Address(f"172.30.0.{number}")
        self.ns = hosts.space(f"h{number}")
        switch, home = hosts.switch, self.ns
        ip(switch, f"link add p{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {home.path}",
           f"link set p{number} master br0 up")  # fmt: skip
        ip(home, f"addr add {self.vtep}/24 dev eth0", "link set eth0 up", "route add default via 172.30.0.254")

    def _container(self, name: str) -> Namespace:
        return self.hosts.space(f"{name}-on-h{self.number}")


class Host(Machine):
    """A machine with a daemon."""

    def __init__(self, hosts: Hosts, number: int, mtu: int, environ: dict[str, str]) -> None:
        super().__init__(hosts, number, mtu)
        self.name = f"h{number}"
        self.run_folder = hosts.folder / f"run{number}"
        self._environ = {
            "MYOVERLAY_STATE": str(hosts.folder / f"state{number}"),
            "MYOVERLAY_RUN": str(self.run_folder),
            "MYOVERLAY_HOST_NAME": self.name,
            "MYOVERLAY_NAMES": "off",
        } | environ
        self.view: Any = hosts.view_for(self)
        self.networks: list[DockerNetwork] = []
        self.containers: list[Container] = []
        #: Milliseconds of each call, by method.
        self.took: list[tuple[str, float]] = []
        self.daemon = self._daemon()

    def _daemon(self) -> Daemon:
        daemon = self.ns.call(lambda: Daemon(load(self._environ), self.view))
        daemon.start()
        self._runs = True
        return daemon

    def have_round(self) -> None:
        """Have the reconciler compare everything now, and wait for the end of that."""
        loop = self.daemon.reconciler
        loop.rounds.have(loop.wake, time.monotonic() + 10, "a round")

    # -- Docker's calls --------------------------------------------------------------------------------------------

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """One call of Docker's. Raises Refusal."""
        started = time.perf_counter()
        answer = self.daemon.app.test_client().post(f"/{method}", data=json.dumps(body))
        self.took.append((method, (time.perf_counter() - started) * 1000))
        said = answer.get_json()
        if answer.status_code != 200:
            raise Refusal(method, answer.status_code, said["Err"])
        return dict(said)

    def request_pool(self, subnet: str = "", overlay: str | None = None, within: str = "") -> tuple[str, Subnet]:
        options = {"overlay": overlay} if overlay else None
        got = self.call(
            "IpamDriver.RequestPool", AddressSpace="myoverlay", Pool=subnet, SubPool=within, Options=options, V6=False
        )
        return got["PoolID"], Subnet(got["Pool"])

    def create_network(
        self,
        subnet: str = "10.5.0.0/24",
        *,
        ipam: bool = True,
        ipam_overlay: str | None = None,
        gateway: str = "",
        **options: str | int,
    ) -> DockerNetwork:
        """`docker network create`. `ipam` off: Docker's default IPAM driver; `options` are `-o`."""
        pool: str | None = None
        area, first = Subnet(subnet or "10.5.0.0/24"), gateway
        if ipam:
            pool, area = self.request_pool(subnet, ipam_overlay)
            kind = {"RequestAddressType": "com.docker.network.gateway"}
            asked = self.call("IpamDriver.RequestAddress", PoolID=pool, Address=gateway, Options=kind)
            first = asked["Address"].partition("/")[0]
        else:
            first = gateway or str(area.at(area.first))
        network = DockerNetwork(secrets.token_hex(32), area, Address(first), pool)
        try:
            self.call(
                "NetworkDriver.CreateNetwork",
                NetworkID=network.id,
                Options={
                    "com.docker.network.enable_ipv6": False,
                    "com.docker.network.generic": {name: str(value) for name, value in options.items()},
                },
                IPv4Data=[{"AddressSpace": "myoverlay", "Pool": area, "Gateway": f"{first}/{area.prefixlen}"}],
                IPv6Data=[],
            )
        except Refusal:
            self._release_pool(network)
            raise
        self.networks.append(network)
        return network

    def _release_pool(self, network: DockerNetwork) -> None:
        if network.pool is not None:
            self.call("IpamDriver.ReleaseAddress", PoolID=network.pool, Address=network.gateway)
            self.call("IpamDriver.ReleasePool", PoolID=network.pool)

    def delete_network(self, network: DockerNetwork | None = None) -> None:
        network = network or self.networks[0]
        self._release_pool(network)
        self.call("NetworkDriver.DeleteNetwork", NetworkID=network.id)
        self.networks.remove(network)

    def request_address(self, network: DockerNetwork, ip: str | None = None) -> Address:
        got = self.call("IpamDriver.RequestAddress", PoolID=network.pool, Address=ip or "", Options=None)
        return Address(got["Address"].partition("/")[0])

    def release_address(self, network: DockerNetwork, address: Address) -> None:
        if network.pool is not None:
            self.call("IpamDriver.ReleaseAddress", PoolID=network.pool, Address=address)

    def create_endpoint(self, network: DockerNetwork, endpoint: str, address: Address, mac: str | None = None) -> Mac:
        made = self.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=network.id,
            EndpointID=endpoint,
            Interface={"Address": f"{address}/{network.subnet.prefixlen}", "AddressIPv6": "", "MacAddress": mac or ""},
            Options={},
        )
        return Mac(mac or made["Interface"]["MacAddress"])

    def join(self, network: DockerNetwork, endpoint: str) -> str:
        """Docker's Join; the name of the interface that it hands over."""
        answer = self.call("NetworkDriver.Join", NetworkID=network.id, EndpointID=endpoint, SandboxKey="/x", Options={})
        return str(answer["InterfaceName"]["SrcName"])

    def run(self, ip: str | None = None, mac: str | None = None, network: DockerNetwork | None = None) -> Container:
        """`docker run`: all of it, with what libnetwork takes back when a part is refused."""
        network = network or self.networks[0]
        address = self.request_address(network, ip) if network.pool is not None else Address(ip or "")
        endpoint = secrets.token_hex(32)
        with ExitStack() as undo:
            undo.callback(self.release_address, network, address)
            given = self.create_endpoint(network, endpoint, address, mac)
            undo.callback(self.call, "NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=endpoint)
            link = self.join(network, endpoint)
            undo.pop_all()
        return self.give_interface(network, endpoint, address, given, link)

    def give_interface(self, network: DockerNetwork, endpoint: str, address: Address, mac: Mac, link: str) -> Container:
        """What libnetwork does between Join and the container's first process."""
        ns = self._container(f"c{endpoint[:8]}")
        ip(self.ns, f"link set {link} netns {ns.path}")
        plug(ns, link, address, mac, network.subnet.prefixlen)
        container = Container(ns, address, mac, self, network, endpoint)
        self.containers.append(container)
        return container

    def remove(self, container: Container) -> None:
        """`docker rm -f`: all of it."""
        network = container.network
        assert network is not None
        self.call("NetworkDriver.Leave", NetworkID=network.id, EndpointID=container.endpoint)
        container.die()
        self.forget(container)

    def forget(self, container: Container) -> None:
        """What Docker says of an endpoint whose sandbox is no more."""
        network = container.network
        assert network is not None
        self.call("NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=container.endpoint)
        self.release_address(network, container.address)
        if container in self.containers:
            self.containers.remove(container)

    # -- life ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        if self._runs:
            self._runs = False
            self.daemon.stop()

    def start(self) -> None:
        """Another daemon on the same state."""
        self.view = self.view.reopened()
        self.daemon = self._daemon()

    def restart(self) -> None:
        self.stop()
        self.start()

    def reboot(self) -> None:
        """The daemon ends; overlay namespaces, containers and the engine's memory are gone; the disk stays."""
        self.stop()
        for container in self.containers:
            container.die()
        self.containers.clear()
        self.raze()
        self.start()

    def raze(self) -> None:
        """The overlay namespaces go, VNI and all."""
        for pin in self.all_pins():
            with netns.open_path(pin) as ns:
                for name in link_names(ns) & {"vxlan1", "probe"}:
                    ip(ns, f"link del {name}")  # by itself: the end of a namespace is not waited for
            netns.delete(pin)

    # -- looking ---------------------------------------------------------------------------------------------------

    def local(self, network: DockerNetwork | None = None) -> LocalOverlay:
        return self.daemon.overlays.of((network or self.networks[0]).id)

    def pins(self) -> list[Path]:
        """The overlays' namespaces."""
        return [pin for pin in self.all_pins() if pin.name != "_probe"]

    def all_pins(self) -> list[Path]:
        folder = self.run_folder / "netns"
        return sorted(folder.iterdir()) if folder.exists() else []

    @contextmanager
    def overlay(self, network: DockerNetwork | None = None) -> Iterator[Namespace]:
        """The overlay's namespace."""
        with netns.open_path(self.run_folder / "netns" / self.local(network).network.overlay) as ns:
            yield ns

    @contextmanager
    def tables(self, network: DockerNetwork | None = None) -> Iterator[Tables]:
        """The VXLAN device's tables, by a socket of the test's own."""
        with self.overlay(network) as ns:
            index = ns.call(lambda: socket.if_nametoindex("vxlan1"))
            with Tables(ns, index) as tables:
                yield tables

    def rows(self, network: DockerNetwork | None = None) -> set[Neigh | Fdb]:
        with self.tables(network) as tables:
            neigh, fdb = tables.dump()
            return {*neigh, *fdb}

    def knows(self, *containers: Container) -> bool:
        """Do its tables hold exactly these containers' rows of theirs?"""
        rows = self.rows()
        return all(row in rows for container in containers for row in container.rows)

    def ports(self, network: DockerNetwork | None = None) -> set[str]:
        """The bridge's ends of all cables."""
        with self.overlay(network) as ns:
            return link_names(ns) - {"lo", "br0", "vxlan1"}

    def count(self, name: str, label: str = "") -> int:
        return self.daemon.tally.get(name, label)

    def ground(self, network: DockerNetwork | None = None) -> Ground:
        ground = self.local(network).ground
        assert ground is not None
        return ground


def plug(ns: Namespace, link: str, address: Address, mac: Mac, prefixlen: int) -> None:
    """Make an interface that was moved into a container its eth0."""
    ip(
        ns,
        f"link set {link} down",
        f"link set {link} name eth0 address {mac}",
        f"addr add {address}/{prefixlen} dev eth0",
        "link set eth0 up",
    )
    # Up, it drops what is sent until the kernel's link watch has given it a queue, a moment later.
    with ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        until(lambda: is_running(probe, "eth0"))


class ByHand(Machine):
    """A host that has no daemon: the tutorial's commands, and its keys in the store."""

    def __init__(self, hosts: Hosts, number: int, records: str, vni: int = 42) -> None:
        super().__init__(hosts, number)
        self.records = records
        self.overlay = hosts.space(f"overlay-ns-{number}")
        ip(self.overlay, "link add dev br0 type bridge", "addr add dev br0 192.168.0.1/24")
        ip(
            self.ns,
            f"link add dev vxlan1 type vxlan id {vni} proxy learning l2miss l3miss dstport 4789",
            f"link set vxlan1 netns {self.overlay.path}",
        )
        ip(self.overlay, "link set vxlan1 master br0", "link set vxlan1 up", "link set br0 up")
        self._numbers = itertools.count(1)

    def run(self, address: str, mac: str | None = None) -> Container:
        """A container attached by hand, without a word to anybody."""
        number, place = next(self._numbers), Address(address)
        given = Mac(mac) if mac else Mac.of(place)
        ns = self._container(f"hand{number}")
        ip(
            self.overlay,
            f"link add dev veth{number} mtu 1450 type veth peer name inside mtu 1450 netns {ns.path}",
            f"link set dev veth{number} master br0",
            f"link set dev veth{number} up",
        )
        plug(ns, "inside", place, given, 24)
        return Container(ns, place, given, self, None, "")

    def put(self, container: Container, vtep: Address | None = None) -> None:
        """The two keys, one after the other, as `curl -X PUT` writes them."""
        self.hosts.put(f"{self.records}/arp/{container.address}", container.mac)
        self.hosts.put(f"{self.records}/fib/{container.mac}", vtep or self.vtep)

    def learn(self) -> None:
        """What the tutorial's resolver does: rows for everybody whom the keys tell of elsewhere."""
        entries = {entry.key.removeprefix(self.records + "/"): entry.value.decode() for entry in self.hosts.list(self.records + "/")}  # fmt: skip # noqa: E501
        for key, mac in entries.items():
            kind, _, address = key.partition("/")
            vtep = entries.get(f"fib/{mac}")
            if kind != "arp" or vtep in (None, self.vtep):
                continue
            run_in(self.overlay, "ip", "neigh", "replace", address, "lladdr", mac, "dev", "vxlan1")
            run_in(self.overlay, "bridge", "fdb", "replace", mac, "dev", "vxlan1", "self", "dst", vtep)


class Hosts:
    """The laboratory: an underlay, a store, and as many hosts as asked for. Everything goes with it."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.folder = folder
        self._spaces: list[Namespace] = []
        self._hosts: list[Host] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards _spaces
        self.store = store or SqliteStore(folder / "store.db")
        self.switch = self.space("switch")
        ip(self.switch, "link add br0 mtu 1500 type bridge", "link set br0 up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def view_for(self, host: Host) -> Any:
        """The store as one host reaches it; `reopened` gives another for its next daemon."""
        return StoreView(self.store)

    def space(self, name: str) -> Namespace:
        """A namespace that goes at the end."""
        ns = netns.create(self.folder / "ns" / name)
        with self._lock:
            self._spaces.append(ns)
        return ns

    def host(self, mtu: int = 1500, **environ: str | int) -> Host:
        """A host with a daemon; `environ` are settings without `MYOVERLAY_`, in small letters."""
        settings = {f"MYOVERLAY_{name.upper()}": str(value) for name, value in environ.items()}
        return self.admit(lambda number: Host(self, number, mtu, settings))

    def admit(self, make: Callable[[int], H]) -> H:
        """A host of another kind, made for the next free number."""
        host = make(next(self._numbers))
        self._hosts.append(host)
        return host

    def pair(self, **network: Any) -> tuple[Host, Host]:
        """Two hosts with a network on one overlay."""
        hosts = self.host(), self.host()
        in_parallel(*[lambda host=host: host.create_network(**network) for host in hosts])
        return hosts

    def pair_with(self, **environ: str | int) -> tuple[Host, Host]:
        """The same, with settings as `host` takes them."""
        hosts = self.host(**environ), self.host(**environ)
        in_parallel(*[lambda host=host: host.create_network() for host in hosts])
        return hosts

    def by_hand(self, records: str) -> ByHand:
        return ByHand(self, next(self._numbers), records)

    # -- the store, as anybody may use it --------------------------------------------------------------------------

    def put(self, key: str, value: str, flags: int = 0) -> None:
        self.store.commit([Put(key, value.encode(), flags)])

    def drop(self, *keys: str) -> None:
        entries = [self.store.get(key) for key in keys]
        ops: list[Op] = [Delete(entry.key, entry.index) for entry in entries if entry is not None]
        self.store.commit(ops)

    def list(self, prefix: str) -> Sequence[Any]:
        listing = self.store.list(prefix)
        assert isinstance(listing, Listing)
        return listing.entries

    def keys(self, *parts: str, without: Iterable[str] = ()) -> list[str]:
        """The names of all keys of ours that contain every part; the store's own identity is nobody's."""
        keys = [key for key in self.store.keys("myoverlay/").keys if key != "myoverlay/incarnation"]
        return [key for key in keys if all(p in key for p in parts) and not any(p in key for p in without)]

    def leases(self, use: str = "endpoint") -> Counter[str]:
        """How often each address is leased for this use."""
        values = [json.loads(entry.value) for entry in self.list("myoverlay/pools/")]
        return Counter(value["address"] for value in values if value["use"] == use)

    def definition(self, overlay: str = "10.5.0.0-24") -> dict[str, Any] | None:
        entry = self.store.get(f"myoverlay/overlays/{OverlayName(overlay)}/definition")
        return json.loads(entry.value) if entry else None

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything goes, whatever state it is in; the first failure is told at the end."""
        failures: list[Exception] = []

        def attempt(act: Callable[[], Any]) -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - told below
                failures.append(error)

        for host in self._hosts:
            attempt(host.stop)
        for host in self._hosts:
            for pin in host.all_pins():
                attempt(lambda pin=pin: netns.delete(pin))
        for ns in reversed(self._spaces):
            ns.close()
            path = ns.path
            assert path is not None
            attempt(lambda path=path: netns.delete(path))
        attempt(self.store.close)
        if failures:
            raise failures[0]
