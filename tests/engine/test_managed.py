"""The managed plugin, installed from a real registry, on engines of both ages."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab import places
from lab.lab import HostSpec, Lab
from lab.processes import Known
from tests.engine.asking import KNOWN
from tests.engine.conftest import eventually, ping
from tests.engine.injecting import inject, of_host
from tests.engine.managed import CREATE, EMBEDDED, FOLDER, OURS, PIN, Managed, address, build, run


@pytest.fixture(scope="module")
def managed() -> Iterator[Managed]:
    build()
    specs = [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")]
    with Lab("managed", specs, consul=True, registry=True) as lab:
        managed = Managed(lab)
        managed.install()
        for host in (managed.h1, managed.h2):
            host.docker(*CREATE)
        yield managed


def test_the_short_name_works_and_containers_talk(managed: Managed) -> None:
    """`-d myoverlay` finds the managed plugin by its second socket; the first contact works both ways, and so does
    the way out by the one interface there is.
    """
    there = {}
    for host in (managed.h1, managed.h2):
        dns = ("--dns", OURS, "--dns", managed.other(host).address)
        there[host.name] = run(host, "talks", "--label", "x=1", *dns)
    assert len(set(there.values())) == 2
    assert len(ping(managed.h1, "talks", there["h2"])) == 3
    assert len(ping(managed.h2, "talks", there["h1"])) == 3
    for host in (managed.h1, managed.h2):
        assert len(ping(host, "talks", managed.other(host).address)) == 3
        assert "eth1" not in host.in_container("talks", ["ip", "-o", "link"])


def test_size_memory_and_start(managed: Managed) -> None:
    """Root file system at most 70 MB, all processes at most 80 MB of memory, enabled within 1.5 s."""
    size = sum(p.lstat().st_size for p in (FOLDER / "rootfs").rglob("*") if p.is_file() and not p.is_symlink())
    print(f"root file system {size / 1e6:.1f} MB; enabled in {managed.enabling} s")
    assert size <= 70e6
    for host in (managed.h1, managed.h2):
        taken = managed.memory(host)
        print(f"{host.name}: {taken / 1e6:.1f} MB of memory (sum of PSS)")
        assert 0 < taken <= 80e6
        assert managed.enabling[host.name] <= 1.5


def test_a_path_is_traced(managed: Managed) -> None:
    """`trace` on a plugin host: every hop of both hosts is judged, containers that it cannot enter included."""
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
    assert states.keys() == {"right"}
    assert {"container link", "host firewall", "overlay firewall", "underlay"} <= states["right"]
    managed.h2.run(["nft", "add table ip stop; add chain ip stop c { type filter hook prerouting priority 0; }; add rule ip stop c udp dport 4789 drop"])  # fmt: skip # noqa: E501
    code, found = trace()
    managed.h2.run(["nft", "delete table ip stop"])
    assert code == 1
    assert (found["steps"][found["first"]]["host"], found["steps"][found["first"]]["hop"]) == ("h2", "host firewall")


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_the_guard_works_by_the_plugins_rights(managed: Managed, name: str) -> None:
    """With no more than config.json asks for it lays both tables, keeps a stranger out, and mends what is flushed."""
    host, stranger = managed.lab.hosts[name], managed.lab.registry
    assert stranger is not None
    host.run(["nft", "list", "set", "inet", "myoverlay", "live4"])
    host.run(["nsenter", f"--net={PIN}", "nft", "list", "table", "bridge", "myoverlay"])

    def count(counter: str, label: str) -> int:
        return int(json.loads(managed.say(host, "counters", "--json").stdout).get(counter, {}).get(label, 0))

    known, before = count("guard", "unknown"), count("repairs", "guard")
    assert inject("talks", host, PIN, of_host(stranger.host)) == "dropped"
    eventually("the count", lambda: count("guard", "unknown") == known + 3, 8)
    host.run(["nft", "delete", "table", "inet", "myoverlay"])
    eventually("the repair", lambda: count("repairs", "guard") == before + 1, 8)
    assert inject("talks", host, PIN, of_host(stranger.host)) == "dropped"
    host.run(["nsenter", f"--net={PIN}", "nft", "delete", "table", "bridge", "myoverlay"])
    eventually("the repair inside", lambda: count("repairs", "binding") >= 1, 8)
    assert len(ping(host, "talks", address(managed.other(host), "talks"))) == 3


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
        assert len(ping(host, "always", other.address)) == 3, how
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
    assert len(ping(host, "talks", other.address)) == 3
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
