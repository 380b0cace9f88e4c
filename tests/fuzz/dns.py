"""Questions to the resolver, and what the host's own tell it: the real server between sockets on paper."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import dns.message

from myoverlay.names import forward as forward_module
from myoverlay.names import questions
from myoverlay.names.questions import EDNS, PLAIN, Asked
from myoverlay.names.server import Server
from myoverlay.plan.zone import Change, End, Zone
from tests.fuzz.tape import Tape, bent, packets
from tests.fuzz.target import right

_CORPUS = packets("dns")
#: Who asks: two containers of an overlay, one on an internal network, the host, and somebody who is none of them.
_ASKERS = (
    ("demo", "10.5.0.7"), ("demo", "10.5.0.8"), ("inner", "10.6.0.2"), ("", "192.0.2.1"), ("demo", "203.0.113.9"),
    ("", "::1"),
)  # fmt: skip
_MANY = tuple(End(f"10.5.1.{number}", ("many",)) for number in range(1, 120))


class Given(NamedTuple):
    """A question by somebody, and what the host's resolver would answer; over TCP too, in pieces of that size.

    `silent`: the daemon has said nothing for long.
    """

    asker: tuple[str, str]
    raw: bytes
    answer: bytes
    cut: int
    silent: bool


class Udp:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendto(self, raw: bytes, _to: Any) -> None:
        self.sent.append(raw)


class Upstream:
    """A connected socket to the host's resolver, whose answer is there at once; over TCP it comes in two pieces."""

    answer = b""

    def __init__(self, _family: int, kind: int) -> None:
        self.asked, self._left = b"", [b""]
        self._is_stream = kind == socket.SOCK_STREAM

    def setblocking(self, _on: bool) -> None: ...
    def connect(self, _to: Any) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int:
        return -1

    def send(self, raw: bytes) -> int:
        self.asked = raw[2:] if self._is_stream else raw
        # Its number is the question's, as anybody in between can see.
        whole = self.asked[:2] + Upstream.answer[2:]
        stream = len(whole).to_bytes(2, "big") + whole
        self._left = [stream[: len(stream) // 2], stream[len(stream) // 2 :]] if self._is_stream else [whole]
        return len(raw)

    def recv(self, _size: int) -> bytes:
        return self._left.pop(0) if self._left else b""


class Visitor:
    """A TCP socket of one who asks."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces, self.sent, self.open = pieces, b"", True

    def recv(self, _size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def send(self, raw: bytes) -> int:
        self.sent += raw
        return len(raw)

    def setblocking(self, _on: bool) -> None: ...
    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.open = False


class Listening:
    """The TCP socket where it is accepted."""

    def __init__(self, visitor: Visitor, source: str) -> None:
        self._all = [(visitor, (source, 1))]

    def accept(self) -> Any:
        if not self._all:
            raise BlockingIOError
        return self._all.pop()


class Target:
    """One resolver with two zones."""

    LIMITS = {"questions under way": 0, "visitors": 0, "outcomes": 24}

    def __init__(self) -> None:
        self._now = 100.0
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server: Any = Server(self._near, "169.254.77.53", Path("/dev/null"), now=lambda: self._now)
        self._server._servers, self._server._looked = ("192.0.2.53",), float("inf")
        self._calls: dict[Any, Callable[[], None]] = {}
        self._server.watch = lambda sock, _events, call: self._calls.__setitem__(sock, call)
        self._server.unwatch = lambda sock: self._calls.pop(sock, None)
        show = self._server._directory.show
        mine = (End("10.5.0.7", ("web", "web.shop"), "/netns/a"), End("10.5.0.8", ("db",)), End("10.5.0.9", ("db",)))
        show(Zone("demo", "10.5.0.0/16", False, (*mine, *_MANY), ("dead",)), 0.0)
        show(Zone("inner", "10.6.0.0/24", True, (End("10.6.0.2", ("safe",), "/netns/a"),)), 0.0)
        self._server._directory.change(Change("demo", went=("10.5.0.9",)), 1.0)
        paper = SimpleNamespace(
            socket=Upstream, AF_INET=socket.AF_INET, AF_INET6=socket.AF_INET6,
            SOCK_STREAM=socket.SOCK_STREAM, SOCK_DGRAM=socket.SOCK_DGRAM,
        )  # fmt: skip
        self._undo = mock.patch.object(forward_module, "socket", paper)
        self._undo.start()

    def make(self, tape: Tape) -> Given:
        raw = bent(tape, tape.pick(_CORPUS), _CORPUS, 4096)
        raw = raw.ljust(1200, b"\0") if tape.below(64) == 63 else raw
        answer = bent(tape, tape.pick(_CORPUS), _CORPUS, 65535) if tape.below(2) else self._echo(tape, raw)
        return Given(tape.pick(_ASKERS), raw, answer, 1 + tape.below(64), tape.below(8) == 7)

    @staticmethod
    def _echo(tape: Tape, raw: bytes) -> bytes:
        """An answer that begins as the question does: what could be believed."""
        return bent(tape, raw[:2] + bytes((0x81, 0x80)) + raw[4:], _CORPUS, 65535)

    def check(self, given: Given) -> None:
        Upstream.answer = given.answer
        udp = Udp()
        overlay, source = given.asker
        self._server._asked_at = self._now - (20.0 if given.silent else 0.0)
        self._server._answer(udp, overlay, given.raw, source, 5353)
        self._go_on()
        asked = questions.read(given.raw)
        right(len(udp.sent) <= 1, f"{len(udp.sent)} answers to one question")
        for answer in udp.sent:
            self._judge(given.raw, asked, answer)
        if given.raw[2:3] and given.raw[2] & 0x80:
            right(not udp.sent, "an answer is answered, which never ends")
        self._tcp(given, udp.sent)
        self._now += 0.01

    def _judge(self, raw: bytes, asked: Asked | bytes | None, answer: bytes) -> None:
        right(len(answer) >= 12 and answer[:2] == raw[:2] and answer[2] & 0x80, "no answer to that question")
        if not isinstance(asked, Asked):
            right(answer == asked, "it answers otherwise than it says")
            return
        room = min(max(asked.message.payload, PLAIN), EDNS) if asked.message.edns >= 0 else PLAIN
        right(len(answer) <= max(room, asked.message.payload, PLAIN), f"{len(answer)} bytes where {room} are taken")
        if answer[2:] != Upstream.answer[2:]:  # else it is somebody else's, and passed on as it is
            right(len(answer) <= room, f"{len(answer)} bytes of ours where {room} are taken")
            said = dns.message.from_wire(answer)
            right(said.question == asked.message.question, "it answers another question")
            right(said.answer or said.rcode() or said.flags & 0x0200 or answer[2] & 4, "it says nothing")

    def _tcp(self, given: Given, sent: list[bytes]) -> None:
        """The same over a stream, in pieces."""
        stream = len(given.raw).to_bytes(2, "big") + given.raw
        pieces = [stream[at : at + given.cut * 16] for at in range(0, len(stream), given.cut * 16)]
        visitor = Visitor(pieces)
        overlay, source = given.asker
        self._server._visitors.accept(Listening(visitor, source), overlay)
        self._go_on()
        self._server._visitors.close()
        right(not visitor.open, "a visitor is never sent away")
        if visitor.sent:
            length = int.from_bytes(visitor.sent[:2], "big")
            right(length == len(visitor.sent) - 2 and visitor.sent[2:4] == given.raw[:2], "no answer to that question")
        elif sent and len(given.raw) <= questions.QUESTION_LIMIT:
            right(not isinstance(questions.read(given.raw), Asked), "over UDP it is answered, over TCP it is not")

    def _go_on(self) -> None:
        """What the selector would call, and time that passes for who waits."""
        for _ in range(400):
            if not self._calls:
                break
            for sock, call in tuple(self._calls.items()):
                if self._calls.get(sock) is call:
                    call()
            if self._server._forwarder.outstanding:
                self._now += 0.4
                self._server._asked_at += 0.4
                self._server._forwarder.tick()

    def show(self, given: Given) -> str:
        return f"{given.asker} asks {given.raw.hex()}; the host's resolver says {given.answer[:200].hex()}"

    def left(self) -> dict[str, int]:
        return {
            "questions under way": self._server._forwarder.outstanding,
            "visitors": len(self._server._visitors._all),
            "outcomes": len(self._server._counts),
        }

    def close(self) -> None:
        self._undo.stop()
        self._near.close()
        self._far.close()
        self._server._selector.close()
