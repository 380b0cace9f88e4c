"""The heartbeat between hosts that are namespaces: real devices, real silence."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from myoverlay.host.beat import Beat
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import DEVICE, PIN, PROBE_VNI, Prober, probe_address, probe_mac
from myoverlay.plan.measure import Reach
from myoverlay.plan.pulse import Pulse
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId
from tests.kernel.conftest import soon
from tests.kernel.host.hosts import Hosts, Machine
from tests.kernel.host.tools import ip, until


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
        self.told_on: set[str] = set()
        stack.callback(self._raze)
        self.tally = Tally()
        self.beat: Beat | None = None

    def start(self, now: Callable[[], float] = time.monotonic, start: bool = True) -> Beat:
        prober = Prober(self.links, self.pins, self.id, self.port, lambda: tuple(self.vteps), home=self.ns)
        self.beat = Beat(prober, lambda: dict(self.targets), self.tally, now)
        self.beat.on_change = self._told
        if start:
            self.beat.start()
        return self.beat

    def _told(self) -> None:
        self.told_on.add(threading.current_thread().name)
        self.changes.release()

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


def cut(hosts: Hosts, one: Beating, state: str = "down") -> None:
    """Unplug a host from the underlay, or plug it in again (`up`)."""
    ip(hosts.switch, f"link set p{one.machine.number} {state}")


def index(one: Beating) -> int:
    with netns.open_path(one.pins.path(PIN)) as ns:
        found = one.links.ifindex(ns, DEVICE, deadline=soon())
    assert found is not None
    return found


def test_a_suspect_answers_at_once(hosts: Hosts, stack: ExitStack) -> None:
    """Who is suspected is asked at once, and its kernel answers within milliseconds."""
    a, b = some(hosts, stack, 2)
    sent, answered = a.count("sent"), a.count("answered")  # whose turn it is may have been asked already
    a.beat.suspect([b.id])
    pulse = until(lambda: (p := a.beat.pulse(b.id)).heard and p, 1.0)
    assert not pulse.silent
    assert 0 < pulse.rtt < 0.1
    assert time.monotonic() - 2 < pulse.heard <= time.monotonic()
    assert a.count("sent") - sent == a.count("answered") - answered == 1


def test_a_host_without_a_plugin_answers_also_who_came_later(hosts: Hosts, stack: ExitStack) -> None:
    """Only kernel objects are left of it; it answers those it knew and one that it never heard of."""
    a, b = some(hosts, stack, 2)
    b.stop()
    late = Beating(hosts, 3, stack)
    late.knows(a, b)
    late.start()
    for one in (a, late):
        one.beat.suspect([b.id])
        assert until(lambda one=one: one.beat.pulse(b.id).heard)
    until(lambda: all(one.count("answered") >= 2 for one in (a, late)), 4.0)
    assert not a.beat.pulse(b.id).silent
    assert not late.beat.pulse(b.id).silent


def test_an_unplugged_host_is_silent_in_two_seconds(hosts: Hosts, stack: ExitStack) -> None:
    """And comes back as soon as it is plugged in; each change is told once, on the heartbeat's thread."""
    a, b, c = some(hosts, stack, 3)
    cut(hosts, b)
    began = time.monotonic()
    a.beat.suspect([b.id, c.id])
    assert a.changes.acquire(timeout=4)
    assert time.monotonic() - began < 3.5
    assert a.told_on == {"beat"}
    assert a.beat.pulse(b.id).silent
    assert not a.beat.pulse(c.id).silent
    cut(hosts, b, "up")
    assert a.changes.acquire(timeout=5)
    assert not a.beat.pulse(b.id).silent
    assert a.beat.pulse(b.id).heard
    assert not a.changes.acquire(blocking=False)
    assert a.count("unanswered") >= 4


def test_a_verdict_ends_with_the_suspicion(hosts: Hosts, stack: ExitStack) -> None:
    """`suspect` replaces the whole set: who is not in it is not silent."""
    a, b = some(hosts, stack, 2)
    cut(hosts, b)
    a.beat.suspect([b.id])
    assert a.changes.acquire(timeout=4)
    a.beat.suspect([])
    assert not a.beat.pulse(b.id).silent
    assert a.changes.acquire(timeout=4)


