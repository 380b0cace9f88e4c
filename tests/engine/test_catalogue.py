"""Names in Consul's catalogue (MYOVERLAY_CATALOGUE) on real engines of both ages."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from lab import places
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess
from tests.engine.conftest import BOTH, IMAGE, eventually

OLD, NEW = "h1", "h2"


class Site:
    """A host of each age, with a plugin that registers."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts: dict[str, EngineHost] = lab.hosts
        settings = {
            "CONSUL_HTTP_ADDR": lab.consul.url,
            "MYOVERLAY_DOCKER_SOCKET": "/run/docker.sock",
            "MYOVERLAY_CATALOGUE": "on",
            "MYOVERLAY_GRACE": "2",
        }
        self.plugins = {name: PluginProcess(host, settings) for name, host in self.hosts.items()}

    def prepare(self) -> None:
        for name, host in self.hosts.items():
            self.plugins[name].start()
            host.docker("network", "create", *BOTH, "--subnet", "10.5.0.0/24", "-o", "overlay=web", "web")

    def dump(self) -> str:
        words = [f"=== {name} plugin\n{plugin.words()[-6000:]}" for name, plugin in self.plugins.items()]
        return "\n".join([self.lab.dump(), *words])

    def run(self, host: str, name: str, *words: str) -> str:
        self.hosts[host].docker("run", "-d", "--name", name, "--network", "web", *words, IMAGE)
        return self.hosts[host].docker("inspect", "-f", "{{.NetworkSettings.Networks.web.IPAddress}}", name)

    def registered(self, name: str) -> set[str]:
        """The addresses that Consul has for a service."""
        _, body, _ = self.lab.consul.request("GET", f"/v1/catalog/service/{name}")
        return {one["ServiceAddress"] for one in json.loads(body)}

    def host_of(self, name: str) -> str:
        """The id of the host that has a service."""
        _, body, _ = self.lab.consul.request("GET", f"/v1/catalog/service/{name}")
        return str(json.loads(body)[0]["Node"]).removeprefix("myoverlay-")

    def nodes(self) -> set[str]:
        _, body, _ = self.lab.consul.request("GET", "/v1/catalog/nodes?node-meta=myoverlay:myoverlay")
        return {one["Node"] for one in json.loads(body)}

    def say(self, host: str, *words: str) -> str:
        environment = {"PYTHONPATH": str(places.REPOSITORY / "src")}
        done = self.hosts[host].complete([sys.executable, "-m", "myoverlay", *words], env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Lab("catalog", [HostSpec(OLD, "old"), HostSpec(NEW, "new")], consul=True) as lab:
        site = Site(lab)
        try:
            site.prepare()
            yield site
        except BaseException:
            print(site.dump())
            raise
        for plugin in site.plugins.values():
            plugin.stop()
            assert "Traceback" not in plugin.words()


def test_containers_are_registered_and_go(site: Site) -> None:
    """By name and alias, from both hosts; one that is removed is gone; a restarted one stands at its new address."""
    there = {name: site.run(name, f"c-{name}", "--network-alias", "db") for name in site.hosts}
    eventually("both stand under their alias", lambda: site.registered("db") == set(there.values()))
    for name, address in there.items():
        eventually("each by its name", lambda name=name, address=address: site.registered(f"c-{name}") == {address})
    assert "names of this host in Consul's catalogue" in site.say(OLD, "names")
    for name, host in site.hosts.items():
        host.docker("stop", "-t", "0", f"c-{name}")
        site.run(name, f"squatter-{name}", "--ip", there[name])
        host.docker("start", f"c-{name}")
        now = host.docker("inspect", "-f", "{{.NetworkSettings.Networks.web.IPAddress}}", f"c-{name}")
        assert now != there[name]
        eventually("it stands at its new address", lambda name=name, now=now: site.registered(f"c-{name}") == {now})
        there[name] = now
        host.docker("rm", "-f", f"squatter-{name}")
    eventually("under its alias too", lambda: site.registered("db") == set(there.values()))
    site.hosts[OLD].docker("rm", "-f", f"c-{OLD}")
    eventually("one of two is left", lambda: site.registered("db") == {there[NEW]})
    site.hosts[NEW].docker("rm", "-f", f"c-{NEW}")
    eventually("nothing is left", lambda: (site.registered("db"), site.nodes()) == (set(), set()))


def test_consul_away_disturbs_nobody(site: Site) -> None:
    """`docker run` takes as long as it takes without Consul; the names are there soon after it is back."""
    address = site.run(NEW, "early")
    eventually("it is registered", lambda: site.registered("early") == {address})
    site.lab.consul.stop()
    began = time.monotonic()
    late = site.run(NEW, "late")
    site.hosts[NEW].docker("rm", "-f", "early")
    assert time.monotonic() - began < 15
    site.lab.consul.start()
    eventually("what is true now", lambda: (site.registered("late"), site.registered("early")) == ({late}, set()), 40)
    site.hosts[NEW].docker("rm", "-f", "late")


def test_a_dead_host_s_names_go_and_come_back_with_it(site: Site) -> None:
    """Its plugin killed and its cable cut: the other host takes them out; when it is back they are there again."""
    near, far = site.run(OLD, "near", "--network-alias", "pair"), site.run(NEW, "far", "--network-alias", "pair")
    eventually("both are there", lambda: site.registered("pair") == {near, far})
    host = site.hosts[NEW]
    site.plugins[NEW].stop(signal.SIGKILL)
    host.run(["ip", "link", "set", "eth0", "down"])
    eventually("the dead one's are gone", lambda: site.registered("pair") == {near}, 60)
    assert len(site.nodes()) == 1
    host.run(["ip", "link", "set", "eth0", "up"])
    site.plugins[NEW].start()
    eventually("it is back", lambda: site.registered("pair") == {near, far}, 60)
    host.docker("rm", "-f", "far")
    site.hosts[OLD].docker("rm", "-f", "near")


def test_a_plugin_that_is_killed_leaves_its_names_while_containers_run(site: Site) -> None:
    """They are reached all the same, and the heartbeat's answer says so; a host that leaves takes all back at once."""
    address = site.run(OLD, "stays")
    site.run(NEW, "other")
    eventually("it is registered", lambda: site.registered("stays") == {address})
    site.plugins[OLD].stop(signal.SIGKILL)
    key = f"myoverlay/alive/{site.host_of('stays')}"
    eventually("its session ends", lambda: key not in site.lab.consul.keys("myoverlay/alive/"), 40)
    time.sleep(6)
    assert site.registered("stays") == {address}
    site.plugins[OLD].start()
    site.say(OLD, "host", "leave", "--force")
    assert site.registered("stays") == set()
    site.plugins[OLD].stop()
    site.plugins[OLD].start()
    eventually("the next start begins anew", lambda: site.registered("stays") == {address}, 20)
