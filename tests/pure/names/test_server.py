"""The resolver's loop on loopback: told what there is, given its sockets, asked over UDP and TCP, left alone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from myoverlay.names import forward, protocol, visitors
from myoverlay.names.protocol import Close, Listen, Ping, Show
from myoverlay.names.server import SILENT, Server
from myoverlay.plan.zone import End, Zone
from tests.pure.kit import Clock, until

#: All that asks from loopback is on it.
WEB = Zone("web", "127.0.0.0/8", ends=(End("127.0.0.1", ("me",), "s"), End("127.0.0.2", ("www",)), End("127.0.0.3", ("www",))))  # fmt: skip # noqa: E501


def on_one_port() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP, on a port that is free for both: what earlier tests left behind has some for a minute."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return udp, tcp


class Upstream:
    """A server that the resolver forwards to. `act` makes what is sent back of a question, or None for silence."""

    def __init__(self, tcp: bool = False) -> None:
        self.act: Callable[[bytes], bytes | None] = answer_of
        self.asked: list[bytes] = []
        self.udp, self.tcp = on_one_port()
        self.port = self.udp.getsockname()[1]
        self.ports: set[int] = set()
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            try:
                raw, asker = self.udp.recvfrom(4096)
            except OSError:
                return
            self.asked.append(raw)
            self.ports.add(asker[1])
            answer = self.act(raw)
            if answer is not None:
                self.udp.sendto(answer, asker)

    def _serve_tcp(self) -> None:
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            with sock:
                raw = sock.recv(4096)[2:]
                self.asked.append(raw)
                answer = self.act(raw)
                if answer is not None:
                    for byte in len(answer).to_bytes(2, "big") + answer:
                        sock.send(bytes([byte]))

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            sock.shutdown(socket.SHUT_RDWR) if sock is self.tcp else None
            sock.close()


def answer_of(raw: bytes, address: str = "192.0.2.7") -> bytes:
    query = dns.message.from_wire(raw)
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
    return reply.to_wire()


def show(control: socket.socket, zone: Zone) -> None:
    descriptor = protocol.file_of(zone)
    protocol.send(control, Show(zone.overlay), [descriptor])
    os.close(descriptor)


def listen(control: socket.socket, overlay: str) -> tuple[str, int]:
    """Hand over two sockets; returns their address."""
    udp, tcp = on_one_port()
    with udp, tcp:
        address: tuple[str, int] = tcp.getsockname()
        protocol.send(control, Listen(overlay), [udp.fileno(), tcp.fileno()])
    return address


class Resolver:
    """A server in a thread, with the daemon's end of its control."""

    def __init__(self, resolv_conf: Path, port: int, now: Callable[[], float] = time.monotonic) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(5)
        self._theirs = theirs
        self.thread = threading.Thread(target=Server(theirs, "127.0.0.99", resolv_conf, port, now).run, daemon=True)
        self.thread.start()
        self.address = ("", 0)

    def show(self, zone: Zone) -> None:
        show(self.control, zone)

    def listen(self, overlay: str) -> None:
        self.address = listen(self.control, overlay)

    def ping(self, number: int = 1) -> dict[str, int]:
        protocol.send(self.control, Ping(number))
        pong = protocol.receive_pong(self.control)
        assert pong is not None
        assert pong.number == number
        return dict(pong.counts)

    def ask(self, name: str, kind: str = "A", wait: float = 3.0) -> dns.message.Message:
        return dns.message.from_wire(self.exchange(dns.message.make_query(name, kind).to_wire(), wait))

    def exchange(self, raw: bytes, wait: float = 3.0) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(wait)
            sock.connect(self.address)
            sock.send(raw)
            return sock.recv(65535)

    def dial(self) -> socket.socket:
        return socket.create_connection(self.address, 5)

    def end(self) -> None:
        self.control.close()
        self.thread.join(5)
        assert not self.thread.is_alive()
        self._theirs.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def resolver(tmp_path: Path, upstream: Upstream) -> Iterator[Resolver]:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.99\nnameserver 127.0.0.1\n")
    one = Resolver(tmp_path / "resolv.conf", upstream.port)
    one.show(WEB)
    one.listen("web")
    yield one
    one.end()


def addresses(reply: dns.message.Message) -> set[str]:
    return {str(one) for rrset in reply.answer for one in rrset}


def over_tcp(sock: socket.socket, *names: str) -> list[dns.message.Message]:
    """Questions in one piece, their answers in order."""
    queries = [dns.message.make_query(name, "A").to_wire() for name in names]
    sock.sendall(b"".join(len(raw).to_bytes(2, "big") + raw for raw in queries))
    stream = sock.makefile("rb")
    answers = []
    for _ in queries:
        length = int.from_bytes(stream.read(2), "big")
        answers.append(dns.message.from_wire(stream.read(length)))
    return answers


