"""Consul in trouble, in every way: containers go on talking, Docker's calls end in time, and afterwards all is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import faults
from lab.fault_proxy import FaultProxy, listen
from lab.faults import Fault
from myoverlay.docker.app import DEADLINE
from myoverlay.errors import Unavailable
from myoverlay.store import Committed, Put, Reset
from myoverlay.store.consul import ConsulStore
from myoverlay.store.waits import LOOK, WAIT_SLACK
from myoverlay.store.wire import IDLE_KEPT
from tests.engine.store.trouble import (
    Guarded,
    TroubledHosts,
    bugs,
    descriptors,
    failures,
    threads,
    wait_settled,
    withdrawals,
)
from tests.kernel.host.hosts import Container, Host, Refusal
from tests.kernel.host.tools import in_parallel, until
from tests.pure.store.test_consul_wire import every_call
from tests.store_contract import Call, done, names

FAULTS = [
    faults.delay(1.2),
    faults.RESET,
    faults.HALF_OPEN,
    faults.BLACK_HOLE,
    faults.status(403),
    faults.status(413),
    faults.status(429),
    faults.status(500),
    faults.STALE,
    faults.EMPTY,
    faults.EMPTY_LIST,
    faults.TRUNCATED,
    faults.drip(0.02),
    faults.LOST,
]


#: Seconds of a store call, and what a busy machine may add.
TIMEOUT, SLACK = 0.5, 1.0
#: Seconds that a fault holds at least, and questions a second that a host in trouble may ask in that time.
HELD, RATE = 1.0, 60
#: The same where reads find nothing and writes meet everything: each is tried a few times at once.
LIED_TO = 250
#: What a start asks besides, once.
STARTING = 150


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    agent = Guarded(tmp_path_factory.mktemp("consul"))
    try:
        yield agent.begin()
    finally:
        agent.kill()


@pytest.fixture
def hosts(tmp_path: Path, agent: Guarded, caplog: pytest.LogCaptureFixture) -> Iterator[TroubledHosts]:
    caplog.set_level("DEBUG", "myoverlay")
    with TroubledHosts(tmp_path, agent) as hosts:
        yield hosts
        for host in hosts._hosts:
            assert bugs(host) == {}
    said = caplog.text
    assert "Traceback" not in said
    assert hosts.token not in said
    agent.clear()


@pytest.fixture
def pair(hosts: TroubledHosts) -> tuple[Host, Host]:
    """Two hosts on one overlay, with their reserves filled."""
    pair = hosts.pair()
    wait_settled(*pair)
    return pair


def longest(host: Host, since: int) -> float:
    """Seconds of the longest of Docker's calls since that many."""
    return max(ms for _, ms in host.took[since:]) / 1000


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_call_ends_in_time(agent: Guarded, fault: Fault) -> None:
    """Each call of the store ends within its time-out and some, with Unavailable or an answer; then all serve again."""
    with FaultProxy(listen("127.0.0.1"), agent.dial) as proxy:
        store = ConsulStore(proxy.address, token=agent.new_token())
        done(store, Put("a/key", b"1"), Put("a/other", b"2"))
        for _ in range(2):  # the second time on connections that lived through it
            proxy.set(fault)
            began = time.monotonic()
            calls = [Call(call) for call in every_call(store, timeout=TIMEOUT).values()]
            for call in calls:
                with contextlib.suppress(Unavailable):
                    call.result(20)
            assert time.monotonic() - began < TIMEOUT * 17 / 16 + WAIT_SLACK + SLACK
            proxy.set(faults.PASS)
            until(lambda: _serves(store), 5, "that it serves again")
        assert len(store._pool._idle) <= IDLE_KEPT
        assert not store._pool._busy
        store.close()


def _serves(store: ConsulStore) -> bool:
    try:
        return store.get("a/other") is not None and isinstance(store.commit([Put("a/key", b"1")]), Committed)
    except Unavailable:
        return False


