"""The loops of `myoverlay arpd` around a store and a kernel on paper."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from myoverlay.cli import resolving
from myoverlay.cli.resolving import Arpd, Outage
from myoverlay.cli.within import Stop
from myoverlay.errors import Unavailable, Unknown
from myoverlay.kernel.listener import Overrun
from myoverlay.plan.answers import Ask
from myoverlay.store import Reset, Unchanged
from myoverlay.store.index import Pairs
from myoverlay.values import Address, Miss, Peer

SOME, NONE = Pairs((), {}, 5), Pairs((), {}, 3)
ADDRESS = Address("192.168.0.3")


class Tunnel:
    """No kernel: misses are those it was made with."""

    ifindex = 7

    def __init__(self, *reads: Any) -> None:
        self._reads = list(reads)
        self._fd = os.eventfd(1 if reads else 0)
        self.misses: Any = self
        self.gone = False

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[Miss]:
        if not self._reads:
            return []
        answer = self._reads.pop(0)
        if not self._reads:
            os.eventfd_read(self._fd)
        if isinstance(answer, type) and issubclass(answer, Exception):
            raise answer
        return answer if isinstance(answer, list) else [answer]

    def check(self) -> None:
        if self.gone:
            raise Unknown("the device vxlan1 was taken away")

    def close(self) -> None:
        os.close(self._fd)


class Resolver:
    """Notes what it is told; knows nobody."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.learned: list[bool] = []
        self.refilled = 0
        self.found_peers: list[Peer] = []

    def learn(self, _pairs: Pairs, keep: bool) -> None:
        self.learned.append(keep)

    def refill(self) -> None:
        self.refilled += 1
        self._stop.set()

    def miss(self, miss: Miss) -> Ask:
        return Ask(address=miss.address, mac=miss.mac)

    def found(self, peer: Peer, _miss: Miss) -> bool:
        self.found_peers.append(peer)
        return True


class Index:
    """Answers waits as written; when that is over it ends the daemon, as a signal would."""

    def __init__(self, stop: Stop, *answers: Any) -> None:
        self._stop, self._answers = stop, list(answers)
        self.quarantine: dict[str, str] = {}
        self.indexes: list[int] = []
        self.asked: list[str] = []

    def wait(self, index: int, *, timeout: float) -> Any:
        self.indexes.append(index)
        answer = self._answers.pop(0) if self._answers else None
        if answer is None:
            self._stop.set()
            raise Unavailable("the store cannot be reached")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def lookup(self, address: Address, *, timeout: float) -> None:
        self.asked.append(address)


@contextmanager
def arpd(tunnel: Tunnel, *answers: Any, **options: Any) -> Iterator[tuple[Callable[[], None], Resolver, Index]]:
    stop = Stop()
    resolver = Resolver(stop)
    index = Index(stop, *answers)
    daemon = Arpd(tunnel, resolver, index, stop, **options)  # type: ignore[arg-type]
    try:
        yield lambda: daemon.run(lambda: None), resolver, index
    finally:
        stop.close()
        tunnel.close()


def test_a_store_that_went_back_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reset what is missing is kept; when the grace is over all is read again, and then the keys hold."""
    monkeypatch.setattr(resolving, "COALESCE", 0.0)
    with arpd(Tunnel(), SOME, Reset(2), NONE, Unchanged(3), Unchanged(3)) as (run, resolver, index):
        run()
        assert resolver.learned == [False, True]
        assert index.indexes[:4] == [0, 5, 0, 3]
    monkeypatch.setattr(resolving, "GRACE", 0.0)
    with arpd(Tunnel(), SOME, Reset(2), NONE, Unchanged(3), NONE) as (run, resolver, index):
        run()
        assert resolver.learned[-1] is False
        assert index.indexes[-2:] == [0, 3]


def test_an_outage_is_one_sentence(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the store fails it is said once, and once that it answers again; then nothing was taken away."""
    monkeypatch.setattr(resolving, "RETRY", (0.001, 0.001))
    away = [Unavailable("Consul at http://c:8500 refused"), Unavailable("Consul at http://c:8500 is silent")]
    with caplog.at_level(logging.INFO, "myoverlay"), arpd(Tunnel(), SOME, *away, SOME) as (run, resolver, index):
        run()
    assert caplog.text.count("rows stay as they are") == 1
    assert caplog.text.count("answers again") == 1
    assert resolver.learned == [False, False]
    assert index.indexes == [0, 5, 5, 5, 5]


def test_an_outage_ends_when_the_watch_works(caplog: pytest.LogCaptureFixture) -> None:
    """A look-up that works says nothing about the watch; a watch that works says that the store is there."""
    outage = Outage()
    with caplog.at_level(logging.INFO, "myoverlay"):
        outage.failed("watch", Unavailable("x"))
        outage.failed("lookup", Unavailable("y"))
        outage.worked("lookup")
        outage.failed("lookup", Unavailable("z"))
        assert "answers again" not in caplog.text
        outage.worked("watch")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["x", "the store answers again"]


def test_a_bad_record_is_named_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed over is said with its reason when it is first seen."""
    monkeypatch.setattr(resolving, "COALESCE", 0.0)
    with arpd(Tunnel(), SOME, SOME) as (run, _, index):
        index.quarantine = {"demo-1/arp/x": "'x' is no address"}
        run()
    assert caplog.text.count("demo-1/arp/x is passed over: 'x' is no address") == 1


def test_lost_misses_make_rows_compared() -> None:
    """When the socket overran what is missing is written."""
    with arpd(Tunnel(Overrun), on_miss_only=True) as (run, resolver, _):
        run()
        assert resolver.refilled == 1


def test_a_miss_is_looked_up_once() -> None:
    """The same question in a row costs one look-up; another device's costs none; --count ends after it."""
    mine, theirs = Miss(ifindex=7, address=ADDRESS), Miss(ifindex=8, address=Address("192.168.0.4"))
    with arpd(Tunnel([mine, mine, theirs], [mine]), on_miss_only=True, count=1) as (run, _, index):
        run()
        assert index.asked == [ADDRESS]
        assert index.indexes == []


def test_a_thread_that_fails_ends_the_process() -> None:
    """A bug is not swallowed: rows would go stale; where the tunnel is gone that is what is told."""
    with arpd(Tunnel(), RuntimeError("a bug")) as (run, _, _), pytest.raises(RuntimeError, match="a bug"):
        run()
    tunnel = Tunnel()
    tunnel.gone = True
    with arpd(tunnel, RuntimeError("a bug")) as (run, _, _), pytest.raises(Unknown, match="taken away"):
        run()
