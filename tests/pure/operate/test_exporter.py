"""Metrics over TCP, on the loopback: a scraper is served, whatever others do there meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from myoverlay.operate import serving
from myoverlay.operate.exporter import Exporter
from myoverlay.operate.serving import CONNECTIONS, REQUEST, split_address
from myoverlay.tally import Tally
from tests.pure.kit import Clock, until
from tests.pure.operate.visiting import Visited, free_port

PAGE = b"# HELP x y\nx 1\n"


class Served(Visited):
    """An exporter on a free port, with a page of any size."""

    def __init__(self, page: Callable[[], bytes] = lambda: PAGE, now: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self.exporter = Exporter(("127.0.0.1", free_port()), page, self.tally, now)
        super().__init__(self.exporter)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.end()
    assert served.tally.total("bugs") == 0


def test_a_scraper_gets_the_page(served: Served) -> None:
    """GET /metrics, also with a query; HEAD has no body; the type is Prometheus's."""
    for path in ("/metrics", "/metrics?name=x"):
        answer = served.ask(path)
        assert (answer.status, answer.body) == (200, PAGE)  # type: ignore[attr-defined]
        assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.getheader("Connection") == "close"
    head = served.ask("/metrics", "HEAD")
    assert (head.status, head.getheader("Content-Length")) == (200, str(len(PAGE)))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /Control.Gc HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /metrics SPDY/3\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"x" * REQUEST, b"400"),
    ],
)
def test_whatever_else_is_asked_is_refused(served: Served, request_: bytes, status: bytes) -> None:
    """No other method, path or protocol is answered, and none of the plugin's own requests."""
    answer = served.raw(request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert served.ask("/metrics").status == 200


def test_idle_connections_keep_nobody_out(served: Served) -> None:
    """More silent connections than there are places: a scraper is answered at once, the oldest of them are closed."""
    silent = [served.dial() for _ in range(CONNECTIONS * 3)]
    begun = time.monotonic()
    assert served.ask("/metrics").status == 200
    assert time.monotonic() - begun < serving.PATIENCE / 2
    assert len(served.exporter._visitors) <= CONNECTIONS
    silent[0].settimeout(5)
    assert silent[0].recv(1) == b""


def test_a_slow_request_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then prolongs nothing: the connection ends after its time."""
    monkeypatch.setattr(serving, "PATIENCE", 0.4)
    served = Served()
    try:
        sock, begun = served.dial(), time.monotonic()
        sock.settimeout(0.05)
        ended = False
        while not ended:
            assert time.monotonic() - begun < 5
            try:
                sock.sendall(b"G")
                ended = sock.recv(1) == b""
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                ended = True
        assert time.monotonic() - begun >= 0.3
    finally:
        sock.close()
        served.exporter.stop(10)


def test_who_does_not_read_is_not_waited_for() -> None:
    """A page larger than the kernel's buffers, asked for by many who read nothing: others are served meanwhile.

    By a clock that stands still, so that nobody's time is over before: however slow the machine, who is answered is
    answered beside all of them.
    """
    clock, page = Clock(), b"x" * 20_000_000
    served = Served(lambda: page, clock)
    try:
        for _ in range(CONNECTIONS - 1):
            served.dial().sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: sum(visitor.answer is not None for visitor in served.exporter._visitors) == CONNECTIONS - 1, 60)
        assert served.ask("/metrics", "HEAD").status == 200
        assert sum(bool(visitor.answer) for visitor in served.exporter._visitors) >= CONNECTIONS - 1
        clock.now += serving.PATIENCE
        served.exporter.wake()
        until(lambda: not served.exporter._visitors)
    finally:
        for sock in served.sockets:
            sock.close()
        served.exporter.stop(10)


def test_an_address_in_use_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The network does not depend on it: the trouble is said once, and ends when the address is free."""
    monkeypatch.setattr(serving, "REBIND", (0.02, 0.02))
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        exporter = Exporter(("127.0.0.1", port), lambda: PAGE, Tally())
        exporter.start()
        until(lambda: exporter.trouble)
        threading.Event().wait(0.1)
        assert exporter.trouble == f"127.0.0.1 port {port} cannot be listened on: Address already in use"
    until(lambda: not exporter.trouble)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert until(lambda: sock.recv(1000)).startswith(b"HTTP/1.1 200")
    exporter.stop(10)
    assert [record.levelname for record in caplog.records if "cannot be listened" in record.message] == ["ERROR"]


def test_it_stops_with_connections_open() -> None:
    """Stopping waits for nobody, and closes all."""
    served = Served()
    sock = served.dial()
    until(lambda: served.exporter._visitors)
    begun = time.monotonic()
    served.exporter.stop(10)
    assert time.monotonic() - begun < 2
    assert sock.recv(1) == b""
    sock.close()


def test_addresses_are_split_as_the_settings_have_them() -> None:
    """IPv6 stands in brackets."""
    assert split_address("127.0.0.1:9555") == ("127.0.0.1", 9555)
    assert split_address("[::1]:9555") == ("::1", 9555)
    shown = Exporter(("::1", 9555), lambda: PAGE, Tally())
    assert shown.shown == "http://[::1]:9555/metrics"
    shown.stop(1)
