"""The fault proxy before a small Consul on loopback: each fault is what it says, at any moment, and ends when told."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lab import faults
from lab.fault_proxy import FaultProxy, listen
from lab.faults import Fault
from tests.pure.store.fake_consul import FakeConsul, Pair
from tests.store_contract import SOON, Call

HEAD = "GET /v1/kv/a/?recurse&index={index}&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No descriptor and no thread stays."""
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= fds and threading.active_count() <= threads)


@pytest.fixture
def fake(nothing_left: None) -> Iterator[FakeConsul]:
    fake = FakeConsul(kv={"a/1": Pair(b"one", 0, 5, 5), "a/2": Pair(bytes(3000), 0, 7, 7)}).start()
    yield fake
    fake.close()
    assert fake.crashes == []


@pytest.fixture
def proxy(fake: FakeConsul) -> Iterator[FaultProxy]:
    with FaultProxy(listen("127.0.0.1"), lambda: socket.create_connection(("127.0.0.1", fake.port), 3)) as proxy:
        yield proxy


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.005)


def connect(proxy: FaultProxy) -> socket.socket:
    host, _, port = proxy.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def ask(sock: socket.socket, request: str = HEAD.format(index=0)) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body. Raises ConnectionError where there is no whole answer."""
    sock.sendall(request.encode())
    return answer(sock)


def answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with sock.makefile("rb") as file:
        first = file.readline()
        lines = iter(file.readline, b"\r\n")
        headers = {n.strip().lower(): t.strip() for n, _, t in (line.decode().partition(":") for line in lines if line)}
        if not headers:
            raise ConnectionAbortedError
        body = file.read(int(headers["content-length"]))
        if len(body) < int(headers["content-length"]):
            raise ConnectionAbortedError
        return int(first.split()[1]), headers, body


def fresh(proxy: FaultProxy, request: str = HEAD.format(index=0)) -> tuple[int, dict[str, str], bytes]:
    with connect(proxy) as sock:
        return ask(sock, request)


def test_what_passes_is_unchanged(fake: FakeConsul, proxy: FaultProxy) -> None:
    """Without a fault the answer is Consul's own, over a connection that is kept, and a wait is woken."""
    with connect(proxy) as sock:
        assert ask(sock)[1]["x-consul-index"] == "7"
        assert b"a/2" in ask(sock)[2]
        waiting = Call(lambda: ask(sock, HEAD.format(index=7)))
        eventually(lambda: len(proxy.asked) == 3)
        with fake.changed:
            fake.kv["a/3"] = Pair(b"", 0, 9, 9)
            fake.changed.notify_all()
        assert waiting.result()[1]["x-consul-index"] == "9"
        assert proxy.connections == 1
    eventually(lambda: proxy.connections == 0)


def test_delay(proxy: FaultProxy) -> None:
    """An answer is late by what was said, and comes at once when the delay ends."""
    proxy.set(faults.delay(0.2))
    began = time.monotonic()
    assert fresh(proxy)[0] == 200
    assert 0.2 <= time.monotonic() - began < SOON
    proxy.set(faults.delay(60))
    late = Call(lambda: fresh(proxy))
    eventually(lambda: len(proxy.asked) == 2)
    proxy.set(faults.PASS)
    assert late.result()[0] == 200


def test_reset(proxy: FaultProxy) -> None:
    """A wait under way, an idle connection and a new one all end with RST."""
    with connect(proxy) as busy, connect(proxy) as idle:
        waiting = Call(lambda: ask(busy, HEAD.format(index=7)))
        ask(idle)
        eventually(lambda: len(proxy.asked) == 2)
        proxy.set(faults.RESET)
        for call in (waiting.result, lambda: ask(idle), lambda: fresh(proxy)):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                call()
    proxy.set(faults.PASS)
    assert fresh(proxy)[0] == 200


def test_half_open(proxy: FaultProxy) -> None:
    """Everything is accepted and nothing answered; what was silent so long is reset when it is over."""
    with connect(proxy) as old, connect(proxy) as waiter:
        ask(old)
        waiting = Call(lambda: ask(waiter, HEAD.format(index=7)))
        eventually(lambda: len(proxy.asked) == 2)
        proxy.set(faults.HALF_OPEN)
        with connect(proxy) as new:
            asked = [Call(lambda: ask(old)), Call(lambda: ask(new))]
            eventually(lambda: len(proxy.asked) == 4)
            assert waiting.is_alive()
            assert all(call.is_alive() for call in asked)
            proxy.set(faults.PASS)
            for call in (waiting, *asked):
                with pytest.raises(ConnectionResetError):
                    call.result()
    assert fresh(proxy)[0] == 200


