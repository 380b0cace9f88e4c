"""Plans, what hosts say of them, and hostile keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.errors import Unreadable
from myoverlay.networks import Answer, Became, HeldNetwork, NetworkPlan, Question, fresh_id, plain
from myoverlay.store import Put
from myoverlay.store.consul import ConsulStore
from myoverlay.store.estate import Estate
from myoverlay.store.networks import NetworkRecords, Plans
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, HostId, OverlayName, Subnet, decoder, encode
from tests.pure.kit import ANN, BOB, PREFIX, every, put
from tests.pure.store.fake_consul import FakeConsul

WEB = OverlayName("web")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


def plan(**changes: Any) -> NetworkPlan:
    fields: dict[str, Any] = {
        "name": WEB,
        "id": fresh_id(),
        "subnet": Subnet("10.5.0.0/24"),
        "ip_range": Subnet("10.5.0.128/25"),
        "gateway": Address("10.5.0.1"),
        "aux": {"dns": Address("10.5.0.2")},
        "options": {"vni": "7"},
        "labels": {"team": "shop"},
        "internal": True,
        "maker": "h1",
        "made_at": 5.5,
    }
    return NetworkPlan(**(fields | changes))


def held(host: HostId = ANN, **changes: Any) -> HeldNetwork:
    return HeldNetwork(**({"host": host, "network": WEB, "plan": "1" * 32, "became": Became.HELD} | changes))


def records(store: SqliteStore, me: HostId = ANN) -> NetworkRecords:
    return NetworkRecords(store, PREFIX, me)


@pytest.mark.parametrize("value", [plan(), plan(going=True, forced=True), held(said="x", became=Became.CONFLICT)])
def test_values_survive_their_json(value: Any) -> None:
    """What is written is what is read."""
    assert decoder(type(value))(encode(value)) == value


def test_a_plan_is_written_by_compare_and_set(store: SqliteStore) -> None:
    """The first of two wins; what changed meanwhile is not dropped."""
    ours, theirs = records(store), records(store, BOB)
    assert ours.write(None, plan())
    assert not theirs.write(None, plan())
    one, other = ours.plan(WEB), theirs.plan(WEB)
    assert one is not None
    assert other is not None
    assert theirs.write(other, plan(going=True))
    assert not ours.write(one, plan(internal=False))
    assert not ours.drop(one)
    assert set(ours.plans().plans) == {WEB}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[" * 5000,
        b"\xff\xfe",
        encode(plan(name=OverlayName("db"))),
        encode(plan()).replace(b"10.5.0.0/24", b"10.5.0.0/99"),
        encode(plan()).replace(b'"team"', b'"' + b"x" * 300 + b'"'),
        encode(plan()).replace(b'"shop"', b'"a\\nb"'),
        encode(plan()).replace(b"10.5.0.128/25", b"10.6.0.0/25"),
        encode(plan()).replace(b'"gateway":"10.5.0.1"', b'"gateway":"10.6.0.1"'),
        encode(plan()).replace(b'"made_at":5.5', b'"made_at":"x"'),
    ],
)
def test_a_hostile_plan_is_named_and_passed_over(store: SqliteStore, raw: bytes) -> None:
    """It is unreadable, it is no absence, and the others are read."""
    put(store, f"{PREFIX}/networks/web", raw)
    reader = records(store)
    assert reader.write(None, plan(name=OverlayName("good")))
    seen = reader.plans()
    assert set(seen.plans) == {OverlayName("good")}
    assert seen.unreadable == {"web"}
    assert f"{PREFIX}/networks/web" in reader.quarantine
    with pytest.raises(Unreadable):
        reader.plan(WEB)


@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(raw: bytes) -> None:
    """Whatever a key holds: a value, or ValueError."""
    for kind in (NetworkPlan, HeldNetwork, Question, Answer):
        try:
            decoder(kind)(raw)
        except ValueError:
            continue


def test_what_hosts_say_is_theirs_alone(store: SqliteStore) -> None:
    """A key under another host's name, or about another network, counts for nothing; lists beside it do not matter."""
    records(store).say(held())
    records(store, BOB).say(held(BOB, became=Became.FAILED, said="no"))
    put(store, f"{PREFIX}/hosts/{BOB}/networks/other", encode(held(ANN)))
    put(store, f"{PREFIX}/hosts/{BOB}/overlays/networks", b"{}")
    put(store, f"{PREFIX}/hosts/{BOB}/networks", b"{}")
    everywhere = records(store).everywhere()
    assert everywhere == {WEB: {ANN: held(), BOB: held(BOB, became=Became.FAILED, said="no")}}
    assert records(store).held() == {"web": held()}
    records(store).unsay("web")
    records(store).unsay("web")
    assert records(store).held() == {}


