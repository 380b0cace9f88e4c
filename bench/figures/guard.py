"""What guard and binding cost a packet: our own network with both, with the guard alone, and without."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from bench.figures import traffic
from bench.figures.figure import Extent, Figure
from bench.goals import PER_PACKET
from bench.ground import PIN, Ground
from bench.ground import Path as Way
from bench.names import AGAIN, OURS, UNBOUND, UNGUARDED
from bench.results import Quantities, Round
from lab.errors import LabError
from myoverlay.kernel.bound import BoundTable
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.kept import Kept, V
from myoverlay.kernel.netns import open_path

#: Fields of /proc/stat that are not work: idle, waiting for a disk, and time that the hypervisor took.
_IDLE = (3, 4, 7)
#: Of a clock tick, microseconds (USER_HZ is 100 on all that Linux runs on).
_TICK = 10_000


class _Switch:
    """Takes the tables of guard and binding away on both hosts, and lays them as they were.

    The plugins are away meanwhile, for they would lay them anew; a plugin that starts would be in the measurement.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        roots = [Path(f"/proc/{ground.plugins[host.name].pid}") for host in ground.hosts]
        homes = [open_path(root / "ns/net") for root in roots]
        overlays = [open_path(root / f"root{PIN}") for root in roots]
        self._spaces = [*homes, *overlays]
        ground.stop_plugins()
        self._guards = [_laid(FenceTable(lambda ns=ns: ns)) for ns in homes]  # type: ignore[misc]
        self._bounds = [_laid(BoundTable(lambda ns=ns: ns)) for ns in overlays]  # type: ignore[misc]

    def turn(self, guarded: bool, bound: bool) -> None:
        for guard in self._guards:
            guard(guarded)
        for binding in self._bounds:
            binding(bound)
        for host in self._ground.hosts:
            inside = ["nsenter", f"--net={PIN}"]
            for argv, on in ((_listed("inet"), guarded), ([*inside, *_listed("bridge")], bound)):
                if (host.complete(argv).returncode == 0) != on:
                    raise LabError(f"{' '.join(argv)} on {host.name} should {'find something' if on else 'fail'}")

    def end(self) -> None:
        self.turn(True, True)
        for space in self._spaces:
            space.close()
        self._ground.start_plugins()


def _laid(table: Kept[V]) -> Callable[[bool], None]:
    """Lays it as it is now, or takes it away."""
    held = table.held()
    return lambda on: table.lay(held) if on else table.remove()


def _listed(family: str) -> list[str]:
    return ["nft", "list", "table", family, "myoverlay"]


def _busy() -> int:
    """Clock ticks that all processors of the machine have worked since it started."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return sum(ticks for place, ticks in enumerate(fields) if place not in _IDLE)


def _datagrams(way: Way) -> Quantities:
    """As without the guard's question, and what a datagram costs the whole machine, there and back included."""
    before = _busy()
    found = traffic.datagrams(way)
    worked = (_busy() - before) * _TICK
    return {**found, PER_PACKET: worked / max(1.0, found["sent packets/s"])}


def _figure(name: str, once: Callable[[Way], Quantities]) -> Figure:
    def measure(ground: Ground, extent: Extent) -> list[Round]:
        switch = _Switch(ground)

        def one(contestant: str) -> Quantities:
            switch.turn(contestant != UNGUARDED, contestant in (OURS, AGAIN))
            return once(ground.paths[OURS])

        try:
            with traffic.servers({OURS: ground.paths[OURS]}):
                return extent.rounds(name, (OURS, UNBOUND, UNGUARDED, AGAIN), one)
        finally:
            switch.end()

    return Figure(name, measure)


def _transfers(way: Way) -> Quantities:
    """The mean of several: what is looked for is less than two of them differ by."""
    return {"Gbit/s": statistics.fmean(traffic.tcp(way, 1, False)["Gbit/s"] for _ in range(3))}


FIGURES = (_figure("guard-tcp1", _transfers), _figure("guard-udp64", _datagrams))
