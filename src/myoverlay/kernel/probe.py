"""The probe device: what a host's kernel answers the heartbeat with, whatever has become of its plugin.

A namespace of its own, pinned, holds one VXLAN device on a VNI of its own. The question is an ARP request straight to
the MAC that every host can work out from the other's id. The other's kernel answers it from the receive path, and its
device has just learned from the question's outer source where the asker is: no daemon has to live there, and an asker
that is new there needs no row. Sources: net/ipv4/arp.c (arp_process), drivers/net/vxlan/vxlan_core.c (vxlan_snoop).

Hosts hear each other only where they use the same UDP port (setting `port`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from myoverlay.errors import Clash, KernelRefused, Unavailable
from myoverlay.kernel import frames, netns
from myoverlay.kernel.channel import NO_STATISTICS, RTM_GETLINK
from myoverlay.kernel.linkforms import IFINFO, Tunnel, flags_of
from myoverlay.kernel.links import Links
from myoverlay.kernel.listener import attach_filter
from myoverlay.kernel.neigh import NDA_DST, NDA_LLADDR, NDM, NTF_SELF, RTM_NEWNEIGH
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.rtnetlink import NLM_F_CREATE, NLM_F_REPLACE, SO_SNDBUFFORCE, Request, Wire, attribute
from myoverlay.kernel.underlay import route_out
from myoverlay.values import VNI_FIRST, VXLAN_OVERHEAD, Address, HostId, Mac

log = logging.getLogger(__name__)

#: Just below those that overlays get by themselves.
PROBE_VNI = VNI_FIRST - 1
#: Overlay names start with a letter or digit.
PIN = "_probe"
DEVICE = "probe"
IFF_LOWER_UP = 1 << 16
NUD_REACHABLE = 0x02
#: All hosts' addresses are in one network, so that the kernel has a route for its answers.
_PREFIXLEN = 8
#: Frames read at once: who floods the device does not keep the thread from asking.
_AT_ONCE = 256
#: Questions of full size whose answers are known again by their nonce.
_SIZES = 4096
#: A namespace takes over the machine's IPv4 settings when it is born (net.core.devconf_inherit_init_net).
_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    # Who tests checksums (kernel/selftest.py) is answered by ICMP, and would be told nothing for a while.
    "net/ipv4/icmp_ratelimit": "0",
    **{
        f"net/ipv4/conf/{name}/{key}": "0"
        for name in ("all", DEVICE)
        for key in ("rp_filter", "arp_ignore", "arp_filter", "arp_accept")
    },
}


@lru_cache(maxsize=4096)
def probe_mac(host: HostId) -> Mac:
    """The MAC of a host's probe device: 02 and the first 40 bits of its id."""
    return Mac.unpack(b"\x02" + bytes.fromhex(host[:10]))


@lru_cache(maxsize=4096)
def probe_address(host: HostId) -> Address:
    """The address of a host's probe device: 10 and 24 bits of its id.

    It is never seen outside the namespace's VNI. Two hosts that have the same (1 in 16.7 million) still hear each
    other, by their MACs; only the full-size probe between these two tells nothing.
    """
    return Address.unpack(b"\x0a" + bytes.fromhex(host[-6:]))


class Heard(NamedTuple):
    """An answer: whose, and the nonce of a full-size question."""

    host: HostId
    nonce: bytes | None = None


class Read(NamedTuple):
    """What has come: answers in their order, and how many frames were none."""

    heard: tuple[Heard, ...]
    invalid: int


class Watchman(Protocol):
    """Who is told of the device before it is there, and of the VTEPs that are asked."""

    def cover(self, port: int, vni: int, vtep: Address, door: str) -> None: ...
    def admit(self, vteps: Iterable[Address]) -> None: ...
    def uncover(self) -> None: ...


