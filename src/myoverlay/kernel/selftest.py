"""Whether datagrams arrive whole through VXLAN with checksums left to the device, and with checksums made before it.

Asked with the heartbeat's device: a UDP datagram goes to a port of the other host's probe address where nobody listens.
Its kernel answers with ICMP (port unreachable) if the checksum is right, and drops it in silence if not. Sources:
net/ipv4/udp.c (__udp4_lib_rcv), net/ethtool/ioctl.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from myoverlay.kernel import frames, netns
from myoverlay.kernel.neigh import NDA_DST, NDA_LLADDR, NDM, NTF_SELF, NUD_PERMANENT, RTM_DELNEIGH, RTM_NEWNEIGH
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import DEVICE, NUD_REACHABLE, PIN, probe_address, probe_mac
from myoverlay.kernel.rtnetlink import NLM_F_CREATE, NLM_F_REPLACE, Request, Wire, attribute
from myoverlay.values import Address, HostId

SIOCETHTOOL = 0x8946
ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x16, 0x17
#: A port where nobody listens; bytes of the datagram, which fit through any underlay; seconds for each try, and tries:
#: an older version's kernel may answer once a second (icmp_ratelimit).
_PORT, _BYTES, _WAIT, _TRIES = 9, 1200, 0.3, 5
_NDA_ADDRESS = 1


class Offloading:
    """For one caller at a time: the device's setting is changed meanwhile, and put back."""

    def __init__(self, pins: Pins, me: HostId) -> None:
        self._pins = pins
        self._me = me

    def run(self, peers: Mapping[HostId, Address], deadline: float) -> dict[HostId, tuple[bool, bool]]:
        """Did a datagram to each of these hosts, at its VTEP, arrive with offload on, and with it off?

        Raises Unknown where there is no heartbeat device, KernelRefused where the kernel says no.
        """
        with netns.open_path(self._pins.path(PIN)) as ns, ExitStack() as undo:
            index = ns.call(lambda: _index(DEVICE))
            undo.enter_context(_known(ns, index, peers))
            with undo.enter_context(_telling(ns)) as raw:
                for host in peers:
                    mac, address = probe_mac(host), probe_address(host)
                    raw.send(frames.arp_request(probe_mac(self._me), probe_address(self._me), mac, address))
            before = _checksums(ns)
            undo.callback(_set_checksums, ns, before)
            arrived: list[set[HostId]] = []
            for on in (True, False):
                _set_checksums(ns, on)
                arrived.append(_answered(ns, peers, deadline))
        return {host: (host in arrived[0], host in arrived[1]) for host in peers}


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise refusal(f"finding {name}", error) from error


@contextmanager
def _known(ns: Namespace, index: int, peers: Mapping[HostId, Address]) -> Iterator[None]:
    """Meanwhile the namespace knows where the peers are: its own ARP reaches nobody."""

    def row(host: HostId, state: int) -> bytes:
        head = NDM.pack(socket.AF_INET, index, state, 0, 0)
        return (
            head + attribute(_NDA_ADDRESS, probe_address(host).packed) + attribute(NDA_LLADDR, probe_mac(host).packed)
        )

    def behind(host: HostId) -> bytes:
        head = NDM.pack(socket.AF_BRIDGE, index, NUD_REACHABLE, NTF_SELF, 0)
        return head + attribute(NDA_LLADDR, probe_mac(host).packed) + attribute(NDA_DST, peers[host].packed)

    made = NLM_F_CREATE | NLM_F_REPLACE
    wire = Wire(ns)
    try:
        wire.commit([Request(RTM_NEWNEIGH, made, behind(host)) for host in peers])
        wire.commit([Request(RTM_NEWNEIGH, made, row(host, NUD_PERMANENT)) for host in peers])
        try:
            yield
        finally:
            wire.commit([Request(RTM_DELNEIGH, 0, row(host, 0)) for host in peers])
    finally:
        wire.close()


@contextmanager
def _telling(ns: Namespace) -> Iterator[socket.socket]:
    """A raw socket by which the peers are told our address: else they would not know where to answer to."""
    raw = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        raw.bind((DEVICE, frames.ETH_P_ARP))
        yield raw
    except OSError as error:
        raise refusal(f"telling who asks, by {DEVICE}", error) from error
    finally:
        raw.close()


def _checksums(ns: Namespace) -> bool:
    """Are checksums left to the device?"""
    return bool(_ethtool(ns, ETHTOOL_GTXCSUM, 0))


def _set_checksums(ns: Namespace, on: bool) -> None:
    _ethtool(ns, ETHTOOL_STXCSUM, int(on))


def _ethtool(ns: Namespace, command: int, value: int) -> int:
    """struct ethtool_value: command, data; struct ifreq: name, pointer to it."""
    data = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", DEVICE.encode(), ctypes.addressof(data))
    with ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCETHTOOL, request)
        except OSError as error:
            raise refusal(f"the checksum offload of {DEVICE}", error) from error
    return int(struct.unpack_from("=II", data.raw)[1])


def _answered(ns: Namespace, peers: Mapping[HostId, Address], deadline: float) -> set[HostId]:
    """To whom a datagram came through: told by the error that its answer leaves on the socket."""
    with ExitStack() as undo:
        asked: dict[socket.socket, HostId] = {}
        for host in peers:
            sock = undo.enter_context(ns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.connect((probe_address(host), _PORT))
            asked[sock] = host
        found: set[HostId] = set()
        for _ in range(_TRIES):
            for sock in [sock for sock, host in asked.items() if host not in found]:
                if _is_refused(partial(sock.send, bytes(_BYTES))):
                    found.add(asked[sock])
            until = min(deadline, time.monotonic() + _WAIT)
            while (waiting := [sock for sock, host in asked.items() if host not in found]) and (
                left := until - time.monotonic()
            ) > 0:
                heard = select.select(waiting, (), (), left)[0]
                found |= {asked[sock] for sock in heard if _is_refused(partial(sock.recv, 1))}
            if not waiting or time.monotonic() >= deadline:
                break
        return found


def _is_refused(act: Callable[[], object]) -> bool:
    """Does the socket tell, by this call, that its datagram came to a port where nobody listens?"""
    try:
        act()
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN):
            raise refusal("asking by UDP", error) from error
        return error.errno == errno.ECONNREFUSED
    return False
