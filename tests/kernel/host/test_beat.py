"""The heartbeat between hosts that are namespaces: real devices, real silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from myoverlay.host.beat import Beat
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import Prober
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId
from tests.kernel.conftest import soon
from tests.kernel.host.hosts import Hosts, Machine
from tests.kernel.host.tools import until


class Beating:
    """A machine on the underlay with a heartbeat and no daemon; what is asked of it lives on when it is stopped."""

    def __init__(self, hosts: Hosts, number: int, stack: ExitStack, port: int = 4789) -> None:
        self.machine = Machine(hosts, number)
        self.ns: Namespace = self.machine.ns
        self.id = HostId.random()
        self.vteps = [self.machine.vtep]
        self.links = stack.enter_context(Links(self.ns))
        self.pins = Pins(hosts.folder / f"pins{number}")
        self.port = port
        self.targets: dict[HostId, Address] = {}
        self.changes = threading.Semaphore(0)
        stack.callback(self._raze)
        self.tally = Tally()
        self.beat: Beat | None = None

    def start(self) -> Beat:
        prober = Prober(self.links, self.pins, self.id, self.port, lambda: tuple(self.vteps), home=self.ns)
        self.beat = Beat(prober, lambda: dict(self.targets), self.tally)
        self.beat.on_change = self.changes.release
        self.beat.start()
        return self.beat

    def stop(self) -> None:
        if self.beat is not None:
            self.beat.stop(5)
            self.beat = None

    def knows(self, *others: Beating) -> None:
        self.targets = {other.id: other.vteps[0] for other in others}

    def count(self, outcome: str) -> int:
        return self.tally.get("beats", outcome)

    def _raze(self) -> None:
        self.stop()
        prober = Prober(self.links, self.pins, self.id, self.port, tuple, home=self.ns)
        prober.remove(soon())
        prober.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def some(hosts: Hosts, stack: ExitStack, count: int) -> list[Beating]:
    """So many hosts that know each other, running."""
    all_ = [Beating(hosts, number, stack) for number in range(1, count + 1)]
    for one in all_:
        one.knows(*[other for other in all_ if other is not one])
        one.start()
    until(lambda: all(one.tally.get("beat_builds", "built") for one in all_))
    return all_


def test_a_suspect_answers_at_once(hosts: Hosts, stack: ExitStack) -> None:
    """Who is suspected is asked at once, and its kernel answers within milliseconds."""
    a, b = some(hosts, stack, 2)
    assert a.beat is not None
    a.beat.suspect([b.id])
    pulse = until(lambda: (p := a.beat.pulse(b.id)).heard and p, 1.0)
    assert not pulse.silent
    assert 0 < pulse.rtt < 0.1
