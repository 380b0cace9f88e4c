"""HTTP to one address: connections that are kept, deadlines that hold, and waits that can be ended.

The standard library's HTTP over sockets of our own. What py-consul brings (requests) costs 1.1 ms of CPU per call, has
no deadline for the whole of an answer, takes proxies from the environment, shares ten connections among all waits and
cannot end a wait that is under way. It knows neither keys nor Consul.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from email.message import Message
from typing import Any, NamedTuple, cast

import msgspec

from myoverlay.errors import Refused
from myoverlay.store.tls import Tls

#: Seconds for TCP and TLS to come up: a host that is away must not cost a long wait's whole time.
CONNECT_TIMEOUT = 3.0
#: Seconds that an idle connection is trusted: firewalls forget silent ones, and then a request on it is lost.
IDLE_LIMIT = 60.0
#: Idle connections that are kept. The number in use is bounded by the number of calling threads alone.
IDLE_KEPT = 16

#: Seconds of silence before the kernel asks whether the other side is there, between two such questions, and how many:
#: a wait on a server that lost its power, or behind a firewall that forgot, ends after 19 s and not at its own end.
KEEPALIVE = (10, 3, 3)

#: Consul's own ports for plain HTTP and TLS.
PORTS = {"http": 8500, "https": 8501}
_FORM = re.compile(r"(?:(https?)://)?(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::([0-9]{1,5}))?/?", re.I)


class Place(msgspec.Struct, frozen=True):
    """Where an HTTP API is. `host` is bare, also where it is an IPv6 address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str) -> Place:
    """`host`, `host:port`, `[v6]:port`, each also behind `http://` or `https://`. Raises Refused for anything else."""
    match = _FORM.fullmatch(text.strip())
    scheme, host, port = match.groups() if match else (None, "", None)
    scheme = (scheme or "http").lower()
    number = int(port) if port else PORTS[scheme]
    if not match or not 1 <= number <= 65535 or not _is_host(host):
        raise Refused(f"{text!r} is no address of Consul: host:port is, or http://host:port, https://…, [IPv6]:port")
    return Place(scheme, host.strip("[]"), number)


def _is_host(text: str) -> bool:
    if text.startswith("["):
        with contextlib.suppress(OSError):
            return bool(socket.inet_pton(socket.AF_INET6, text[1:-1]))
        return False
    return True


class Closed(Exception):
    """The pool was closed, before or during the call."""


class Answer(NamedTuple):
    """What came back, whole. The names are those that py-consul's callbacks look for."""

    code: int
    headers: Message
    body: bytes


class Meanwhile(NamedTuple):
    """What is done on the side when an answer has not begun after so many seconds; and again, until it says True."""

    after: float
    do: Callable[[], bool]


