"""Questions about paths over a real embedded store: who answers, who is waited for, and what is left."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from myoverlay.errors import Unavailable
from myoverlay.host import paths as host_paths
from myoverlay.host.paths import PathAnswering, PathAsker
from myoverlay.host.preflight import STALE, Respondent
from myoverlay.path import End, PathAnswer, PathQuestion
from myoverlay.store.networks import NetworkRecords, Questions
from myoverlay.store.paths import PathRecords
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, Mac, OverlayName
from tests.pure.kit import ANN, BOB, EVE, PREFIX, Clock, Switch, every, put, soon

WHERE = {ANN: "1", BOB: "2", EVE: "3"}


def end(host: HostId) -> End:
    number = WHERE[host]
    return End(address=Address(f"10.5.0.{number}"), mac=Mac(f"02:42:0a:05:00:0{number}"), vtep=Address(f"192.0.2.{number}"), host=host)  # fmt: skip # noqa: E501


def question(number: int = 1, asker: HostId = ANN, source: HostId = ANN, target: HostId = BOB) -> PathQuestion:
    return PathQuestion(
        id=f"{number:032x}", asker=asker, overlay=OverlayName("web"), source=end(source), target=end(target)
    )  # fmt: skip


class Site:
    """Hosts that answer on one store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = Clock(1000.0)
        self.tally = Tally()
        self.looked: list[tuple[HostId, str]] = []

    def answering(
        self, host: HostId, look: Callable[[PathQuestion], PathAnswer | None] | None = None
    ) -> PathAnswering[PathQuestion, PathAnswer]:
        def seen(asked: PathQuestion) -> PathAnswer:
            self.looked.append((host, asked.id))
            return PathAnswer(host=host, name=WHERE[host])

        mine = lambda asked: host in asked.hosts()  # noqa: E731
        return PathAnswering(self.records(host), look or seen, mine, self.tally, self.clock)

    def records(self, host: HostId) -> PathRecords:
        return PathRecords(self.store, PREFIX, host)

    def hear(self, host: HostId, answering: PathAnswering[PathQuestion, PathAnswer], may: bool = True) -> None:
        seen = NetworkRecords(self.store, PREFIX, host).questions(0, timeout=1)
        assert isinstance(seen, Questions)
        answering.hear(seen.entries, may)

    def answers(self, asked: PathQuestion) -> set[HostId]:
        seen = self.records(ANN).answers(asked.id, 0, timeout=1)
        return set(seen.answers)  # type: ignore[union-attr]


@pytest.fixture
def site(store: SqliteStore) -> Site:
    return Site(store)


def test_only_those_it_is_about_answer(site: Site) -> None:
    """Of three hosts the two of the path answer, each once; who asked is not asked by himself."""
    asked = question(asker=EVE)
    site.records(EVE).ask(asked)
    everyone = {host: site.answering(host) for host in (ANN, BOB, EVE)}
    for _ in range(3):
        for host, answering in everyone.items():
            site.hear(host, answering)
    assert site.looked == [(ANN, asked.id), (BOB, asked.id)]
    assert site.answers(asked) == {ANN, BOB}
    mine = question(2)
    site.records(ANN).ask(mine)
    site.hear(ANN, everyone[ANN])
    assert site.looked[2:] == []


def test_who_has_nothing_to_say_writes_nothing(site: Site) -> None:
    """And is not asked by the same question again."""
    site.records(ANN).ask(question())
    before, asked = every(site.store), []
    bob = site.answering(BOB, lambda one: asked.append(one.id))  # type: ignore[func-returns-value]
    site.hear(BOB, bob)
    site.hear(BOB, bob)
    assert every(site.store) == before
    assert len(asked) == 1


def test_a_host_that_may_not_act_answers_later(site: Site) -> None:
    """Before it is known that nobody else has this host's id it says nothing."""
    asked = question()
    site.records(ANN).ask(asked)
    bob = site.answering(BOB)
    site.hear(BOB, bob, may=False)
    assert site.looked == []
    site.hear(BOB, bob)
    assert site.answers(asked) == {BOB}


