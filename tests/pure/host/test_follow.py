"""The follower against a Docker that is played, with faults, and a real embedded store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from myoverlay.errors import Refused, Unavailable
from myoverlay.host.follow import AGAIN, BURY, RESYNC, NetworkFollower
from myoverlay.networks import Became, HeldNetwork, NetworkPlan
from myoverlay.plan.following import Found
from myoverlay.store import Delete
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import HostId, OverlayName, Subnet
from tests.pure.kit import ANN, BOB, PREFIX, Clock, Switch, put

WEB = OverlayName("web")


def plan(**changes: Any) -> NetworkPlan:
    fields: dict[str, Any] = {"name": WEB, "id": "1" * 32, "subnet": Subnet("10.5.0.0/24"), "made_at": 100.0}
    return NetworkPlan(**(fields | changes))


class Docker:
    """Plays `EngineNetworks`. `away`: it does not answer; `no`: what it says no with; `before`: told of each call."""

    def __init__(self) -> None:
        self.networks: dict[str, Found] = {"b" * 64: Found(id="b" * 64, name="bridge", driver="bridge")}
        self.away = False
        self.no = ""
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        self.closed = False
        self._made = 0

    def _call(self, what: str) -> None:
        self.before(what)
        if self.away:
            raise Unavailable("Docker does not answer on /x")
        self.calls.append(what)
        if self.no and not what == "list":
            raise Refused(f"Docker says: {self.no}")

    def list(self) -> tuple[Found, ...]:
        self._call("list")
        return tuple(self.networks.values())

    def make(self, plan: NetworkPlan) -> None:
        self._call(f"make {plan.name}")
        self._made += 1
        found = Found(id=f"{self._made:064x}", name=plan.name, driver="myoverlay", plan=plan.id, told=plan)
        self.networks[found.id] = found

    def remove(self, network: Found, forced: bool) -> None:
        self._call(f"{'force' if forced else 'remove'} {network.name}")
        self.networks.pop(network.id, None)

    def close(self) -> None:
        self.closed = True

    def names(self) -> set[str]:
        return {one.name for one in self.networks.values()} - {"bridge"}

    @property
    def acts(self) -> list[str]:
        acts, self.calls = [call for call in self.calls if call != "list"], []
        return acts


class Here:
    """One follower, whose rounds are done by hand, and another host's records."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.wire = Switch(store)
        self.wire.patience = 0.01
        self.docker = Docker()
        self.clock = Clock(1000.0)
        self.tally = Tally()
        self.may_act, self.doubt, self.losses = True, False, 0
        self.records = self._records(ANN)
        self.other = NetworkRecords(store, PREFIX, BOB)
        self.follow = self.fresh()

    def _records(self, host: HostId) -> NetworkRecords:
        wire: Any = self.wire
        return NetworkRecords(wire, PREFIX, host)

    def fresh(self) -> NetworkFollower:
        """Another run of the follower on the same host."""
        return NetworkFollower(
            self.records,
            self.docker,
            "ann",
            lambda: self.may_act,
            lambda: self.doubt,
            self._lost,
            self.tally,
            self.clock,
        )

    def _lost(self) -> None:
        self.losses += 1

    def step(self, after: float = 0.0) -> None:
        self.clock.now += after
        self.follow.step()

    def define(self, new: NetworkPlan) -> None:
        assert self.other.write(self.other.plan(new.name), new)

    def said(self) -> dict[str, tuple[Became, str]]:
        return {name: (one.became, one.said) for name, one in self.records.held().items() if one is not None}


@pytest.fixture
def here(store: SqliteStore) -> Iterator[Here]:
    here = Here(store)
    yield here
    here.follow.stop(1)
    assert here.docker.closed


def test_a_plan_becomes_a_network_and_goes_as_one(here: Here) -> None:
    """Made, said, held; removed, said no more, and the last host takes the plan along."""
    here.define(plan())
    here.step()
    assert here.docker.acts == ["make web"]
    assert here.said() == {"web": (Became.HELD, "")}
    assert here.tally.get("followed", "made") == 1
    here.step(RESYNC)
    assert here.docker.acts == []
    here.define(plan(going=True))
    here.step()
    assert here.docker.acts == ["remove web"]
    assert here.said() == {}
    assert here.records.plans().plans == {}


def test_a_plan_stays_until_the_last_host_has_removed_its_network(here: Here) -> None:
    """Another host still says that it holds it."""
    here.define(plan())
    here.step()
    here.other.say(HeldNetwork(host=BOB, network=WEB, plan="1" * 32, became=Became.HELD))
    here.define(plan(going=True, forced=True))
    here.step()
    assert here.docker.acts == ["make web", "force web"]
    assert WEB in here.records.plans().plans
    here.other.unsay(WEB)
    here.step(RESYNC)
    assert WEB in here.records.plans().plans, "the last one sees to it; for others it is dear to look"
    here.step(BURY)
    assert here.records.plans().plans == {}