class Pool:
    """Connections to one place, one per call under way; a thread that waits never takes another's."""

    def __init__(self, place: Place, tls: Tls | None, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self.place = place
        self._tls = tls
        self._name = _Name(place, look_up)
        self._lock = threading.Lock()  # guards all below
        self._idle: list[_Line] = []
        self._busy: set[_Line] = set()
        self._closed = False
        self._received = 0

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies so far."""
        with self._lock:
            return self._received

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        meanwhile: Meanwhile | None = None,
    ) -> Answer:
        """One request and its whole answer by `deadline` (of time.monotonic()).

        Raises TimeoutError, other OSErrors (in words where TLS does not come up), http.client.HTTPException, Closed,
        and what `meanwhile` raises. Never repeats a request: one that may have been done must not be done again.
        """
        try:
            return self._over_a_line(
                deadline, lambda line: line.exchange(method, target, headers, body, deadline, meanwhile)
            )
        except ssl.SSLError as error:
            # The server's word on this host's certificate may come with its first answer only (RFC 8446, 4.4.2.4).
            raise OSError(self._tls.explain(error, self.place.host) if self._tls else str(error)) from error

    def _over_a_line(self, deadline: float, exchange: Callable[[_Line], Answer]) -> Answer:
        line = self._take() or self._dial(deadline)
        try:
            answer = exchange(line)
        except BaseException:
            self._give_back(line, broken=True)
            self._raise_if_closed()
            raise
        self._give_back(line, broken=line.ended)
        with self._lock:
            self._received += len(answer.body)
        return answer

    def close(self) -> None:
        """End idle connections and those under way: who waits on one hears Closed."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for line in self._busy:
                line.abort()
        for line in idle:
            line.drop()

    def _take(self) -> _Line | None:
        fresh = None
        stale = []
        age = self._tls.age if self._tls else 0
        with self._lock:
            self._raise_if_closed_locked()
            while self._idle and fresh is None:
                line = self._idle.pop()
                if line.age == age and line.is_usable():
                    self._busy.add(line)
                    fresh = line
                else:
                    stale.append(line)
        for line in stale:
            line.drop()
        return fresh

    def _dial(self, deadline: float) -> _Line:
        deadline = min(deadline, time.monotonic() + CONNECT_TIMEOUT)
        age = self._tls.age if self._tls else 0
        line = _Line(_connect(self.place, self._name.addresses(deadline), self._tls, deadline), self.place, age)
        with self._lock:
            closed = self._closed
            if not closed:
                self._busy.add(line)
        if closed:
            line.drop()
            raise Closed
        return line

    def _give_back(self, line: _Line, *, broken: bool) -> None:
        with self._lock:
            self._busy.discard(line)
            keep = not broken and not self._closed and len(self._idle) < IDLE_KEPT
            if keep:
                self._idle.append(line)
        if not keep:
            line.drop()

    def _raise_if_closed(self) -> None:
        with self._lock:
            self._raise_if_closed_locked()

    def _raise_if_closed_locked(self) -> None:
        if self._closed:
            raise Closed


class _Name:
    """Where a place is, by the system's resolver, which has a time of its own and cannot be stopped.

    So it is asked in a thread, and whoever wants to know waits only as long as he has time. One such thread at a time:
    with a resolver that hangs they would pile up.
    """

    def __init__(self, place: Place, look_up: Callable[..., list[Any]]) -> None:
        self._place = place
        self._look_up = look_up
        self._lock = threading.Lock()  # guards `_asking`
        self._asking: Future[list[Any]] | None = None

    def addresses(self, deadline: float) -> list[Any]:
        """As `socket.getaddrinfo` tells them. Raises OSError where they are not told by then."""
        with contextlib.suppress(socket.gaierror, UnicodeError):
            return self._ask(flags=socket.AI_NUMERICHOST)
        with self._lock:
            if self._asking is None:
                self._asking = Future()
                threading.Thread(target=self._find, args=(self._asking,), name="resolve", daemon=True).start()
            asking = self._asking
        try:
            return asking.result(_left(deadline))
        except TimeoutError:
            raise OSError(f"the name {self._place.host} was not resolved in time") from None

    def _ask(self, flags: int = 0) -> list[Any]:
        return self._look_up(self._place.host, self._place.port, type=socket.SOCK_STREAM, flags=flags)

    def _find(self, asking: Future[list[Any]]) -> None:
        found: list[Any] = []
        failure: OSError | None = None
        try:
            found = self._ask()
        except (OSError, UnicodeError) as error:
            failure = OSError(f"the name {self._place.host} was not resolved: {error}")
        with self._lock:
            self._asking = None  # before it is told: whoever comes later has it looked up anew
        if failure is None:
            asking.set_result(found)
        else:
            asking.set_exception(failure)


def _connect(place: Place, addresses: list[Any], tls: Tls | None, deadline: float) -> socket.socket:
    """A connected socket, TLS done. The first address that is silent leaves time for the others."""
    failure: OSError = OSError("no address found")
    for number, (family, kind, protocol, _, where) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline) / (len(addresses) - number))
            sock.connect(where)
            _tune(sock)
            sock.settimeout(_left(deadline))
            return sock if tls is None else tls.wrap(sock, place.host)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, KEEPALIVE[0]), (socket.TCP_KEEPINTVL, KEEPALIVE[1])):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE[2])


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class _Line:
    """One connection, which http.client takes for a socket. Reads end by the deadline, however slowly bytes drip."""

    def __init__(self, sock: socket.socket, place: Place, age: int) -> None:
        self._sock = sock
        self.age = age  # that of the TLS files it came up with
        self._place = place
        self._deadline = 0.0
        self._meanwhile: Meanwhile | None = None
        self._used = time.monotonic()
        self.ended = False

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        meanwhile: Meanwhile | None,
    ) -> Answer:
        self._deadline, self._meanwhile = deadline, meanwhile
        connection = http.client.HTTPConnection(self._place.host, self._place.port)
        connection.sock = cast(Any, self)
        try:
            connection.request(method, target, body=body or None, headers={**headers})
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self._hear_why()
            raise
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        self.ended = self.ended or response.will_close
        self._used = time.monotonic()
        return answer

    def _hear_why(self) -> None:
        """Who does not take this host's certificate says so and hangs up. Raises what it said, ssl.SSLError."""
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self._sock.settimeout(_left(self._deadline))
                self._sock.recv(1)

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self), 1 << 16)

    def receive_into(self, buffer: Any) -> int:
        while self._meanwhile is not None:
            self._sock.settimeout(min(self._meanwhile.after, _left(self._deadline)))
            try:
                received = self._sock.recv_into(buffer)
            except TimeoutError as error:
                if error.errno is not None:  # the kernel's own: the other side is gone
                    raise
                _left(self._deadline)
                if self._meanwhile.do():
                    self._meanwhile = None
            else:
                self._meanwhile = None
                return received
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        # http.client calls this before it reads the body of a last answer: the pool closes, by drop().
        self.ended = True

    def is_usable(self) -> bool:
        """Idle for a short time only, and nothing to read: between two calls that would be the other side's end."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return time.monotonic() - self._used < IDLE_LIMIT and not poll.poll(0)

    def abort(self) -> None:
        """End it under another thread's hands: its read returns at once."""
        # Past the TLS layer, whose state the other thread is using.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def drop(self) -> None:
        self._sock.close()


class _Reads(io.RawIOBase):
    def __init__(self, line: _Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._line.receive_into(buffer)
