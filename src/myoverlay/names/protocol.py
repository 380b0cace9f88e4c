"""What the daemon and its resolver tell each other, over a pair of sockets that keep messages apart (SOCK_SEQPACKET).

Sockets and zones travel as file descriptors, a zone in a file in memory: so no message is longer than a line, and one
whom the other does not read never blocks him.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from myoverlay.plan.zone import Change, End, Zone

#: The overlay of the host's own namespace.
HOST = ""
#: Bytes of a message; file descriptors with it.
MESSAGE, DESCRIPTORS = 1 << 16, 2
#: Endpoints in a line of a zone's file.
LINE = 500


@dataclass(frozen=True, slots=True)
class Listen:
    """Answer on these two sockets (UDP, TCP), in place of those you have for this overlay."""

    overlay: str


@dataclass(frozen=True, slots=True)
class Close:
    """This host is no longer on the overlay."""

    overlay: str


@dataclass(frozen=True, slots=True)
class Show:
    """With a file that holds the overlay's zone."""

    overlay: str


@dataclass(frozen=True, slots=True)
class Alter:
    """With a file that holds what is otherwise in the overlay's zone."""

    overlay: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""

    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes. `counts`: outcomes since the last time."""

    number: int
    counts: Mapping[str, int] = field(default_factory=dict)


Order = Listen | Close | Show | Alter | Ping
_KINDS: dict[str, Callable[..., Order]] = {kind.__name__: kind for kind in (Listen, Close, Show, Alter, Ping)}


def send(control: socket.socket, message: Order | Pong, descriptors: Sequence[int] = ()) -> None:
    """Raises OSError; BlockingIOError where the other end does not read."""
    raw = json.dumps([type(message).__name__, asdict(message)]).encode()
    socket.send_fds(control, [raw], descriptors)


def receive_order(control: socket.socket) -> tuple[Order, list[int]] | None:
    """The next order with its file descriptors, which are the caller's; None at the end. Raises OSError."""
    raw, descriptors, _flags, _from = socket.recv_fds(control, MESSAGE, DESCRIPTORS)
    if not raw:
        return None
    kind, given = json.loads(raw)
    return _KINDS[kind](**given), descriptors


def receive_pong(control: socket.socket) -> Pong | None:
    """The next answer; None at the end. Raises OSError."""
    raw = control.recv(MESSAGE)
    return Pong(**json.loads(raw)[1]) if raw else None


def file_of(zone: Zone) -> int:
    """A file in memory that holds a zone."""
    return _file([zone.overlay, zone.subnet, zone.internal, zone.gone], zone.ends)


def file_of_change(change: Change) -> int:
    """A file in memory that holds what is otherwise in a zone."""
    return _file([change.overlay, change.went, change.gone], change.ends)


def _file(head: list[Any], ends: Sequence[End]) -> int:
    """The head in a line of its own, then the endpoints, `LINE` in each: whoever reads it needs room for one line."""
    descriptor = os.memfd_create("zone", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(head).encode() + b"\n")
            for start in range(0, len(ends), LINE):
                plain = [[end.address, end.names, end.sandbox] for end in ends[start : start + LINE]]
                file.write(json.dumps(plain).encode() + b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def zone_in(descriptor: int) -> Zone:
    """The zone in such a file, which stays open."""
    (overlay, subnet, internal, gone), ends = _given(descriptor)
    return Zone(overlay, subnet, internal, ends, tuple(gone))


def change_in(descriptor: int) -> Change:
    """What is otherwise, by such a file, which stays open."""
    (overlay, went, gone), ends = _given(descriptor)
    return Change(overlay, ends, tuple(went), tuple(gone))


def _given(descriptor: int) -> tuple[list[Any], tuple[End, ...]]:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        head: list[Any] = json.loads(file.readline())
        lines = (json.loads(line) for line in file)
        ends = tuple(End(address, tuple(names), sandbox) for line in lines for address, names, sandbox in line)
        return head, ends
