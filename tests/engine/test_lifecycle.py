"""What a person does to the plugin, the engine and the host while containers talk: nothing is lost, nothing is left."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab import places
from lab.engine import EngineHost
from lab.lab import HostSpec, Lab
from lab.processes import Known
from tests.engine.conftest import BOTH, IMAGE, eventually, ping
from tests.engine.flow import Flow

NETWORK = ("network", "create", *BOTH, "--subnet", "10.9.0.0/24", "web")
PLUGIN = "overlay:latest"
OVERLAY = "10.9.0.0-24"
OLD, NEW = "0.1", "0.2"
PLUGINS = "run/docker/plugins"
HOSTS = ("h1", "h2")
DROP = """
table ip lost {
    chain in { type filter hook prerouting priority -400; udp dport 4789 drop; }
    chain out { type filter hook output priority -400; udp dport 4789 drop; }
}
"""


class Site:
    """Two hosts, engines of both ages, that installed the plugin from a registry which has two versions of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.h1, self.h2 = lab.hosts["h1"], lab.hosts["h2"]
        self.hosts = (self.h1, self.h2)
        self.repository = f"{lab.registry.address}/myoverlay-plugin"

    def pair(self, name: str) -> tuple[EngineHost, EngineHost]:
        """The host, and the other one."""
        return (self.h1, self.h2) if name == "h1" else (self.h2, self.h1)

    def push(self, version: str, folder: Path) -> None:
        name = f"{self.repository}:{version}"
        self.h1.docker("plugin", "create", name, str(folder), timeout=120)
        self.h1.docker("plugin", "push", name, timeout=120)
        self.h1.docker("plugin", "rm", name)

    def install(self, host: EngineHost, version: str = OLD) -> None:
        host.docker(
            "plugin", "install", "--alias", "overlay", "--grant-all-permissions", f"{self.repository}:{version}",
            f"CONSUL_HTTP_ADDR={self.lab.consul.url}", timeout=120,
        )  # fmt: skip

    def upgrade(self, host: EngineHost, version: str) -> None:
        """As README says it."""
        host.docker("plugin", "disable", "-f", PLUGIN)
        host.docker(
            "plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", PLUGIN,
            f"{self.repository}:{version}", timeout=120,
        )  # fmt: skip
        host.docker("plugin", "enable", PLUGIN)

    def alive(self) -> dict[str, dict[str, Any]]:
        """What the store says of the living, by their names; with `id`."""
        found = self.lab.consul.get("myoverlay/alive/")
        return {
            said["name"]: said | {"id": key.rpartition("/")[2]}
            for key, raw in found.items()
            if (said := json.loads(raw))
        }

    def version(self, host: EngineHost) -> str:
        return str(self.alive().get(host.name, {}).get("version", ""))

    def flow(self) -> Flow:
        """Datagrams between the containers `talks` of both hosts."""
        return Flow(self.h1, "talks", address(self.h1, "talks"), self.h2, "talks", address(self.h2, "talks"))

    def meet(self, host: EngineHost, name: str = "fresh") -> None:
        """A new container of the host and one of the other host that never talked reach each other, and go."""
        other = self.h2 if host is self.h1 else self.h1
        try:
            run(host, name)
            assert len(ping(host, name, address(other, "talks"), 1)) == 1
            assert len(ping(other, "talks", address(host, name), 1)) == 1
        finally:  # in the way of the tests that follow it would hide why this one failed
            host.docker_complete("rm", "-f", name)

    def dump(self) -> str:
        return self.lab.dump()


def _build(target: Path, repository: Path = places.REPOSITORY) -> None:
    """`python -m plugin build`, of a copy of the source where one is given."""
    cache, pip = places.HOME / "plugin-cache", places.REPOSITORY / ".venv/bin/python"
    argv = ["-m", "plugin", "build", "--target", str(target), "--cache", str(cache), "--pip-python", str(pip)]
    subprocess.run([sys.executable, *argv], cwd=repository, check=True, timeout=300, stdout=subprocess.DEVNULL)


