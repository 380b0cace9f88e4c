"""Two hosts with engines of both ages, a third without one, a real Consul, and the plugin as a process of each host."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import leftovers
from lab.errors import CommandFailed, LabError
from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess

IMAGE = "lab/base"
DRIVER = ("-d", "myoverlay")
BOTH = (*DRIVER, "--ipam-driver", "myoverlay")
#: Keys of somebody else beside ours: they must be there, unchanged, after everything.
FOREIGN = {"myoverlay-else/pools/x": b"1", "other/overlays/web": b"\x00\xff", "myoverlays": b"", "demo-1x/arp/1": b"z"}


#: A ping every 20 ms for a machine that has no `ping`: arguments address and count; prints `answered <Unix time>`.
ICMP = """
import os, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def sum16(b):
    t = sum(struct.unpack(f"!{len(b) // 2}H", b))
    t = (t >> 16) + (t & 0xFFFF)
    return ~(t + (t >> 16)) & 0xFFFF
me, last = os.getpid() & 0xFFFF, int(sys.argv[2])
for n in range(1, last + 1):
    body = struct.pack("!HH", me, n & 0xFFFF)
    s.sendto(struct.pack("!BBH", 8, 0, sum16(b"\\x08\\0\\0\\0" + body)) + body, (sys.argv[1], 0))
    until = time.monotonic() + (0.02 if n < last else 1)
    while (left := until - time.monotonic()) > 0:
        s.settimeout(left)
        try:
            data = s.recv(200)
        except (TimeoutError, OSError):
            break
        if data[20] == 0 and struct.unpack("!H", data[24:26])[0] == me:
            print("answered", time.time(), flush=True)
            if n == last:
                break
"""


class Cluster:
    """The hosts `h1` (oldest engine) and `h2` (newest) with their plugins, and `h3`, which has neither."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.consul = lab.consul
        self.h1, self.h2, self.h3 = (lab.hosts[name] for name in ("h1", "h2", "h3"))
        settings = {"CONSUL_HTTP_ADDR": lab.consul.url}
        self.plugins = {host.name: PluginProcess(host, settings) for host in (self.h1, self.h2)}

    @property
    def engines(self) -> tuple[Any, Any]:
        return self.h1, self.h2

    def dump(self) -> str:
        words = [f"=== {name} plugin\n{plugin.words()[-6000:]}" for name, plugin in self.plugins.items()]
        return "\n".join([*(host.dump() for host in (self.h1, self.h2, self.h3)), *words])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    before = leftovers.snapshot()
    specs = [HostSpec("h1", engine="old"), HostSpec("h2", engine="new"), HostSpec("h3", engine=None)]
    with Lab("test", hosts=specs, consul=True, registry=True) as lab:
        cluster = Cluster(lab)
        for key, value in FOREIGN.items():
            cluster.consul.put(key, value)
        for plugin in cluster.plugins.values():
            plugin.start()
        yield cluster
        assert {key: cluster.consul.get(key).get(key) for key in FOREIGN} == FOREIGN
        for plugin in cluster.plugins.values():
            plugin.stop()
    assert leftovers.compare(before, leftovers.snapshot(), ["test"]) == []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure here says nothing without both hosts' state."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and report.when == "call":
        for name, thing in getattr(item, "funcargs", {}).items():
            if callable(dump := getattr(thing, "dump", None)):
                report.sections.append((name, _dumped(dump)))


def _dumped(dump: Callable[[], str]) -> str:
    try:
        return dump()
    except (LabError, OSError) as error:
        return f"no state could be read: {error}"


class Nets:
    """Networks and containers of one test; all go at its end."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._networks: list[tuple[Any, str]] = []
        self._containers: list[tuple[Any, str]] = []

    def create(self, host: Any, name: str, *arguments: str) -> None:
        host.docker("network", "create", *arguments, name)
        self._networks.append((host, name))

    def run(self, host: Any, name: str, *arguments: str, command: tuple[str, ...] = ()) -> str:
        """Start a container; its address on its first network."""
        self._containers.append((host, name))
        host.docker("run", "-d", "--name", name, *arguments, IMAGE, *command)
        return self.address(host, name)

    def address(self, host: Any, name: str, network: str = "") -> str:
        field = f'(index .NetworkSettings.Networks "{network}")' if network else "."
        form = (
            "{{with " + field + "}}{{.IPAddress}}{{end}}"
            if network
            else ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}")
        )
        return str(host.docker("inspect", "-f", form, name)).split()[0]

    def remove(self, host: Any, name: str) -> None:
        host.docker("rm", "-f", name)
        self._containers.remove((host, name))

    def remove_network(self, host: Any, name: str) -> None:
        host.docker("network", "rm", name)
        self._networks.remove((host, name))

    def clear(self) -> None:
        for host, name in reversed(self._containers):
            host.docker("rm", "-f", name, check=False)
        for host, name in reversed(self._networks):
            _remove_network(host, name)


def _remove_network(host: Any, name: str) -> None:
    """20.10 miscounts endpoints that go at once, and believes in one until its restart (moby 43286)."""
    done = host.docker_complete("network", "rm", name)
    if done.returncode and "has active endpoints" in done.stderr and host.engine_version.startswith("20.10."):
        print(f"{host.name}: {done.stderr.strip()}: the engine is restarted")
        host.restart_engine()
        host.docker("network", "rm", name)


@pytest.fixture
def nets(cluster: Cluster) -> Iterator[Nets]:
    nets = Nets(cluster)
    yield nets
    nets.clear()


def refused(host: Any, *arguments: str) -> str:
    """What Docker tells a person whose command is refused."""
    with pytest.raises(CommandFailed) as caught:
        host.docker(*arguments)
    return str(caught.value)


class Pings(list[float]):
    """Round trips in ms; a failing assertion shows all that was said instead."""

    def __init__(self, said: str) -> None:
        super().__init__(float(text) for text in re.findall(r"time=([0-9.]+) ms", said))
        self.said = said

    def __repr__(self) -> str:
        return self.said


def ping(host: Any, container: str, address: str, count: int = 3, interval: float = 0.2) -> Pings:
    """Those of the pings that were answered."""
    done = host.docker_complete(
        "exec", container, "ping", "-c", str(count), "-i", str(interval), "-W", "2", address, timeout=60
    )
    return Pings(done.stdout + done.stderr)


def eventually(what: str, check: Callable[[], Any], timeout: float = 10.0) -> Any:
    """The first true answer of `check`, which is asked again until the deadline."""
    until = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {timeout:g} s; last: {answer!r}")
        time.sleep(0.02)


def sniff(host: Any, container: str, expression: str) -> subprocess.Popen[str]:
    """tcpdump in a container's namespace, listening when this returns."""
    pid = host.container_pid(container, of_machine=False)
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "tcpdump", "-lnepi", "eth0", "--immediate-mode", expression]
    process: subprocess.Popen[str] = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if "listening" in line:
            return process
    raise LabError(f"tcpdump did not start in {container}")


def heard(process: subprocess.Popen[str]) -> list[str]:
    """What tcpdump saw; it ends."""
    process.terminate()
    out, _ = process.communicate(timeout=10)
    return [line for line in out.splitlines() if line]