@pytest.mark.parametrize("blocks", [True, False], ids=["blocks already", "comes too late"])
def test_a_wait_hears_of_a_restore(agent: Guarded, blocks: bool) -> None:
    """Consul ends what blocks; what comes to block afterwards, for an index that is far away, looks for itself."""
    store = ConsulStore(agent.address, token=agent.new_token())
    done(store, Put("waited/a", b"1"))
    snapshot = agent.ask("GET", "snapshot")
    done(store, *[Put(f"waited/{number}", b"2") for number in range(20)])
    index = store.list("waited/").index

    def wait() -> Call:
        return Call(lambda: store.wait("waited/", index, timeout=60))

    waiting = wait() if blocks else None
    if waiting is not None:
        waiting.join(LOOK + 1)
        assert waiting.is_alive()
    agent.ask("PUT", "snapshot", snapshot)
    assert isinstance((waiting or wait()).result(), Reset)
    assert names(store.list("waited/")) == ["waited/a"]
    store.close()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_one_host_in_trouble(hosts: TroubledHosts, pair: tuple[Host, Host], fault: Fault) -> None:
    """Its traffic flows, no row goes, containers start and stop; afterwards both hosts know all that happened."""
    here, there = pair
    stays, leaves = here.run(), here.run()
    far, withdrawn = there.run(), there.run()
    until(lambda: here.knows(far, withdrawn) and there.knows(stays, leaves))
    wait_settled(here, there)
    running = threads()
    calls, rows = len(here.took), here.rows()
    with withdrawals(here, lambda: [far, withdrawn]) as gone, stays.pinging(far) as out, far.pinging(stays) as back:
        until(lambda: out.flows() and back.flows())
        hosts.set(fault, here)
        proxy, began = hosts.proxies[here.name], time.monotonic()
        asked = len(proxy.asked)
        if fault.kind == "empty":  # from then on the reserve is all there is to give
            until(here.daemon.epoch.in_doubt, 10, "that the loss is noticed")
        started = here.run()
        here.remove(leaves)
        new = there.run()
        there.remove(withdrawn)
        until(lambda: failures(here) or fault.kind in ("delay", "stale", "empty"), 20, "that the store failed it")
        if fault.kind not in ("delay", "stale"):
            assert gone() == 0
            assert here.rows() >= rows
        assert longest(here, calls) < DEADLINE + 1
        until(lambda: time.monotonic() > began + HELD, 2 * HELD)
        rate = (len(proxy.asked) - asked) / (time.monotonic() - began)
        assert rate < (RATE if fault.kind != "empty" else LIED_TO)
        hosts.set(faults.PASS, here)
        healed = time.monotonic()
        until(lambda: here.knows(far, new) and there.knows(stays, started), 20, "that each knows the other's new one")
        until(lambda: not {*withdrawn.rows} & here.rows() and not {*leaves.rows} & there.rows(), 20, "the withdrawals")
        wait_settled(here, there)
        calm = time.monotonic() - healed
        print(f"{fault}: longest call {longest(here, calls):.2f} s, {rate:.0f} questions/s, well after {calm:.2f} s")
        until(lambda: out.flows(20) and back.flows(20))
    assert out.lost() == back.lost() == []
    if fault.kind == "empty":
        here.daemon.audit.want()  # a release was told to a store that knew of no lease: the next audit frees it
    until(lambda: hosts.leases() == {one.address: 1 for one in (stays, started, far, new)}, 20, "the leases")
    assert started.reaches(far, new) == set()
    until(lambda: threads() == running, 5, "that the threads are those of before")


