"""Many calls on the embedded store (`make replay`: 100,000): memory stays, and the kept log stays within its cap."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lab.lab import HostSpec, Lab
from lab.plugin_process import SOCKET, PluginProcess
from lab.processes import wait_for
from myoverlay.settings import SETTINGS
from tests.engine.endurance import Docker, held_at_rest

#: `make replay` makes 100,000, which is 4 minutes; without REPLAY_CALLS it is what a change can be judged by.
CALLS, THREADS = int(os.environ.get("REPLAY_CALLS", "16000")), 4
WARM = max(6_000, CALLS // 10)
#: As many at first, so that the server has all the threads that it ever has.
ALL_AT_ONCE = 24
#: Calls of one round: a container's life, two addresses taken and given back, and what is asked or refused besides.
ROUND = 50
#: So many rounds for each network that is made and removed; it takes six calls more.
NETWORK = 20
TOLERANCE = 0.05
#: kB that are kept of the log, and of the flight recorder where there is one: a hundredth of what comes by.
KEPT = 64
CALM = 11.0

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def plugin() -> Iterator[PluginProcess]:
    with Lab("replay", hosts=[HostSpec("bare", engine=None)]) as lab:
        # In memory: what a disk takes for each write is not what is asked here.
        settings = {
            "MYOVERLAY_STATE": "/run/replay", "MYOVERLAY_LOG_LEVEL": "info", "MYOVERLAY_LOG_KEPT": str(KEPT),
            "MYOVERLAY_NAMES": "off", "MYOVERLAY_RECORDER": str(KEPT),
        }  # fmt: skip
        plugin = PluginProcess(lab.hosts["bare"], settings)
        plugin.start()
        yield plugin
        plugin.stop()
        assert "Traceback" not in plugin.words()


class Asking:
    """Calls whose answer is looked at by its status alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, body: bytes, status: int) -> Any:
        connection = http.client.HTTPConnection("plugin", timeout=20)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(20)
            connection.sock.connect(str(self._path))
            connection.request("POST", f"/{method}", body)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == status, (method, said)
            return json.loads(said)
        finally:
            connection.close()


class Day:
    """What Docker asks, round after round. `numbers` counts the rounds of all threads together."""

    def __init__(self, plugin: PluginProcess, docker: Docker, network: str, pool: str) -> None:
        self.docker, self.network, self.pool = docker, network, pool
        self.asking = Asking(plugin.host.fs / SOCKET)

    def round(self, number: int) -> int:
        """One round; how many calls it was."""
        attached = self.docker.attach(self.network, self.pool)
        ours = {"NetworkID": self.network, "EndpointID": attached[0]}
        theirs = json.dumps({"NetworkID": secrets.token_hex(32), "EndpointID": secrets.token_hex(32)}).encode()
        for _ in range(2):
            taken = self.docker.call("IpamDriver.RequestAddress", PoolID=self.pool, Address="", Options=None)
            address = taken["Address"].partition("/")[0]
            self.docker.call("IpamDriver.ReleaseAddress", PoolID=self.pool, Address=address)
        for _ in range(8):
            self.docker.call("NetworkDriver.EndpointOperInfo", **ours)
            self.asking.ask("NetworkDriver.Join", theirs, 404)
            self.asking.ask("NetworkDriver.Leave", theirs, 200)
            self.asking.ask("NetworkDriver.CreateEndpoint", b'{"NetworkID": ', 400)
        for _ in range(4):
            self.docker.call("Plugin.Activate")
            self.asking.ask("IpamDriver.RequestPool", b"", 400)
        self.docker.detach(self.network, self.pool, attached)
        calls = 6 + 4 + 8 * 4 + 4 * 2
        if number % NETWORK == 0:
            subnet = f"10.{100 + number // NETWORK % 100}.0.0/24"
            other, pool = self.docker.create_network(subnet)
            self.docker.call("NetworkDriver.DeleteNetwork", NetworkID=other)
            self.docker.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=subnet.replace(".0/24", ".1"))
            self.docker.call("IpamDriver.ReleasePool", PoolID=pool)
            calls += 6
        return calls


def test_many_calls(plugin: PluginProcess) -> None:
    """After all calls the plugin takes at most 5 % more memory than after the first; the kept log is in its cap."""
    dockers = [Docker(plugin.host) for _ in range(ALL_AT_ONCE)]  # type: ignore[arg-type]
    network, pool = dockers[0].create_network("10.9.0.0/24")
    days = [Day(plugin, docker, network, pool) for docker in dockers]
    rounds, made = count(1), []

    def work(day: Day, until: int) -> None:
        while sum(made) < until:
            made.append(day.round(next(rounds)))

    def run(until: int, at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as threads:
            for done in [threads.submit(work, day, until) for day in days[:at_once]]:
                done.result(800)

    held_at_rest(plugin, calm=CALM)
    run(WARM // 2, ALL_AT_ONCE)
    run(WARM, THREADS)
    before = held_at_rest(plugin)
    began = time.monotonic()
    run(CALLS, THREADS)
    took = time.monotonic() - began
    after = held_at_rest(plugin, before.things)
    asking = Asking(plugin.host.fs / SOCKET)
    files = asking.ask("Control.Report", b"{}", 200)["files"]
    kept, recorded = files["log.txt"], files["recorder.jsonl"]
    status = asking.ask("Control.Status", b"{}", 200)
    counted = sum(status["counters"]["docker_calls"].values())
    print(f"\n{sum(made)} calls, the last {CALLS - WARM} in {took:.0f} s; {before.pss} KiB, then {after.pss} KiB")
    written = plugin.log.stat().st_size
    print(
        f"log: {written / 1024:.0f} kB written, {len(kept) / 1024:.0f} kB kept; recorded: {len(recorded) / 1024:.0f} kB"
    )
    assert counted >= CALLS
    assert after.pss <= before.pss * (1 + TOLERANCE)
    assert after.things == before.things
    assert KEPT * 1024 / 2 < len(kept.encode()) <= KEPT * 1024
    assert written > 2 * KEPT * 1024 * CALLS / 10_000
    assert len(recorded.encode()) <= KEPT * 1024
    assert bool(recorded) == any(row.env == "MYOVERLAY_RECORDER" for row in SETTINGS)
    wait_for("no leases but the reserve's", 20, lambda: _idle(asking))
    for docker in dockers:
        docker.close()


def _idle(asking: Asking) -> bool:
    """Nothing of the containers is left in what Docker asked for."""
    journal = json.loads(asking.ask("Control.Report", b"{}", 200)["files"]["journal.json"])
    return journal["endpoints"] == [] and {lease.get("use") for lease in journal["leases"]} <= {"reserve"}
