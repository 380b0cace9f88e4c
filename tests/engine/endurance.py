"""Docker in small: its calls over the plugin's real socket, and what the plugin's processes hold."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import struct
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lab import syscalls
from lab.engine import EngineHost
from lab.errors import TookTooLong
from lab.host import Host
from lab.namespaces import KINDS, inside
from lab.plugin_process import SOCKET, PluginProcess
from lab.processes import wait_for

#: linux/rtnetlink.h, if_link.h: a library's object in many threads would cost a descriptor each.
_RTM_SETLINK, _REQUEST_ACK, _IFLA_IFNAME, _IFLA_NET_NS_FD = 19, 5, 3, 28

#: The column of a socket's inode in /proc/net, by the file's name (proc(5)); a tcp6 line is as a tcp one.
_INODE = {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "raw": 9, "unix": 6, "netlink": 9, "packet": 8}
_LIST = ["sh", "-c", f'cd /proc/net; for file in {" ".join(_INODE)}; do sed "1d;s/^/$file /" $file; done']


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("plugin", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Docker:
    """What dockerd does to a plugin, and libnetwork to its links, on a host without an engine. One per thread."""

    def __init__(self, host: EngineHost) -> None:
        self._socket = host.fs / SOCKET
        self._links = host.inside(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        #: Milliseconds of each call, by method.
        self.took: dict[str, list[float]] = defaultdict(list)

    def close(self) -> None:
        self._links.close()

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """One call; what is not answered 200 fails the test with the plugin's sentence."""
        connection = _Connection(self._socket)
        began = time.perf_counter()
        try:
            connection.request("POST", f"/{method}", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        self.took[method].append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, f"{method}: {said.get('Err')}"
        return said

    def create_network(self, subnet: str) -> tuple[str, str]:
        """`docker network create --subnet`; the network's id and its pool's."""
        pool = self.call("IpamDriver.RequestPool", AddressSpace="myoverlay", Pool=subnet, SubPool="", V6=False)
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        gateway = self.call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=kind)["Address"]
        network = secrets.token_hex(32)
        self.call(
            "NetworkDriver.CreateNetwork",
            NetworkID=network,
            Options={"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}},
            IPv4Data=[{"AddressSpace": "myoverlay", "Pool": subnet, "Gateway": gateway}],
            IPv6Data=[],
        )
        return network, pool["PoolID"]

    def attach(self, network: str, pool: str) -> tuple[str, str, int]:
        """`docker run`, with a new sandbox: endpoint, address with length, and the sandbox's descriptor."""
        address = self.call("IpamDriver.RequestAddress", PoolID=pool, Address="", Options=None)["Address"]
        endpoint = secrets.token_hex(32)
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        names = {"NetworkID": network, "EndpointID": endpoint}
        self.call("NetworkDriver.CreateEndpoint", **names, Interface=interface, Options={})
        joined = self.call("NetworkDriver.Join", **names, SandboxKey="/x", Options={})
        sandbox = inside({}, _new_namespace)
        self._move(joined["InterfaceName"]["SrcName"], sandbox)
        return endpoint, address, sandbox

    def _move(self, link: str, sandbox: int) -> None:
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        body += _attribute(_IFLA_IFNAME, link.encode() + b"\0") + _attribute(
            _IFLA_NET_NS_FD, struct.pack("=I", sandbox)
        )
        self._links.send(struct.pack("=IHHII", 16 + len(body), _RTM_SETLINK, _REQUEST_ACK, 1, 0) + body)
        (code,) = struct.unpack_from("=i", self._links.recv(4096), 16)
        assert code == 0, f"moving {link}: {os.strerror(-code)}"

    def detach(self, network: str, pool: str, attached: tuple[str, str, int]) -> None:
        """`docker rm -f`."""
        endpoint, address, sandbox = attached
        names = {"NetworkID": network, "EndpointID": endpoint}
        self.call("NetworkDriver.Leave", **names)
        os.close(sandbox)
        self.call("NetworkDriver.DeleteEndpoint", **names)
        self.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address.partition("/")[0])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _new_namespace() -> int:
    syscalls.unshare(KINDS["net"])
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Held:
    """What a plugin's processes hold, and what it has made on its host."""

    def __init__(self, plugin: PluginProcess) -> None:
        pids, host = _tree(plugin.pid), plugin.host
        #: KiB, all processes together, shared pages counted once.
        self.pss = sum(_pss(pid) for pid in pids)
        #: Connections to the store, of which some are kept idle.
        self.connections = 0
        #: What the other descriptors lead to, and how many to each.
        self.files: Counter[str] = Counter()
        pins = sorted((host.fs / "run/docker/plugins/myoverlay/netns").iterdir())
        sockets = _sockets(host.run(_LIST)) | {
            inode: f"{kind} in an overlay"
            for pin in pins
            for inode, kind in _sockets(_inside(host, pin.name, _LIST)).items()
        }
        for pid in pids:
            for target in _open_files(pid):
                name, _, inode = target.rstrip("]").partition(":[")
                kind = sockets.get(inode, "socket") if name == "socket" else name
                if kind == "tcp":
                    self.connections += 1
                else:
                    self.files[kind] += 1
        #: What must not change.
        self.things = {
            "processes": len(pids),
            "descriptors": self.files.total(),
            "threads": sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
            "namespaces": len(pins),
            "links": len(host.run(["ip", "-o", "link"]).splitlines()),
            "links inside": sum(_links(host, pin.name) for pin in pins),
        }


def _open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return found


def _sockets(lines: str) -> dict[str, str]:
    """The kind of each socket by its inode (netlink's with its protocol), from what `_LIST` prints."""
    found: dict[str, str] = {}
    for line in lines.splitlines():
        kind, *words = line.split()
        found[words[_INODE[kind]]] = f"netlink {words[1]}" if kind == "netlink" else kind
    return found


def _links(host: Host, name: str) -> int:
    return len(_inside(host, name, ["ip", "-o", "link"]).splitlines())


def _inside(host: Host, name: str, command: list[str]) -> str:
    return host.run(["nsenter", f"--net=/run/docker/plugins/myoverlay/netns/{name}", *command])


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def held_at_rest(plugin: PluginProcess, things: dict[str, int] | None = None, calm: float = 0.0) -> Held:
    """What is held once nothing is under way: the same for `calm` seconds, or what is expected.

    Links are deleted in the background. Tells what there is in the end whether or not it came to that.
    """
    found, since = Held(plugin), time.monotonic()

    def same() -> bool:
        nonlocal found, since
        before, found = found, Held(plugin)
        if found.things != before.things:
            since = time.monotonic()
        if things is not None:
            return found.things == things
        return found.things == before.things and time.monotonic() - since > calm

    with contextlib.suppress(TookTooLong):
        wait_for("rest", calm + 15, same, pause=0.2)
    return found
