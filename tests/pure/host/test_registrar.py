"""The registrar against a catalogue that is played: level, not edge; nothing of the dead stays; failures are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.errors import Late, Unavailable
from myoverlay.host.registrar import COMPARE, Registrar
from myoverlay.store.catalogue import Registered, Service
from myoverlay.tally import Tally
from myoverlay.values import Endpoint, HostId
from tests.pure.kit import ANN, BOB, DEMO, EVE, Clock, endpoint, soon

PATIENCE = 600.0


class Played:
    """Plays `store.catalogue.Catalogue`. `no`: names it refuses; `spared`: hosts that are there after all.

    `witness`: when somebody said last that he hears a host.
    """

    def __init__(self) -> None:
        self.nodes: dict[HostId, Registered] = {}
        self.calls: list[str] = []
        self.away = False
        self.no: set[str] = set()
        self.spared: set[HostId] = set()
        self.witness: dict[HostId, int] = {}

    def _call(self, what: str) -> None:
        if self.away:
            raise Unavailable("Consul is away")
        self.calls.append(what)

    def read(self, host: HostId, *, timeout: float = 3.0) -> Registered | None:
        self._call("read")
        return self.nodes.get(host)

    def hosts(self, *, timeout: float = 3.0) -> frozenset[HostId]:
        self._call("hosts")
        return frozenset(self.nodes)

    def write(
        self, host: HostId, vtep: str, put: frozenset[Service], drop: frozenset[Service], *, timeout: float = 3.0
    ) -> dict[Service, str]:
        self._call("write")
        refused = {one: "Permission denied" for one in put if one.name in self.no}
        old = self.nodes[host].services if host in self.nodes else frozenset()
        self.nodes[host] = Registered(vtep, (old - drop) | (put - refused.keys()))
        return refused

    def remove(self, host: HostId, *, timeout: float = 3.0) -> None:
        self._call("remove")
        self.nodes.pop(host, None)

    def heard(self, host: HostId, *, timeout: float = 3.0) -> int:
        self._call("heard")
        return self.witness.get(host, 0)

    def collect(self, host: HostId, heard: int = 0, *, timeout: float = 3.0) -> bool:
        self._call("collect")
        if host in self.spared or heard != self.witness.get(host, 0):
            return False
        return self.nodes.pop(host, None) is not None


class Here:
    """One registrar whose steps are taken by hand."""

    def __init__(self) -> None:
        self.catalogue = Played()
        self.ends: list[Endpoint] = []
        self.clock = Clock(1000.0)
        self.tally = Tally()
        self.present: frozenset[HostId] | None = frozenset()
        self.lost: frozenset[HostId] = frozenset()
        self.fates: dict[HostId, Any] = {}
        self.may_act, self.doubt = True, False
        self.registrar = self.fresh()

    def fresh(self, on: bool = True) -> Registrar:
        local = SimpleNamespace(
            network=SimpleNamespace(overlay=DEMO, vtep="192.0.2.1"), endpoints=lambda: list(self.ends)
        )
        overlays: Any = SimpleNamespace(all=lambda: (local,))
        here = self

        class Peers:
            @property
            def known(self) -> Any:
                return SimpleNamespace(present=here.present)

        peers: Any = Peers()
        fates: Any = SimpleNamespace(lost=lambda: self.lost, all=lambda: dict(self.fates))
        return Registrar(
            self.catalogue, ANN, overlays, peers, fates, lambda: self.may_act, lambda: self.doubt, PATIENCE,
            self.tally, self.clock, on,
        )  # fmt: skip

    def step(self, after: float = 0.0) -> None:
        self.clock.now += after
        self.registrar.step()

    def names(self, host: HostId = ANN) -> set[tuple[str, str]]:
        there = self.catalogue.nodes.get(host)
        return {(one.name, one.address) for one in there.services} if there is not None else set()


@pytest.fixture
def here() -> Here:
    return Here()


def up(address: str, *names: str, joined: bool = True) -> Endpoint:
    return endpoint(address, names=names, joined=joined)


def test_containers_come_are_called_otherwise_and_go(here: Here) -> None:
    """Each name with its address; one that does not run yet has none; nothing is asked while nothing changes."""
    here.ends = [up("10.5.0.2", "db", "db-1"), up("10.5.0.3", "db"), up("10.5.0.4", "soon", joined=False)]
    here.step()
    assert here.names() == {("db", "10.5.0.2"), ("db-1", "10.5.0.2"), ("db", "10.5.0.3")}
    here.catalogue.calls.clear()
    here.step(1.0)
    assert here.catalogue.calls == []
    here.ends = [up("10.5.0.3", "db", "alias")]
    here.step()
    assert here.names() == {("db", "10.5.0.3"), ("alias", "10.5.0.3")}
    here.ends = []
    here.step()
    assert here.catalogue.nodes == {}
    assert here.tally.get("catalogue", "registered") == 4
    assert here.tally.get("catalogue", "withdrawn") == 4


def test_what_stands_there_is_compared(here: Here) -> None:
    """What somebody took away, or put there, or what a store lost: it is as it should be after a minute."""
    here.ends = [up("10.5.0.2", "db")]
    here.step()
    good = here.catalogue.nodes.pop(ANN)
    here.step(1.0)
    assert ANN not in here.catalogue.nodes
    here.step(COMPARE)
    assert here.catalogue.nodes[ANN] == good
    more = Service(id="x", name="x", address="10.5.0.9", tags=())
    here.catalogue.nodes[ANN] = Registered("192.0.2.7", good.services | {more})
    here.step(COMPARE)
    assert here.catalogue.nodes[ANN] == good


def test_consul_away_is_told_and_made_up_for(here: Here) -> None:
    """The step fails as a loop's does, is due at once again, and what changed meanwhile is there then."""
    here.ends = [up("10.5.0.2", "db")]
    here.catalogue.away = True
    with pytest.raises(Unavailable):
        here.step()
    assert here.registrar.state()["trouble"] == "Consul is away"
    assert here.registrar._hurried.is_set()
    here.catalogue.away = False
    here.step()
    assert here.registrar.state() == {"registered": 1, "refused": [], "trouble": ""}
    assert here.names() == {("db", "10.5.0.2")}


