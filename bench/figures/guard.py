"""What guard and binding cost a packet: our own network with both, with the guard alone, and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.figures import traffic
from bench.figures.figure import Extent, Figure
from bench.goals import PER_PACKET
from bench.ground import PIN, Ground
from bench.ground import Path as Way
from bench.names import AGAIN, OURS, UNBOUND, UNGUARDED
from bench.results import Quantities, Round
from lab.processes import wait_for

#: Fields of /proc/stat that are not work: idle, waiting for a disk, and time that the hypervisor took.
_IDLE = (3, 4, 7)
#: Of a clock tick, microseconds (USER_HZ is 100 on all that Linux runs on).
_TICK = 10_000


class _Switch:
    """Puts guard and binding of both hosts on and off, by starting their plugins with other settings."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._are = (True, True)

    def turn(self, guarded: bool, bound: bool) -> None:
        if (guarded, bound) == self._are:
            return
        self._ground.stop_plugins()
        self._ground.start_plugins(MYOVERLAY_GUARD="on" if guarded else "off", MYOVERLAY_SPOOF="" if bound else "*")
        self._are = guarded, bound
        for host in self._ground.hosts:
            inside = ["nsenter", f"--net={PIN}"]
            for argv, on in ((_listed("inet"), guarded), ([*inside, *_listed("bridge")], bound)):
                wait_for(
                    f"{' '.join(argv)} on {host.name} to {'find something' if on else 'fail'}",
                    10,
                    lambda host=host, argv=argv, on=on: (host.complete(argv).returncode == 0) == on,  # type: ignore[misc]
                )


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
            switch.turn(True, True)

    return Figure(name, measure)


FIGURES = (_figure("guard-tcp1", lambda way: traffic.tcp(way, 1, False)), _figure("guard-udp64", _datagrams))
