"""Memory of all our processes on a host that has worked: 100 containers of its own, 1,000 hosts around it, 10,000
changes of theirs in 10 minutes."""

from __future__ import annotations

import os
import select
import subprocess
import time
from typing import Any, NamedTuple

from bench import readings
from bench.figures.figure import Extent, Figure
from bench.figures.first_ping import KNOWN
from bench.ground import NETWORKS, OVERLAY, SUBNET, Ground
from bench.inside import start
from bench.names import OURS
from bench.results import Round
from lab.errors import LabError
from lab.processes import wait_for
from tests.engine.endurance import Docker, Held


class Size(NamedTuple):
    """How much of everything."""

    endpoints: int
    peers: int
    changes: int
    seconds: float


FULL, SHORT = Size(100, 1_000, 10_000, 600.0), Size(10, 50, 200, 5.0)
_POOL = SUBNET.replace("/", "-")
#: Seconds beyond the changes' own time: the hosts come one by one.
_COMING = 240.0


def _measure(ground: Ground, extent: Extent) -> list[Round]:
    size = SHORT if extent.short else FULL
    host = ground.h1
    ground.stop_plugins([host])
    ground.start_plugins([host])
    docker, network = Docker(host), host.docker("network", "inspect", "-f", "{{.Id}}", NETWORKS[OURS])
    attached = [docker.attach(network, _POOL) for _ in range(size.endpoints)]
    words = (ground.lab.consul.url, OVERLAY, size.peers, size.changes, size.seconds)
    crowd = start.popen(ground.h2, "crowd", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        _hear(crowd, "there", _COMING)
        known = readings.metrics(host)
        wait_for("the watch", 60, lambda: readings.metrics(host)[KNOWN] >= size.peers)
        before = readings.total(known, "myoverlay_watch_rounds_total")
        _hear(crowd, "changed", size.seconds + _COMING)
        pss = Held(ground.plugins[host.name]).pss
        rounds = readings.total(readings.metrics(host), "myoverlay_watch_rounds_total") - before
    finally:
        crowd.stdin.close()
        crowd.wait(30)
        for one in attached:
            docker.detach(network, _POOL, one)
        docker.close()
    return [Round((OURS,), {OURS: {"PSS MB": pss * 1024 / 1e6, "answers of the watch": rounds}})]


def _hear(process: Any, word: str, seconds: float) -> None:
    """Wait until the process says the word. Raises LabError."""
    until, said, out = time.monotonic() + seconds, b"", process.stdout.fileno()
    while word.encode() not in said:
        some = os.read(out, 4096) if select.select([out], [], [], max(0.0, until - time.monotonic()))[0] else b""
        if not some:
            raise LabError(
                f"the crowd did not say {word!r} within {seconds:g} s, but {said!r} (status {process.poll()})"
            )
        said += some


FIGURES = (Figure("memory", _measure),)