def test_it_is_made_again_when_somebody_removed_it(here: Here) -> None:
    """What is defined for all hosts is there, after the next comparison."""
    here.define(plan())
    here.step()
    here.docker.networks.clear()
    here.step()
    assert here.docker.names() == set()
    here.step(RESYNC)
    assert here.docker.names() == {"web"}


def test_a_foreign_network_is_said_once_and_looked_at_again(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """The conflict is written and logged once; when that network is gone ours is made."""
    here.docker.networks["f"] = Found(id="f" * 64, name="web", driver="bridge")
    here.define(plan())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            here.step(AGAIN[1])
    assert len(caplog.records) == 1
    assert here.said()["web"][0] is Became.CONFLICT
    assert "driver bridge" in here.said()["web"][1]
    assert here.docker.acts == []
    del here.docker.networks["f"]
    here.step(AGAIN[1])
    assert here.said() == {"web": (Became.HELD, "")}


def test_what_docker_refuses_is_said_and_tried_ever_more_slowly(here: Here) -> None:
    """The sentence is in the store; a change of the plans makes it quick again; success mends what was said."""
    here.docker.no = "VNI 7 is taken"
    here.define(plan())
    here.step()
    assert here.said() == {"web": (Became.FAILED, "Docker says: VNI 7 is taken")}
    for _ in range(60):
        here.step(1.0)
    assert 4 <= len(here.docker.acts) <= 8
    here.docker.no = ""
    here.define(plan(labels={"x": "y"}))
    here.step()
    assert here.said() == {"web": (Became.HELD, "")}


def test_one_that_is_used_remains_and_says_why(here: Here) -> None:
    """Docker refuses to remove it: it is told as what remains, and goes later."""
    here.define(plan())
    here.step()
    here.docker.no = "has active endpoints"
    here.define(plan(going=True))
    here.step()
    assert here.said() == {"web": (Became.REMAINS, "Docker says: has active endpoints")}
    assert WEB in here.records.plans().plans
    here.docker.no = ""
    here.step(AGAIN[1])
    assert here.said() == {}
    assert here.docker.names() == set()


def test_docker_away_is_said_of_what_nothing_was_said_of(here: Here) -> None:
    """The round fails as when the store is away; what is held is still said to be held; later all is made."""
    here.define(plan())
    here.step()
    here.docker.away = True
    here.define(plan(name=OverlayName("db"), id="2" * 32, subnet=Subnet("10.6.0.0/24")))
    with pytest.raises(Unavailable):
        here.step()
    assert here.said() == {"web": (Became.HELD, ""), "db": (Became.FAILED, "Docker does not answer on /x")}
    here.docker.away = False
    here.step(AGAIN[1])
    assert here.said() == {"web": (Became.HELD, ""), "db": (Became.HELD, "")}


def test_docker_goes_away_in_the_middle(here: Here) -> None:
    """Whichever call it does not answer, the next round ends it."""
    here.define(plan())
    for call in ("list", "make web"):

        def fail(what: str, call: str = call) -> None:
            here.docker.away = what == call

        here.docker.before = fail
        try:
            here.step(AGAIN[1])
        except Unavailable:
            assert call == "list"
        assert here.docker.names() == set()
    here.docker.before = lambda _: None
    here.docker.away = False
    here.step(AGAIN[1])
    assert here.docker.names() == {"web"}
    assert here.said() == {"web": (Became.HELD, "")}


def test_the_store_away_or_deaf_between_any_two_calls(here: Here) -> None:
    """Cut off before each of its calls to the store in turn: in the end all is made and said, nothing twice."""
    here.define(plan())
    here.wire.calls.clear()
    for count in range(12):
        left = [count]

        def cut(_name: str, _what: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("cut")

        here.wire.before = cut
        try:
            here.step(AGAIN[1])
        except Unavailable:
            continue
    here.wire.before = lambda _name, _what: None
    here.wire.unheard = True
    here.define(plan(labels={"a": "b"}))
    with contextlib.suppress(Unavailable):
        here.step(AGAIN[1])
    here.wire.unheard = False
    here.step(AGAIN[1])
    assert here.docker.acts == ["make web"]
    assert here.said() == {"web": (Became.HELD, "")}


def test_a_bad_plan_and_a_bad_key_stop_nothing(here: Here) -> None:
    """Options of a newer version fail with their sentence; a key that is no plan is passed over; others are made."""
    here.define(plan(options={"colour": "blue"}))
    here.define(plan(name=OverlayName("db"), id="2" * 32, subnet=Subnet("10.6.0.0/24")))
    put(here.store, f"{PREFIX}/networks/broken", b"{")
    put(here.store, f"{PREFIX}/networks/bridge", b'{"name":"bridge","id":"%s","subnet":"10.7.0.0/24"}' % (b"3" * 32))
    put(here.store, f"{PREFIX}/networks/alias", here.store.get(f"{PREFIX}/networks/db").value)  # type: ignore[union-attr]
    put(here.store, f"{PREFIX}/hosts/{ANN}/networks/db", b"[]")
    here.step()
    assert here.docker.names() == {"db"}
    assert here.said()["db"] == (Became.HELD, "")
    assert here.said()["web"][0] is Became.FAILED
    assert "unknown option 'colour'" in here.said()["web"][1]


def test_an_unreadable_plan_removes_nothing(here: Here) -> None:
    """Its network stays, and what was said of it."""
    here.define(plan())
    here.step()
    put(here.store, f"{PREFIX}/networks/web", b"\xff")
    here.step(RESYNC)
    assert here.docker.names() == {"web"}
    assert here.said() == {"web": (Became.HELD, "")}


def test_a_store_that_lost_the_plan_gets_it_back(here: Here) -> None:
    """In a doubt nothing is removed, and what Docker's label tells is written again; a fresh run knows it too."""
    here.define(plan(labels={"team": "shop"}))
    here.step()
    entry = here.other.plan(WEB)
    assert entry is not None
    here.other.drop(entry)
    here.follow = here.fresh()
    here.doubt = True
    here.step()
    assert here.docker.names() == {"web"}
    back = here.other.plan(WEB)
    assert back is not None
    assert back.value == plan(labels={"team": "shop"})
    assert here.tally.get("followed", "restored") == 1


def test_without_a_doubt_a_missing_plan_is_an_orphan(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """The host was forgotten meanwhile: its network stays, is said once, and the plan does not come back."""
    here.define(plan())
    here.step()
    entry = here.other.plan(WEB)
    assert entry is not None
    here.other.drop(entry)
    with caplog.at_level(logging.WARNING):
        here.step()
        here.step(RESYNC)
    assert here.docker.names() == {"web"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "`docker network rm web`" in caplog.text
    assert here.said() == {}
    assert here.other.plan(WEB) is None


def test_a_network_that_was_replaced_while_the_host_was_away(here: Here) -> None:
    """The old one goes, the new one is made, in one round; where the old one is used that is told, and none is made."""
    here.define(plan())
    here.step()
    here.define(plan(id="2" * 32, made_at=200.0))
    here.docker.no = "has active endpoints"
    here.step()
    assert here.said()["web"] == (Became.REMAINS, "Docker says: has active endpoints")
    assert here.docker.acts == ["make web", "remove web"]
    here.docker.no = ""
    here.step(AGAIN[1])
    assert here.docker.acts == ["remove web", "make web"]
    assert here.said() == {"web": (Became.HELD, "")}


def test_a_host_that_may_not_act_does_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is announced, or when it has left, Docker is not even asked."""
    monkeypatch.setattr("myoverlay.host.follow.AGAIN", (0.001, 30.0))
    here.define(plan())
    here.may_act = False
    here.step()
    assert here.docker.calls == []
    here.may_act = True
    here.step()
    assert here.docker.names() == {"web"}


def test_an_index_that_went_back_is_told(here: Here) -> None:
    """And everything is read anew."""
    here.define(plan())
    here.step()
    here.follow._index = 1 << 40
    here.step(RESYNC)
    assert here.losses == 1
    here.step(RESYNC)
    assert here.docker.names() == {"web"}


def test_long_and_strange_words_of_docker_are_made_fit(here: Here) -> None:
    """One line, no control characters, bounded: what is written can be read again."""
    here.docker.no = "a\x1b[31m\nb" + "x" * 5000
    here.define(plan())
    here.step()
    said = here.said()["web"][1]
    assert said.startswith("Docker says: a?[31m b")
    assert len(said) <= 510


def test_the_mark_is_put_and_put_again(here: Here) -> None:
    """Before the first wait, and when somebody took it away: without it the store would not let the follower sleep."""
    key = f"{PREFIX}/networks"
    here.step()
    mark = here.store.get(key)
    assert mark is not None
    here.step(RESYNC)
    assert here.store.get(key) == mark
    here.store.commit([Delete(key, mark.index)])
    for _ in range(2):
        here.step(RESYNC)
    assert here.store.get(key) is not None
    assert here.docker.acts == []


def test_the_loop_ends_when_it_is_stopped(here: Here) -> None:
    """Also while it waits in the store."""
    here.follow.start()
    here.define(plan())
    here.follow.stop(10)
    assert not here.follow._thread.is_alive()
