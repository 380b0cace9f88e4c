"""Sockets that a resolver answers at, born in another namespace than its own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from myoverlay.errors import Clash, KernelRefused
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.rtnetlink import SO_RCVBUFFORCE
from myoverlay.values import Address

_BACKLOG = 64
#: Bytes, as the kernel counts them: some 2,600 questions.
_BUFFER = 1 << 20


def open_doors(ns: Namespace, address: Address, port: int = 53) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket, bound there. Raises Clash where somebody else has the port, else KernelRefused."""
    return ns.call(lambda: _open(address, port))


def _open(address: Address, port: int) -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Connections that a former run had wait out their time; nobody listens there any more.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Questions wait here while the resolver waits for a processor: the usual buffer has room for 277 of them.
        with contextlib.suppress(PermissionError):
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        udp.bind((address, port))
        tcp.bind((address, port))
        tcp.listen(_BACKLOG)
    except OSError as error:
        udp.close()
        tcp.close()
        raise _said(error, address, port) from error
    return udp, tcp


def _said(error: OSError, address: Address, port: int) -> KernelRefused | Clash:
    if error.errno == errno.EADDRINUSE:
        return Clash(
            f"port {port} of {address} is taken: a DNS server that listens on all addresses has it (bind it to its own"
            f" ones; dnsmasq: bind-dynamic), or another plugin of ours ({os.strerror(errno.EADDRINUSE)})"
        )
    return refusal(f"listening on {address} port {port}", error)