class Prober:
    """A host's probe device. For one thread, but for `remove`. `vteps` are this host's, the first is used."""

    def __init__(
        self,
        links: Links,
        pins: Pins,
        me: HostId,
        port: int,
        vteps: Callable[[], Sequence[Address]],
        search: Iterable[Path] = (),
        home: Namespace | None = None,
        guard: Watchman | None = None,
    ) -> None:
        """`search`: where else namespaces are pinned, to name who has the VNI; `home`: where the underlay is."""
        self._guard = guard
        self._links, self._pins, self._port, self._vteps = links, pins, port, vteps
        self._search = (pins.folder, *search)
        self._home = home.dup() if home is not None else netns.current()
        self.me = me
        self.mac, self.address = probe_mac(me), probe_address(me)
        self._open: _Open | None = None
        self._known: dict[tuple[Mac, Address], HostId] = {}
        self._sizes: dict[bytes, int] = {}
        #: Bytes of the largest packet inside.
        self.mtu = 0

    @property
    def ready(self) -> bool:
        return self._open is not None

    def ensure(self, deadline: float) -> bool:
        """Make the device, or adopt the one that is there and correct it; was anything opened anew? Repeating is cheap.

        Raises Clash, naming the holder, where somebody else has the VNI; Unavailable while this host has no VTEP.
        """
        tunnel = self._wanted(deadline)
        namespace = self._pins.create(PIN)
        with namespace:
            self._make(namespace, tunnel, deadline)
            index = self._links.ifindex(namespace, DEVICE, deadline=deadline)
            if index is None:
                raise KernelRefused(f"finding {DEVICE}", 0, "it is gone")
            self.mtu = tunnel.mtu
            self._links.equip(namespace, DEVICE, self.address, _PREFIXLEN, deadline=deadline)
            failed = namespace.sysctls(_SYSCTLS)
            if self._open is not None and self._open.what == (namespace.inode, index):
                self._open.recover()
                return False
            if failed:
                log.info("heartbeat: not set: %s", ", ".join(sorted(failed)))
            self.shut()
            self._open = _Open(namespace, index, self._home)
        return True

    def _wanted(self, deadline: float) -> Tunnel:
        vteps = self._vteps()
        if not vteps:
            raise Unavailable("heartbeat: this host has no VTEP yet")
        _, door, mtu = self._links.address_of(vteps[0], deadline=deadline)
        if self._guard is not None:
            self._guard.cover(self._port, PROBE_VNI, vteps[0], door)
        mtu -= VXLAN_OVERHEAD[vteps[0].version]
        return Tunnel(name=DEVICE, mac=self.mac, vni=PROBE_VNI, port=self._port, local=vteps[0], mtu=mtu)

    def _make(self, namespace: Namespace, tunnel: Tunnel, deadline: float) -> None:
        try:
            for unset in self._links.ensure(namespace, tunnel, deadline=deadline):
                log.info("heartbeat: %s", unset)
        except KernelRefused as error:
            if error.code not in (errno.EEXIST, errno.EADDRINUSE):
                raise
            holder = self._links.holder_of(PROBE_VNI, self._port, search=self._search, deadline=deadline)
            raise Clash(
                f"no heartbeat: VNI {PROBE_VNI} on UDP port {self._port} is taken on this host by"
                f" {holder or 'somebody who cannot be seen'}: remove that"
            ) from error

    def sockets(self) -> tuple[socket.socket, ...]:
        """What to select on; none without a device."""
        return self._open.sockets if self._open is not None else ()

    def know(self, hosts: Mapping[HostId, Address]) -> None:
        """Whose answers count, and where they are: those of all others are invalid."""
        if self._guard is not None:
            self._guard.admit(hosts.values())
        self._known = {(probe_mac(host), probe_address(host)): host for host in hosts}

    def ask(
        self, targets: Mapping[HostId, Address], full: Mapping[HostId, bytes] = MappingProxyType({}), size: int = 0
    ) -> set[HostId]:
        """Ask these hosts at these VTEPs; the answer holds those that a question was really sent to.

        Those in `full` are asked by a packet of full size too, or of `size` bytes, with that nonce, which no router may
        break into pieces.
        """
        there = self._open
        if there is None or not targets:
            return set()
        reachable = _routed(there.routes, set(targets.values()))
        hosts = [host for host, vtep in targets.items() if vtep in reachable]
        refused = there.lead({probe_mac(host): targets[host] for host in hosts})
        return {
            host
            for host in hosts
            if probe_mac(host) not in refused
            and all(map(there.send, self._question(host, full.get(host), size or self.mtu)))
        }

    def _question(self, host: HostId, nonce: bytes | None, size: int) -> Sequence[bytes]:
        mac, address = probe_mac(host), probe_address(host)
        if nonce is None:
            return (frames.arp_request(self.mac, None, mac, address),)
        self._sizes[nonce] = size
        if len(self._sizes) > _SIZES:
            del self._sizes[next(iter(self._sizes))]
        # This question tells the other's kernel our address too: it keeps no neighbour of those who merely ask.
        tell = frames.arp_request(self.mac, self.address, mac, address)
        return tell, frames.echo_request((self.mac, self.address), (mac, address), nonce, size)

    def measures(self, host: HostId) -> bool:
        """Can a packet of full size be sent there and back? Not between two that happen to have one address."""
        return probe_address(host) != self.address

    def read(self) -> Read:
        """The answers that have come, without waiting. Raises KernelRefused where the device is gone."""
        heard: list[Heard] = []
        if self._open is None:
            return Read((), 0)
        arps = self._open.read(self._open.arp, 128)
        for frame in arps:
            answer = frames.read_arp_reply(frame, self.mac)
            if answer is not None and answer in self._known:
                heard.append(Heard(self._known[answer]))
        echoes = self._open.read(self._open.echo, 1 << 16)
        for frame in echoes:
            echo = frames.read_echo_reply(frame, (self.mac, self.address))
            if echo is not None and echo[3] == self._sizes.get(echo[2]) and echo[:2] in self._known:
                heard.append(Heard(self._known[echo[:2]], echo[2]))
        return Read(tuple(heard), len(arps) + len(echoes) - len(heard))

    def shut(self) -> None:
        """Forget the device, which stays: the next `ensure` looks at it afresh."""
        there, self._open = self._open, None
        if there is not None:
            there.close()

    def close(self) -> None:
        """Let go of everything; namespace and device stay, and the kernel goes on answering."""
        self.shut()
        self._home.close()

    def remove(self, deadline: float) -> None:
        """Take device and namespace away, as at uninstall; absent is success. Only after `close` or before `ensure`.

        The device goes first and by itself: a namespace ends in the background, and its VNI would be taken until then.
        """
        if self._pins.is_there(PIN):
            with self._pins.create(PIN) as namespace:
                self._links.remove(namespace, DEVICE, deadline=deadline)
        self._pins.delete(PIN)
        if self._guard is not None:
            self._guard.uncover()


