"""Packets copied from real devices: the right ones, whole, with their time, in a file that others can read."""

from __future__ import annotations

import io
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from myoverlay.errors import Unknown
from myoverlay.kernel.capture import Capture, Packet, Pcap, outer_filter
from myoverlay.kernel.netns import Namespace
from tests.kernel.host.tools import ip, until

VNI, PORT = 0x700001, 4789


@pytest.fixture
def pair(spaces: Callable[[str], Namespace]) -> tuple[Namespace, Namespace]:
    one, two = spaces("one"), spaces("two")
    ip(one, f"link add eth0 type veth peer name eth0 netns {two.path}", "link set eth0 up")
    ip(two, "link set eth0 up")
    for ns, number in ((one, 1), (two, 2)):
        ip(ns, f"addr add 192.0.2.{number}/24 dev eth0", f"addr add fd00::{number}/64 dev eth0 nodad")
    return one, two


def vxlan(vni: int = VNI) -> bytes:
    return b"\x08\0\0\0" + (vni << 8).to_bytes(4, "big") + b"inner frame"


def send(ns: Namespace, data: bytes, target: str = "192.0.2.2", port: int = PORT, options: bytes = b"") -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with ns.socket(family, socket.SOCK_DGRAM) as sock:
        if options:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
        sock.sendto(data, (target, port))


def taken(capture: Capture, count: int, wait: float = 3.0) -> list[Packet]:
    found: list[Packet] = []
    until(lambda: found.extend(capture.read()) or len(found) >= count, wait)
    return found


def test_only_this_overlays_packets_pass_the_filter(pair: tuple[Namespace, Namespace]) -> None:
    """UDP port and VNI are right, over IPv4 with and without options and over IPv6: those alone are copied."""
    one, two = pair
    with Capture(two, "eth0", outer_filter(PORT, VNI)) as capture:
        send(one, vxlan(VNI + 1))
        send(one, vxlan(), port=PORT + 1)
        send(one, b"short")
        send(one, vxlan(VNI + 1), "fd00::2")
        send(one, vxlan(), "fd00::2", port=PORT + 1)
        send(one, vxlan() + b"1")
        send(one, vxlan() + b"2", options=b"\x01\x01\x01\x00")  # no operation, three times
        send(one, vxlan() + b"3", "fd00::2")
        packets = taken(capture, 3)
        assert [packet.raw[-1:] for packet in packets] == [b"1", b"2", b"3"]
        assert all(packet.raw.endswith(vxlan() + packet.raw[-1:]) for packet in packets)
        assert capture.count() == (3, 0)
        assert list(capture.read()) == []


def test_without_a_filter_everything_is_copied(pair: tuple[Namespace, Namespace]) -> None:
    """Frames of both directions, the time of each from the kernel."""
    one, two = pair
    begun = time.time_ns()
    with Capture(one, "eth0") as capture:
        send(one, b"x" * 1000, port=9)
        send(two, b"y" * 1000, "192.0.2.1", port=9)
        found: list[Packet] = []
        until(lambda: found.extend(capture.read()) or {p.raw[-1:] for p in found} >= {b"x", b"y"})
    assert all(begun <= packet.at <= time.time_ns() for packet in found)


def test_no_such_device(pair: tuple[Namespace, Namespace]) -> None:
    """It is said in one sentence, and no socket stays."""
    with pytest.raises(Unknown, match="no device eth7"):
        Capture(pair[0], "eth7")


def test_the_file_is_pcap(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    """Header and records as the format has them; tcpdump reads it and sees VXLAN with our VNI."""
    one, two = pair
    path = tmp_path / "x.pcap"
    with path.open("wb") as file, Capture(two, "eth0", outer_filter(PORT, VNI)) as capture:
        pcap = Pcap(file)
        send(one, vxlan() + bytes(40))
        for packet in taken(capture, 1):
            pcap.write(packet)
        pcap.flush()
    raw = path.read_bytes()
    magic, major, minor, _zone, _figures, _snap, link = struct.unpack_from("=IHHiIII", raw)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 1)
    seconds, micro, kept, length = struct.unpack_from("=IIII", raw, 24)
    assert abs(seconds - time.time()) < 60
    assert micro < 1_000_000
    assert kept == length == len(raw) - 40
    tcpdump = shutil.which("tcpdump", path="/usr/sbin:/usr/bin")
    assert tcpdump is not None
    seen = subprocess.run([tcpdump, "-nr", str(path)], capture_output=True, text=True, check=True).stdout
    assert "VXLAN" in seen
    assert f"vni {VNI}" in seen


def test_an_empty_file_is_a_file() -> None:
    """Without a packet there is the header, which readers need."""
    file = io.BytesIO()
    assert Pcap(file).count == 0
    assert len(file.getvalue()) == 24
