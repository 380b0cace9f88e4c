"""Asking all hosts, and answering, over a real embedded store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from myoverlay.errors import KernelRefused, Unavailable
from myoverlay.host import preflight as host_preflight
from myoverlay.host.preflight import STALE, Asker, Observer, Respondent
from myoverlay.networks import Answer, Cannot, Carry, Question
from myoverlay.plan.measure import Reach
from myoverlay.store import Put
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.presence import Presence
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive, HostId, OverlayName, Subnet
from tests.pure.kit import ANN, BOB, EVE, PREFIX, Clock, Switch, every, put, soon, together, until

NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}
VTEPS = {ANN: Address("192.0.2.1"), BOB: Address("192.0.2.2"), EVE: Address("192.0.2.3")}


def question(number: int = 1, **changes: Any) -> Question:
    fields: dict[str, Any] = {
        "id": f"{number:032x}",
        "asker": ANN,
        "overlay": OverlayName("web"),
        "area": Subnet("10.5.0.0/16"),
        "vnis": (7, 8),
        "port": 4789,
        "mtu": 1450,
    }
    return Question(**(fields | changes))


class Kernel:
    """Plays links, the trial and the heartbeat of one host."""

    def __init__(self) -> None:
        self.where = (Address("192.0.2.2"), "eth0", 1500)
        self.leads = [Subnet("10.5.7.0/24"), Subnet("10.9.0.0/24"), Subnet("10.0.0.0/8")]
        self.held: dict[int, tuple[bool, str]] = {}
        self.trouble: Exception | None = None
        self.tried: list[int] = []
        self.reached: dict[HostId, Reach] = {}
        self.sizes: list[int] = []

    def routes(self, *, deadline: float) -> tuple[Subnet, ...]:
        return tuple(self.leads)

    def address_of(self, name_or_address: str, *, deadline: float) -> tuple[Address, str, int]:
        return self.where

    def taken(self, vni: int, port: int, local: Address, deadline: float) -> tuple[bool, str] | None:
        self.tried.append(vni)
        if self.trouble is not None:
            raise self.trouble
        return self.held.get(vni)

    def carried(self, asked: tuple[Carry, ...], local: Address, deadline: float) -> tuple[tuple[Cannot, ...], int]:
        held = [(one, self.held[one.vni]) for one in asked if one.vni in self.held]
        return tuple(Cannot(overlay=one.overlay, holder=who, is_port=port) for one, (port, who) in held), len(asked)

    def reach(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]:
        self.sizes.append(size)
        return {host: self.reached.get(host, Reach.WHOLE) for host in targets}


class Site:
    """Three hosts on a store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = Clock(1000.0)
        self.tally = Tally()
        self.kernel = Kernel()
        self.own: set[tuple[str, int]] = set()

    def live(self, *hosts: HostId) -> None:
        for host in hosts:
            session = self.store.open_session(NAMES[host], 10.0)
            alive = Alive(host=host, name=NAMES[host], vteps=(VTEPS[host],))
            assert Presence(self.store, PREFIX, host).announce(alive, session, None)

    def records(self, host: HostId, store: Any = None) -> NetworkRecords:
        return NetworkRecords(store or self.store, PREFIX, host)

    def observer(self, host: HostId = BOB) -> Observer:
        return Observer(
            host,
            NAMES[host],
            True,
            "",
            self.kernel,
            self.kernel,
            self.kernel.reach,
            Presence(self.store, PREFIX, host),
            lambda overlay, vni: (overlay, vni) in self.own,
            self.kernel.carried,
            lambda: 1700.5,
        )

    def answerer(
        self, host: HostId = BOB, store: Any = None, observe: Callable[[Question], Answer] | None = None
    ) -> Respondent:
        return Respondent(
            self.records(host, store),
            observe or self.observer(host).observe,
            lambda: True,
            lambda: None,
            self.tally,
            self.clock,
        )

    def answers(self, asked: Question) -> dict[HostId, Answer]:
        seen = self.records(ANN).answers(asked.id, 0, timeout=1)
        return dict(seen.answers)  # type: ignore[union-attr]


