"""What each host sees of the others, asked for and told over a real embedded store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from myoverlay.host.outlooks import IDLE, ROUND, TURN, Onlooker, OutlookAnswering
from myoverlay.outlook import ROWS, TABLES, About, Glance, Look, Outlook, TableRow, Tables
from myoverlay.store import MAX_VALUE, Reset, Unchanged
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.outlooks import OutlookRecords
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, OverlayName, encode
from tests.pure.kit import ANN, BOB, EVE, PREFIX, Clock, Switch, every, put, soon

WEB = OverlayName("web")


class Town:
    """Hosts on one store; `ann` has a page. Each is asked what it sees as its thread `preflight` would."""

    def __init__(self, store: SqliteStore, hosts: Iterable[HostId] = (ANN, BOB, EVE)) -> None:
        self.store = store
        self.clock = Clock(1000.0)
        self.tally = Tally()
        self.present = set(hosts) - {ANN}
        self.looked: list[tuple[HostId, tuple[About, ...]]] = []
        self.wires = {host: Switch(store) for host in hosts}
        self.hosts = {
            host: OutlookAnswering(self.records(host), self._look(host), self.tally, self.clock) for host in hosts
        }
        self.page = Onlooker(
            self.records(ANN), self._look(ANN), lambda: frozenset(self.present), self.tally, self.clock
        )  # fmt: skip

    def records(self, host: HostId) -> OutlookRecords:
        wire: Any = self.wires[host]
        return OutlookRecords(wire, PREFIX, host)

    def _look(self, host: HostId) -> Any:
        def look(about: Iterable[About]) -> Outlook:
            self.looked.append((host, tuple(about)))
            glances = tuple(Glance(other, "alive", 0.001, 0.0, True) for other in sorted(self.wires) if other != host)
            tables = tuple(Tables(overlay=one.overlay, trouble=host) for one in dict.fromkeys(about))[:TABLES]
            return Outlook(host=host, name=host[:1], version="1", mtu=1500, glances=glances, tables=tables)

        return look

    def hear(self, *but: HostId) -> None:
        """Every host that is there hears what is asked."""
        for host, answering in self.hosts.items():
            if host not in but:
                seen = NetworkRecords(self.store, PREFIX, host).questions(0, timeout=1)
                assert not isinstance(seen, Unchanged | Reset)
                answering.hear(seen.entries, True)

    def stored(self) -> set[str]:
        return {key.removeprefix(f"{PREFIX}/") for key in every(self.store, PREFIX)}

    def turn(self, seconds: float = 0.4, *but: HostId) -> None:
        """The page's thread, the hosts', and the page's again later."""
        self.page.step()
        self.hear(*but)
        self.clock.now += seconds
        self.page.step()


@pytest.fixture
def town(store: SqliteStore) -> Town:
    put(store, f"{PREFIX}/incarnation", b"x")
    return Town(store)


def test_while_nobody_looks_nothing_is_written(town: Town) -> None:
    """No question, no answer; after the first look at the store it is not even read."""
    for _ in range(3):
        town.turn(60)
    assert town.stored() == {"incarnation"}
    calls = [len(wire.calls) for wire in town.wires.values()]
    town.turn(60)
    assert [len(wire.calls) for wire in town.wires.values()] == calls


def test_who_looks_is_told_what_all_see(town: Town) -> None:
    """The others by their answers, this host by itself; all within one round."""
    town.page.view()
    town.turn()
    assert set(town.page.seen) == {ANN, BOB, EVE}
    seen = town.page.seen[BOB]
    assert seen.outlook.glances == (Glance(ANN, "alive", 0.001, 0.0, True), Glance(EVE, "alive", 0.001, 0.0, True))
    assert seen.at == town.clock.now
    assert town.page.seen[ANN].outlook.host == ANN


def test_when_nobody_looks_any_more_all_keys_go(town: Town) -> None:
    """The question by who asked, the answers by those who told."""
    town.page.view()
    town.turn()
    assert town.stored() == {"incarnation", f"incarnation/looks/{ANN}", f"outlooks/{BOB}", f"outlooks/{EVE}"}
    town.clock.now += IDLE + 1
    town.page.step()
    assert town.page.seen == {}
    town.hear()
    assert town.stored() == {"incarnation"}


