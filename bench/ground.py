"""What is measured on: two hosts with engines, Consul, and every contestant's network with a container on each host.

All networks carry their traffic over the same two cables, ours and Docker's on the same UDP port. The containers stay
for the whole run, so that a network is never measured cold by chance.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import hands
from bench.names import BRIDGE, DOCKER, HAND, OURS, UNDERLAY
from bench.tools import busybox
from lab.engine import EngineHost
from lab.errors import LabError
from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess
from lab.processes import wait_for

IMAGE = "lab/base"
NETWORKS = {OURS: "ours", DOCKER: "theirs", BRIDGE: "local"}
OVERLAY = "bench"
#: 65,534 addresses: a miss storm needs 20,000 that nobody has.
SUBNET = "10.5.0.0/16"
PIN = f"/run/docker/plugins/myoverlay/netns/{OVERLAY}"
_CREATE = ("-d", "myoverlay", "--ipam-driver", "myoverlay", "--subnet", SUBNET, "-o", f"overlay={OVERLAY}")
_THEIR_POOL, _THEIR_SUBNET, _LOCAL_SUBNET = "10.20.0.0/16", "10.21.0.0/16", "10.22.0.0/24"
_LISTED, _LOAD = ("nft", "list", "ruleset"), ("nft", "-f", "-")
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"


@dataclass(frozen=True)
class End:
    """One end of a path: a network namespace on a host, by its path as the host sees it, and its address there."""

    host: EngineHost
    netns: str
    address: str

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command, to be run on the host."""
        return ["nsenter", f"--net={self.netns}", *command] if self.netns else list(command)

    def run(self, command: Sequence[str], timeout: float = 60, check: bool = True) -> str:
        """Run a command of the machine here; its output."""
        return self.host.run(self.argv(command), timeout=timeout, check=check)

    def popen(self, command: Sequence[str], **options: Any) -> Any:
        """Start one here."""
        return self.host.popen(self.argv(command), **options)


@dataclass(frozen=True)
class Path:
    """Two ends that reach each other over a contestant's network. `near` is on h1."""

    near: End
    far: End


