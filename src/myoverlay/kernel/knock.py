"""An echo to a container from the host's end of its cable, as if another container had sent it, and what comes out.

For where the container's namespace cannot be entered. Sources: packet(7); net/core/dev.c: a packet socket for all
protocols hears a frame before the bridge takes it; net/ipv4/icmp.c.
"""

from __future__ import annotations

import os
import select
import socket
import time

from myoverlay.kernel import frames
from myoverlay.kernel.listener import attach_filter
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.values import Address, Mac

ETH_P_ALL, PACKET_OUTGOING = 3, 4
#: Bytes of the echo's packet, and of a frame that are read.
_LENGTH, _READ = 60, 256
#: Load the type; ARP: take it; IPv4: load the protocol, take ICMP (classic BPF; a container may be busy).
_FILTER = (
    (0x28, 0, 0, 12), (0x15, 3, 0, frames.ETH_P_ARP), (0x15, 0, 3, frames.ETH_P_IP),
    (0x30, 0, 0, 23), (0x15, 0, 1, frames.ICMP), (0x06, 0, 0, _READ), (0x06, 0, 0, 0),
)  # fmt: skip


class Knock:
    """At one container's port. For one thread."""

    def __init__(self, ns: Namespace, port: str, own: tuple[Mac, Address]) -> None:
        """`own`: the container's. Raises KernelRefused."""
        self._port, self._own = port, own
        self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._socket.setblocking(False)
            attach_filter(self._socket, _FILTER)
            self._socket.bind((port, ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise refusal(f"listening at {port}", error) from error

    def echo(self, other: tuple[Mac, Address], patience: float) -> tuple[str, frozenset[Address]]:
        """The MAC that the container's answer to `other` goes to, "" where none comes within `patience` seconds; and
        whose MACs it asked for meanwhile. It is not waited for longer once it asks for the other's: it would answer.

        Raises KernelRefused.
        """
        nonce, until = os.urandom(4), time.monotonic() + patience
        sought: set[Address] = set()
        try:
            self._socket.send(frames.echo_request(other, self._own, nonce, _LENGTH))
            while other[1] not in sought and (left := until - time.monotonic()) > 0:
                if not select.select([self._socket], (), (), left)[0]:
                    break
                frame, sender = self._socket.recvfrom(_READ)
                if sender[2] == PACKET_OUTGOING:
                    continue
                to = frames.echo_answered_to(frame, self._own[1], other[1], nonce)
                if to is not None:
                    return to, frozenset(sought)
                wanted = frames.read_arp_request(frame, self._own[1])
                sought |= {wanted} if wanted is not None else set()
        except OSError as error:
            raise refusal(f"an echo at {self._port}", error) from error
        return "", frozenset(sought)

    def close(self) -> None:
        self._socket.close()
