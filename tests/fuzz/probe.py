"""What the heartbeat hears: frames at the probe device's sockets, from hosts that were asked, from others, from nobody.

The real prober and what becomes of its answers (`plan.pulse`, `host.beat`), without the device. Pings too.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from myoverlay.host.beat import Beat
from myoverlay.kernel import ping
from myoverlay.kernel.probe import PIN, Prober, Read, probe_address, probe_mac
from myoverlay.plan.measure import Measurement
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId
from tests.fuzz.tape import Tape, bent
from tests.fuzz.target import right

ME = HostId("a" * 32)
#: Whom we know; the last two are told apart by their MACs alone.
HOSTS = tuple(HostId(f"{number:02x}" * 16) for number in range(1, 6)) + (
    HostId("9" * 26 + "abcdef"),
    HostId("8" * 26 + "abcdef"),
)
VTEPS = {host: Address(f"192.0.2.{number}") for number, host in enumerate(HOSTS, 2)}
STRANGER = HostId("e" * 32)
MTU = 1450
#: Where the kinds of an answer lie in a frame: bytes that decide most.
_ARP, _ECHO = 128, 1 << 16


class Given(NamedTuple):
    """Frames at both sockets, and a packet of ICMP."""

    arps: tuple[bytes, ...]
    echoes: tuple[bytes, ...]
    packet: bytes


class Open:
    """The device: what was sent, and what comes."""

    def __init__(self) -> None:
        self.what, self.arp, self.echo, self.sockets = (0, 0), "arp", "echo", ()
        self.come: dict[str, list[bytes]] = {"arp": [], "echo": []}
        self.sent: list[bytes] = []
        self.routes = None

    def read(self, which: str, _size: int) -> list[bytes]:
        come, self.come[which] = self.come[which], []
        return come

    def lead(self, vteps: Any) -> set[Any]:
        return set()

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True

    def close(self) -> None:
        """Nothing is open."""


class Icmp:
    """A raw socket with one packet."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        return self._packet[:size], ("192.0.2.9", 0)


def _swapped(frame: bytes) -> bytes:
    """The answer to a question of ours: Ethernet's ends the other way round, and those inside."""
    if frame[12:14] == b"\x08\x06":
        return frame[6:12] + frame[:6] + frame[12:20] + b"\0\2" + frame[:6] + frame[38:42] + frame[22:28] + frame[28:32]
    head = frame[14:26] + frame[30:34] + frame[26:30]
    return frame[6:12] + frame[:6] + frame[12:14] + head + b"\0" + frame[35:]


class Target:
    """One heart."""

    LIMITS = {"sizes": 4096, "outcomes": 12}

    def __init__(self) -> None:
        home = SimpleNamespace(dup=lambda: SimpleNamespace(close=lambda: None))
        pins = SimpleNamespace(folder=Path("/"), is_there=lambda name: name == PIN)
        self._prober: Any = Prober(None, pins, ME, 4789, tuple, home=home)  # type: ignore[arg-type]
        self._prober.mtu, self._prober._open = MTU, Open()
        self._prober.know(VTEPS)
        self._now, self._tally = 1000.0, Tally()
        self._beat: Any = Beat(self._prober, lambda: VTEPS, self._tally, lambda: self._now)
        self._beat._pulses.aim(HOSTS, self._now)
        self._beat._pulses.suspect(HOSTS[:2], self._now)
        self._nonces = {host: bytes((number,)) * 4 for number, host in enumerate(HOSTS)}
        self._corpus: list[bytes] = []
        for host in (*HOSTS, STRANGER):
            nonce = self._nonces.get(host, b"none")
            for frame in (*self._prober._question(host, None, 0), *self._prober._question(host, nonce, MTU)):
                self._corpus += [_swapped(frame), frame]
        self._beat._nonces = dict(self._nonces)
        del self._beat._nonces[HOSTS[3]]  # its echo was asked for long ago
        one = Measurement({HOSTS[2]: VTEPS[HOSTS[2]]}, MTU, self._now, float("inf"))
        one.tried(HOSTS[2], True, self._now)
        self._beat._measures._running[one] = threading.Event()
        self._beat._measures._nonces[self._nonces[HOSTS[2]]] = (one, HOSTS[2])
        self._packets = [
            b"\x45" + bytes(19) + ping._ECHO.pack(0, 0, 0, 7, 1),
            b"\x4f" + bytes(59) + b"\0\0\0\0\0\7\0\1",
        ]

    def make(self, tape: Tape) -> Given:
        arps, echoes = [], []
        for _ in range(tape.below(4)):
            frame = tape.pick(self._corpus)
            frame = bent(tape, frame, self._corpus[:4], 1 << 16) if tape.below(3) else frame
            (arps if frame[12:14] == b"\x08\x06" else echoes).append(frame)
        return Given(tuple(arps), tuple(echoes), bent(tape, tape.pick(self._packets), self._packets))

    def check(self, given: Given) -> None:
        self._now += 0.05
        for asked in self._beat._pulses.due(self._now):
            right(asked.host in HOSTS, f"{asked.host} is asked")
        if not given.arps and not given.echoes:
            device, self._prober._open = self._prober._open, None
            right(self._prober.read() == Read((), 0), "an answer without a device")
            self._prober._open = device
        device = self._prober._open
        device.come = {"arp": list(given.arps), "echo": list(given.echoes)}
        found = self._prober.read()
        right(len(found.heard) + found.invalid == len(given.arps) + len(given.echoes), "a frame is not counted")
        self._judge(found, given)
        before = self._counted()
        self._beat._take(found.heard, found.invalid)
        right(self._counted() - before == len(found.heard) + found.invalid, "an answer has no outcome, or two")
        for host in HOSTS:
            pulse = self._beat._pulses.of(host)
            right(pulse.heard is None or pulse.heard <= self._now, "an answer before it was given")
            right(pulse.rtt is None or 0 <= pulse.rtt <= 60, f"a round trip of {pulse.rtt} s")
        self._ping(given.packet)

    def _counted(self) -> int:
        return sum(count for (name, _), count in self._tally.all().items() if name == "beats")

    def _judge(self, found: Read, given: Given) -> None:
        """Heard is who really answered, by his own MAC and address."""
        ends = {(probe_mac(host), probe_address(host)): host for host in HOSTS}
        for one in found.heard:
            right(one.host in HOSTS, f"{one.host} is heard, whom nobody knows")
            mac, address = probe_mac(one.host).packed, probe_address(one.host).packed
            among = given.arps if one.nonce is None else given.echoes
            place = 28 if one.nonce is None else 26
            right(any(raw[6:12] == mac and raw[place : place + 4] == address for raw in among), f"{one} is forged")
        right(len(ends) == len(HOSTS), "two hosts cannot be told apart")

    def _ping(self, packet: bytes) -> None:
        heard = ping._heard(Icmp(packet), 7)  # type: ignore[arg-type]
        right(heard <= {Address("192.0.2.9")}, f"{heard} answer")
        if heard:
            start = (packet[0] & 15) * 4
            right(
                packet[start] == 0 and packet[start + 4 : start + 6] == b"\0\7", "an echo of another is taken for ours"
            )

    def show(self, given: Given) -> str:
        frame = [raw[:64].hex() for raw in (*given.arps, *given.echoes)]
        return f"frames {frame}, ICMP {given.packet[:80].hex()}"

    def left(self) -> dict[str, int]:
        return {"sizes": len(self._prober._sizes), "outcomes": len(self._tally.all())}

    def close(self) -> None:
        self._beat._selector.close()