def test_what_is_refused_is_said_once_and_tried_again(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """The others are registered; once it is allowed it is, too."""
    here.ends = [up("10.5.0.2", "db", "db-1")]
    here.catalogue.no = {"db"}
    for _ in range(3):
        here.step(COMPARE)
    assert here.registrar.state() == {"registered": 1, "refused": ["db: Permission denied"], "trouble": ""}
    assert len(caplog.records) == 1
    here.catalogue.no = set()
    here.step(COMPARE)
    assert here.registrar.state() == {"registered": 2, "refused": [], "trouble": ""}


def test_a_dead_host_s_names_go_and_one_that_is_there_keeps_them(here: Here) -> None:
    """After the grace, by who shared an overlay with it; in a doubt of the store nobody is dead.

    What Consul does not do is tried again, but not at each change; what is done is done once.
    """
    for host in (BOB, EVE):
        here.catalogue.nodes[host] = Registered("192.0.2.2", frozenset())
    here.catalogue.spared = {EVE}
    here.lost, here.doubt = frozenset((BOB, EVE)), True
    here.step()
    assert set(here.catalogue.nodes) == {BOB, EVE}
    here.doubt = False
    here.step()
    assert set(here.catalogue.nodes) == {EVE}
    here.catalogue.spared = set()
    here.catalogue.calls.clear()
    here.step()
    assert "collect" not in here.catalogue.calls
    here.step(COMPARE)
    assert here.catalogue.nodes == {}
    here.catalogue.calls.clear()
    here.step(COMPARE)
    assert "collect" not in here.catalogue.calls
    assert here.tally.get("catalogue", "collected") == 2


def test_a_host_that_was_cut_off_and_died_keeps_no_names(here: Here) -> None:
    """Who heard it said so, which stays in the store; it counts as long as he says it again and can reach the store."""
    here.catalogue.nodes[BOB] = Registered("192.0.2.2", frozenset())
    here.lost = frozenset((BOB,))
    for said in range(7, 10):
        here.catalogue.witness[BOB] = said
        here.step(PATIENCE / 2)
        assert set(here.catalogue.nodes) == {BOB}
    here.step(PATIENCE / 4)
    here.catalogue.away = True
    with pytest.raises(Unavailable):
        here.step(PATIENCE / 4)
    here.catalogue.away = False
    here.step()
    assert set(here.catalogue.nodes) == {BOB}
    here.step(PATIENCE / 2)
    assert here.catalogue.nodes == {}


def test_a_dead_stranger_s_names_go_later(here: Here) -> None:
    """Who shares no overlay with it knows its session alone: that has to be gone for the lease grace."""
    here.catalogue.nodes = {BOB: Registered("192.0.2.2", frozenset()), EVE: Registered("192.0.2.3", frozenset())}
    here.present = frozenset((EVE,))
    here.step(PATIENCE)
    assert set(here.catalogue.nodes) == {BOB, EVE}
    here.step(PATIENCE / 2)
    assert set(here.catalogue.nodes) == {BOB, EVE}
    here.present = frozenset((EVE, BOB))
    here.step(PATIENCE / 2)
    here.present = frozenset((EVE,))
    here.step(PATIENCE / 2)
    assert set(here.catalogue.nodes) == {BOB, EVE}, "it was there in between"
    for _ in range(2):
        here.step(PATIENCE / 2)
    assert set(here.catalogue.nodes) == {EVE}


def test_a_host_that_may_not_act_registers_nothing(here: Here) -> None:
    """A clone would write in another's name; before the announcement nobody knows."""
    here.ends = [up("10.5.0.2", "db")]
    here.may_act = False
    here.step()
    assert here.catalogue.calls == []
    here.may_act = True
    here.step(1.0)
    assert here.names() == {("db", "10.5.0.2")}


def test_a_host_that_leaves_is_gone_at_once(here: Here) -> None:
    """By its own thread, so that nothing is written after it; with Consul away it is said that it is not done."""
    here.ends = [up("10.5.0.2", "db")]
    here.step()
    here.may_act = False
    here.registrar.start()
    here.registrar.retire(soon())
    assert here.catalogue.nodes == {}
    here.registrar.stop(5)
    assert not here.registrar._thread.is_alive()
    other = Here()
    other.catalogue.away = True
    other.registrar.start()
    with pytest.raises(Late, match="not out of Consul's catalogue yet"):
        other.registrar.retire(soon() - 9.5)
    other.registrar.stop(5)


def test_switched_off_it_asks_once_at_most(here: Here) -> None:
    """A token that was never given rights there is no trouble that comes back."""
    here.catalogue.away = True
    off = here.fresh(on=False)
    off.start()
    off.join(5)
    assert not off._thread.is_alive()
    assert here.tally.get("loop_failures", "catalogue") == 0


def test_switched_off_it_takes_back_what_a_former_run_said(here: Here) -> None:
    """And is no thread any more after that."""
    here.ends = [up("10.5.0.2", "db")]
    here.step()
    off = here.fresh(on=False)
    off.start()
    off.join(5)
    assert not off._thread.is_alive()
    assert here.catalogue.nodes == {}
    off.retire(soon())
