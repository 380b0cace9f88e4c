"""The resolver's keeper, with a process that is played: what it is given, and when."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.host import answerer as answering
from myoverlay.host import resolver as keeping
from myoverlay.host.answerer import Answerer
from myoverlay.host.resolver import Resolver
from myoverlay.names import protocol
from myoverlay.names.protocol import HOST
from myoverlay.tally import Tally
from myoverlay.values import Address
from tests.pure.kit import Clock


class Played:
    """Plays `host.answerer.Answerer`: started, and not there yet."""

    def __init__(self, home: Any, own: Any, now: Clock) -> None:
        self.control, self.theirs = socket.socketpair()
        self.started, self._now = now(), now
        self.pid, self.answered, self.is_frozen = 7, False, False
        self.given: list[str] = []

    def hear(self) -> dict[str, int]:
        return {}

    def ping(self) -> float:
        return self._now() + 20.0

    def listen(self, overlay: str, doors: tuple[socket.socket, socket.socket]) -> bool:
        self.given.append(overlay)
        return True

    def end(self) -> None:
        self.control.close()
        self.theirs.close()


def test_one_that_has_not_begun_has_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs as it starts is waited for long: until it answered, whoever asks is refused at once."""
    made: list[Played] = []

    def start(*args: Any) -> Played:
        made.append(Played(*args))
        return made[-1]

    monkeypatch.setattr(keeping, "Answerer", start)
    monkeypatch.setattr(keeping, "open_doors", lambda *_: (socket.socket(), socket.socket()))
    overlays: Any = SimpleNamespace(all=lambda: ())
    doorstep: Any = SimpleNamespace(resolver="169.254.77.53", ensure=lambda _: None, retire=lambda _: None)
    home: Any = SimpleNamespace(inode=1, close=lambda: None)
    keeper = Resolver(overlays, doorstep, lambda _: False, Tally(), home, now=Clock(1000.0))
    for _ in range(2):
        keeper.wake()
        keeper.round()
    (process,) = made
    assert process.given == []
    assert keeper.state()["process"] is None
    process.answered = True
    keeper.wake()
    keeper.round()
    assert process.given == [HOST]
    keeper.stop(1.0)


def test_one_that_reads_much_has_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone of 100,000 endpoints takes seconds to read on a busy machine: until it answered a question asked after it
    was handed over, it is not taken for frozen; one that was given nothing is, as before.
    """
    monkeypatch.setattr(answering, "_spawn", lambda *_: SimpleNamespace(pid=7))
    clock = Clock(100.0)
    home: Any = SimpleNamespace(call=lambda act: act())
    one = Answerer(home, Address("169.254.77.53"), clock)
    pongs: list[protocol.Pong] = []

    def answer(number: int) -> None:
        pongs.append(protocol.Pong(number))
        one.hear()

    def receive(_: object) -> protocol.Pong:
        if not pongs:
            raise BlockingIOError
        return pongs.pop()

    monkeypatch.setattr(protocol, "receive_pong", receive)
    monkeypatch.setattr(protocol, "send", lambda *_: None)
    one.ping()
    answer(1)
    clock.now += answering.PING
    one.ping()
    one.alter("web", 0, 100_000)
    clock.now += 1.0
    answer(2)  # this was asked before
    one.ping()
    clock.now += answering.PATIENCE + 1.0
    assert not one.is_frozen
    answer(3)
    one.ping()
    clock.now += answering.PATIENCE + 1.0
    assert one.is_frozen
    one.control.close()