def test_it_answers_what_it_was_told_and_counts_it(resolver: Resolver) -> None:
    """Over UDP; the next ping brings what was counted, once; another zone replaces the first."""
    assert addresses(resolver.ask("www")) == {"127.0.0.2", "127.0.0.3"}
    assert resolver.ask("nobody").rcode() == dns.rcode.NXDOMAIN
    assert resolver.exchange(b"\0\1" + bytes(10))[3] & 0xF == dns.rcode.FORMERR
    assert resolver.ping() == {"answered": 1, "nobody": 1, "malformed": 1}
    assert resolver.ping(2) == {}
    resolver.show(Zone("web", "127.0.0.0/8", ends=(End("127.0.0.4", ("www",)),)))
    until(lambda: addresses(resolver.ask("www")) == {"127.0.0.4"})


def test_several_questions_come_over_one_connection(resolver: Resolver) -> None:
    """Also all at once, and slowly, a byte at a time; the answers come in order."""
    with resolver.dial() as sock:
        answers = over_tcp(sock, *["me", "www"] * 20, "other.example.com", "me")
        assert [len(addresses(answer)) for answer in answers] == [1, 2] * 20 + [1, 1]
        raw = dns.message.make_query("me", "A").to_wire()
        for byte in len(raw).to_bytes(2, "big") + raw:
            sock.send(bytes([byte]))
        assert sock.recv(4096)[2:4] == raw[:2]


