"""From a name to a connection: nothing there takes longer than the caller has time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from myoverlay.store.wire import Answer, Place, Pool
from tests.pure.store.fake_consul import FakeConsul
from tests.store_contract import SOON, Call

NAME = "consul.example"


@pytest.fixture
def fake() -> Iterator[FakeConsul]:
    fake = FakeConsul().start()
    yield fake
    fake.close()


class Resolver:
    """Answers for one name once it is let; any other does not exist."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses
        self.let = threading.Event()
        self.asked = 0

    def __call__(self, name: str, port: int, *, type: int, flags: int = 0) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            return socket.getaddrinfo(name, port, type=type, flags=flags)
        self.asked += 1
        assert self.let.wait(30)
        if name != NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", address) for address in self.addresses]


def ask(pool: Pool, seconds: float = SOON) -> Answer:
    return pool.ask("GET", "/v1/kv/a", {}, b"", time.monotonic() + seconds)


def test_a_resolver_that_hangs_costs_no_more_than_the_deadline(fake: FakeConsul) -> None:
    """Every call ends in time and names the name; one thread asks for them all; once it answers, so do calls."""
    resolver = Resolver(("127.0.0.1", fake.port))
    pool = Pool(Place("http", NAME, fake.port), None, resolver)
    began, threads = time.monotonic(), threading.active_count()
    calls = [Call(lambda: ask(pool, 0.2)) for _ in range(8)]
    for call in calls:
        with pytest.raises(OSError, match=f"the name {NAME} was not resolved in time"):
            call.result()
    assert time.monotonic() - began < SOON
    assert threading.active_count() <= threads + 1
    assert resolver.asked == 1
    resolver.let.set()
    assert ask(pool).code == 404
    pool.close()


def test_a_name_that_is_none(fake: FakeConsul) -> None:
    """A name that nobody knows, and one that cannot be asked for, are told with the reason, and not remembered."""
    resolver = Resolver()
    resolver.let.set()
    for name, reason in (("elsewhere", "Name or service not known"), ("x" * 70, "idna|label")):
        pool = Pool(Place("http", name, 80), None, resolver if name == "elsewhere" else socket.getaddrinfo)
        for _ in range(2):
            with pytest.raises(OSError, match=f"the name {name} was not resolved: .*({reason})"):
                ask(pool)
        pool.close()
    assert resolver.asked == 2


def test_a_silent_address_leaves_time_for_the_next(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two addresses the first swallows the SYN: the second is reached within the same call."""
    monkeypatch.setattr("myoverlay.store.wire.CONNECT_TIMEOUT", 2.0)
    with socket.socket() as deaf, contextlib.ExitStack() as fillers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        resolver = Resolver(deaf.getsockname(), ("127.0.0.1", fake.port))
        resolver.let.set()
        pool = Pool(Place("http", NAME, 80), None, resolver)
        assert ask(pool).code == 404
        pool.close()