def test_without_an_underlay_of_its_own_nobody_is_silent(hosts: Hosts, stack: ExitStack) -> None:
    """A host that is unplugged itself, or has no route, cannot ask, and concludes nothing."""
    a, b = some(hosts, stack, 2)
    ip(a.ns, "link set eth0 down")
    sent = a.count("sent")
    a.beat.suspect([b.id])
    until(lambda: a.count("unsent") > 5, 6.0)
    assert a.count("sent") == sent
    assert not a.beat.pulse(b.id).silent
    ip(a.ns, "link set eth0 up")
    assert until(lambda: a.beat.pulse(b.id).heard)


def test_restart_adopts(hosts: Hosts, stack: ExitStack) -> None:
    """Another heartbeat finds the device and goes on; the device never went."""
    a, b = some(hosts, stack, 2)
    before = index(a)
    a.stop()
    b.beat.suspect([a.id])
    assert until(lambda: b.beat.pulse(a.id).heard)
    a.start()
    a.beat.suspect([b.id])
    assert until(lambda: a.beat.pulse(b.id).heard)
    assert index(a) == before


def test_a_deleted_device_is_made_again(hosts: Hosts, stack: ExitStack) -> None:
    """Somebody deletes the device; it is missed by itself, and nobody is silent for it."""
    a, b = some(hosts, stack, 2)
    with netns.open_path(a.pins.path(PIN)) as ns:
        a.links.remove(ns, DEVICE, deadline=soon())
    until(lambda: a.tally.get("beat_builds", "built") == 2, 4.0)
    a.beat.suspect([b.id])
    assert until(lambda: a.beat.pulse(b.id).heard)


def test_a_moved_host_is_found(hosts: Hosts, stack: ExitStack) -> None:
    """Its underlay address changes: its device follows, and others ask it at the new one."""
    a, b = some(hosts, stack, 2)
    b.beat.suspect([a.id])
    assert until(lambda: b.beat.pulse(a.id).heard)
    b.stop()
    ip(b.ns, f"addr del {b.machine.vtep}/24 dev eth0", "addr add 172.30.0.77/24 dev eth0")
    b.vteps = [Address("172.30.0.77")]
    b.start()
    until(lambda: b.tally.get("beat_builds", "built") == 2)
    a.knows(b)
    a.beat.suspect([b.id])
    assert until(lambda: a.beat.pulse(b.id).heard)


