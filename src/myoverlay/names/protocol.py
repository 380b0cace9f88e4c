"""What the daemon and its resolver tell each other, over a pair of sockets that keep messages apart (SOCK_SEQPACKET).

Sockets and zones travel as file descriptors, a zone in a file in memory: so no message is longer than a line, and one
whom the other does not read never blocks him.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

import msgspec

from myoverlay.plan.zone import Zone

#: The overlay of the host's own namespace.
HOST = ""
#: Bytes of a message; file descriptors with it.
MESSAGE, DESCRIPTORS = 1 << 16, 2


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """Answer on these two sockets (UDP, TCP), in place of those you have for this overlay."""

    overlay: str


class Close(msgspec.Struct, frozen=True, tag="close"):
    """This host is no longer on the overlay."""

    overlay: str


class Show(msgspec.Struct, frozen=True, tag="show"):
    """With a file that holds the overlay's zone."""

    overlay: str


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Are you there?"""

    number: int


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Yes. `counts`: outcomes since the last time."""

    number: int
    counts: Mapping[str, int] = {}


Order = Listen | Close | Show | Ping
_encode = msgspec.json.Encoder(enc_hook=str).encode
_orders = msgspec.json.Decoder(Order)
_pongs = msgspec.json.Decoder(Pong)
_zones = msgspec.json.Decoder(Zone)


def send(control: socket.socket, message: Order | Pong, descriptors: Sequence[int] = ()) -> None:
    """Raises OSError; BlockingIOError where the other end does not read."""
    socket.send_fds(control, [_encode(message)], descriptors)


def receive_order(control: socket.socket) -> tuple[Order, list[int]] | None:
    """The next order with its file descriptors, which are the caller's; None at the end. Raises OSError."""
    raw, descriptors, _flags, _from = socket.recv_fds(control, MESSAGE, DESCRIPTORS)
    return (_orders.decode(raw), descriptors) if raw else None


def receive_pong(control: socket.socket) -> Pong | None:
    """The next answer; None at the end. Raises OSError, and ValueError for what is none."""
    raw = control.recv(MESSAGE)
    return _pongs.decode(raw) if raw else None


def file_of(raw: bytes) -> int:
    """A file in memory that holds a zone."""
    descriptor = os.memfd_create("zone", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(raw)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def zone_in(descriptor: int) -> Zone:
    """The zone in such a file, which stays open."""
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return _zones.decode(file.read())
