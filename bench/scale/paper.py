"""The kernel of a watching host, on paper: tables in dictionaries, so that only our own work is measured."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from myoverlay.host.peers import Standing
from myoverlay.plan.measure import Reach
from myoverlay.values import Address, Fdb, HostId, Mac, Miss, Neigh
from tests.pure.model.kernel import FakeGround, FakeLinks, Kernel, free

Row = Neigh | Fdb


class PaperTables:
    """`kernel.neigh.Tables`: a row costs one entry, and a dump a copy."""

    def __init__(self) -> None:
        self.rows: dict[Address | Mac, Row] = {}
        self.written = 0

    def dump(self) -> tuple[set[Neigh], set[Fdb]]:
        rows = list(self.rows.values())  # at once: as with the real tables another thread may be writing
        return {row for row in rows if isinstance(row, Neigh)}, {row for row in rows if isinstance(row, Fdb)}

    def set(self, rows: Sequence[Row]) -> list[Any]:
        for row in rows:
            self.rows[_key(row)] = row
        self.written += len(rows)
        return []

    def unset(self, rows: Sequence[Row]) -> list[Any]:
        for row in rows:
            self.rows.pop(_key(row), None)
        self.written += len(rows)
        return []

    def close(self) -> None:
        """Nothing is held."""


def _key(row: Row) -> Address | Mac:
    return row.address if isinstance(row, Neigh) else row.mac


class PaperMisses:
    """`kernel.neigh.MissSocket` in which nobody ever asks."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._event

    def read(self) -> list[Miss]:
        return []

    def close(self) -> None:
        os.close(self._event)


class PaperGround(FakeGround):
    """`host.ground.Ground`, with tables that cost little and a miss socket that can be waited for."""

    def __init__(self, kernel: Kernel, namespace: Any, ifindex: int, ports: Iterable[str]) -> None:
        super().__init__(kernel, free, namespace, ifindex, ports)
        self.tables = PaperTables()  # type: ignore[assignment]
        self.misses = PaperMisses()  # type: ignore[assignment]


class PaperLinks(FakeLinks):
    """Links of the host's own namespace are always as they should be."""

    def bearer_of(self, address: Address, *, deadline: float) -> None:
        return None

    def look_here(self, name: str, *, deadline: float) -> None:
        return None

    def ensure_here(self, form: object, *, deadline: float) -> None:
        """It is there."""


class Pulse(NamedTuple):
    """A host that is heard."""

    heard: float | None = 0.0
    silent: bool = False
    rtt: float | None = None
    carries: bool | None = None
    loss: float | None = None


class PaperBeat:
    """`host.beat.Beat` that hears everybody."""

    def __init__(self) -> None:
        self.on_change = lambda: None

    def suspect(self, hosts: Collection[HostId]) -> None:
        """All of them are heard."""

    def pulse(self, host: HostId) -> Pulse:
        return Pulse()

    def state(self) -> Standing:
        return Standing("", 0)

    def measure(self, targets: Mapping[HostId, Address], size: int, patience: float) -> dict[HostId, Reach]:
        return dict.fromkeys(targets, Reach.UNASKED)

    def retire(self, timeout: float) -> bool:
        return True


def paper_doors(namespace: Any, address: Address, port: int = 53) -> tuple[socket.socket, socket.socket]:
    """`kernel.doors.open_doors` on the loopback device: the resolver's process has something to listen at."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind(("127.0.0.1", 0))
    tcp.bind(("127.0.0.1", 0))
    tcp.listen(1)
    return udp, tcp