def test_a_taken_vni_is_said_once(hosts: Hosts, stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else's device is named in one line; nobody is silent; when it has gone the heartbeat begins."""
    a, b = Beating(hosts, 1, stack), Beating(hosts, 2, stack)
    a.knows(b)
    ip(a.ns, f"link add theirs type vxlan id {PROBE_VNI} dstport {a.port} local {a.machine.vtep}")
    b.start()
    with caplog.at_level(logging.WARNING):
        a.start()
        a.beat.suspect([b.id])
        until(lambda: a.tally.get("beat_builds", "failed") == 2)
    (said,) = [record.getMessage() for record in caplog.records if "heartbeat" in record.getMessage()]
    assert f"VNI {PROBE_VNI}" in said
    assert "device theirs in the host's namespace" in said
    assert a.beat.pulse(b.id) == Pulse()
    assert a.count("sent") == 0
    ip(a.ns, "link del theirs")
    assert until(lambda: a.beat.pulse(b.id).heard, 8.0)


def test_nonsense_changes_nothing(hosts: Hosts, stack: ExitStack) -> None:
    """Frames that are no answers, and answers to nothing, are counted, and a dead host stays dead."""
    a, b = some(hosts, stack, 2)
    with netns.open_path(b.pins.path(PIN)) as ns, ns.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((DEVICE, 0))
        answer = probe_mac(a.id).packed + probe_mac(b.id).packed + bytes.fromhex("0806000108000604") + b"\0\2"
        answer += probe_mac(b.id).packed + probe_address(b.id).packed + probe_mac(a.id).packed + bytes(4)
        # Its device knows where `a` is by having been asked.
        a.beat.suspect([b.id])
        until(lambda: a.count("answered"))
        sock.send(answer)
        until(lambda: a.count("unasked") == 1)
        for cut_off in range(22, len(answer)):
            sock.send(answer[:cut_off])
        until(lambda: a.count("invalid") == len(answer) - 22)
    assert a.count("answered") <= a.count("sent")


def test_full_packets_are_tried_in_the_rotation(hosts: Hosts, stack: ExitStack) -> None:
    """Within a round of the rotation it is known that the path carries the underlay's MTU. Time runs five-fold here."""
    a, b = some(hosts, stack, 2)
    a.stop()
    a.start(lambda: time.monotonic() * 5)
    until(lambda: a.beat.pulse(b.id).carries)
    assert a.count("carried") == 1


def test_a_measurement_tells_whole_narrow_and_silent(hosts: Hosts, stack: ExitStack) -> None:
    """Hosts that share no overlay are measured too: whole packets come back, only small ones, or nothing."""
    a, b, c, d = some(hosts, stack, 4)
    a.targets = {}
    d.knows()
    ip(c.ns, "link set eth0 mtu 1300")
    cut(hosts, d)
    targets = {other.id: other.machine.vtep for other in (b, c, d)}
    assert a.beat.measure(targets, 1450, 1.5) == {b.id: Reach.WHOLE, c.id: Reach.NARROW, d.id: Reach.SILENT}
    began = time.monotonic()
    assert a.beat.measure({b.id: b.machine.vtep, c.id: c.machine.vtep}, 1250, 5.0) == dict.fromkeys(
        (b.id, c.id), Reach.WHOLE
    )
    assert time.monotonic() - began < 1.0, "it ends with the last answer"
    assert a.count("unasked") == 0
    assert a.count("carried") >= 3, "who is slow is asked again"


def test_without_a_device_nothing_is_measured(hosts: Hosts, stack: ExitStack) -> None:
    """It ends after its time, and says that nothing could be sent."""
    (a,) = some(hosts, stack, 1)
    assert a.beat.retire(5.0)
    assert a.beat.measure({HostId.random(): Address("192.0.2.9")}, 1450, 0.3).popitem()[1] is Reach.UNASKED


def test_a_host_that_leaves_takes_its_device_along(hosts: Hosts, stack: ExitStack) -> None:
    """Pin and device are gone, nobody is answered or asked, and the loop makes nothing anew; the next start does."""
    a, b = some(hosts, stack, 2)
    assert a.beat.retire(5)
    assert a.beat.retire(5), "twice is no error"
    assert a.pins.names() == set()
    asked = a.count("sent")  # who is suspected by nobody is asked too, at some time within the first 15 s
    a.beat.suspect([b.id])
    b.beat.suspect([a.id])
    assert b.changes.acquire(timeout=4)
    assert b.beat.pulse(a.id).silent
    assert a.pins.names() == set()
    assert a.count("sent") == asked
    a.stop()
    a.start()
    until(lambda: not b.beat.pulse(a.id).silent)


def test_a_whole_hosts_kernel_answers_when_its_daemon_is_gone(hosts: Hosts) -> None:
    """Two daemons with an overlay between them: one ends, and the other's heartbeat still hears it."""
    one, two = hosts.pair()
    container, other = one.run(), two.run()
    until(lambda: one.knows(other) and two.knows(container))
    me = two.daemon.records.me
    until(lambda: two.daemon.tally.get("beat_builds", "built"))
    two.stop()
    one.daemon.beat.suspect([me])
    assert until(lambda: one.daemon.beat.pulse(me).heard)
    assert not one.daemon.beat.pulse(me).silent


def test_stopped_before_it_began(hosts: Hosts, stack: ExitStack) -> None:
    """A heartbeat that never ran, or was stopped at once, leaves no descriptor; asked afterwards it says nothing."""
    a = Beating(hosts, 1, stack)
    beat = a.start(start=False)
    beat.stop(1)
    beat.suspect([HostId.random()])
    assert beat.pulse(a.id) == Pulse()
    a.beat = None
    a.start()
    a.stop()
