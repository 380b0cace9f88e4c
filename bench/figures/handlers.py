"""How long Docker waits for us: the time of all calls about one container, from the plugin's own log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from bench.figures.docker_run import run_ms
from bench.figures.figure import Extent, Figure
from bench.ground import NETWORKS, Ground
from bench.names import OURS, PARALLEL
from bench.readings import Calls
from bench.results import Quantities, Round
from lab.processes import wait_for

AT_ONCE = 8
#: One container's calls, however an engine words the rest: it begins with the first and ends with the last of these.
_FIRST, _LAST = "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress"


def of_containers(lines: Iterable[Mapping[str, Any]]) -> list[float]:
    """Milliseconds of all calls about each container whose address was given back.

    Calls name an endpoint or an address. CreateEndpoint names both, which is how the two halves are one container.
    """
    endpoints: dict[str, float] = defaultdict(float)
    addresses: dict[str, float] = defaultdict(float)
    owner: dict[str, str] = {}
    done: list[float] = []
    for line in lines:
        address = str(line.get("address") or line["outcome"].removeprefix("ok").strip()).partition("/")[0]
        endpoint = str(line.get("endpoint", ""))
        if endpoint:
            endpoints[endpoint] += line["ms"]
            if line.get("address"):
                owner[address] = endpoint
        elif line["method"] in (_FIRST, _LAST) and address:
            addresses[address] += line["ms"]
            if line["method"] == _LAST and address in owner:
                done.append(addresses.pop(address) + endpoints.pop(owner.pop(address)))
    return done


def _measure(ground: Ground, extent: Extent) -> list[Round]:
    def once(who: str) -> Quantities:
        calls, count = Calls(ground.plugins["h1"]), AT_ONCE if who == PARALLEL else 1
        with ThreadPoolExecutor(count) as pool:
            for each in [pool.submit(run_ms, ground, NETWORKS[OURS]) for _ in range(count)]:
                each.result()

        def ended() -> list[float] | None:
            found = of_containers(calls.lines())
            return found if len(found) == count else None

        took = wait_for(f"the calls about {count} containers", 10, ended)
        return {"all calls ms": median(took), "worst ms": max(took)}

    return extent.rounds("handlers", (OURS, PARALLEL), once)


FIGURES = (Figure("handlers", _measure, quick=True),)