def test_black_hole(proxy: FaultProxy) -> None:
    """A SYN is not answered, what is sent on an open connection not acknowledged; afterwards both go through."""
    with connect(proxy) as old:
        ask(old)
        proxy.set(faults.BLACK_HOLE)
        old.sendall(HEAD.format(index=0).encode())
        host, _, port = proxy.address.partition(":")
        with pytest.raises(TimeoutError):
            socket.create_connection((host, int(port)), timeout=0.1)
        assert len(proxy.asked) == 1
        proxy.set(faults.PASS)
        assert answer(old)[0] == 200  # sent again by the kernel
    assert fresh(proxy)[0] == 200


@pytest.mark.parametrize("code", [403, 413, 429, 500])
def test_status(proxy: FaultProxy, code: int) -> None:
    """Answers are the status with Consul's words, also to a wait under way, and Consul hears of none."""
    with connect(proxy) as sock:
        waiting = Call(lambda: ask(sock, HEAD.format(index=7)))
        eventually(lambda: len(proxy.asked) == 1)
        proxy.set(faults.status(code))
        for status, headers, body in (waiting.result(), fresh(proxy)):
            assert status == code
            assert headers["content-type"].startswith("text/plain")
            assert body.decode() == faults.WORDS[code]


def test_stale_index(proxy: FaultProxy) -> None:
    """The index goes back to 1, the body stays."""
    proxy.set(faults.STALE)
    status, headers, body = fresh(proxy)
    assert (status, headers["x-consul-index"]) == (200, "1")
    assert b"a/2" in body


@pytest.mark.parametrize(("fault", "status", "body"), [(faults.EMPTY, 404, b""), (faults.EMPTY_LIST, 200, b"[]")])
def test_empty(fake: FakeConsul, proxy: FaultProxy, fault: Fault, status: int, body: bytes) -> None:
    """Reads find nothing, at an index; writes go through; a wait at that index blocks until it is over."""
    fresh(proxy)
    proxy.set(fault)
    assert fresh(proxy)[::2] == (status, body)
    reads = '[{"KV":{"Verb":"get","Key":"a/1"}}]'
    txn = "PUT /v1/txn HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}"
    assert b"doesn't exist" in fresh(proxy, txn.format(len(reads), reads))[2]
    write = '[{"KV":{"Verb":"set","Key":"a/9","Value":""}}]'
    assert fresh(proxy, txn.format(len(write), write))[0] == 200
    assert "a/9" in fake.kv
    waiting = Call(lambda: fresh(proxy, HEAD.format(index=7)))
    eventually(lambda: len(proxy.asked) == 5)
    assert waiting.is_alive()
    proxy.set(faults.PASS)
    assert b"a/9" in waiting.result()[2]


def test_truncated(proxy: FaultProxy) -> None:
    """The body ends half-way."""
    proxy.set(faults.TRUNCATED)
    with pytest.raises(ConnectionAbortedError):
        fresh(proxy)


def test_drip(proxy: FaultProxy) -> None:
    """Bytes come one by one; the rest comes at once when it is over."""
    proxy.set(faults.drip(0.01))
    with connect(proxy) as sock:
        sock.sendall(HEAD.format(index=0).encode())
        assert sock.recv(1) == b"H"
        assert len(sock.recv(4096)) < 100
        proxy.set(faults.PASS)
        eventually(lambda: len(sock.recv(4096, socket.MSG_PEEK)) > 1000)


def test_lost_answer(fake: FakeConsul, proxy: FaultProxy) -> None:
    """The request reaches Consul once, and the client hears RST."""
    proxy.set(Fault("lost", only="PUT"))
    write = '[{"KV":{"Verb":"set","Key":"a/9","Value":""}}]'
    with pytest.raises(ConnectionResetError):
        fresh(proxy, f"PUT /v1/txn HTTP/1.1\r\nHost: x\r\nContent-Length: {len(write)}\r\n\r\n{write}")
    assert [seen.method for seen in fake.seen] == ["PUT"]
    assert "a/9" in fake.kv
    assert fresh(proxy)[0] == 200


def test_a_store_that_is_away(fake: FakeConsul, proxy: FaultProxy) -> None:
    """With Consul gone a request ends with RST; with Consul back all is well again."""
    fake.close()
    with pytest.raises(ConnectionResetError):
        fresh(proxy)
    fake.start()
    assert fresh(proxy)[0] == 200


def test_a_client_that_goes(fake: FakeConsul, proxy: FaultProxy) -> None:
    """A client that leaves in the middle of a wait is let go of at once."""
    with connect(proxy) as sock:
        sock.sendall(HEAD.format(index=7).encode())
        eventually(lambda: len(proxy.asked) == 1)
    eventually(lambda: proxy.connections == 0)


def test_stop_under_load(proxy: FaultProxy) -> None:
    """It ends in the middle of everything; the fixture counts descriptors and threads."""
    socks = [connect(proxy) for _ in range(20)]
    calls = [Call(lambda sock=sock: ask(sock, HEAD.format(index=7))) for sock in socks]
    eventually(lambda: len(proxy.asked) == 20)
    proxy.set(faults.BLACK_HOLE)
    proxy.stop()
    for call in calls:
        with contextlib.suppress(OSError):
            call.result()
    for sock in socks:
        sock.close()
