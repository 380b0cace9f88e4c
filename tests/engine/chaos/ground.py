"""What the rows happen to: four hosts of both ages, Consul with tokens, the plugin, containers that wait to be used.

h1 and h2 hold the flow and the first contacts, h3 starts new containers, h4 is the host that dies.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lab import places
from lab.engine import EngineHost
from lab.errors import LabError
from lab.lab import HostSpec, Lab
from lab.plugin_process import SOCKET
from tests.engine.chaos import agent
from tests.engine.chaos.drivers import Driver, ManagedDriver, ProcessDriver
from tests.engine.chaos.loads import IMAGE, NETWORK, Loads

SUBNET = "10.5.0.0/24"
FIXED = "10.5.0.200"
DRIVERS = ("-d", "myoverlay", "--ipam-driver", "myoverlay")
OVERLAY = "10.5.0.0-24"
#: Seconds. A dead host's rows stay this long, its addresses this long: shorter than the defaults (60 and 600), which
#: nobody wants to wait for, and longer than a host may be unplugged in the row that unplugs one for 40 s.
GRACE, LEASE_GRACE = 30, 40
POOL = 12
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
KINDS = ("process", "managed")
PIN = f"/run/docker/plugins/myoverlay/netns/{OVERLAY}"
_PLUGIN = places.REPOSITORY / "build" / "plugin"


class Ground:
    """A laboratory that is up; `with Ground("process") as ground:`."""

    def __init__(self, kind: str, name: str = "chaos", source: Path | None = None, small: bool = False) -> None:
        self.kind = kind
        self.source = source or places.REPOSITORY / "src"
        self.small = small
        ages = {"h1": "old", "h2": "new", "h3": "new"} | ({} if small else {"h4": "old"})
        specs = [HostSpec(host, engine=age, live_restore=not small) for host, age in ages.items()]
        self.lab = Lab(name, specs, consul=True, acl=True, registry=kind == "managed")
        self.hosts = self.lab.hosts
        self.h1, self.h2, self.h3 = (self.hosts[host] for host in ("h1", "h2", "h3"))
        self.tokens: dict[str, str] = {}
        self.drivers: dict[str, Driver] = {}
        self.addresses: dict[tuple[str, str], str] = {}
        self.pool: list[dict[str, str]] = []
        self.agent: agent.Agent | None = None
        self.versions: dict[str, str] = {}

    @property
    def h4(self) -> EngineHost:
        """The host that dies."""
        return self.hosts["h4"]

    def __enter__(self) -> Ground:
        self.lab.up()
        try:
            self._furnish()
        except BaseException:
            self.lab.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        left = self.lab.down()
        if left:
            raise LabError(f"laboratory {self.lab.name} could not remove {', '.join(left)}")

    # -- furnishing ------------------------------------------------------------------------------------------------

    def _furnish(self) -> None:
        for name in self.hosts:
            self.tokens[name] = self.lab.consul.new_token()
        if self.kind == "managed":
            self._install()
        else:
            if not self.small:
                self.agent = agent.Agent(self.lab, self.h1)
                self.agent.start()
            for host in self.hosts.values():
                self.drivers[host.name] = ProcessDriver(host, self.settings(host), self.source)
            self.each(lambda host: self.drivers[host.name].start())
        for host in self.hosts.values():
            host.docker("network", "create", *DRIVERS, "--subnet", SUBNET, NETWORK)
        self.each(self._fill)
        self._note_pool()
        self.versions = {name: f"Engine {host.engine_version}" for name, host in self.hosts.items()}
        self.versions["consul"] = self._consul_version()

    def settings(self, host: EngineHost) -> dict[str, str]:
        """The plugin's environment on a host."""
        return {
            "CONSUL_HTTP_ADDR": agent.URL if self.agent is not None and host is self.h1 else self.lab.consul.url,
            "CONSUL_HTTP_TOKEN": self.tokens[host.name],
            "MYOVERLAY_GRACE": str(GRACE),
            "MYOVERLAY_LEASE_GRACE": str(LEASE_GRACE),
        }

    def _install(self) -> None:
        self.push("1", self.h1)
        for host in self.hosts.values():
            self.drivers[host.name] = ManagedDriver(host, self.reference("1"), self._known_settings(host))
        self.each(lambda host: self.managed(host).install())

    def _known_settings(self, host: EngineHost) -> dict[str, str]:
        """Docker refuses to set what the plugin's config.json does not name."""
        named = {row["name"] for row in json.loads(places.REPOSITORY.joinpath("config.json").read_text())["env"]}
        return {name: value for name, value in self.settings(host).items() if name in named}

    def reference(self, version: str) -> str:
        """The plugin's name in the laboratory's registry."""
        if self.lab.registry is None:
            raise LabError("this laboratory has no registry")
        return f"{self.lab.registry.address}/myoverlay-plugin:{version}"

    def push(self, version: str, host: EngineHost) -> None:
        """Build the plugin and push it; the version is a stamp in it: an engine takes the same files only once."""
        folder = _PLUGIN.with_name(f"plugin-chaos-{version}")
        subprocess.run(
            [sys.executable, "-m", "plugin", "build", "--target", str(folder), "--stamp", version],
            cwd=places.REPOSITORY, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        host.docker("plugin", "create", self.reference(version), str(folder), timeout=120)
        host.docker("plugin", "push", self.reference(version), timeout=120)
        host.docker("plugin", "rm", self.reference(version))

    def managed(self, host: EngineHost) -> ManagedDriver:
        """The plugin of a host, where the engine manages it."""
        driver = self.drivers[host.name]
        assert isinstance(driver, ManagedDriver)
        return driver

    def _fill(self, host: EngineHost) -> None:
        count = 3 if self.small else POOL
        names = [f"c{number}" for number in range(count)] if host in (self.h1, self.h2) else []
        names = ["flow", *names] if host is not self.h3 else []
        for name in names if host.name != "h4" else ("k0", "k1", "k2"):
            fixed = ("--ip", FIXED) if name == "k0" else ()
            self.run(host, name, "--restart", "always", *fixed)

    def run(self, host: EngineHost, name: str, *arguments: str) -> str:
        """Start a container that sleeps; its address."""
        host.docker("run", "-d", "--name", name, "--network", NETWORK, *arguments, IMAGE)
        self.addresses[host.name, name] = host.docker("inspect", "-f", ADDRESS, name)
        return self.addresses[host.name, name]

    def _note_pool(self) -> None:
        self.pool = [
            {
                "name": f"{host}/{name}",
                "side": host,
                "address": address,
                "netns": f"/proc/{self.hosts[host].container_pid(name)}/ns/net",
            }
            for (host, name), address in sorted(self.addresses.items())
            if name.startswith("c")
        ]

    def _consul_version(self) -> str:
        answer = json.loads(self.lab.consul.request("GET", "/v1/agent/self")[1])
        return f"Consul {answer['Config']['Version']}"

    # -- use -------------------------------------------------------------------------------------------------------

    def each(self, work: Callable[[EngineHost], Any]) -> None:
        """Do something on all hosts side by side."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            for step in [pool.submit(work, host) for host in self.hosts.values()]:
                step.result()

    def loads(self) -> Loads:
        """The three loads, not yet started."""
        one, other = ((host, "flow", self.addresses[host.name, "flow"]) for host in (self.h1, self.h2))
        return Loads((one, other), self.pool, self.h3)

    def in_overlay(self, host: EngineHost, *argv: str, check: bool = True) -> str:
        """Run a command in a host's overlay namespace."""
        return host.run(["nsenter", f"--net={PIN}", *argv], check=check, timeout=20)

    def rows(self, host: EngineHost) -> Rows:
        """What the VXLAN device of a host has in its two tables: MAC to VTEP, address to MAC."""
        fdb, neigh = {}, {}
        for line in self.in_overlay(host, "bridge", "fdb", "show", "dev", "vxlan1").splitlines():
            words = line.split()
            if "dst" in words:
                fdb[words[0]] = words[words.index("dst") + 1]
        for line in self.in_overlay(host, "ip", "neigh", "show", "dev", "vxlan1").splitlines():
            words = line.split()
            if "lladdr" in words:
                neigh[words[0]] = words[words.index("lladdr") + 1]
        return fdb, neigh

    def mac(self, host: EngineHost, name: str) -> str:
        """A container's MAC on the overlay."""
        return host.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}", name)

    def words_of(self, host: EngineHost, *words: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """A `myoverlay` command on a host."""
        environment = {**self.settings(host), "PYTHONPATH": str(self.source)}
        return host.complete([sys.executable, "-m", "myoverlay", *words], env=environment, timeout=timeout)

    def states(self, host: EngineHost) -> dict[str, str]:
        """What a host thinks of the others, as `myoverlay host ls` shows it: name to state. Raises LabError."""
        return {row["name"]: row["state"] for row in self.ask(host, "Control.Hosts")["hosts"]}

    def id_of(self, name: str) -> str:
        """A host's id, as h1 knows it. Raises LabError where it does not."""
        for row in self.ask(self.h1, "Control.Hosts")["hosts"]:
            if row["name"] == name:
                return str(row["id"])
        raise LabError(f"h1 knows no host {name}")

    def counter(self, host: EngineHost, name: str, label: str) -> int:
        """A counter of a host's plugin. Raises LabError."""
        return int(self.ask(host, "Control.Counters").get(name, {}).get(label, 0))

    def ask(self, host: EngineHost, path: str) -> dict[str, Any]:
        """One of the plugin's own requests, over its socket. Raises LabError where it does not answer well."""
        request = f"POST /{path} HTTP/1.0\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}"
        answer = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(host.fs / SOCKET))
                connection.sendall(request.encode())
                while data := connection.recv(65536):
                    answer += data
            except OSError as error:
                raise LabError(f"{path} on {host.name}: {error}") from None
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise LabError(f"{path} on {host.name}: {body.decode(errors='replace')[-200:]}")
        found: dict[str, Any] = json.loads(body)
        return found

    def batch(self, host: EngineHost, program: str, lines: list[str]) -> None:
        """Many `ip` or `bridge` commands in a host's overlay namespace, as one process; each must succeed."""
        argv = ["nsenter", f"--net={PIN}", program, "-batch", "-"]
        host.run(argv, input="\n".join(lines) + "\n", timeout=20)

    def alive_keys(self) -> dict[str, tuple[str, int]]:
        """Host name to (session, index of the key's last change), as the store has it."""
        found = {}
        for entry in self.lab.consul.entries("myoverlay/alive/"):
            name = json.loads(base64.b64decode(entry["Value"]))["name"]
            found[name] = (entry.get("Session", ""), int(entry["ModifyIndex"]))
        return found

    def rejoin(self) -> None:
        """Make a server that was started anew find the agent at once, not when the agent looks for it (30 s)."""
        if self.agent is not None:
            self.lab.consul.request("PUT", f"/v1/agent/join/{self.h1.address}")
            eventually("the agent serves again", self.agent.serves, 30)

    def give_tokens_again(self) -> None:
        """What whoever runs an emptied Consul does first; it takes tokens a moment after it has a leader."""
        for token in self.tokens.values():
            eventually("Consul takes tokens", partial(self.lab.consul.new_token, secret=token), 20, pause=0.2)


Rows = tuple[Mapping[str, str], Mapping[str, str]]


def eventually(what: str, ask: Callable[[], Any], seconds: float, pause: float = 0.05) -> float:
    """Seconds until the answer was true. Raises LabError at the deadline."""
    began, waiting = time.monotonic(), threading.Event()
    while True:
        try:
            answer, trouble = ask(), ""
        except LabError as error:
            answer, trouble = None, f" ({error})"
        if answer:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise LabError(f"{what}: not within {seconds:g} s{trouble}")
        waiting.wait(pause)
