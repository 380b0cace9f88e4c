"""The heartbeat's loop on a device that is played."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from myoverlay.errors import Clash, KernelRefused
from myoverlay.host.beat import CHECK, FLOOD, REBUILD, Beat
from myoverlay.host.peers import Standing
from myoverlay.kernel.probe import Heard, Read
from myoverlay.plan.measure import Reach
from myoverlay.plan.pulse import ENOUGH, LIMIT, QUICK, ROTATION, Pulse
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId

ME, A, B = (HostId(digit * 32) for digit in "0ab")


class Device:
    """Plays `Prober`."""

    def __init__(self) -> None:
        self.me, self.ready = ME, False
        self.mtu = 0
        self.trouble: Exception | None = None
        self.broken: Exception | None = None
        self.ensured = 0
        self.asked: list[HostId] = []
        self.full: dict[HostId, bytes] = {}
        self.sends = True
        self.packets = 0
        self.sizes: dict[HostId, int] = {}
        self.same_address = False
        self.waiting: list[Heard] = []
        self.invalid = 0
        self.known: set[HostId] = set()

    def ensure(self, deadline: float) -> bool:
        self.ensured += 1
        if self.trouble is not None:
            raise self.trouble
        opened, self.ready = not self.ready, True
        return opened

    def sockets(self) -> tuple[socket.socket, ...]:
        return ()

    def know(self, hosts: Iterable[HostId]) -> None:
        self.known = set(hosts)

    def measures(self, host: HostId) -> bool:
        return not self.same_address

    def ask(self, targets: Mapping[HostId, Address], full: Mapping[HostId, bytes], size: int = 0) -> set[HostId]:
        if not self.sends:
            return set()
        self.packets += len(targets) + len(full)
        self.sizes |= dict.fromkeys(full, size)
        self.asked += targets
        self.full |= full
        return set(targets)

    def read(self) -> Read:
        if self.broken is not None:
            raise self.broken
        heard, self.waiting = tuple(self.waiting), []
        invalid, self.invalid = self.invalid, 0
        return Read(heard, invalid)

    def shut(self) -> None:
        self.ready = False

    def close(self) -> None:
        pass


class Life:
    """A loop whose rounds are done by hand, in a time of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.device = Device()
        self.tally = Tally()
        self.targets = {A: Address("192.0.2.1"), ME: Address("192.0.2.9")}
        device: Any = self.device
        self.beat = Beat(device, lambda: self.targets, self.tally, lambda: self.now)
        self.told = 0
        self.beat.on_change = self._told

    def _told(self) -> None:
        self.told += 1

    def round(self, after: float = 0.0) -> None:
        self.now += after
        self.beat.wake()  # so that it does not wait
        self.beat.round()

    def count(self, outcome: str) -> int:
        return self.tally.get("beats", outcome)


@pytest.fixture
def life() -> Iterator[Life]:
    life = Life()
    yield life
    life.beat.stop(1)


def test_answers_that_wait_are_heard_before_anybody_is_judged(life: Life) -> None:
    """The thread stood still: the answer to the last question lies there, and its host is not silent."""
    life.beat.suspect([A])
    for _ in range(ENOUGH):
        life.round(QUICK)
    assert life.device.asked == [A] * ENOUGH
    life.device.waiting = [Heard(A)]
    life.round(QUICK * 3)
    assert not life.beat.pulse(A).silent
    assert life.told == 0
    assert life.count("answered") == 1


def test_it_tells_how_it_stands_itself(life: Life) -> None:
    """What keeps it from asking, until that is over, and the size that it calls full."""
    life.device.mtu = 1450
    life.device.trouble = Clash("overlay web has the VNI")
    life.round(CHECK)
    assert life.beat.state() == Standing("overlay web has the VNI", 1450)
    life.device.trouble = None
    life.round(REBUILD[0])
    assert life.beat.state() == Standing("", 1450)


def test_silence_is_told_once(life: Life) -> None:
    """With nothing heard the same host is silent, and `on_change` says so once, and once when it answers."""
    life.beat.suspect([A])
    for _ in range(ENOUGH + 1):
        life.round(QUICK)
    assert life.beat.pulse(A).silent
    assert life.told == 1
    assert life.count("unanswered") == ENOUGH
    life.round(QUICK)
    assert life.told == 1
    life.device.waiting = [Heard(A)]
    life.round()
    assert life.told == 2
    assert not life.beat.pulse(A).silent


