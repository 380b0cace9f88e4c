"""Two hosts, engines of both ages, whose managed plugin was installed from the laboratory's registry."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import places
from lab.engine import EngineHost
from lab.lab import Lab
from tests.engine.conftest import BOTH, IMAGE, eventually

FOLDER = places.REPOSITORY / "build" / "plugin"
CREATE = ("network", "create", *BOTH, "--subnet", "10.8.0.0/24", "web")
OURS, EMBEDDED = "169.254.77.53", "127.0.0.11"
ASKING = str(Path(__file__).with_name("asking.py"))
OVERLAY = "10.8.0.0-24"
PIN = f"/run/docker/plugins/myoverlay/netns/{OVERLAY}"


class Managed:
    """Two hosts that installed the plugin from the laboratory's registry, and how long it took."""

    def __init__(self, lab: Lab, *settings: str) -> None:
        """`settings`: of `docker plugin install`, beside where Consul is."""
        self.lab = lab
        self.h1, self.h2 = lab.hosts["h1"], lab.hosts["h2"]
        self.name = f"{lab.registry.address}/myoverlay-plugin:0.1"
        self.settings = (f"CONSUL_HTTP_ADDR={lab.consul.url}", *settings)
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
            host.docker(
                "plugin", "install", "--disable", "--grant-all-permissions", self.name, *self.settings, timeout=120
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

    def memory(self, host: EngineHost) -> int:
        """Bytes that all processes of the plugin take together (sum of PSS)."""
        pss = 0
        for pid in (*self.processes(host), self.resolver(host)):
            rollup = (host.fs / f"proc/{pid}/smaps_rollup").read_text()
            pss += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return pss * 1024

    # -- the command inside the plugin -----------------------------------------------------------------------------

    def line(self, *words: str) -> str:
        """`myoverlay …` on a plugin host, by the line that README gives: for the shell of the host."""
        return f"{documented().replace('NAME', self.name)} {shlex.join(words)}"

    def say(
        self, host: EngineHost, *words: str, more: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run it; `more`: what else stands on the shell's line, as a redirection."""
        return host.engine.run(["sh", "-c", f"{self.line(*words)} {more}"], check=False, timeout=timeout)


def documented() -> str:
    """README's line that runs a command in a managed plugin, up to the command's own words."""
    readme = (places.REPOSITORY / "README.md").read_text()
    (line,) = [line.strip() for line in readme.splitlines() if line.startswith("    runc --root ")]
    return line.removesuffix(" doctor")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended meanwhile


def build() -> None:
    """The plugin's folder, from the working tree."""
    subprocess.run(
        [sys.executable, "-m", "plugin", "build", "--target", str(FOLDER)], cwd=places.REPOSITORY, check=True
    )


def run(host: EngineHost, name: str, *arguments: str) -> str:
    """A container on `web`; its address."""
    host.docker("run", "-d", "--name", name, "--network", "web", *arguments, IMAGE)
    return address(host, name)


def address(host: EngineHost, name: str) -> str:
    return host.docker("inspect", "-f", "{{.NetworkSettings.Networks.web.IPAddress}}", name)
