"""What a row acts on and writes down: the ground, the running loads, checks, notes, excused windows."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab import namespaces
from lab.engine import EngineHost
from lab.errors import LabError
from tests.engine.chaos.counting import Check, Start
from tests.engine.chaos.ground import Ground, eventually
from tests.engine.chaos.loads import Loads, one_start

#: A host's session ends at twice this; who has seen nothing of it for that long and 5 s more calls it dead.
TTL = 10
DEAD = 2 * TTL + 5


class Scene:
    """One row while it happens."""

    def __init__(self, ground: Ground, loads: Loads) -> None:
        self.ground = ground
        self.loads = loads
        self.checks: list[Check] = []
        self.notes: list[str] = []
        self._starts = 0

    def note(self, text: str) -> None:
        """Something a reader of the table should know."""
        self.notes.append(text)

    def check(self, what: str, found: object, good: bool, allowed: object = "") -> None:
        """Something else that the row must show."""
        self.checks.append(Check(what, str(found), str(allowed), good))

    def within(self, what: str, seconds: float, ask: Callable[[], Any], since: float | None = None) -> bool:
        """Wait for something, and write down how long it took (`since` a monotonic time); whether it came true.

        It is waited for three times as long as is allowed, so that a reader sees by how much it is late.
        """
        since = time.monotonic() if since is None else since
        try:
            eventually(what, ask, round(max(1.0, 3 * seconds - (time.monotonic() - since)), 1))
        except LabError as error:
            self.check(what, str(error).removeprefix(f"{what}: "), False, f"{seconds:g} s")
            return False
        took = time.monotonic() - since
        self.check(what, f"{took:.1f} s", took <= seconds, f"{seconds:g} s")
        return True

    def last(self, seconds: float) -> None:
        """Let the loads run: how long something lasts is part of the row."""
        threading.Event().wait(seconds)

    @contextmanager
    def excused(self) -> Iterator[None]:
        """What is sent meanwhile may be lost."""
        began = time.time()
        try:
            yield
        finally:
            self.loads.excused.append((began, time.time()))

    def start_on(self, host: EngineHost, *arguments: str, ask: bool = False) -> Start:
        """One new container on a host, pinging the flow's container of the other one."""
        self._starts += 1
        other = self.ground.h2 if host is self.ground.h1 else self.ground.h1
        return one_start(host, f"more{self._starts}", self.ground.addresses[other.name, "flow"], *arguments, ask=ask)

    def starts(self, host: EngineHost, seconds: float, what: str, since: float | None = None) -> None:
        """A container's process runs on a host; counted from `since` (a Unix time), else from the command."""
        start = self.start_on(host, ask=True)
        took = start.running - (start.moment if since is None else since)
        found = start.refused or f"{took:.1f} s" + ("" if start.answered else ", but its ping was not answered")
        self.check(f"{what} on {host.name}", found, not start.refused and took <= seconds, f"{seconds:g} s")

    def reaches(self, host: str, asker: str, address: str) -> bool:
        """Whether a container of a host is answered by an address within a second."""
        pid = self.ground.hosts[host].container_pid(asker)
        return ping({"net": f"/proc/{pid}/ns/net"}, address)

    def states_of(self, name: str, askers: list[EngineHost]) -> dict[str, str]:
        """What these hosts think of one host."""
        return {asker.name: self.ground.states(asker).get(name, "unknown") for asker in askers}


def ping(view: dict[str, str], address: str, seconds: float = 1.0) -> bool:
    """One ICMP echo from a namespace; whether it was answered in time."""
    body = struct.pack("!BBHHH", 8, 0, 0, threading.get_ident() & 0xFFFF, time.monotonic_ns() & 0xFFFF) + bytes(24)
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total >> 16) + (total & 0xFFFF)
    body = body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
    opened = namespaces.inside(view, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    until = time.monotonic() + seconds
    with opened:
        try:
            opened.sendto(body, (address, 0))
            while (left := until - time.monotonic()) > 0:
                opened.settimeout(left)
                data = opened.recv(256)
                if data[20] == 0 and data[24:28] == body[4:8]:
                    return True
        except OSError:
            return False
    return False
