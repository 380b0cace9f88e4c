"""What a host does last, on paper: when it leaves, when it stays, and what it does where it cannot."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from myoverlay.errors import Clash, Late, Unavailable
from myoverlay.host import farewell
from myoverlay.host.farewell import Farewell
from myoverlay.host.journal import Journal
from myoverlay.host.mirror import Mirror
from myoverlay.host.pools import RELEASED
from myoverlay.kernel.pins import Pins
from myoverlay.tally import Tally
from myoverlay.values import LocalLease, PoolUse
from tests.pure.kit import SUBNET, network


class FakeDeparture:
    """Raises what is to be raised, in that order, and then leaves."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.done = False

    def leave(self, force: bool, deadline: float) -> None:
        assert not force
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.done = True


class Scene:
    """A journal with its copy, and pins, below one folder."""

    def __init__(self, folder: Path, departure: FakeDeparture, may_write: bool = True) -> None:
        self.run = folder / "run"
        self.pins = Pins(self.run / "netns")
        self.pins.folder.mkdir(parents=True)
        self.journal = Journal(folder / "own", mirror=Mirror(self.run / "state", Tally()))
        stand_in: Any = departure
        self.unguarded = 0
        self.farewell = Farewell(self.journal, stand_in, lambda: may_write, self.pins, cast("Any", self))

    def leave(self) -> None:
        """In place of the guard's."""
        self.unguarded += 1

    def end(self) -> None:
        """What the daemon does when it stops."""
        self.farewell.tell(time.monotonic() + 2.0)
        self.farewell.tidy()
        self.journal.close()


def test_a_host_without_networks_goes_entirely(tmp_path: Path) -> None:
    """It leaves, also when another thread of ours was busy at first, and nothing is left in the directory."""
    departure = FakeDeparture(Late("busy"), Late("busy"))
    scene = Scene(tmp_path, departure)
    scene.end()
    assert departure.calls == 3
    assert not scene.run.exists()
    assert scene.unguarded == 1


def test_a_host_with_a_network_is_not_asked_to_leave(tmp_path: Path) -> None:
    """Its copy stays for the next run."""
    departure = FakeDeparture()
    scene = Scene(tmp_path, departure)
    scene.journal.networks.put("n", network())
    scene.end()
    assert (departure.calls, scene.unguarded) == (0, 0)
    assert (scene.run / "state" / "journal.db").exists()


def test_a_pool_in_use_is_not_given_back(tmp_path: Path) -> None:
    """Docker asked for it and has made no network of it yet: the host stays."""
    departure = FakeDeparture()
    scene = Scene(tmp_path, departure)
    scene.journal.uses.put("p", use(at=1.0))
    scene.end()
    assert departure.calls == 0


def test_a_pool_that_was_released_just_now_is_waited_for(tmp_path: Path) -> None:
    """`docker network rm`, then the end at once: the loops are still telling the store; the host leaves after that."""
    departure = FakeDeparture()
    scene = Scene(tmp_path, departure)
    scene.journal.uses.put("p", use(at=RELEASED))
    told = threading.Timer(0.3, lambda: scene.journal.uses.drop("p"))
    told.start()
    began = time.monotonic()
    scene.end()
    told.join()
    assert time.monotonic() - began >= 0.3
    assert departure.calls == 1
    assert not scene.run.exists()


def test_a_release_that_cannot_be_told_is_left_for_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is away: the host does not leave, says so, and its copy stays."""
    departure = FakeDeparture()
    scene = Scene(tmp_path, departure)
    scene.journal.uses.put("p", use(at=RELEASED))
    scene.end()
    assert departure.calls == 0
    assert caplog.text.count("stays behind") == 1
    assert (scene.run / "state" / "journal.db").exists()


def use(at: float) -> PoolUse:
    return PoolUse(pool="p", subnet=SUBNET, written=True, at=at)


def test_a_host_that_was_never_announced_gives_nothing_back(tmp_path: Path) -> None:
    """A clone's journal tells of the original's session and leases."""
    departure = FakeDeparture()
    scene = Scene(tmp_path, departure, may_write=False)
    scene.end()
    assert (departure.calls, scene.unguarded) == (0, 0)
    assert (scene.run / "state" / "journal.db").exists()


@pytest.mark.parametrize("failure", [Unavailable("away"), Clash("containers"), Late("busy")])
def test_what_fails_is_said_and_left_for_the_next_run(
    tmp_path: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The end is not held up beyond its deadline, and the copy stays."""
    departure = FakeDeparture(*[failure] * 100)
    scene = Scene(tmp_path, departure)
    began = time.monotonic()
    scene.end()
    assert time.monotonic() - began < 4
    assert caplog.text.count("stays behind") == 1
    assert (scene.run / "state" / "journal.db").exists()


def test_pins_that_stand_keep_their_directory(tmp_path: Path) -> None:
    """After `host leave --force` namespaces may remain: only the copy goes."""
    scene = Scene(tmp_path, FakeDeparture())
    (scene.pins.folder / "10.5.0.0-24").touch()
    scene.end()
    assert [entry.name for entry in scene.run.iterdir()] == ["netns"]


@pytest.mark.parametrize(("use", "promised"), [("releasing", False), ("endpoint", True)])
def test_what_docker_was_answered_for_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, promised: bool
) -> None:
    """A host that stays waits until the store was told of its addresses, and not for ever."""
    scene = Scene(tmp_path, FakeDeparture())
    scene.journal.networks.put("n", network())
    lease = LocalLease(subnet=SUBNET, address=SUBNET.at(SUBNET.first), use=use, at=1.0, promised=promised)
    scene.journal.leases.put("a", lease)
    began = time.monotonic()
    scene.farewell.tell(began + 30.0)
    assert 0.4 <= time.monotonic() - began < 10.0
    monkeypatch.setattr(farewell, "_REST", 10.0)
    told = threading.Timer(0.1, lambda: scene.journal.leases.drop("a"))
    told.start()
    scene.farewell.tell(time.monotonic() + 30.0)
    assert scene.journal.leases.all() == ()
    began = time.monotonic()
    scene.farewell.tell(began + 30.0)
    assert time.monotonic() - began < 5.0
    told.join()
    scene.journal.close()