@dataclass
class Scene:
    """Two hosts with a container each that stays, and one that goes during the trouble."""

    hosts: TroubledHosts
    here: Host
    there: Host
    stays: Container
    far: Container
    leaves: Container

    def change(self) -> tuple[Container, Container]:
        """One goes, and each host gets a new one."""
        calls = len(self.here.took), len(self.there.took)
        self.here.remove(self.leaves)
        new = self.here.run(), self.there.run()
        assert longest(self.here, calls[0]) < DEADLINE + 1
        assert longest(self.there, calls[1]) < DEADLINE + 1
        return new

    def wait_well(self, *new: Container, reserve: int = 7) -> None:
        """Until everybody knows everybody, what went is forgotten, and the store has just what there is."""
        mine = [one for one in (self.stays, *new) if one.host is self.here]
        theirs = [one for one in (self.far, *new) if one.host is self.there]
        until(lambda: self.here.knows(*theirs) and self.there.knows(*mine), 20, "that each knows the other's")
        until(lambda: not {*self.leaves.rows} & self.there.rows(), 20, "the withdrawal")
        wait_settled(self.here, self.there, reserve=reserve)
        until(lambda: self.hosts.leases() == {one.address: 1 for one in (*mine, *theirs)}, 20, "the leases")
        index = sorted(self._arp(one) for one in (*mine, *theirs))
        # Leases are seen to first: the index is written by another thread, once they are known to be there.
        until(lambda: self.hosts.keys("/records/arp/") == index, 20, "the index")
        assert self.stays.reaches(*theirs) == self.far.reaches(*mine) == set()

    def _arp(self, one: Container) -> str:
        return f"myoverlay/overlays/10.5.0.0-24/records/arp/{one.address}"


@pytest.fixture
def scene(hosts: TroubledHosts, pair: tuple[Host, Host]) -> Iterator[Scene]:
    """Traffic flows in both directions throughout, and no row of it goes."""
    here, there = pair
    scene = Scene(hosts, here, there, here.run(), there.run(), here.run())
    until(lambda: here.knows(scene.far) and there.knows(scene.stays, scene.leaves))
    wait_settled(here, there)
    with scene.stays.pinging(scene.far) as out, scene.far.pinging(scene.stays) as back:
        until(lambda: out.flows() and back.flows())
        yield scene
        until(lambda: out.flows(20) and back.flows(20))
    assert out.lost() == back.lost() == []


def test_consul_is_killed_and_elects_itself_anew(agent: Guarded, scene: Scene) -> None:
    """Containers come and go while it is down; after the election everything is written."""
    agent.kill()
    new = scene.change()
    agent.begin()
    scene.wait_well(*new)


def test_the_token_is_revoked_and_given_back(agent: Guarded, scene: Scene) -> None:
    """403 to everything is an outage like another; with the token back everything is written."""
    agent.revoke(scene.hosts.token)
    new = scene.change()
    until(lambda: failures(scene.here) and failures(scene.there))
    agent.new_token(scene.hosts.token)
    scene.wait_well(*new)


def test_the_session_ends_while_the_host_lives(agent: Guarded, scene: Scene) -> None:
    """A host whose session was ended opens another within a round; nothing is withdrawn."""
    with withdrawals(scene.there, lambda: scene.here.containers) as gone:
        session = scene.here.daemon.journal.session
        agent.ask("PUT", f"session/destroy/{session}")
        until(lambda: scene.here.count("session", "lost") == 1, 10)
        until(lambda: len(scene.hosts.keys("/alive/")) == 2, 10)
        assert gone() == 0
    scene.wait_well(*scene.change())


def test_the_store_is_emptied(agent: Guarded, scene: Scene) -> None:
    """Consul comes back with nothing at all: every host writes everything again, and no row goes."""
    with withdrawals(scene.there, lambda: scene.here.containers) as gone:
        agent.kill()
        agent.wipe()
        agent.begin().new_token(scene.hosts.token)
        until(lambda: len(scene.hosts.keys("/records/arp/")) == 3, 30, "that all records are there again")
        assert gone() == 0
    scene.wait_well(*scene.change())