def _newer(folder: Path) -> Path:
    """A copy of the source whose version is the next one, and whose journal has a form that this one can live with."""
    for part in ("src", "plugin", "lab"):
        shutil.copytree(places.REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("config.json", "requirements.lock"):
        shutil.copy(places.REPOSITORY / part, folder)
    _patch(folder / "src/myoverlay/__init__.py", r'__version__ = "[^"]+"', '__version__ = "0.2.0"')
    _patch(
        folder / "src/myoverlay/host/journal.py",
        r"^FORM = Form\(\)",
        'FORM = Form(schema=2, tables=(*_TABLES, "dreams"))',
    )
    return folder


def _patch(path: Path, old: str, new: str) -> None:
    text, count = re.subn(old, new, path.read_text(), flags=re.M)
    assert count == 1, f"{path} has no {old}"
    path.write_text(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("plugins")
    _build(folder / OLD)
    _build(folder / NEW, _newer(folder / "source"))
    specs = [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")]
    with Lab("life", specs, consul=True, registry=True) as lab:
        site = Site(lab)
        # One after the other: docker 20.10.24 dies of, or fails, two `docker plugin push` at once.
        for version in (OLD, NEW):
            site.push(version, folder / version)
        shutil.rmtree(folder)
        at_once(*(lambda host=host: _settle(site, host) for host in site.hosts))
        yield site


def _settle(site: Site, host: EngineHost) -> None:
    site.install(host)
    host.docker(*NETWORK)
    run(host, "talks")


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Do things side by side; what each returned. Raises what one raised."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(timeout=170) for future in [pool.submit(act) for act in acts]]


def run(host: EngineHost, name: str, *arguments: str) -> None:
    host.docker("run", "-d", "--name", name, "--network", "web", *arguments, IMAGE)


def address(host: EngineHost, name: str) -> str:
    return host.docker("inspect", "-f", "{{.NetworkSettings.Networks.web.IPAddress}}", name)


def is_running(host: EngineHost, name: str) -> bool:
    return host.docker("inspect", "-f", "{{.State.Running}}", name, check=False) == "true"


def processes(host: EngineHost) -> list[int]:
    """The plugin's processes, as the host counts: first the one that the engine started."""
    found = []
    for entry in (host.fs / "proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if b"myoverlay" in words and b"serve" in words:
                found.append(int(entry.name))
    return sorted(found)


def answers(host: EngineHost) -> bool:
    """Does somebody listen on the second socket?"""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(host.fs / PLUGINS / "myoverlay.sock")) == 0


def state(host: EngineHost) -> Path:
    """The plugin's own directory on the host's disk."""
    plugin = host.docker("plugin", "inspect", "-f", "{{.Id}}", PLUGIN)
    return host.folder / "docker/plugins" / plugin / "propagated-mount"


def test_the_flow_counts_what_is_lost(site: Site) -> None:
    """Packets that a host drops for a moment are missed in both directions, and only those."""
    with site.flow() as flow:
        site.h2.run(["nft", "-f", "-"], input=DROP)
        time.sleep(1.0)
        site.h2.run(["nft", "delete", "table", "ip", "lost"])
    assert len(flow.lost) == 2
    for end, lost in flow.lost.items():
        assert 5 < len(lost) < flow.sent[end] - 3
        assert lost == list(range(lost[0], lost[0] + len(lost))), "a gap in the gap"


@pytest.mark.parametrize("name", HOSTS)
def test_killed_and_started_again(site: Site, name: str) -> None:
    """kill -9 of the plugin: no datagram is lost, the engine starts it again, and containers start."""
    host, _ = site.pair(name)
    first = processes(host)
    with site.flow() as flow:
        Known.now(host.machine_pid(first[0])).signal(signal.SIGKILL)
        began = time.monotonic()
        eventually("the engine starts it again", lambda: answers(host) and set(processes(host)) - set(first), 5)
        took = time.monotonic() - began
        site.meet(host)
    print(f"{name}: answers {took:.1f} s after kill -9; of {flow.sent} lost {flow.total}")
    assert flow.lost == {end: [] for end in flow.lost}


def test_disabled_while_containers_talk(site: Site) -> None:
    """Both plugins disabled: no datagram is lost; `docker run` is refused in a bounded time; enabled, all goes on."""

    def refused(host: EngineHost) -> tuple[float, str]:
        began = time.monotonic()
        done = host.docker_complete("run", "--name", "refused", "--network", "web", IMAGE, timeout=60)
        host.docker("rm", "-f", "refused", check=False)
        assert done.returncode != 0
        return time.monotonic() - began, done.stderr.strip()

    with site.flow() as flow:
        for host in site.hosts:
            host.docker("plugin", "disable", "-f", PLUGIN)
            assert not (host.fs / PLUGINS / "myoverlay.sock").exists(), "a dead socket was left"
        said = at_once(*(lambda host=host: refused(host) for host in site.hosts))
        for host in site.hosts:
            host.docker("plugin", "enable", PLUGIN)
        for host in site.hosts:
            site.meet(host)
    for host, (took, words) in zip(site.hosts, said, strict=True):
        print(f"{host.engine_version}: disabled, `docker run` failed after {took:.1f} s: {words}")
        assert took < 25
        assert "myoverlay.sock" in words
    assert flow.lost == {end: [] for end in flow.lost}


@pytest.mark.parametrize("name", HOSTS)
def test_removed_and_installed_again(site: Site, name: str) -> None:
    """`plugin rm -f` and `install` under running containers: the host is who it was, nothing is lost or forgotten."""
    host, other = site.pair(name)
    run(host, "older")
    before = site.alive()[host.name]["id"]
    own = state(host)
    with site.flow() as flow:
        host.docker("plugin", "rm", "-f", PLUGIN)
        assert not own.exists()
        assert sorted(entry.name for entry in (host.fs / PLUGINS).iterdir()) == ["myoverlay"]
        site.install(host)
        assert set(site.alive()) == set(HOSTS), "the host was missed meanwhile"
        assert site.alive()[host.name]["id"] == before
        site.meet(host)
        gone = address(host, "older")
        assert len(ping(other, "talks", gone)) == 3
        host.docker("rm", "-f", "older")
        eventually("its address is free", lambda: f"/{gone}" not in "".join(site.lab.consul.keys("myoverlay/pools/")))
    assert flow.lost == {end: [] for end in flow.lost}


@pytest.mark.parametrize("name", HOSTS)
def test_upgraded_and_back(site: Site, name: str) -> None:
    """From N to N+1 and back under running containers; beside the other host's N; the newer journal is read by N."""
    host, other = site.pair(name)
    before = site.alive()[host.name]["id"]
    run(host, "older")
    with site.flow() as flow:
        site.upgrade(host, NEW)
        eventually("the newer version is announced", lambda: site.version(host) == "0.2.0")
        site.meet(host)
        run(host, "newer")
        site.upgrade(host, OLD)
        eventually("the older version is announced", lambda: site.version(host) == "0.1.0")
        site.meet(host)
        for each in ("older", "newer"):
            assert len(ping(host, each, address(other, "talks"), 1)) == 1
            host.docker("rm", "-f", each)
    assert site.alive()[host.name]["id"] == before
    with closing(sqlite3.connect(state(host) / "journal.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM dreams").fetchone() == (0,)
    assert flow.lost == {end: [] for end in flow.lost}


def test_going_back_too_far_is_refused(site: Site) -> None:
    """A journal that this version would misread: the plugin says so to whoever asks, changes nothing, loses nothing."""

    def go(host: EngineHost) -> None:
        path = state(host) / "journal.db"
        host.docker("plugin", "disable", "-f", PLUGIN)
        _mark(path, schema=99, reader=99)
        before = path.read_bytes()
        host.docker("plugin", "enable", PLUGIN)
        done = host.docker_complete("run", "--name", "refused", "--network", "web", IMAGE)
        host.docker("rm", "-f", "refused", check=False)
        assert "was written by a newer version (schema 99" in done.stderr
        host.docker("plugin", "disable", "-f", PLUGIN)
        assert path.read_bytes() == before
        _mark(path, schema=2, reader=1)
        host.docker("plugin", "enable", PLUGIN)

    with site.flow() as flow:
        at_once(*(lambda host=host: go(host) for host in site.hosts))
        for host in site.hosts:
            site.meet(host)
    assert flow.lost == {end: [] for end in flow.lost}


def _mark(journal: Path, schema: int, reader: int) -> None:
    """Let it seem to be written by a version of that schema."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute(f"PRAGMA user_version = {schema}")
        db.execute(f"INSERT OR REPLACE INTO meta VALUES ('reader', '{reader}')")
        db.commit()


def test_the_engines_restart(site: Site) -> None:
    """Without live-restore `--restart always` containers come back; with it no datagram is lost, stopped or killed."""

    def restart(host: EngineHost, kill: bool = False) -> None:
        host.restart_engine(kill=kill)
        eventually(f"{host.name}: the container runs", lambda: is_running(host, "talks"), 60)

    for host in site.hosts:
        host.docker("update", "--restart", "always", "talks")
        host.live_restore = True
    at_once(*(lambda host=host: restart(host) for host in site.hosts))  # the engines that end here have none
    for host in site.hosts:
        site.meet(host)
    before = [processes(host)[0] for host in site.hosts]
    with site.flow() as flow:
        for kill in (False, True):
            at_once(*(lambda host=host, kill=kill: restart(host, kill) for host in site.hosts))
            for host in site.hosts:
                site.meet(host)
            assert kill or [processes(host)[0] for host in site.hosts] == before, "a plugin was restarted too"
    assert flow.lost == {end: [] for end in flow.lost}
    for host in site.hosts:
        host.live_restore = False
    at_once(*(lambda host=host: restart(host) for host in site.hosts))


def test_the_power_goes_and_the_store_comes_last(site: Site) -> None:
    """Both hosts lose power; their engines are up before Consul is: the containers talk with nothing typed."""
    hosts = site.hosts
    before = {name: said["id"] for name, said in site.alive().items()}
    site.lab.consul.stop()
    at_once(*(lambda host=host: site.lab.reboot(host.name) for host in hosts))
    for host in hosts:
        eventually(f"{host.name}: the container runs again", lambda host=host: is_running(host, "talks"), 60)
    site.lab.consul.start()
    for host, other in (hosts, hosts[::-1]):
        eventually("they talk", lambda host=host, other=other: ping(host, "talks", address(other, "talks"), 1), 40)
        assert len(ping(host, "talks", address(other, "talks"))) == 3
    eventually("both are announced", lambda: {name: said["id"] for name, said in site.alive().items()} == before, 20)
    for host in hosts:
        site.meet(host)


def test_a_host_leaves_by_a_person_s_word(site: Site) -> None:
    """`host leave` with containers running: nothing in the store names the host, and once it ended no copy is left.

    Its plugin started again, its containers are reached again.
    """
    host, other = site.pair("h2")
    me = site.alive()[host.name]["id"]
    host.run(
        [sys.executable, "-m", "myoverlay", "host", "leave", "--force"],
        env={"PYTHONPATH": str(places.REPOSITORY / "src")},
    )
    # The ring of changes tells the others to look; it is small, and others' changes replace it.
    said = {key: value for key, value in site.lab.consul.get("").items() if "/changes/" not in key}
    assert [key for key, value in said.items() if me in key or me.encode() in value] == []
    host.docker("plugin", "disable", "-f", PLUGIN)
    assert not (host.fs / PLUGINS / "myoverlay/state").exists()
    host.docker("plugin", "enable", PLUGIN)
    eventually("it is announced again", lambda: host.name in site.alive(), 20)
    eventually("they talk", lambda: ping(other, "talks", address(host, "talks"), 1), 20)


def test_uninstalled_without_a_trace(site: Site) -> None:
    """Networks removed, plugin disabled and removed: no link, rule, mount, file, process or key of ours is left."""
    for host in site.hosts:
        host.docker("rm", "-f", "talks")
        host.docker("network", "rm", "web")
        host.docker("plugin", "disable", PLUGIN)
        host.docker("plugin", "rm", PLUGIN)
    # What tells all hosts which store it is belongs to none of them.
    assert set(site.lab.consul.get("")) == {"myoverlay/incarnation"}
    for host in site.hosts:
        assert list((host.fs / PLUGINS).iterdir()) == []
        assert list((host.folder / "docker/plugins").glob("*/propagated-mount")) == []
        links = {link["ifname"] for link in json.loads(host.run(["ip", "-j", "link"]))}
        assert {link for link in links if not link.startswith(("docker", "br-"))} == {"lo", "eth0"}
        rules = host.run(["nft", "list", "ruleset"])
        assert "myoverlay" not in rules
        assert "4789" not in rules
        mounts = (host.fs / "proc/1/mountinfo").read_text()
        assert "myoverlay" not in mounts
        assert processes(host) == []
