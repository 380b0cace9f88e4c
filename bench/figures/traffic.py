"""How much a network carries: 512 MiB over TCP by iperf3, a second of small datagrams or round trips by qperf."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.figures.figure import Extent, Figure, network_of
from bench.ground import Ground, Path
from bench.names import AGAIN, BRIDGE, DOCKER, HAND, OURS, UNDERLAY
from bench.results import Quantities, Round
from bench.tools import program
from lab.errors import LabError
from lab.processes import wait_for

#: Of one TCP measurement: some tenths of a second, for many rounds tell more than long ones.
_BYTES = "512M"
_SECONDS = 1
#: What qperf's unified units are in bytes a second, or seconds.
_UNITS = {"bytes/sec": 1.0, "ns": 1e-9}
_IPERF_PORT, _QPERF_PORT = 5201, 19765
#: Who is in the goals; our own comes first and last, and so do the distances of A/A and of each pair even out.
_CONTESTANTS, _BESIDE = (OURS, DOCKER, HAND, AGAIN), (UNDERLAY, BRIDGE)


@contextmanager
def servers(paths: dict[str, Path]) -> Iterator[None]:
    """Both servers at the far end of each path; they end with the block."""
    running = []
    try:
        for path in paths.values():
            for argv in ((*program("iperf3"), "-s"), program("qperf")):
                running.append(path.far.popen(argv))
        for name, path in paths.items():
            wait_for(f"the servers of {name}", 10, lambda path=path: _listening(path))  # type: ignore[misc]
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait(10)


def _listening(path: Path) -> bool:
    said = path.far.run(["ss", "-Hlnt"])
    return all(re.search(rf":{port}\s", said) for port in (_IPERF_PORT, _QPERF_PORT))


def tcp(path: Path, streams: int, back: bool) -> Quantities:
    """What the receiver got, Gbit/s."""
    words = ["-c", path.far.address, "-n", _BYTES, "-P", str(streams), "-J", *(["-R"] if back else [])]
    said = json.loads(path.near.run([*program("iperf3"), *words], timeout=30))
    return {"Gbit/s": said["end"]["sum_received"]["bits_per_second"] / 1e9}


def _qperf(path: Path, *words: str) -> dict[str, float]:
    """What qperf says."""
    argv = [*program("qperf"), path.far.address, "-t", str(_SECONDS), "-uu", "-vs", "-e", "6", *words]
    return parse(path.near.run(argv, timeout=30))


def parse(said: str) -> dict[str, float]:
    """Numbers by name from qperf's answer with unified units: bytes a second, and seconds. Raises LabError."""
    found = {}
    for name, number, unit in re.findall(r"^\s+(\w+)\s+=\s+([\d.,]+)\s+(\S+)$", said, re.M):
        if unit in _UNITS:
            found[name] = float(number.replace(",", "")) * _UNITS[unit]
    if not found:
        raise LabError(f"qperf said no figure: {said!r}")
    return found


def datagrams(path: Path) -> Quantities:
    """64-byte datagrams that arrive, as fast as one sender sends."""
    found = _qperf(path, "-m", "64", "udp_bw")
    return {"packets/s": found["recv_bw"] / 64, "sent packets/s": found["send_bw"] / 64}


def requests(path: Path) -> Quantities:
    """One byte there and one back over TCP; qperf tells half a round trip."""
    return {"round trips /s": 0.5 / _qperf(path, "-m", "1", "tcp_lat")["latency"]}


def _figure(name: str, once: Callable[[Path], Quantities]) -> Figure:
    def measure(ground: Ground, extent: Extent) -> list[Round]:
        with servers({name: ground.paths[name] for name in (OURS, DOCKER, HAND, UNDERLAY, BRIDGE)}):
            return extent.rounds(name, _CONTESTANTS, lambda who: once(ground.paths[network_of(who)]), _BESIDE)

    return Figure(name, measure, quick=name == "tcp1")


FIGURES = (
    _figure("tcp1", lambda path: tcp(path, 1, False)),
    _figure("tcp1-back", lambda path: tcp(path, 1, True)),
    _figure("tcp4", lambda path: tcp(path, 4, False)),
    _figure("tcp4-back", lambda path: tcp(path, 4, True)),
    _figure("udp64", datagrams),
    _figure("requests", requests),
)
