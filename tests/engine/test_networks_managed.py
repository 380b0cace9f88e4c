"""The managed plugin asks Docker as well, where that listens on a second socket in the directory the plugin sees."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from tests.engine.conftest import eventually, ping
from tests.engine.test_lifecycle import _build

PLUGIN = "overlay:latest"
#: On the host, and as the plugin sees it. A name that ends in `.sock` would be taken for a plugin's.
API, SEEN = "/run/docker/plugins/docker.api", "/host/plugins/docker.api"


class Managed:
    """Two hosts of both ages whose managed plugin follows."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.h1, self.h2 = lab.hosts["h1"], lab.hosts["h2"]
        for host in (self.h1, self.h2):
            host.stop_engine()
            self.start(host)
            host.docker("plugin", "create", "overlay", str(folder), timeout=120)
            host.docker(
                "plugin", "set", PLUGIN, f"CONSUL_HTTP_ADDR={lab.consul.url}", "MYOVERLAY_FOLLOW=on",
                f"MYOVERLAY_DOCKER_SOCKET={SEEN}",
            )  # fmt: skip
            host.docker("plugin", "enable", PLUGIN)

    def start(self, host: EngineHost) -> None:
        """Start the engine as systemd would with a second `ListenStream`: the directory is made before."""
        host.run(["mkdir", "-p", str(Path(API).parent)])
        host.extra = ("--host", f"unix://{API}")
        host.start_engine()

    def say(self, host: EngineHost, *words: str) -> str:
        """`myoverlay …` inside the plugin, as README says it."""
        done = self.inside(host, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def inside(self, host: EngineHost, *words: str) -> subprocess.CompletedProcess[str]:
        plugin = host.docker("plugin", "inspect", "-f", "{{.Id}}", PLUGIN)
        return host.engine.run(
            ["runc", "--root", "/run/docker/runtime-runc/plugins.moby", "exec", plugin, "/usr/bin/python3.11", "-IB",
             "-m", "myoverlay", *words],
            check=False,
        )  # fmt: skip

    def called(self, host: EngineHost, asked: EngineHost | None = None) -> set[str]:
        """What containers of a host are called, as the plugin there, or another's, knows it."""
        listed = json.loads(self.inside(asked or host, "names", "--json").stdout or '{"names": []}')["names"]
        return {name for one in listed if one["host"] == host.name for name in one["names"]}

    def has(self, host: EngineHost, name: str) -> bool:
        return name in host.docker("network", "ls", "--format", "{{.Name}}").split()


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    folder = tmp_path_factory.mktemp("plugin") / "plugin"
    _build(folder)
    specs = [HostSpec("h1", engine="old", live_restore=True), HostSpec("h2", engine="new", live_restore=True)]
    with Lab("netsman", specs, consul=True) as lab:
        managed = Managed(lab, folder)
        eventually("both are there", lambda: len(lab.consul.keys("myoverlay/alive/")) == 2, 20)
        yield managed


def test_doctor_runs_inside_the_plugin(managed: Managed) -> None:
    """By the line that README gives, on engines of both ages: all is ok."""
    for host in (managed.h1, managed.h2):
        seen: dict[str, str] = {}

        def well(host: EngineHost = host, seen: dict[str, str] = seen) -> bool:
            told = json.loads(managed.inside(host, "doctor", "--json").stdout)["findings"]
            seen.clear()
            seen.update({one["check"]: one["saw"] for one in told if one["level"] != "ok"})
            return not seen

        try:
            eventually(f"all is ok on {host.name}", well, 30)
        finally:
            print(host.name, seen)


def test_managed_plugins_follow_over_a_restart_of_docker_and_a_reboot(managed: Managed) -> None:
    """Both make what is defined once; also after dockerd was restarted under the living plugin, and after a reboot."""
    h1, h2 = managed.h1, managed.h2
    said = managed.say(h2, "network", "create", "web")
    print(said.strip())
    assert "h1, h2 have it" in said
    for host in (h1, h2):
        words = ("--restart", "always", "--network", "web", "--network-alias", f"at-{host.name}")
        host.docker("run", "-d", "--name", "one", *words, "lab/base")
    form = '{{(index .NetworkSettings.Networks "web").IPAddress}}'
    there = h2.docker("inspect", "-f", form, "one")
    assert len(ping(h1, "one", there)) == 3
    for host, other in ((h1, h2), (h2, h1)):
        eventually(
            "both know its name and its alias",
            lambda host=host, other=other: (
                managed.called(host) & managed.called(host, other) >= {"one", f"at-{host.name}"}
            ),
            15,
        )
        assert f"Docker is heard at {SEEN}" in managed.say(host, "names")
    for host in (h1, h2):
        host.stop_engine()
        managed.start(host)
    managed.say(h1, "network", "create", "second")
    for host in (h1, h2):
        eventually("after dockerd's restart", lambda host=host: managed.has(host, "second"), 40)
        host.docker("run", "-d", "--name", "two", "--network", "second", "--network-alias", "dos", "lab/base")
        eventually("names are heard again", lambda host=host: managed.called(host) >= {"two", "dos"}, 70)
    for name in ("h1", "h2"):
        managed.lab.reboot(name, start_engine=False)
        managed.start(managed.lab.hosts[name])
    eventually("both are there", lambda: managed.inside(h1, "network", "ls").returncode == 0, 30)
    managed.say(h1, "network", "create", "third")
    for host in (h1, h2):
        eventually("after a reboot", lambda host=host: managed.has(host, "third"), 40)
        assert managed.has(host, "web")
    eventually("containers are back", lambda: len(ping(h1, "one", h2.docker("inspect", "-f", form, "one"))) == 3, 30)