def test_the_store_is_restored_from_a_snapshot(agent: Guarded, scene: Scene) -> None:
    """What came after the snapshot is written again, what went is taken out again, and no row goes."""
    snapshot = agent.ask("GET", "snapshot")
    new = scene.change()
    scene.wait_well(*new)
    with withdrawals(scene.there, lambda: scene.here.containers) as gone:
        agent.ask("PUT", "snapshot", snapshot)
        scene.wait_well(*new)
        assert gone() == 0


def test_the_reserve_is_used_up(hosts: TroubledHosts, pair: tuple[Host, Host]) -> None:
    """As many containers start as the reserve has addresses; the next is refused in words; all others are published."""
    here, there = pair
    there.run()
    hosts.set(faults.RESET)
    started = in_parallel(*[here.run] * 7)
    with pytest.raises(Refusal, match="cannot be asked") as refused:
        here.run()
    assert refused.value.status == 503
    hosts.set(faults.PASS)
    until(lambda: there.knows(*started), 20)
    wait_settled(here, there)
    assert hosts.leases() == {one.address: 1 for one in (*started, *there.containers)}


@pytest.mark.parametrize("fault", [faults.RESET, faults.HALF_OPEN, faults.LOST, faults.status(500)], ids=str)
def test_a_network_that_cannot_be_agreed_on(hosts: TroubledHosts, pair: tuple[Host, Host], fault: Fault) -> None:
    """`docker network create` is refused within its time; nothing of it stays, and afterwards it can be made."""
    here, _ = pair
    before = hosts.keys("", without=["/changes/", "/alive/"])
    hosts.set(fault, here)
    calls = len(here.took)
    with pytest.raises(Refusal, match="Consul at"):
        here.create_network("10.6.0.0/24")
    assert longest(here, calls) < DEADLINE + 1
    hosts.set(faults.PASS)
    until(lambda: hosts.keys("", without=["/changes/", "/alive/"]) == before, 20, "that nothing of it is left")
    here.create_network("10.6.0.0/24")


@pytest.mark.parametrize("fault", [faults.HALF_OPEN, faults.EMPTY, faults.STALE], ids=str)
def test_a_restart_in_the_middle(hosts: TroubledHosts, scene: Scene, fault: Fault) -> None:
    """A daemon that begins while its store is in trouble serves, withdraws nothing, and is well afterwards."""
    hosts.set(fault, scene.here)
    with (
        withdrawals(scene.here, lambda: scene.there.containers) as gone,
        withdrawals(scene.there, lambda: scene.here.containers) as gone_there,
    ):
        asked = len(hosts.proxies[scene.here.name].asked)
        scene.here.restart()
        started = scene.here.run()
        began = time.monotonic()
        until(lambda: time.monotonic() > began + HELD, 2 * HELD)
        assert len(hosts.proxies[scene.here.name].asked) - asked < STARTING + LIED_TO * (time.monotonic() - began)
        assert gone() == gone_there() == 0
    hosts.set(faults.PASS)
    scene.here.remove(scene.leaves)
    # One that began in a doubt fills its reserve when the grace is over.
    scene.wait_well(started, scene.here.run(), reserve=0 if fault.kind == "empty" else 7)


def test_fifty_changes_of_fault_leave_nothing(hosts: TroubledHosts, scene: Scene) -> None:
    """Threads and descriptors are as many as before; the log is as long as the trouble, not longer."""
    hosts.set(faults.RESET)
    hosts.set(faults.PASS)
    until(lambda: all(proxy.connections for proxy in hosts.proxies.values()), 10)
    running, before = threads(), descriptors()
    for number in range(50):
        hosts.set(FAULTS[number % len(FAULTS)])
        hosts.set(faults.PASS if number % 2 else faults.RESET)
    hosts.set(faults.RESET)
    hosts.set(faults.PASS)
    scene.wait_well(*scene.change())
    assert threads() == running
    # Each connection is three descriptors in this process, and a few more or fewer are kept idle.
    until(lambda: descriptors() < before + 30, 10, "that descriptors are as before")