def test_what_cannot_be_carried_is_told_and_nobody_is_reached_for(site: Site) -> None:
    """Asked for overlays as they stand: those that somebody is in the way of are named; `brief` sends no packet."""
    site.kernel.held = {9: (False, "device vx9 in the host's namespace")}
    carry = tuple(Carry(overlay=OverlayName(name), vni=vni, port=4789) for name, vni in (("red", 9), ("blue", 10)))
    said = site.observer(BOB).observe(question(vnis=(), carry=carry, brief=True))
    assert [(one.overlay, one.holder) for one in said.cannot] == [("red", "device vx9 in the host's namespace")]
    assert (said.looked, site.kernel.sizes, site.kernel.tried) == (2, [], [])
    assert site.observer(BOB).observe(question()).looked == 0
    assert site.kernel.sizes


@pytest.fixture
def site(store: SqliteStore) -> Site:
    site = Site(store)
    site.live(ANN, BOB, EVE)
    return site


def test_an_answer_is_what_the_host_sees(site: Site) -> None:
    """Routes that matter, VNIs that are taken, what the underlay carries, and which hosts it reaches how."""
    site.kernel.held = {7: (False, "device x"), 8: (True, "a program")}
    site.kernel.reached = {ANN: Reach.NARROW, EVE: Reach.UNASKED}
    site.own = {("web", 9)}
    said = site.observer().observe(question(vnis=(7, 8, 9), mtu=8950))
    assert said == Answer(
        host=BOB,
        name="bob",
        follows=True,
        routes=(Subnet("10.5.7.0/24"), Subnet("10.0.0.0/8")),
        taken={7: "device x", 0: "a program"},
        carries=1450,
        silent=(EVE,),
        narrow=(ANN,),
        clock=1700.5,
    )
    assert site.kernel.tried == [7, 8], "what the host has by right is not tried"
    assert site.kernel.sizes == [1450], "it cannot send larger ones"


def test_what_cannot_be_found_out_is_said(site: Site) -> None:
    """A kernel that says no to an attempt does not keep the rest from being told."""
    site.kernel.trouble = KernelRefused("making trial", 1, "Operation not permitted")
    said = site.observer().observe(question())
    assert said.unsure == ("making trial: Operation not permitted",)
    assert said.carries == 1450
    assert said.routes


def test_every_question_is_answered_once(site: Site) -> None:
    """New ones as they come; one that is there still is not answered again, one that was taken back not at all."""
    answerer = site.answerer()
    site.records(ANN).ask(question(1))
    answerer.step(0.01)
    assert site.answers(question(1)).keys() == {BOB}
    site.records(ANN).ask(question(2))
    answerer.step(0.01)
    answerer.step(0.01)
    assert site.tally.get("asked", "answered") == 2
    site.records(ANN).take_back(question(1).id)
    site.records(ANN).take_back(question(2).id)
    assert [key for key in every(site.store) if "/asks/" in key or "/answers/" in key] == []


def test_no_answer_outlives_its_question(site: Site) -> None:
    """A question that is taken back while a host looks is not answered any more."""
    records = site.records(ANN)

    def slow(asked: Question) -> Answer:
        records.take_back(asked.id)
        return Answer(host=BOB, name="bob")

    records.ask(question())
    site.answerer(observe=slow).step(0.01)
    assert site.tally.get("asked", "late") == 1
    assert [key for key in every(site.store) if "/answers/" in key] == []


def test_bad_questions_stop_nothing(site: Site) -> None:
    """Nonsense, another's id, too many VNIs: named in the quarantine, and a good one beside them is answered."""
    answerer = site.answerer()
    asks = f"{PREFIX}/incarnation/asks"
    put(site.store, f"{asks}/{'f' * 32}", b"{")
    put(site.store, f"{asks}/x", b'{"id":"%s"}' % (b"0" * 32))
    put(site.store, f"{asks}/{'e' * 32}", every(site.store).get("none", b"[1]"))
    site.records(ANN).ask(question())
    answerer.step(0.01)
    assert site.answers(question()).keys() == {BOB}
    assert len(answerer._networks.quarantine) == 3