def test_what_could_not_be_sent_is_no_question(life: Life) -> None:
    """Unsent questions are counted as such, and no host is silent for them."""
    life.device.sends = False
    life.beat.suspect([A])
    for _ in range(ENOUGH * 3):
        life.round(QUICK)
    assert not life.beat.pulse(A).silent
    assert life.count("sent") == life.count("unanswered") == 0
    assert life.count("unsent") == ENOUGH * 3


def test_no_device_no_verdict(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    """Without a device nobody is asked; the reason is said once, and it is tried ever more slowly."""
    life.device.trouble = Clash("no heartbeat: VNI taken by x")
    life.beat.suspect([A])
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            life.round(1.0)
    assert [record.getMessage() for record in caplog.records] == ["no heartbeat: VNI taken by x"]
    assert 5 <= life.device.ensured <= 9
    assert life.beat.pulse(A) == Pulse()
    assert life.tally.get("beat_builds", "failed") == life.device.ensured
    life.device.trouble = None
    life.round(REBUILD[1])
    assert life.device.asked == [A]
    assert life.tally.get("beat_builds", "built") == 1


def test_a_device_that_breaks_is_looked_at_at_once(life: Life) -> None:
    """A socket that says the device is gone makes the next round ensure it."""
    life.round()
    life.device.broken = KernelRefused("hearing answers", 100, "Network is down")
    life.round()
    life.device.broken = None
    life.round()
    assert life.device.ensured == 2
    assert life.device.ready


def test_this_host_does_not_ask_itself(life: Life) -> None:
    """Whatever the targets say; new ones are seen with the next look, or at once when somebody is suspected."""
    life.round()
    assert life.device.known == {A}
    life.targets = {B: Address("192.0.2.2")}
    life.beat.suspect([B])
    life.round()
    assert life.device.known == {B}
    life.round()
    assert life.device.asked == [B]


def test_full_answers_need_the_nonce(life: Life) -> None:
    """Another nonce is an answer to nothing."""
    life.round()
    life.round(ROTATION)
    (nonce,) = life.device.full.values()
    life.device.waiting = [Heard(A), Heard(A, bytes(4) if nonce != bytes(4) else b"1234")]
    life.round()
    assert life.beat.pulse(A).carries is None
    life.device.waiting = [Heard(A, nonce), Heard(A, nonce), Heard(A), Heard(B)]
    life.round()
    assert life.beat.pulse(A).carries is True
    assert (life.count("answered"), life.count("carried"), life.count("unasked")) == (1, 1, 4)


def test_two_of_one_address_measure_nothing(life: Life) -> None:
    """Between hosts whose probe addresses happen to be the same, no full packet is sent and none is missed."""
    life.device.same_address = True
    life.round()
    for _ in range(10):
        life.round(ROTATION)
        life.device.waiting = [Heard(A)]
        life.round()
    assert life.device.full == {}
    assert life.beat.pulse(A).carries is None
    assert life.beat.pulse(A).heard


def test_a_flood_is_counted(life: Life) -> None:
    """Frames that are no answers are counted, however many."""
    life.round()
    life.device.invalid = FLOOD
    life.round()
    assert life.count("invalid") == FLOOD


def test_a_measurement_keeps_to_the_limit_and_ends_with_the_last_answer(life: Life) -> None:
    """A hundred hosts at once: no second has more than 50 packets; each answer counts for its own question alone."""
    hosts = [HostId(f"{number:032x}") for number in range(1, 101)]
    targets = {host: Address("192.0.2.7") for host in hosts}
    results: list[dict[HostId, Reach]] = []
    thread = threading.Thread(target=lambda: results.append(life.beat.measure(targets, 1234, 60.0)), daemon=True)
    thread.start()
    sent = [0]
    for _ in range(600):
        life.round(0.05)
        sent.append(life.device.packets)
        assert sent[-1] - sent[max(0, len(sent) - 21)] <= LIMIT
        new, life.device.full = life.device.full, {}
        life.device.waiting = [Heard(host, nonce) for host, nonce in new.items() if host != hosts[0]]
        life.device.waiting += [Heard(hosts[0]), Heard(hosts[1], b"????")]
        if life.now > 1000.0 + 20.0:
            life.device.waiting += [Heard(hosts[0], nonce) for host, nonce in new.items() if host == hosts[0]]
        if results:
            break
    thread.join(10)
    assert results == [dict.fromkeys(hosts, Reach.WHOLE)]
    assert {life.device.sizes[host] for host in hosts} == {1234}
    life.round()
    assert life.device.known == {A}, "answers of those that are no longer measured do not count"