def test_what_a_host_told_that_died_goes_too(town: Town) -> None:
    """It cannot take it back itself; one that is there does, and keeps its own until then."""
    town.page.view()
    town.turn()
    town.present.discard(EVE)
    town.clock.now += IDLE + 1
    town.page.step()
    assert f"outlooks/{EVE}" not in town.stored()
    assert f"outlooks/{BOB}" in town.stored()


def test_a_page_that_stays_open_asks_once_in_a_round(town: Town) -> None:
    """However often it asks for data: a question in 10 s, one write of each host, and a few listings."""
    town.page.view()
    town.turn()
    before = {host: wire.count("commit") for host, wire in town.wires.items()}
    lists = town.wires[ANN].count("list")
    for _ in range(100):
        town.page.view()
        town.turn(ROUND / 100)
    assert {host: town.wires[host].count("commit") - before[host] for host in (ANN, BOB, EVE)} == {
        ANN: 1,
        BOB: 1,
        EVE: 1,
    }
    assert town.wires[ANN].count("list") - lists <= 3


def test_a_hundred_hosts_write_ten_times_a_second(store: SqliteStore) -> None:
    """Each once in the round of 10 s, and the one who looks lists them a few times: nothing grows with the square."""
    put(store, f"{PREFIX}/incarnation", b"x")
    town = Town(store, [ANN, *(HostId(f"{n:032x}") for n in range(1, 101))])
    town.page.view()
    town.turn()
    assert len(town.page.seen) == 101
    for wire in town.wires.values():
        wire.calls.clear()
    for _ in range(20):
        town.page.view()
        town.turn(1.0)
    calls = [name for wire in town.wires.values() for name, _ in wire.calls]
    assert len(calls) <= 20 * 12, f"{len(calls)} calls in 20 s"
    assert calls.count("commit") <= 2 * 101


def test_with_more_hosts_the_rounds_are_longer(store: SqliteStore) -> None:
    """200 hosts are asked every 20 s, any number at least every 30: before others take the question for forgotten."""
    for hosts, pause in ((200, 20.0), (2000, 30.0)):
        town = Town(store, [ANN])
        town.present = {HostId(f"{n:032x}") for n in range(hosts)}
        assert town.page._pause() == pause


def test_tables_are_asked_of_the_host_alone(town: Town) -> None:
    """Another host does not tell anew for that; the tables come by the next reading, and again after a while."""
    town.page.view()
    town.turn()
    town.looked.clear()
    about = About(host=BOB, overlay=WEB, keys=("10.5.0.2",))
    town.clock.now += 1
    town.page.view([about])
    town.turn()
    others = [(host, [(one.overlay, one.keys) for one in told]) for host, told in town.looked if host != ANN]
    assert others == [(BOB, [(WEB, ("10.5.0.2",))])]
    tables = town.page.seen[BOB].outlook.on(WEB)
    assert tables is not None
    assert tables.trouble == BOB
    town.looked.clear()
    town.clock.now += TURN
    town.page.view([about])
    town.turn()
    assert [host for host, _ in town.looked if host != ANN] == [BOB]


def test_who_chooses_fast_does_not_ask_fast(town: Town) -> None:
    """A hundred different pairs within a second are three questions at most, and the last of them is asked."""
    town.page.view()
    town.turn()
    before = town.wires[ANN].count("commit")
    for number in range(100):
        town.page.view([About(host=BOB, overlay=WEB, keys=(str(number),))])
        town.turn(0.01)
    assert town.wires[ANN].count("commit") - before <= 3
    town.turn(0.5)
    town.turn()
    assert "99" in {key for one in town.records(BOB).looks(_below(town))[ANN].value.about for key in one.keys}


def test_own_tables_are_not_asked_for_through_the_store(town: Town) -> None:
    """They are read here, once a second while somebody looks at them."""
    town.page.view([About(host=ANN, overlay=WEB)])
    town.turn()
    assert (ANN, (About(host=ANN, overlay=WEB),)) in town.looked
    assert town.page.seen[ANN].outlook.on(WEB) is not None
    assert town.records(BOB).looks(_below(town))[ANN].value.about == ()


def _below(town: Town) -> Any:
    return town.store.list(f"{PREFIX}/incarnation").entries


def test_a_host_that_does_not_answer_is_not_told_of(town: Town) -> None:
    """It is absent, and is read for no longer than a round has readings."""
    town.page.view()
    town.turn(0.4, EVE)
    assert set(town.page.seen) == {ANN, BOB}
    town.clock.now += 5
    town.page.view()
    for _ in range(3):
        town.page.step()
    lists = town.wires[ANN].count("list")
    town.clock.now += 1
    town.page.step()
    assert town.wires[ANN].count("list") == lists