def test_what_an_asker_left_is_taken_away(site: Site) -> None:
    """It was killed: after a minute by the own clock its question goes, with answers; so do answers without one."""
    answerer = site.answerer()
    site.records(ANN).ask(question(1))
    lonely = Put(f"{PREFIX}/answers/{question(2).id}/{EVE}", b"{}")
    strange = Put(f"{PREFIX}/answers/hello", b"{}")
    site.store.commit([lonely, strange])
    answerer.step(0.01)
    site.clock.now += STALE / 2
    answerer.step(0.01)
    assert site.answers(question(1)).keys() == {BOB}
    site.clock.now += STALE
    answerer.step(0.01)
    left = [key for key in every(site.store) if "/asks/" in key or "/answers/" in key]
    assert left == [strange.key], "what has not our form is somebody else's"
    assert site.tally.get("asked", "stale") == 1


def test_all_that_are_there_are_asked_and_waited_for(site: Site) -> None:
    """The asker gets all answers, long before its patience ends, and leaves nothing in the store."""
    wire = Switch(site.store)
    wire.patience = 0.1  # so that the loops hear that they are to end
    loops = [site.answerer(host, wire) for host in (ANN, BOB, EVE)]
    for loop in loops:
        loop.start()
    asked = Asker(site.records(ANN), Presence(site.store, PREFIX, ANN)).ask(question(), soon())
    for loop in loops:
        loop.stop(10)
    assert asked.answers.keys() == {ANN, BOB, EVE}
    assert asked.names == NAMES
    assert [key for key in every(site.store) if "/asks/" in key or "/answers/" in key] == []


def test_a_host_that_does_not_answer_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience the others' answers are there, and its name is."""
    monkeypatch.setattr(host_preflight, "PATIENCE", 0.3)
    wire = Switch(site.store)
    wire.patience = 0.1
    loop = site.answerer(BOB, wire)
    loop.start()
    asked = Asker(site.records(ANN), Presence(site.store, PREFIX, ANN)).ask(question(), soon())
    loop.stop(10)
    assert asked.answers.keys() == {BOB}
    assert asked.names == NAMES


def test_who_is_not_there_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer under the id of a host that was not asked counts for nothing."""
    monkeypatch.setattr(host_preflight, "PATIENCE", 0.3)
    records, stranger = site.records(ANN), HostId("9" * 32)
    asker = Asker(records, Presence(site.store, PREFIX, ANN))

    def intrude() -> None:
        seen = until(lambda: list(records.questions(0, timeout=1).questions.values()))  # type: ignore[union-attr]
        assert site.records(stranger).answer(seen[0], Answer(host=stranger, name="x" * 9999))
        assert site.records(EVE).answer(seen[0], Answer(host=BOB, name="bob"))

    asked, _ = together(lambda: asker.ask(question(), soon()), intrude)
    assert asked.answers == {}


def test_the_store_away_leaves_the_question_to_others(site: Site) -> None:
    """An asker that is cut off raises; what it left is taken away as a killed one's."""
    wire: Any = Switch(site.store)
    asker = Asker(site.records(ANN, wire), Presence(site.store, PREFIX, ANN))

    def cut(name: str, what: Any) -> None:
        wire.off = name == "wait"
        if wire.off:
            raise Unavailable("cut")

    wire.before = cut
    with pytest.raises(Unavailable):
        asker.ask(question(), soon())
    answerer = site.answerer()
    answerer.step(0.01)
    site.clock.now += STALE
    answerer.step(0.01)
    assert [key for key in every(site.store) if "/asks/" in key or "/answers/" in key] == []


def test_a_host_that_no_longer_follows_takes_back_what_it_said(site: Site) -> None:
    """Once it may act, and again where the store did not let it; then never more."""
    done: list[int] = []
    may_act = False

    def tidy() -> None:
        done.append(1)
        if len(done) == 1:
            raise Unavailable("cut")

    observe = site.observer().observe
    answerer = Respondent(
        site.records(BOB), observe, lambda: may_act, lambda: None, site.tally, site.clock, tidy
    )  # fmt: skip
    answerer.step(0.01)
    began = time.monotonic()
    answerer.step(30.0)
    assert time.monotonic() - began < 10, "what is to be done first waited for a question"
    assert done == []
    may_act = True
    with pytest.raises(Unavailable):
        answerer.step(0.01)
    for _ in range(3):
        answerer.step(0.01)
    assert done == [1, 1]
