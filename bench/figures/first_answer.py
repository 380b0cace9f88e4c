"""From `docker run` returning on one host to the new container's first answer from the other host.

The container waits for a word; the bench gives it the moment the command has returned, and the container pings a
container of the other host until it is answered. Both sides need the other's rows for that, the far one those of a
container that has just come. What starting busybox's `ping` takes is in the figure, for every contestant alike.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures.figure import Extent, Figure, network_of
from bench.goals import ANSWERED
from bench.ground import IMAGE, NETWORKS, Ground
from bench.names import AGAIN, DOCKER, OURS
from bench.results import Quantities, Round
from lab.errors import TookTooLong

_numbers = itertools.count(1)
#: Reads the address that it is to ping, then says that it was answered.
_SCRIPT = "read a </told/go; until ping -c 1 -W 1 $a >/dev/null; do :; done; echo >/told/answered; sleep 1000"
_PATIENCE = 20.0


@contextmanager
def _pipes() -> Iterator[Path]:
    """A folder, seen by the engines too, with a pipe into the container and one out of it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    try:
        for name in ("go", "answered"):
            os.mkfifo(folder / name)
        yield folder
    finally:
        shutil.rmtree(folder)


def _measure(ground: Ground, extent: Extent) -> list[Round]:
    def once(who: str) -> Quantities:
        network, name = network_of(who), f"answered-{next(_numbers)}"
        far = ground.paths[network].far.address
        with _pipes() as told:
            answered = os.open(told / "answered", os.O_RDONLY | os.O_NONBLOCK)
            go = os.open(told / "go", os.O_RDWR)
            try:
                mount = ("-v", f"{told}:/told", "--network", NETWORKS[network], IMAGE, "sh", "-c", _SCRIPT)
                ground.h1.docker("run", "-d", "--name", name, *mount)
                began = time.perf_counter()
                os.write(go, f"{far}\n".encode())
                if not select.select([answered], [], [], _PATIENCE)[0]:
                    raise TookTooLong(f"{who}: no answer {_PATIENCE:g} s after `docker run`")
                return {ANSWERED: (time.perf_counter() - began) * 1000}
            finally:
                os.close(go)
                os.close(answered)
                ground.remove(ground.h1, name)

    return extent.rounds("first-answer", (OURS, DOCKER, AGAIN), once)


FIGURES = (Figure("first-answer", _measure),)
