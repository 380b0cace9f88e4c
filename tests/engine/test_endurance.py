"""A thousand containers that come and go leave nothing: descriptors, threads, memory, namespaces, links, keys."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from lab.lab import HostSpec, Lab
from lab.plugin_process import PluginProcess
from lab.processes import wait_for
from tests.engine.conftest import BOTH, IMAGE
from tests.engine.endurance import Docker, Held, held_at_rest

CYCLES, WARM, THREADS = 1000, 100, 4
#: So many at first, so that the server has all the threads that it ever has.
ALL_AT_ONCE = 24
ENGINE_CYCLES = 100
#: Seconds without a change after which everything that a plugin opens once is open.
CALM = 11.0
#: How much memory may differ between the cycle WARM and the last one.
TOLERANCE = 0.05


class Bench:
    """A bare host and one with an engine, each with the plugin as a process, on one Consul."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # A recorder so small is full after WARM cycles; of the usual size it would grow until the thousandth.
        settings = {
            "CONSUL_HTTP_ADDR": lab.consul.url,
            "MYOVERLAY_LOG_LEVEL": "info",
            "MYOVERLAY_RECORDER": "64",
        }
        self.plugins = {host.name: PluginProcess(host, settings) for host in lab.hosts.values()}

    def keys(self) -> list[str]:
        """All keys but those that only count: rings of changes turn, the reserve's addresses change their use."""
        parts = ("/changes/", "/alive/", "/pools/")
        return [key for key in self.lab.consul.keys("myoverlay/") if not any(part in key for part in parts)]

    def leases(self) -> int:
        return len(self.lab.consul.keys("myoverlay/pools/"))


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    specs = [HostSpec("bare", engine=None), HostSpec("peer", engine=None), HostSpec("engine", engine="new")]
    with Lab("endure", hosts=specs, consul=True) as lab:
        bench = Bench(lab)
        for plugin in bench.plugins.values():
            plugin.start()
        yield bench
        for plugin in bench.plugins.values():
            plugin.stop()
            assert "Traceback" not in plugin.words()


def test_a_thousand_cycles_through_the_plugins_socket(bench: Bench) -> None:
    """Cycle 1,000 finds what cycle 100 found, on this host and on one that hears of every change."""
    here, there = bench.plugins["bare"], bench.plugins["peer"]
    dockers = [Docker(bench.lab.hosts["bare"]) for _ in range(ALL_AT_ONCE)]
    far = Docker(bench.lab.hosts["peer"])
    network, pool = dockers[0].create_network("10.9.0.0/24")
    far_network, far_pool = far.create_network("10.9.0.0/24")
    stays = far.attach(far_network, far_pool)
    numbers = count()

    def cycles(docker: Docker, until: int) -> None:
        while next(numbers) < until:
            docker.detach(network, pool, docker.attach(network, pool))

    def run(until: int, at_once: int) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(at_once) as threads:
            for done in [threads.submit(cycles, docker, until) for docker in dockers[:at_once]]:
                done.result(170)
        return time.monotonic() - began

    dockers[0].detach(network, pool, dockers[0].attach(network, pool))
    # The heartbeat looks after its device every ten seconds, and opens what it needs for that at the first time.
    held_at_rest(here, calm=CALM)
    keys, leases = bench.keys(), bench.leases()  # of that container the store has been told by now
    run(WARM, ALL_AT_ONCE)
    before = held_at_rest(here), held_at_rest(there)
    for docker in dockers:
        docker.took.clear()
    took = run(CYCLES, THREADS)
    after = held_at_rest(here, before[0].things), held_at_rest(there, before[1].things)
    show(dockers[:THREADS], took, CYCLES - WARM)
    for name, first, last in zip(("bare", "peer"), before, after, strict=True):
        compare(name, first, last)
    wait_for("the keys of before", 20, lambda: bench.keys() == keys and bench.leases() == leases)
    far.detach(far_network, far_pool, stays)
    for docker in (*dockers, far):
        docker.close()


def show(dockers: list[Docker], took: float, cycles: int) -> None:
    print(f"\n{cycles} cycles in {took:.1f} s, {THREADS} at once: {took * 1000 / cycles:.1f} ms each")
    for method in dockers[0].took:
        times = [ms for docker in dockers for ms in docker.took[method]]
        slow = statistics.quantiles(times, n=100)[98]
        print(f"  {method:32} median {statistics.median(times):6.1f} ms, 99 % {slow:6.1f} ms, n {len(times)}")


def compare(name: str, before: Held, after: Held, threads: int = 0) -> None:
    """Nothing more than before; memory within the tolerance. `threads`: so many the server may still have to make."""
    print(f"{name}: {before.pss} KiB, then {after.pss} KiB; connections {before.connections}, then {after.connections}")
    print(f"  {after.things}")
    print(f"  {after.files - before.files} more, {before.files - after.files} fewer")
    more = after.things["threads"] - before.things["threads"]
    assert 0 <= more <= threads
    assert after.things | {"threads": 0} == before.things | {"threads": 0}
    assert after.connections <= 24
    assert abs(after.pss - before.pss) <= TOLERANCE * before.pss


def test_a_hundred_containers_of_a_real_engine(bench: Bench) -> None:
    """`docker run --rm` a hundred times leaves what was there after the tenth."""
    host, plugin = bench.lab.hosts["engine"], bench.plugins["engine"]
    host.docker("network", "create", *BOTH, "--subnet", "10.9.1.0/24", "endure")

    def run(cycles: int) -> float:
        began = time.monotonic()
        command = ("run", "--rm", "--network", "endure", IMAGE, "true")
        with ThreadPoolExecutor(THREADS) as threads:
            for done in [threads.submit(host.docker, *command, timeout=60) for _ in range(cycles)]:
                done.result(100)
        wait_for("the end of the containers", 20, lambda: host.docker("ps", "-aq") == "")
        return time.monotonic() - began

    run(ENGINE_CYCLES // 10)
    before, keys, leases = held_at_rest(plugin, calm=CALM), bench.keys(), bench.leases()
    took = run(ENGINE_CYCLES)
    after = held_at_rest(plugin, before.things)
    print(f"\n{ENGINE_CYCLES} containers in {took:.1f} s, {THREADS} at once")
    # Real calls seldom meet, so that the server still makes threads, up to 16; a leak would be one a cycle.
    compare("engine", before, after, threads=16)
    wait_for("the keys of before", 20, lambda: bench.keys() == keys and bench.leases() == leases)
    host.docker("network", "rm", "endure")
