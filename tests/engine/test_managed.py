"""The managed plugin, installed from a real registry, on engines of both ages."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import places
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from lab.processes import Known
from tests.engine.asking import KNOWN
from tests.engine.conftest import BOTH, IMAGE, eventually, ping

FOLDER = places.REPOSITORY / "build" / "plugin"
CREATE = ("network", "create", *BOTH, "--subnet", "10.8.0.0/24", "web")
OURS, EMBEDDED = "169.254.77.53", "127.0.0.11"
ASKING = str(Path(__file__).with_name("asking.py"))
PIN = "/run/docker/plugins/myoverlay/netns/10.8.0.0-24"


class Managed:
    """Two hosts that installed the plugin from the laboratory's registry, and how long it took."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2 = lab.hosts["h1"], lab.hosts["h2"]
        self.name = f"{lab.registry.address}/myoverlay-plugin:0.1"
        self.enabling: dict[str, float] = {}

    def other(self, host: EngineHost) -> EngineHost:
        return self.h2 if host is self.h1 else self.h1

    def resolv_conf(self, host: EngineHost) -> str:
        """A host's file: the other host is its DNS server."""
        return f"nameserver {self.other(host).address}\n"

    def ask(self, host: EngineHost, server: str, count: int = 1) -> Any:
        """Questions for a name that only the host's server knows, from its container `talks`."""
        argv = [sys.executable, ASKING, "ask", server, "www.example.com", str(count)]
        return json.loads(host.in_container("talks", argv, timeout=120))

    def install(self) -> None:
        """Push from one host, install on both, with Docker's own commands."""
        self.h1.docker("plugin", "create", self.name, str(FOLDER), timeout=120)
        self.h1.docker("plugin", "push", self.name, timeout=120)
        self.h1.docker("plugin", "rm", self.name)
        for host in (self.h1, self.h2):
            host.popen([sys.executable, ASKING, "serve", str(host.folder / "asked"), host.address])
            host.in_engine(["sh", "-c", f"echo -n '{self.resolv_conf(host)}' >/etc/resolv.conf"])
            setting = f"CONSUL_HTTP_ADDR={self.lab.consul.url}"
            host.docker(
                "plugin", "install", "--disable", "--grant-all-permissions", self.name, setting, timeout=120
            )  # fmt: skip
            self.enable(host)

    def enable(self, host: EngineHost) -> None:
        began = time.monotonic()
        host.docker("plugin", "enable", self.name)
        self.enabling[host.name] = time.monotonic() - began

    def processes(self, host: EngineHost, *words: bytes) -> list[int]:
        """The plugin's processes, as the host counts: first the one that the engine started."""
        wanted = set(words or (b"myoverlay", b"serve"))
        found = []
        for entry in (host.fs / "proc").iterdir():
            if entry.name.isdigit() and wanted <= set(_read(entry / "cmdline").split(b"\0")):
                found.append(int(entry.name))
        return sorted(found)

    def resolver(self, host: EngineHost) -> int:
        """The process that answers names."""
        return int(eventually("the resolver", lambda: self.processes(host, b"myoverlay.names"))[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended meanwhile


@pytest.fixture(scope="module")
def managed() -> Iterator[Managed]:
    subprocess.run(
        [sys.executable, "-m", "plugin", "build", "--target", str(FOLDER)], cwd=places.REPOSITORY, check=True
    )
    specs = [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")]
    with Lab("managed", specs, consul=True, registry=True) as lab:
        managed = Managed(lab)
        managed.install()
        for host in (managed.h1, managed.h2):
            host.docker(*CREATE)
        yield managed


def run(host: EngineHost, name: str, *arguments: str) -> str:
    host.docker("run", "-d", "--name", name, "--network", "web", *arguments, IMAGE)
    return address(host, name)


def address(host: EngineHost, name: str) -> str:
    return host.docker("inspect", "-f", "{{.NetworkSettings.Networks.web.IPAddress}}", name)


def test_the_short_name_works_and_containers_talk(managed: Managed) -> None:
    """`-d myoverlay` finds the managed plugin by its second socket; the first contact works both ways."""
    there = {}
    for host in (managed.h1, managed.h2):
        dns = ("--dns", OURS, "--dns", managed.other(host).address)
        there[host.name] = run(host, "talks", "--label", "x=1", *dns)
    assert len(set(there.values())) == 2
    assert len(ping(managed.h1, "talks", there["h2"])) == 3
    assert len(ping(managed.h2, "talks", there["h1"])) == 3


def test_size_memory_and_start(managed: Managed) -> None:
    """Root file system at most 70 MB, all processes at most 80 MB of memory, enabled within 1.5 s."""
    size = sum(p.lstat().st_size for p in (FOLDER / "rootfs").rglob("*") if p.is_file() and not p.is_symlink())
    print(f"root file system {size / 1e6:.1f} MB; enabled in {managed.enabling} s")
    assert size <= 70e6
    for host in (managed.h1, managed.h2):
        pss = 0
        for pid in (*managed.processes(host), managed.resolver(host)):
            rollup = (host.fs / f"proc/{pid}/smaps_rollup").read_text()
            pss += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        print(f"{host.name}: {pss / 1024:.1f} MiB of memory (sum of PSS)")
        assert 0 < pss * 1024 <= 80e6
        assert managed.enabling[host.name] <= 1.5


def test_a_path_is_traced(managed: Managed) -> None:
    """`trace` on a plugin host: what a managed plugin cannot enter is told unseen, the rest of both hosts is judged."""
    near, far = (address(host, "talks") for host in (managed.h1, managed.h2))
    environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}

    def trace() -> tuple[int, Any]:
        words = [sys.executable, "-m", "myoverlay", "trace", near, far, "--json"]
        done = managed.h1.complete(words, env=environment, timeout=30)
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    code, found = eventually("the path is whole", lambda: (seen := trace())[0] == 0 and seen, 15)
    assert code == 0
    states: dict[str, set[str]] = {}
    for step in found["steps"]:
        states.setdefault(step["state"], set()).add(step["hop"])
    assert states.keys() == {"right", "unseen"}
    assert states["unseen"] == {"container route", "container neighbour"}
    assert {"container link", "host firewall", "overlay firewall", "underlay"} <= states["right"]
    managed.h2.run(["nft", "add table ip stop; add chain ip stop c { type filter hook prerouting priority 0; }; add rule ip stop c udp dport 4789 drop"])  # fmt: skip # noqa: E501
    code, found = trace()
    managed.h2.run(["nft", "delete table ip stop"])
    assert code == 1
    assert (found["steps"][found["first"]]["host"], found["steps"][found["first"]]["hop"]) == ("h2", "host firewall")


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_containers_come_back_after_the_engine_restarts(managed: Managed, name: str) -> None:
    """`--restart always` containers are back on the overlay, with the plugin managed, after dockerd was restarted."""
    host, other = (managed.h1, managed.h2) if name == "h1" else (managed.h2, managed.h1)
    far = address(other, "talks")
    run(host, "always", "--restart", "always", "--ip", "10.8.0.200")
    assert len(ping(host, "always", far)) == 3
    for how in ({}, {"kill": True}, {"wipe_run": True}):
        host.restart_engine(**how)
        eventually(
            "the container runs again",
            lambda: host.docker("inspect", "-f", "{{.State.Running}}", "always", check=False) == "true",
            60,
        )
        assert len(ping(host, "always", far)) == 3, how
        assert len(ping(other, "talks", "10.8.0.200")) == 3, how
    host.docker("rm", "-f", "always")
    host.docker("start", "talks", check=False)


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_traffic_flows_while_the_plugin_is_away(managed: Managed, name: str) -> None:
    """Disabled by force or killed, the plugin takes no traffic down; enabled again it starts containers."""
    host, other = (managed.h1, managed.h2) if name == "h1" else (managed.h2, managed.h1)
    for one in (host, other):
        one.docker("start", "talks")
    near, far = address(host, "talks"), address(other, "talks")
    before = managed.ask(host, EMBEDDED, 30)
    host.docker("plugin", "disable", "-f", managed.name)
    after = managed.ask(host, EMBEDDED, 30)
    medians = [statistics.median(found["ms"]) for found in (before, after)]
    print(f"{name}: other names {medians[0]:.2f} ms, with the plugin disabled {medians[1]:.2f} ms (median)")
    assert before["said"] == after["said"] == {"NOERROR": 30}, "the second server answers"
    assert medians[1] - medians[0] <= 5.0
    assert managed.ask(host, OURS)["said"] == {"ConnectionRefusedError": 1}
    assert len(ping(host, "talks", far)) == 3
    assert len(ping(other, "talks", near)) == 3
    assert host.run(["nsenter", f"--net={PIN}", "ip", "-o", "link", "show", "vxlan1"])
    managed.enable(host)
    run(host, "fresh")
    assert len(ping(host, "fresh", far)) == 3
    first = managed.processes(host)
    Known.now(host.machine_pid(first[0])).signal(signal.SIGKILL)
    assert len(ping(host, "talks", far)) == 3
    eventually("the engine starts it again", lambda: set(managed.processes(host)) - set(first), 20)
    host.docker("rm", "-f", "fresh", timeout=60)
    run(host, "fresh")
    assert len(ping(other, "talks", address(host, "fresh"))) == 3
    host.docker("rm", "-f", "fresh")


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_the_managed_plugins_resolver_answers(managed: Managed, name: str) -> None:
    """It listens in the overlay and on the host, and forwards to the resolvers that the host's file names."""
    host = managed.h1 if name == "h1" else managed.h2
    listening = host.run(["ss", "-Hlnu", "src", "169.254.77.53"])
    assert "169.254.77.53:53" in listening
    inside = host.run(["nsenter", f"--net={PIN}", "ss", "-Hlnu", "src", "169.254.77.53"])
    assert "169.254.77.53:53" in inside
    root = f"/proc/{managed.resolver(host)}/root/etc/resolv.conf"
    assert (host.fs / root.lstrip("/")).read_text() == managed.resolv_conf(host)
    assert managed.ask(host, OURS)["addresses"] == [KNOWN]


def test_all_is_gone_with_the_networks(managed: Managed) -> None:
    """Containers and networks removed, the store holds nothing of them, and no pin is left on the hosts."""
    for host in (managed.h1, managed.h2):
        host.docker("rm", "-f", "talks")
        host.docker("network", "rm", "web")
    eventually(
        "the store is empty",
        lambda: {key.split("/")[1] for key in managed.lab.consul.keys("myoverlay/")} <= {"alive", "incarnation"},
        15,
    )
    for host in (managed.h1, managed.h2):
        assert set(os.listdir(host.fs / "run/docker/plugins/myoverlay/netns")) <= {"_probe"}, "the heartbeat's alone"
