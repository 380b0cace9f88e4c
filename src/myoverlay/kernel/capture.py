"""Packets as they pass a device, copied by an AF_PACKET socket and written as a pcap file. Nothing is changed.

Sources: packet(7), linux/if_packet.h, linux/filter.h, the pcap format (draft-ietf-opsawg-pcap), RFC 7348.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from myoverlay.errors import Unknown
from myoverlay.kernel.listener import attach_filter
from myoverlay.kernel.netns import Namespace, refusal
from myoverlay.kernel.rtnetlink import SO_RCVBUFFORCE

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_TIMESTAMPNS = 35
#: Bytes of a packet that are kept: more than any, offloaded ones included.
SNAP = 262_144
#: Bytes that may wait for us.
BUFFER = 16 << 20
#: Packets taken at once, so that who reads comes back to its wish to end.
AT_ONCE = 256
#: pcap's header: magic of microseconds, version 2.4, zone, accuracy, longest packet, link type Ethernet.
HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP, 1)
_RECORD = struct.Struct("=IIII")
_TIMESPEC = struct.Struct("=qq")

Step = tuple[int, int, int, int]


def outer_filter(port: int, vni: int) -> list[Step]:
    """BPF that lets through VXLAN packets to this UDP port with this VNI, over IPv4 (any header length) or IPv6.

    `ldh [12]`: EtherType; IPv4: protocol 17, no later fragment, `ldxb 4*([14]&0xf)`, then destination port at x+16 and
    the VNI's three bytes at x+26 (UDP's 8 bytes, VXLAN's flags 4); IPv6 without extension headers at 54.
    """
    return [
        (0x28, 0, 0, 12),  # 0: ldh EtherType
        (0x15, 0, 9, 0x0800),  # 1: IPv4, else 11
        (0x30, 0, 0, 23),  # 2: ldb protocol
        (0x15, 0, 16, 17),  # 3: UDP, else 20
        (0x28, 0, 0, 20),  # 4: ldh fragment
        (0x45, 14, 0, 0x1FFF),  # 5: a later one: 20
        (0xB1, 0, 0, 14),  # 6: ldxb 4*([14]&0xf)
        (0x48, 0, 0, 16),  # 7: ldh destination port
        (0x15, 0, 11, port),  # 8: ours, else 20
        (0x40, 0, 0, 26),  # 9: ld VNI and a byte
        (0x05, 0, 0, 6),  # 10: to 17
        (0x15, 0, 8, 0x86DD),  # 11: IPv6, else 20
        (0x30, 0, 0, 20),  # 12: ldb next header
        (0x15, 0, 6, 17),  # 13: UDP, else 20
        (0x28, 0, 0, 56),  # 14: ldh destination port
        (0x15, 0, 4, port),  # 15: ours, else 20
        (0x20, 0, 0, 66),  # 16: ld VNI and a byte
        (0x74, 0, 0, 8),  # 17: rsh 8
        (0x15, 0, 1, vni),  # 18: ours, else 20
        (0x06, 0, 0, SNAP),  # 19: keep
        (0x06, 0, 0, 0),  # 20: drop
    ]


class Packet(NamedTuple):
    """One packet: when, in ns since 1970, how long it was, and its bytes."""

    at: int
    length: int
    raw: bytes


class Capture:
    """Copies of what passes one device. For one thread, which selects on `fileno`."""

    def __init__(self, ns: Namespace, device: str, steps: list[Step] | None = None) -> None:
        """Raises Unknown where there is no such device, KernelRefused where it cannot be listened to."""
        try:
            self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of no protocol: nothing comes yet
        except OSError as error:
            raise refusal(f"opening a packet socket in {ns!r}", error) from error
        self.seen = self.dropped = 0
        self._room = memoryview(bytearray(SNAP))
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            if steps is not None:
                attach_filter(self._socket, steps)
            self._socket.bind((device, ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.ENODEV:
                raise Unknown(f"there is no device {device} in that namespace") from None
            raise refusal(f"listening to {device}", error) from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Packet]:
        """What has come, AT_ONCE packets at most, without waiting. Raises KernelRefused where the device is gone."""
        for _ in range(AT_ONCE):
            try:
                size, more, _flags, _from = self._socket.recvmsg_into([self._room], 256)
            except BlockingIOError:
                return
            except OSError as error:
                raise refusal("reading packets", error) from error
            stamps = [data for level, kind, data in more if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)]
            seconds, nanoseconds = _TIMESPEC.unpack_from(stamps[0]) if stamps else (0, 0)
            yield Packet(seconds * 1_000_000_000 + nanoseconds, size, bytes(self._room[:size]))

    def count(self) -> tuple[int, int]:
        """How many packets passed the filter, and how many of them found no room and are lost."""
        raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # and begins anew with each look
        seen, dropped = struct.unpack("=II", raw)
        self.seen += seen
        self.dropped += dropped
        return self.seen, self.dropped

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pcap:
    """A pcap file being written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0
        file.write(HEADER)

    def write(self, packet: Packet) -> None:
        seconds, rest = divmod(packet.at, 1_000_000_000)
        self._file.write(_RECORD.pack(seconds, rest // 1000, len(packet.raw), packet.length) + packet.raw)
        self.count += 1

    def flush(self) -> None:
        self._file.flush()
