"""What a network costs a container: `docker run --rm` of a command that does nothing, start and stop together."""

from __future__ import annotations

import itertools
import time

from bench.figures.figure import Extent, Figure, network_of
from bench.ground import IMAGE, NETWORKS, Ground
from bench.names import AGAIN, BRIDGE, DOCKER, NONE, OURS
from bench.results import Quantities, Round

_numbers = itertools.count(1)


def run_ms(ground: Ground, network: str) -> float:
    """Milliseconds until `docker run --rm` of one container is over. The CLI returns when the engine has removed it."""
    began = time.perf_counter()
    ground.h1.docker("run", "--rm", "--network", network, IMAGE, "true")
    return (time.perf_counter() - began) * 1000


def _measure(ground: Ground, extent: Extent) -> list[Round]:
    def once(who: str) -> Quantities:
        return {"run ms": run_ms(ground, "none" if who == NONE else NETWORKS[network_of(who)])}

    for who in (OURS, DOCKER, NONE):
        once(who)  # the first of an image and of a network is another matter
    return extent.rounds("docker-run", (OURS, NONE, DOCKER, AGAIN), once, (BRIDGE,))


FIGURES = (Figure("docker-run", _measure, quick=True),)