def _routed(wire: Wire, vteps: set[Address]) -> set[Address]:
    """Those that the host has a route to, by a link that has a carrier. The device itself never says so."""
    carriers, found = dict[int, bool](), set()
    for vtep in vteps:
        try:
            out = route_out(wire, vtep)
            if out not in carriers:
                carriers[out] = _has_carrier(wire, out)
        except KernelRefused:
            continue
        if carriers[out]:
            found.add(vtep)
    return found


class _Open:
    """The device's sockets, netlink to its table, and netlink to the underlay's routes."""

    def __init__(self, ns: Namespace, index: int, home: Namespace) -> None:
        self.what = ns.inode, index
        self._index = index
        with contextlib.ExitStack() as undo:
            self._wire = Wire(ns)
            undo.callback(self._wire.close)
            self.routes = Wire(home)
            undo.callback(self.routes.close)
            self.arp = _listen(ns, frames.ETH_P_ARP, _NO_REQUESTS)
            undo.callback(self.arp.close)
            self.echo = _listen(ns, frames.ETH_P_IP, _ECHO_REPLIES)
            undo.callback(self.echo.close)
            self.sockets = (self.arp, self.echo)
            undo.pop_all()

    def recover(self) -> None:
        """Forget that the device was down meanwhile: each socket would refuse the next call for it."""
        for sock in self.sockets:
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def lead(self, vteps: Mapping[Mac, Address]) -> set[Mac]:
        """Say behind which VTEP each MAC is; those that the kernel refused come back.

        Not PERMANENT: frames from behind another VTEP than a permanent row's are dropped in silence, and so the
        questions of a host that was given another address would be, by every host whose plugin is away. Such a row
        follows the sender, and goes by itself when none was heard for 300 s; each question writes it anew.
        """
        macs = list(vteps)
        rows = [Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, self._row(mac, vteps[mac])) for mac in macs]
        return {macs[failure.place] for failure in self._wire.commit(rows)}

    def _row(self, mac: Mac, vtep: Address) -> bytes:
        head = NDM.pack(socket.AF_BRIDGE, self._index, NUD_REACHABLE, NTF_SELF, 0)
        return head + attribute(NDA_LLADDR, mac.packed) + attribute(NDA_DST, vtep.packed)

    def send(self, frame: bytes) -> bool:
        try:
            self.arp.send(frame)
        except OSError:  # down, gone or full: it was not asked
            return False
        return True

    def read(self, sock: socket.socket, size: int) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) < _AT_ONCE:
                found.append(sock.recv(size))
        except BlockingIOError:
            pass
        except OSError as error:
            raise refusal(f"hearing answers on {DEVICE}", error) from error
        return found

    def close(self) -> None:
        for part in (self._wire, self.routes, *self.sockets):
            part.close()


#: Classic BPF (linux/filter.h): half word at, byte at, equal?, return. Others' questions are the kernel's to answer,
#: and at 1,000 hosts they are as many as our answers. Of an echo only replies matter.
_LDH, _LDB, _JEQ, _RET = 0x28, 0x30, 0x15, 0x06
_NO_REQUESTS = ((_LDH, 0, 0, 20), (_JEQ, 1, 0, frames.ARP_REQUEST), (_RET, 0, 0, 128), (_RET, 0, 0, 0))
_ECHO_REPLIES = (
    (_LDB, 0, 0, 23), (_JEQ, 0, 3, frames.ICMP), (_LDB, 0, 0, 34), (_JEQ, 0, 1, frames.ECHO_REPLY),
    (_RET, 0, 0, 1 << 16), (_RET, 0, 0, 0),
)  # fmt: skip


def _listen(ns: Namespace, protocol: int, steps: Sequence[tuple[int, int, int, int]]) -> socket.socket:
    """A raw socket on the device that hears this protocol and never its own frames (those go to ETH_P_ALL alone)."""
    sock = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        attach_filter(sock, steps)
        # What waits for a dead VTEP's MAC on the underlay (3 s, net/core/neighbour.c) counts as not yet sent.
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
        sock.setblocking(False)
        sock.bind((DEVICE, protocol))
    except OSError as error:
        sock.close()
        raise refusal(f"listening on {DEVICE}", error) from error
    return sock


def _has_carrier(wire: Wire, index: int) -> bool:
    request = IFINFO.pack(0, 0, index, 0, 0) + NO_STATISTICS
    answer = wire.one(Request(RTM_GETLINK, 0, request), f"looking at interface {index}")
    return bool(flags_of(answer.body) & IFF_LOWER_UP)
