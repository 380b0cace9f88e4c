"""Readings of the daemon's own parts, which are played: who is asked, what gets through, who is in the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.errors import Unavailable
from myoverlay.host.preflight import Asked
from myoverlay.networks import CARRIED, Answer, Cannot, Question
from myoverlay.operate.readings_host import MANY, HostReadings, expected, written
from myoverlay.plan.check_underlay import judge_port, judge_size
from myoverlay.plan.fates import Fate, State
from myoverlay.plan.findings import Level
from myoverlay.plan.measure import Reach
from myoverlay.plan.rows import Rows, Written
from myoverlay.store.typed import Held
from myoverlay.values import Address, Alive, HostId, Mac, Neigh, OverlayName
from tests.pure.kit import ANN, BOB

CYD = HostId("c" * 32)


def vtep(number: int) -> Address:
    return Address(f"192.0.2.{number}")


class Site:
    """The parts of a host that has an overlay of MTU 1450. `carries`: the largest packet that comes back, by host."""

    def __init__(self) -> None:
        self.alive: dict[HostId, Address] | None = {ANN: vtep(1), BOB: vtep(2)}
        self.sharing: dict[HostId, Address] = {}
        self.dead: set[HostId] = set()
        self.carries: dict[HostId, int] = {}
        self.asked: list[tuple[set[HostId], int]] = []
        self.links = SimpleNamespace(address_of=lambda *_, **__: (vtep(1), "eth0", 1500))
        self.presence = SimpleNamespace(alive=self._alive)
        self.peers = SimpleNamespace(where=lambda: self.sharing, known=SimpleNamespace(names={BOB: "bob"}))
        self.fates = SimpleNamespace(all=lambda: {host: Fate(State.DEAD, 0.0) for host in self.dead})
        self.beat = SimpleNamespace(measure=self._measure)
        self.records = SimpleNamespace(me=ANN)
        definition = SimpleNamespace(mtu=1450)
        local = SimpleNamespace(network=SimpleNamespace(definition=definition))
        self.overlays = SimpleNamespace(all=lambda: [local])
        self.pins = None

    def _alive(self, timeout: float) -> Mapping[HostId, Held[Alive]]:
        if self.alive is None:
            raise Unavailable("the store is away")
        return {h: Held(Alive(host=h, name=h, vteps=(at,), version="1"), 1) for h, at in self.alive.items()}

    def _measure(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]:
        self.asked.append((set(targets), size))
        carried = {host: self.carries.get(host, 1450) for host in targets}
        return {
            h: Reach.UNASKED if most < 0 else Reach.WHOLE if size <= most else Reach.NARROW
            for h, most in carried.items()
        }

    def readings(self) -> HostReadings:
        parts: Any = self
        nothing: Any = None
        return HostReadings(parts, nothing, "", 4789)

    def look(self) -> Any:
        return self.readings().peers(time.monotonic() + 60)


def test_everybody_who_should_answer_is_asked_by_full_size() -> None:
    """Those that are alive and those that share an overlay, not this host and none that is known to be dead."""
    site = Site()
    site.sharing, site.dead = {CYD: vtep(3)}, set()
    assert site.look().size == 1450
    assert site.asked == [({BOB, CYD}, 1450)]
    site.dead = {CYD}
    assert [one.name for one in site.look().seen] == ["bob"]
    assert site.asked[-1] == ({BOB}, 1450)


def test_with_the_store_away_those_are_asked_that_were_known() -> None:
    """What is known of those that share an overlay needs no store; where nobody is, nothing is sent."""
    site = Site()
    site.alive, site.sharing = None, {CYD: vtep(3)}
    assert judge_port(site.look()).level is Level.OK
    assert site.asked == [({CYD}, 1450)]
    site.sharing = {}
    assert site.look().seen == ()
    assert len(site.asked) == 1


def test_of_many_hosts_those_that_share_an_overlay_come_first() -> None:
    """No more than can be asked at once, and it is said how many were not."""
    site = Site()
    site.alive = {HostId(f"{number:032x}"): vtep(number % 250) for number in range(1, 200)}
    last = HostId("f" * 32)
    site.sharing = {last: vtep(251)}
    seen = site.look()
    assert len(seen.seen) == MANY
    assert last in site.asked[0][0]
    assert seen.more == 199 + 1 - MANY
    assert f"{seen.more} more were not asked" in judge_port(seen).saw


@pytest.mark.parametrize("most", [600, 1000, 1342, 1433])
def test_what_gets_through_is_found(most: int) -> None:
    """Within 16 bytes below, by few tries; it is what the remedy gives to `-o mtu=`."""
    site = Site()
    site.carries = {BOB: most}
    seen = site.look()
    (one,) = seen.seen
    assert most - 16 <= one.carried <= most
    assert len(site.asked) <= 9
    assert f"`-o mtu={one.carried}`" in judge_size(seen).remedy


def test_what_is_smaller_than_any_mtu_is_not_sought() -> None:
    """Where not even 576 bytes come back the size is left open; without time nothing is tried."""
    site = Site()
    site.carries = {BOB: 100}
    assert site.look().seen[0].carried == 0
    assert len(site.asked) == 2
    site.carries = {BOB: 1000}
    assert site.readings().peers(time.monotonic() + 0.1).seen[0].carried == 0
    assert len(site.asked) == 3


def test_what_could_not_be_sent_is_not_pinged() -> None:
    """No route: the host has nothing to say about the other one."""
    site = Site()
    site.carries = {BOB: -1}
    (one,) = site.look().seen
    assert (one.reach, one.pings) == (Reach.UNASKED, None)


def test_neighbours_are_counted_by_overlay() -> None:
    """Each container here may talk to every other of its overlay, here and elsewhere; nobody here, nobody talks."""

    def local(here: int, there: int) -> Any:
        return SimpleNamespace(endpoints=lambda: [0] * here, view=SimpleNamespace(peers=dict.fromkeys(range(there))))

    overlays: Any = SimpleNamespace(all=lambda: [local(3, 10), local(0, 99), local(1, 0)])
    assert expected(overlays) == 3 * 12


def test_other_hosts_are_asked_once_for_all() -> None:
    """One question: its answers give clocks and clashes by host; who is silent, or too old to say, is told."""
    site = Site()
    old = HostId("d" * 32)
    cannot = Cannot(overlay=OverlayName("web"), holder="device vx9", member=True)
    answers = {
        ANN: Answer(host=ANN, name="ann", clock=0.0),
        BOB: Answer(host=BOB, name="bob", clock=500.0, cannot=(cannot,), looked=1),
        old: Answer(host=old, name="old"),
    }
    asked: list[Question] = []

    def ask(question: Question, deadline: float) -> Asked:
        asked.append(question)
        return Asked(answers, {ANN: "ann", BOB: "bob", CYD: "cyd", old: "old"})

    site.asker, site.wall = SimpleNamespace(ask=ask), lambda: 400.0  # type: ignore[attr-defined]
    definition = SimpleNamespace(vni=7, port=4789)
    networks = [SimpleNamespace(overlay=OverlayName(f"o{number:02}"), definition=definition) for number in range(20)]
    networks[3].overlay = OverlayName("web")
    site.overlays = SimpleNamespace(all=lambda: [SimpleNamespace(network=one) for one in networks])
    seen = site.readings().hosts(time.monotonic() + 9)
    (question,) = asked
    assert (len(question.carry), seen.asked, seen.more) == (CARRIED, CARRIED, 20 - CARRIED)
    assert question.brief
    assert [(one.who, one.ahead) for one in seen.clocks] == [("bob", 100.0)]
    (clash,) = seen.clashes
    assert (clash.host, clash.overlay, clash.holder, clash.member) == ("bob", "web", "device vx9", True)
    assert seen.looked == (("bob", 1), ("old", 0))
    assert seen.silent == ("cyd",)


def test_own_rows_are_those_of_ipv4() -> None:
    """Of each overlay that is open in the kernel; the table of IPv6 is another one."""
    neigh = [
        Neigh(address=Address(text), mac=Mac(f"02:00:00:00:00:0{number}"))
        for number, text in enumerate(("10.5.0.2", "10.5.0.3", "fd00::2"))
    ]
    ground = SimpleNamespace(rows=Written(Rows(frozenset(neigh))))
    overlays: Any = SimpleNamespace(all=lambda: [SimpleNamespace(ground=ground), SimpleNamespace(ground=None)])
    assert written(overlays) == 2