class Ground:
    """A laboratory that is up: `with Ground("bench") as ground:`."""

    def __init__(self, name: str = "bench", ages: tuple[str, str] = ("new", "new")) -> None:
        self.ages = ages
        self.lab = Lab(name, [HostSpec("h1", engine=ages[0]), HostSpec("h2", engine=ages[1])], consul=True)
        self.h1, self.h2 = self.lab.hosts["h1"], self.lab.hosts["h2"]
        self.hosts = (self.h1, self.h2)
        self.settings: dict[str, str] = {}
        self.plugins: dict[str, PluginProcess] = {}
        self.paths: dict[str, Path] = {}

    def __enter__(self) -> Ground:
        self.lab.up()
        try:
            self.settings = {
                "CONSUL_HTTP_ADDR": self.lab.consul.url, "MYOVERLAY_LOG_LEVEL": "info", "MYOVERLAY_LOG_FORMAT": "json",
            }  # fmt: skip
            self.start_plugins()
            self._networks()
            self._residents()
            hands.make(HAND, self.h1, self.h2, 2)
            hands.make(HAND, self.h2, self.h1, 3)
            self.paths |= {
                HAND: self.by_hand(HAND),
                UNDERLAY: Path(*(End(host, "", host.address) for host in self.hosts)),
            }
            self._give_rules(HAND)
            self._must_talk()
        except BaseException:
            self.lab.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for plugin in self.plugins.values():
            with contextlib.suppress(LabError):
                plugin.stop()
        left = self.lab.down()
        if left:
            raise LabError(f"laboratory {self.lab.name} could not remove {', '.join(left)}")

    def by_hand(self, contestant: str) -> Path:
        """The path between two namespaces that `hands` has made."""
        ends = ((self.h1, 2), (self.h2, 3))
        return Path(*(End(host, hands.netns(contestant), hands.address(contestant, n)) for host, n in ends))

    # -- plugins ---------------------------------------------------------------------------------------------------

    def start_plugins(self, hosts: Sequence[EngineHost] = (), **more: str) -> None:
        """Start the plugin on these hosts, or on both, with settings beside the usual ones."""
        for host in hosts or self.hosts:
            self.plugins[host.name] = PluginProcess(host, {**self.settings, **more})
            self.plugins[host.name].start()

    def stop_plugins(self, hosts: Sequence[EngineHost] = ()) -> None:
        """End them."""
        for host in hosts or self.hosts:
            self.plugins[host.name].stop()

    @contextmanager
    def other_plugins(self, settings: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
        """Within it the plugins run with more settings (by host); afterwards with the usual ones."""
        self.stop_plugins()
        try:
            for host in self.hosts:
                self.start_plugins([host], **settings.get(host.name, {}))
            yield
        finally:
            self.stop_plugins()
            self.start_plugins()

    # -- furnishing ------------------------------------------------------------------------------------------------

    def _networks(self) -> None:
        for host in self.hosts:
            host.docker("network", "create", *_CREATE, NETWORKS[OURS])
            host.docker("network", "create", "--subnet", _LOCAL_SUBNET, NETWORKS[BRIDGE])
        self.h1.docker("swarm", "init", "--advertise-addr", self.h1.address, "--default-addr-pool", _THEIR_POOL)
        token = self.h1.docker("swarm", "join-token", "-q", "worker")
        self.h2.docker(
            "swarm", "join", "--advertise-addr", self.h2.address, "--token", token, f"{self.h1.address}:2377"
        )
        self.h1.docker(
            "network", "create", "-d", "overlay", "--attachable", "--subnet", _THEIR_SUBNET, NETWORKS[DOCKER]
        )

    def _residents(self) -> None:
        for contestant, network in NETWORKS.items():
            hosts = (self.h1, self.h1) if contestant == BRIDGE else self.hosts
            ends = [self.start(host, network, f"stays-{network}-{n}") for n, host in enumerate(hosts)]
            self.paths[contestant] = Path(*ends)

    def start(self, host: EngineHost, network: str, name: str, *more: str) -> End:
        """A container on a network: its end."""
        host.docker("run", "-d", "--name", name, "--network", network, *more, IMAGE)
        return self.end(host, name)

    def end(self, host: EngineHost, name: str) -> End:
        """The end that a running container is."""
        pid, address = host.docker("inspect", "-f", "{{.State.Pid}} " + _ADDRESS, name).split()[:2]
        return End(host, f"/proc/{pid}/ns/net", address)

    def remove(self, host: EngineHost, *names: str) -> None:
        """`docker rm -f`."""
        host.docker("rm", "-f", *names)

    def _give_rules(self, contestant: str) -> None:
        """The rules that Docker puts into each container on a network, for its resolver: they track every connection.

        What is compared is what lies between two containers, and no network is to gain by having none.
        """
        bare, docked = self.paths[contestant], self.paths[OURS]
        for end, like in ((bare.near, docked.near), (bare.far, docked.far)):
            end.host.run(["sh", "-c", f"{shlex.join(like.argv(_LISTED))} | {shlex.join(end.argv(_LOAD))}"])
            if "127.0.0.11" not in end.run(_LISTED):
                raise LabError(f"a container on {NETWORKS[OURS]} of {end.host.name} has no rules for Docker's resolver")

    def _must_talk(self) -> None:
        for contestant, path in self.paths.items():
            for here, there in ((path.near, path.far), (path.far, path.near)):
                wait_for(f"{contestant} to carry a ping", 30, lambda: _answers(here, there))  # noqa: B023 - asked at once

    def versions(self) -> dict[str, str]:
        """Engines and the store."""
        status, body, _ = self.lab.consul.request("GET", "/v1/agent/self")
        consul = json.loads(body)["Config"]["Version"] if status == 200 else "?"
        return {"engines": " and ".join(host.engine_version for host in self.hosts), "Consul": consul}


def _answers(here: End, there: End) -> bool:
    return here.host.complete(here.argv([busybox(), "ping", "-c", "1", "-W", "1", there.address])).returncode == 0
