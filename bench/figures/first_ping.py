"""The first ping between two containers that never talked: what it takes, and what is lost, by who fills the tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bench import hands, readings
from bench.figures.figure import Extent, Figure, network_of
from bench.goals import FIRST, LOST
from bench.ground import NETWORKS, OVERLAY, PIN, End, Ground
from bench.holding import Holding
from bench.names import AGAIN, DOCKER, OURS, TUTORIAL
from bench.results import Quantities, Round
from bench.tools import busybox
from lab.engine import EngineHost
from lab.errors import LabError
from lab.processes import wait_for

KNOWN = f'myoverlay_remote_endpoints{{overlay="{OVERLAY}"}}'
_numbers = itertools.count(1)
#: Rounds behind a held watch; of two containers each, some 3 s.
_BEFORE_THE_WATCH_ENDS = 8
#: Containers of ours on the other host that stay for the whole run.
RESIDENTS = 1


def ping(near: End, address: str, interval: float = 0.2, patience: int = 2) -> Quantities:
    """Three pings: the round trip of the first that was answered, and how many were not.

    Where none was answered the time is how long was waited: it took that long at least. Raises LabError where not all
    of them were sent.
    """
    words = ["ping", "-c", "3", "-i", str(interval), "-W", str(patience), address]
    said = near.run([busybox(), *words], check=False, timeout=30)
    times = [float(text) for text in re.findall(r"time=([\d.]+) ms", said)]
    if "3 packets transmitted" not in said:
        raise LabError(f"{near.host.name}: {address} was not pinged: {said}")
    waited = (2 * interval + patience) * 1000
    return {FIRST: times[0] if times else waited, LOST: float(3 - len(times))}


@contextmanager
def fresh(ground: Ground, host: EngineHost, contestant: str) -> Iterator[End]:
    """A container that nobody has talked to; it goes with the block.

    Docker's IPAM gives an address again only after all others; ours does at once, and a cache would still know it.
    """
    number = next(_numbers)
    name, never_given = f"fresh-{number}", ("--ip", f"10.5.{100 + number // 250}.{1 + number % 250}")
    try:
        yield ground.start(host, NETWORKS[contestant], name, *(never_given if contestant == OURS else ()))
    finally:
        ground.remove(host, name)


def wait_until_known(hosts: Iterable[EngineHost], peers: int) -> None:
    """Until each host's watch knows so many: what was removed is told of after Docker was answered."""
    for host in hosts:
        wait_for(f"{host.name} to know {peers} peers", 10, lambda: readings.metrics(host)[KNOWN] == peers)  # noqa: B023


def pin_of(contestant: str, host: EngineHost) -> str:
    """The overlay namespace of a network on a host."""
    if contestant == OURS:
        return PIN
    return f"/run/docker/netns/1-{host.docker('network', 'inspect', '-f', '{{.Id}}', NETWORKS[contestant])[:10]}"


def _programmed(host: EngineHost, pin: str, address: str) -> bool:
    return "lladdr" in host.run(["nsenter", f"--net={pin}", "ip", "neigh", "show", address])


def _ahead(ground: Ground, extent: Extent) -> list[Round]:
    pins = {name: pin_of(name, ground.h1) for name in (OURS, DOCKER)}

    def once(who: str) -> Quantities:
        network = network_of(who)
        with fresh(ground, ground.h2, network) as far:
            wait_for(f"the row for {far.address}", 20, lambda: _programmed(ground.h1, pins[network], far.address))
            return ping(ground.paths[network].near, far.address)

    return extent.rounds("first-ping", (OURS, DOCKER, AGAIN), once)


def _memory(ground: Ground, extent: Extent) -> list[Round]:
    """Above the eager limit (0 here) rows are pulled by misses, from what the watch has brought."""

    def once() -> Quantities:
        wait_until_known(ground.hosts, RESIDENTS)
        with fresh(ground, ground.h1, OURS) as near, fresh(ground, ground.h2, OURS) as far:
            wait_until_known(ground.hosts, RESIDENTS + 1)
            _must_miss(ground, near, far)
            return ping(near, far.address)

    eager = {"MYOVERLAY_EAGER_LIMIT": "0"}
    with ground.other_plugins({host.name: eager for host in ground.hosts}):
        return extent.alone(once)


def _must_miss(ground: Ground, near: End, far: End) -> None:
    for host, end in ((ground.h1, far), (ground.h2, near)):
        if _programmed(host, PIN, end.address):
            raise LabError(f"{host.name} has the row for {end.address} before anybody asked")


def _store(ground: Ground, extent: Extent) -> list[Round]:
    """The watches are held back, so that both hosts have to ask Consul at the miss."""

    def found(host: EngineHost) -> float:
        return readings.metrics(host).get('myoverlay_misses_total{kind="found"}', 0.0)

    def once() -> Quantities:
        with fresh(ground, ground.h1, OURS) as near, fresh(ground, ground.h2, OURS) as far:
            _must_miss(ground, near, far)
            before = {host.name: found(host) for host in ground.hosts}
            measured = ping(near, far.address)
            for host in ground.hosts:
                wait_for(f"{host.name} to tell that it asked Consul", 5, lambda: found(host) > before[host.name])  # noqa: B023
            return measured

    with Holding(ground.lab, ground.h1) as one, Holding(ground.lab, ground.h2) as other:
        settings = {"h1": {"CONSUL_HTTP_ADDR": one.url}, "h2": {"CONSUL_HTTP_ADDR": other.url}}
        made: list[Round] = []
        while len(made) < extent.least:  # a watch gives up after a minute, and would then be told all
            before = [(holding, holding.kept) for holding in (one, other)]
            with ground.other_plugins(settings):
                for holding, kept in before:  # what there is was listed, and only news are held back
                    wait_for("the watch to be held", 20, lambda: holding.kept > kept)  # noqa: B023 - asked at once
                made += extent.alone(once, count=_BEFORE_THE_WATCH_ENDS)
        return made


def _tutorial(ground: Ground, extent: Extent) -> list[Round]:
    def once() -> Quantities:
        for number, host in enumerate(ground.hosts, 2):
            hands.forget(host, number)
        return ping(near, hands.address(TUTORIAL, 3), interval=0.8, patience=3)

    with hands.taught(ground.lab, ground.hosts):
        near = ground.by_hand(TUTORIAL).near
        return extent.alone(once, name=TUTORIAL)


FIGURES = (
    Figure("first-ping", _ahead, quick=True),
    Figure("first-ping-memory", _memory),
    Figure("first-ping-store", _store),
    Figure("first-ping-tutorial", _tutorial),
)
