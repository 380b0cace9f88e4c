"""What a network costs a container: `docker run --rm` of a command that does nothing, start and stop together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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
    return _rounds("docker-run", ground, extent, NETWORKS, (BRIDGE,))


def _internal(ground: Ground, extent: Extent) -> list[Round]:
    with _made(ground) as networks:
        return _rounds("docker-run-internal", ground, extent, networks)


def _rounds(
    figure: str, ground: Ground, extent: Extent, networks: Mapping[str, str], beside: tuple[str, ...] = ()
) -> list[Round]:
    def once(who: str) -> Quantities:
        return {"run ms": run_ms(ground, "none" if who == NONE else networks[network_of(who)])}

    for who in (OURS, DOCKER, NONE):
        once(who)  # the first of an image and of a network is another matter
    return extent.rounds(figure, (OURS, NONE, DOCKER, AGAIN), once, beside)


@contextmanager
def _made(ground: Ground) -> Iterator[dict[str, str]]:
    """Networks of ours and of Docker's with `--internal`: without Docker's bridge for the outside in each container."""
    made = {OURS: "ours-internal", DOCKER: "theirs-internal"}
    ours = ("-d", "myoverlay", "--ipam-driver", "myoverlay", "--subnet", "10.23.0.0/16", "-o", "overlay=internal")
    theirs = ("-d", "overlay", "--attachable", "--subnet", "10.24.0.0/16")
    ground.h1.docker("network", "create", "--internal", *ours, made[OURS])
    ground.h1.docker("network", "create", "--internal", *theirs, made[DOCKER])
    try:
        yield made
    finally:
        ground.h1.docker("network", "rm", *made.values())


FIGURES = (Figure("docker-run", _measure, quick=True), Figure("docker-run-internal", _internal))