def test_no_answer_outlives_its_question(site: Site) -> None:
    """Taken back while somebody looks: his answer is not written."""
    asked = question()
    site.records(ANN).ask(asked)

    def slow(one: PathQuestion) -> PathAnswer:
        site.records(ANN).take_back(one.id)
        return PathAnswer(host=BOB, name="bob")

    site.hear(BOB, site.answering(BOB, slow))
    assert every(site.store) == {}
    assert site.tally.get("asked", "late") == 1


def test_who_asks_gets_all_answers_and_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker waits for each host until it answered; then neither question nor answers are there."""
    bob = Respondent(
        NetworkRecords(site.store, PREFIX, BOB), lambda _: pytest.fail("no such question"), lambda: True, lambda: None,
        site.tally, others=(site.answering(BOB),),
    )  # fmt: skip
    put(site.store, f"{PREFIX}/incarnation", b"{}")
    thread = threading.Thread(target=lambda: [bob.step(0.5) for _ in range(10) if not site.looked], daemon=True)
    thread.start()
    found = PathAsker(site.records(ANN)).ask(question(), [BOB], soon())
    thread.join(10)
    assert {host: answer.name for host, answer in found.items()} == {BOB: "2"}
    assert every(site.store) == {f"{PREFIX}/incarnation": b"{}"}


def test_who_does_not_answer_is_waited_for_no_longer_than_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there: the time is over, what came by then is returned, and the question is taken back."""
    monkeypatch.setattr(host_paths, "PATIENCE", 0.2)
    assert PathAsker(site.records(ANN)).ask(question(), [BOB], soon()) == {}
    assert every(site.store) == {}


def test_without_the_store_it_is_said(site: Site) -> None:
    """Unavailable is raised, not taken for silence."""
    switch = Switch(site.store)
    switch.off = True
    with pytest.raises(Unavailable):
        PathAsker(PathRecords(switch, PREFIX, ANN)).ask(question(), [BOB], soon())  # type: ignore[arg-type]


def test_what_somebody_left_is_taken_away(site: Site) -> None:
    """A question that stays for a minute is nobody's any more."""
    asked = question()
    site.records(ANN).ask(asked)
    bob = site.answering(BOB)
    site.hear(BOB, bob)
    site.clock.now += STALE - 1
    bob.sweep(STALE)
    assert every(site.store)
    site.clock.now += 2
    bob.sweep(STALE)
    assert every(site.store) == {}
    assert site.tally.get("asked", "stale") == 1


def test_answers_without_a_question_go_at_the_second_look(site: Site) -> None:
    """Whoever asked was killed while he took back: a minute later they go; what is no answer of ours stays."""
    put(site.store, f"{PREFIX}/path-answers/{5:032x}/{BOB}", b"{}")
    put(site.store, f"{PREFIX}/path-answers/mine/{BOB}", b"1")
    bob = site.answering(BOB)
    bob.sweep(STALE)
    assert len(every(site.store)) == 2
    bob.sweep(STALE)
    assert every(site.store) == {f"{PREFIX}/path-answers/mine/{BOB}": b"1"}
    bob.sweep(STALE)


@pytest.mark.parametrize("bad", [b"", b"{}", b"\xff", b'{"id": "x"}', b"[" * 5000])
def test_a_bad_question_is_quarantined(site: Site, bad: bytes) -> None:
    """What an enemy writes there is passed over, named, and stops nobody from the next."""
    put(site.store, f"{PREFIX}/incarnation/paths/{1:032x}", bad)
    asked = question(2)
    site.records(ANN).ask(asked)
    bob = site.answering(BOB)
    site.hear(BOB, bob)
    assert [one for _, one in site.looked] == [asked.id]


def test_an_answer_under_another_name_is_not_believed(site: Site) -> None:
    """What a key says must be what it is called by."""
    asked = question()
    site.records(ANN).ask(asked)
    forged = b'{"host": "%s", "name": "bob"}' % BOB.encode()
    put(site.store, f"{PREFIX}/path-answers/{asked.id}/{EVE}", forged)
    assert site.answers(asked) == set()
    put(site.store, f"{PREFIX}/path-answers/{asked.id}/{BOB}", forged)
    assert site.answers(asked) == {BOB}