def test_who_misbehaves_over_tcp_is_sent_away(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question of 64 kB, the ninth connection of one asker, and one who says nothing for too long."""
    with resolver.dial() as sock:
        sock.sendall(b"\xff\xff" + b"x" * 100)
        assert ended(sock)
    guests = [resolver.dial() for _ in range(visitors.VISITORS_EACH)]
    resolver.ping()
    with resolver.dial() as one_too_many:
        assert ended(one_too_many)
    assert over_tcp(guests[0], "me")[0].rcode() == dns.rcode.NOERROR
    for guest in guests:
        guest.close()
    monkeypatch.setattr(visitors, "IDLE", 0.05)
    with resolver.dial() as idle:
        resolver.ping(2)
        resolver.ask("me")
        assert ended(idle)


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_other_names_are_forwarded(resolver: Resolver, upstream: Upstream) -> None:
    """Over UDP and TCP, under another number and from another port each time; the answer comes as it was given."""
    for _ in range(20):
        reply = resolver.ask("www.example.com")
        assert addresses(reply) == {"192.0.2.7"}
        assert not reply.flags & dns.flags.AA
    assert len({raw[:2] for raw in upstream.asked}) > 15
    assert len(upstream.ports) > 15
    with resolver.dial() as sock:
        assert addresses(over_tcp(sock, "tcp.example.com")[0]) == {"192.0.2.7"}
    assert resolver.ping()["forwarded"] == 21


def test_a_false_answer_is_passed_over(resolver: Resolver, upstream: Upstream) -> None:
    """Another number or another question is no answer; the asker gets SERVFAIL, or the right one if that comes too."""
    upstream.act = lambda raw: answer_of(bytes([raw[0] ^ 1]) + raw[1:], "192.0.2.66")
    assert resolver.ask("www.example.com").rcode() == dns.rcode.SERVFAIL
    counts = resolver.ping()
    assert counts["false answers"] >= 1
    assert counts["late"] == 1


def test_silence_is_servfail_after_a_second(resolver: Resolver, upstream: Upstream) -> None:
    """Docker's own DNS would wait four."""
    upstream.act = lambda raw: None
    began = forward.PATIENCE
    assert resolver.ask("www.example.com", wait=began + 1.0).rcode() == dns.rcode.SERVFAIL
    upstream.act = answer_of
    assert addresses(resolver.ask("www.example.com")) == {"192.0.2.7"}


def test_a_silent_server_is_overtaken_by_the_next(tmp_path: Path, upstream: Upstream) -> None:
    """The second is asked after a short while, at once where the first refuses; without any it is SERVFAIL."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.2", upstream.port))
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.2\nnameserver 127.0.0.1\n")
    one = Resolver(conf, upstream.port)
    try:
        one.show(WEB)
        one.listen("web")
        assert addresses(one.ask("www.example.com", wait=0.9)) == {"192.0.2.7"}
        silent.close()
        assert addresses(one.ask("www.example.com", wait=forward.STAGGER - 0.05)) == {"192.0.2.7"}
        with one.dial() as sock:
            assert addresses(over_tcp(sock, "www.example.com")[0]) == {"192.0.2.7"}
    finally:
        silent.close()
        one.end()
    conf.write_text("")
    none = Resolver(conf, upstream.port)
    try:
        none.show(WEB)
        none.listen("web")
        assert none.ask("www.example.com").rcode() == dns.rcode.SERVFAIL
    finally:
        none.end()


def test_a_number_that_was_given_away_is_another_socket(tmp_path: Path) -> None:
    """Two servers answer one question, and others come in between: they get the numbers of the sockets it had."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    clock = Clock(1000.0)
    first, second, asker = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second, asker, ours, theirs:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.2", first.getsockname()[1]))
        server = Server(theirs, "127.0.0.99", tmp_path / "resolv.conf", first.getsockname()[1], clock)
        show(ours, WEB)
        asker.connect(listen(ours, "web"))
        ask = [dns.message.make_query(f"{name}.example.com", "A").to_wire() for name in "abc"]
        server.step(), server.step()
        asker.send(ask[0])
        server.step()
        clock.now += forward.STAGGER
        server.step()
        (raw, to), (_, also) = first.recvfrom(4096), second.recvfrom(4096)
        first.sendto(answer_of(raw), to)
        asker.send(ask[1]), asker.send(ask[2])
        second.sendto(answer_of(raw), also)
        server.step()
        for _ in ask[1:]:
            raw, to = first.recvfrom(4096)
            first.sendto(answer_of(raw), to)
        server.step()
        assert [asker.recv(4096)[:2] for _ in ask] == [raw[:2] for raw in ask]
        ours.close()
        server.run()


def test_questions_under_way_are_bounded(
    resolver: Resolver, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One overlay may not use up what all have: what is too much is SERVFAIL at once."""
    monkeypatch.setattr(forward, "OUTSTANDING_EACH", 4)
    upstream.act = lambda raw: None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.8)
        sock.connect(resolver.address)
        for number in range(10):
            sock.send(dns.message.make_query(f"n{number}.example.com", "A").to_wire())
        replies = [dns.message.from_wire(sock.recv(4096)) for _ in range(6)]
    assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
    assert resolver.ping()["too many"] == 6


def test_an_answer_that_is_too_big_is_cut(resolver: Resolver, upstream: Upstream) -> None:
    """The asker is told to come again over TCP."""

    def big(raw: bytes) -> bytes:
        query = dns.message.from_wire(raw)
        reply = dns.message.make_response(query)
        many = [f"192.0.2.{n}" for n in range(100)]
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *many))
        return reply.to_wire()

    upstream.act = big
    reply = resolver.ask("big.example.com")
    assert reply.flags & dns.flags.TC
    assert not reply.answer
    with resolver.dial() as sock:
        assert len(addresses(over_tcp(sock, "big.example.com")[0])) == 100


def test_a_daemon_that_hangs_is_not_believed_for_long(tmp_path: Path, upstream: Upstream) -> None:
    """Containers' names are SERVFAIL, also those that nobody bears; other names go on; its next word ends it."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    clock = Clock(1000.0)
    one = Resolver(tmp_path / "resolv.conf", upstream.port, clock)
    try:
        one.show(WEB)
        one.listen("web")
        one.ping()
        clock.now += SILENT
        assert addresses(one.ask("www")) == {"127.0.0.2", "127.0.0.3"}
        clock.now += 0.1
        reverse = ("2.0.0.127.in-addr.arpa", "PTR")
        for question in (("www", "A"), ("www", "AAAA"), ("nobody", "A"), reverse):
            assert one.ask(*question).rcode() == dns.rcode.SERVFAIL
        with one.dial() as sock:
            assert over_tcp(sock, "www")[0].rcode() == dns.rcode.SERVFAIL
        assert addresses(one.ask("www.example.com")) == {"192.0.2.7"}
        assert one.ping(2)["doubted"] == 5
        assert addresses(one.ask("www")) == {"127.0.0.2", "127.0.0.3"}
        assert one.ask(*reverse).rcode() == dns.rcode.NOERROR
    finally:
        one.end()


def test_an_overlay_that_is_closed_is_refused(resolver: Resolver) -> None:
    """Its sockets close; and when the daemon ends, all do."""
    protocol.send(resolver.control, Close("web"))
    resolver.ping()
    with pytest.raises(ConnectionRefusedError):
        resolver.ask("me")
    resolver.show(WEB)
    resolver.listen("web")
    assert addresses(resolver.ask("me")) == {"127.0.0.1"}
    resolver.listen("web")
    assert addresses(resolver.ask("me")) == {"127.0.0.1"}


def test_messages_travel_as_they_are() -> None:
    """A zone of thousands fits into a message, since it travels as a file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        big = Zone("web", "10.0.0.0/8", ends=tuple(End(f"10.0.{n // 250}.{n % 250}", (f"n{n}",)) for n in range(5000)))
        descriptor = protocol.file_of(big)
        protocol.send(ours, Show("web"), [descriptor])
        os.close(descriptor)
        told: Any = protocol.receive_order(theirs)
        assert told[0] == Show("web")
        assert protocol.zone_in(told[1][0]) == big
        os.close(told[1][0])
        ours.close()
        assert protocol.receive_order(theirs) is None