def test_a_bad_key_of_ones_own_is_known_as_one(store: SqliteStore) -> None:
    """It is to be written over, or taken away."""
    put(store, f"{PREFIX}/hosts/{ANN}/networks/web", b"{")
    assert records(store).held() == {"web": None}


def test_a_dead_host_is_buried_with_what_it_said(store: SqliteStore) -> None:
    """By another host, and not where it is there again."""
    records(store, BOB).say(held(BOB))
    presence = Presence(store, PREFIX, ANN)
    Estate(Records(store, PREFIX, ANN), presence, BOB).leave_networks()
    assert every(store, PREFIX) == {}


def test_a_watch_hears_plans_and_questions(store: SqliteStore) -> None:
    """Each by its own prefix; a question lies beside the key that is always there."""
    reader = records(store)
    start = reader.wait(0, timeout=1)
    asks = reader.questions(0, timeout=1)
    reader.write(None, plan())
    assert set(reader.wait(start.index, timeout=1).plans) == {WEB}  # type: ignore[union-attr]
    asked = Question(id=fresh_id(), asker=ANN, overlay=WEB, area=Subnet("10.0.0.0/8"), vnis=(7,), port=4789, mtu=1450)
    reader.ask(asked)
    put(store, f"{PREFIX}/incarnation", b"x")
    seen = reader.questions(asks.index, timeout=1)
    assert [held.value for held in seen.questions.values()] == [asked]  # type: ignore[union-attr]
    assert reader.quarantine == {}


def test_a_wait_for_plans_sleeps_though_there_is_none() -> None:
    """Consul 1.8.7 wakes a wait below a prefix without keys for each write anywhere; beside the mark it does not.

    And a plan that comes, by whoever writes it, is heard at once.
    """
    fake = FakeConsul().start()
    store, other = ConsulStore(fake.address), ConsulStore(fake.address)
    try:
        reader = NetworkRecords(store, PREFIX, ANN)
        assert reader.plans().mark == 0
        reader.mark()
        reader.mark()
        start = reader.wait(0, timeout=3)
        assert isinstance(start, Plans)
        assert (start.plans, start.unreadable) == ({}, frozenset())
        assert start.mark > 0
        fake.seen.clear()
        with ThreadPoolExecutor(1) as pool:
            heard = pool.submit(reader.wait, start.index, timeout=20)
            for n in range(30):
                other.commit([Put(f"{PREFIX}/hosts/{n}", b"x")])
                time.sleep(0.03)
            asked = [one for one in fake.seen if one.method == "GET" and "/networks" in one.target]
            assert len(asked) == 1, "four a second without the mark"
            NetworkRecords(other, PREFIX, BOB).write(None, plan())
            assert set(heard.result(5).plans) == {WEB}  # type: ignore[union-attr]
    finally:
        store.close()
        other.close()
        fake.close()
    assert fake.crashes == []


def test_a_word_that_begins_alike_is_no_plan(store: SqliteStore) -> None:
    """The mark's prefix is that of other keys, too."""
    put(store, f"{PREFIX}/networkers/web", b"{}")
    reader = records(store)
    reader.mark()
    assert reader.plans() == reader.wait(0, timeout=1)
    assert reader.plans().unreadable == frozenset()


def test_words_are_made_plain() -> None:
    """One line, printable, bounded."""
    assert plain("a\n\tb\x00c\x1b") == "a b?c?"
    assert len(plain("x" * 999)) == 255
    assert plain("é") == "é"