def test_two_who_look_cost_each_host_one_answer_each(town: Town) -> None:
    """An answer is for all; what both ask of one host is told together."""
    other = OutlookRecords(town.store, PREFIX, EVE)
    look = Look(id="1" * 32, asker=EVE, about=(About(host=BOB, overlay=OverlayName("db")),))
    other.ask(look)
    town.page.view([About(host=BOB, overlay=WEB)])
    town.turn()
    tables = town.page.seen[BOB].outlook.tables
    assert {one.overlay for one in tables} == {"db", "web"}
    before = town.wires[BOB].count("commit")
    town.hear()
    assert town.wires[BOB].count("commit") == before


def test_a_question_that_nobody_renews_is_ended_by_those_who_hear_it(town: Town) -> None:
    """Whoever looked was killed: after a while the key goes, and then the answers."""
    town.page.view()
    town.turn()
    town.hosts[BOB].sweep(60)
    assert f"incarnation/looks/{ANN}" in town.stored()
    town.clock.now += 61
    town.hosts[BOB].sweep(60)
    town.hear()
    assert town.stored() == {"incarnation"}
    assert town.tally.get("asked", "stale") == 1


def test_a_question_that_is_renewed_is_not_ended(town: Town) -> None:
    """However long a page stays open."""
    for _ in range(10):
        town.page.view()
        town.turn(ROUND)
        town.hosts[BOB].sweep(60)
    assert f"incarnation/looks/{ANN}" in town.stored()


def test_what_a_former_run_left_goes_at_the_start(town: Town, store: SqliteStore) -> None:
    """One that was killed while somebody looked at its page."""
    town.page.view()
    town.turn()
    again = Town(store)
    again.page.step()
    again.hear()
    assert again.stored() == {"incarnation"}


def test_a_host_that_may_not_act_tells_nothing(town: Town) -> None:
    """A clone, before it is known to be one, writes nothing under the id that both have."""
    town.page.view()
    town.page.step()
    town.hosts[BOB].hear(_below(town), False)
    assert f"outlooks/{BOB}" not in town.stored()


def test_who_leaves_takes_back_both(town: Town) -> None:
    """Its question and its answer."""
    OutlookRecords(town.store, PREFIX, BOB).ask(Look(id="2" * 32, asker=BOB))
    town.page.view()
    town.turn()
    town.hosts[BOB].retire(soon())
    assert not [key for key in town.stored() if BOB in key]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b'{"host": 3}',
        b'{"host": "' + EVE.encode() + b'"}',
        b'{"host": "' + BOB.encode() + b'", "glances": [["' + ANN.encode() + b'", "<b>alive</b>"]]}',
        b'{"host": "' + BOB.encode() + b'", "glances": [["' + ANN.encode() + b'", "alive", -1]]}',
        b'{"host": "' + BOB.encode() + b'", "glances": [["' + ANN.encode() + b'", "alive", null, 2]]}',
        b'{"host": "' + BOB.encode() + b'", "name": "' + b"x" * 300 + b'"}',
    ],
)
def test_nonsense_in_the_store_is_set_aside(town: Town, value: bytes) -> None:
    """What is no outlook, or one of another host, is left out; the others are told of."""
    town.page.view()
    town.page.step()
    town.hear()
    put(town.store, f"{PREFIX}/outlooks/{BOB}", value)
    town.clock.now += 0.4
    town.page.step()
    assert set(town.page.seen) == {ANN, EVE}


def test_the_largest_outlook_fits_into_the_store() -> None:
    """All rows, ports and glances that are allowed, each as long as is allowed."""
    rows = tuple(TableRow("arp", f"{n:04}".ljust(39, "f"), "02:42:0a:05:00:02", "permanent") for n in range(ROWS))
    ports = {Address(f"10.5.{n // 256}.{n % 256}"): f"p{n:012}" for n in range(1024)}
    tables = tuple(Tables(overlay=OverlayName(name * 63), rows=rows, ports=ports) for name in "ab")
    glances = tuple(Glance(HostId(f"{n:032x}"), "cut off", 0.123456789, 0.03125, False) for n in range(1024))
    whole = Outlook(host=ANN, name="n" * 255, version="v" * 64, mtu=65535, glances=glances, tables=tables)
    assert len(encode(whole)) <= MAX_VALUE
