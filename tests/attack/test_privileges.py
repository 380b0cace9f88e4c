"""What the plugin may do to its machine: the capabilities it works with are those it asks for, and none is for nothing.

A real `myoverlay serve` in a process whose bounding set holds these and no others, as no engine could give it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.places import REPOSITORY
from myoverlay.kernel.netns import Namespace
from tests.kernel.host.tools import ip, until

#: As config.json asks for them.
ASKED = tuple(json.loads((REPOSITORY / "config.json").read_text())["linux"]["capabilities"])
NETWORK, ENDPOINT = "a" * 64, "b" * 64

pytestmark = pytest.mark.timeout(120)


class Serving:
    """The plugin on an embedded store, below a folder of its own, with a few capabilities."""

    def __init__(self, ns: Namespace, folder: Path, capabilities: tuple[str, ...]) -> None:
        self.socket = folder / "plugins" / "x.sock"
        self.log = folder / "log"
        short = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)
        command = [
            "nsenter", f"--net={ns.path}", "unshare", "--mount", "--propagation", "private",
            "setpriv", f"--bounding-set=-all,{short}", "--inh-caps=-all", sys.executable, "-m", "myoverlay", "serve",
        ]  # fmt: skip
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MYOVERLAY_SOCKETS": str(self.socket),
            "MYOVERLAY_STATE": str(folder / "state"),
            "MYOVERLAY_RUN": str(folder / "run"),
            "MYOVERLAY_HOST_NAME": "h1",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        until(self._answers, 20, "the plugin")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.call("Plugin.Activate")[0] == 200
        except OSError:
            return False

    def call(self, method: str, **body: Any) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(20)
            connection.sock.connect(str(self.socket))
            connection.request("POST", f"/{method}", json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def does(self, method: str, **body: Any) -> dict[str, Any]:
        status, said = self.call(method, **body)
        assert status == 200, said
        return said

    def create_network(self) -> tuple[int, dict[str, Any]]:
        pool = self.does("IpamDriver.RequestPool", AddressSpace="myoverlay", Pool="10.5.0.0/24", Options=None)["PoolID"]
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        gateway = self.does("IpamDriver.RequestAddress", PoolID=pool, Address="10.5.0.1", Options=kind)["Address"]
        data = [{"AddressSpace": "myoverlay", "Pool": "10.5.0.0/24", "Gateway": gateway, "AuxAddresses": {}}]
        return self.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options={}, IPv4Data=data, IPv6Data=[])

    def run_container(self) -> dict[str, Any]:
        """A container; what Join answered."""
        address = self.does("IpamDriver.RequestAddress", PoolID="10.5.0.0-24", Address="", Options={})["Address"]
        of = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        self.does("NetworkDriver.CreateEndpoint", **of, Options={}, Interface=interface)
        return self.does("NetworkDriver.Join", **of, SandboxKey="/run/docker/netns/x", Options={})

    def remove_all(self) -> None:
        of = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
        for method in ("Leave", "DeleteEndpoint"):
            self.does(f"NetworkDriver.{method}", **of)
        self.does("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)

    def troubles(self) -> list[str]:
        """All that does not work, as `status` has it."""
        said = self.does("Control.Status")
        found = [said["heartbeat_trouble"], said["unguarded"], *said["names"]["resolver"]["troubles"]]
        return [one for one in (*found, *(overlay["unbound"] for overlay in said["overlays"])) if one]

    def is_up(self) -> bool:
        said = self.does("Control.Status")
        return bool(said["heartbeat_mtu"]) and "10.5.0.0-24" in said["names"]["resolver"]["overlays"]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(30) == 0


@pytest.fixture
def serve(spaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[Callable[[tuple[str, ...]], Serving]]:
    assert shutil.which("setpriv")
    ns, other = spaces("host"), spaces("other")
    ip(ns, f"link add eth0 type veth peer name eth0 netns {other.path}", "addr add 192.0.2.1/24 dev eth0",
       "link set eth0 up", "link set lo up", "route add default via 192.0.2.254", "link add docker0 type bridge",
       "addr add 172.17.0.1/16 dev docker0", "link set docker0 up")  # fmt: skip
    ip(other, "link set eth0 up")
    made: list[Serving] = []

    def begin(capabilities: tuple[str, ...]) -> Serving:
        made.append(Serving(ns, tmp_path, capabilities))
        return made[-1]

    yield begin
    for one in made:
        one.end()


def test_what_config_json_asks_for_is_enough(serve: Callable[[tuple[str, ...]], Serving], tmp_path: Path) -> None:
    """With these and not one more: network, container, way out, guard, heartbeat and names; no trouble is told or
    logged. All that it wrote is root's alone, as are its socket and the directories it made."""
    plugin = serve(ASKED)
    held = re.search(r"CapEff:\s*([0-9a-f]+)", Path(f"/proc/{plugin.process.pid}/status").read_text())
    assert held is not None
    assert int(held[1], 16).bit_count() == len(ASKED)
    assert plugin.create_network() == (200, {})
    assert plugin.run_container()["Gateway"] == "10.5.0.1"
    until(plugin.is_up, 20, "heartbeat and names")
    assert plugin.troubles() == []
    for path in (plugin.socket.parent, *plugin.socket.parent.rglob("*"), *(tmp_path / "state").rglob("*")):
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0, f"{path} is {stat.filemode(mode)}"
        assert not stat.S_ISSOCK(mode) or stat.S_IMODE(mode) == 0o600
    plugin.remove_all()
    assert " ERROR " not in plugin.log.read_text()


#: What is said where one is lacking: by CreateNetwork where that cannot do without, else by `status`.
WITHOUT = {
    "CAP_NET_ADMIN": "Operation not permitted): give the plugin CAP_NET_ADMIN",
    "CAP_SYS_ADMIN": "entering <Namespace",
    "CAP_NET_RAW": "it takes CAP_NET_RAW",
    "CAP_NET_BIND_SERVICE": "listening on 169.254.77.53 port 53: Permission denied",
}


@pytest.mark.parametrize("lacking", ASKED)
def test_none_is_for_nothing(serve: Callable[[tuple[str, ...]], Serving], lacking: str) -> None:
    """Each taken away, something does not work: a sentence says so, and it is no bug of ours that does."""
    plugin = serve(tuple(name for name in ASKED if name != lacking))
    status, said = plugin.create_network()
    if status == 200:
        plugin.run_container()
        found = until(plugin.troubles, 20, f"something to be wrong without {lacking}")
        plugin.remove_all()
    else:
        found = [said["Err"]]
    assert any(WITHOUT[lacking] in one for one in found), found
    assert "a bug in myoverlay" not in plugin.log.read_text()
