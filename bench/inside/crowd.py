"""Many hosts with a container each, and changes of theirs, by the code that writes them in earnest.

    python -m bench.inside.crowd CONSUL OVERLAY HOSTS CHANGES SECONDS

Prints `there` once all hosts are announced and have published, then makes the changes, evenly over the time: one
container more, or one less, on one host after the other. Prints `changed` after the last, and leaves when its standard
input ends, so that the hosts stay alive for as long as whoever started it wants.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass

from myoverlay.store.consul import ConsulStore
from myoverlay.store.presence import Presence
from myoverlay.store.records import Member, Published, Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, Alive, Definition, HostId, HostList, Mac, OverlayName, Record

_PREFIX, _TTL = "myoverlay", 10.0
#: Addresses of two containers a host, in the part of the ground's subnet that nobody else uses.
_FIRST = (10 << 24) + (5 << 16) + (64 << 8)


@dataclass
class One:
    """A host that is none."""

    number: int
    records: Records
    listed: Held[HostList] | None = None

    @property
    def vtep(self) -> Address:
        """An address that leads nowhere."""
        return Address(f"172.31.{1 + self.number // 250}.{1 + self.number % 250}")

    def list(self, endpoints: int, overlay: OverlayName, serial: int) -> HostList:
        """So many containers of it."""
        records = tuple(self._record(2 * self.number + each, serial) for each in range(endpoints))
        return HostList(host=self.records.me, overlay=overlay, vtep=self.vtep, records=records, serial=serial)

    def _record(self, number: int, serial: int) -> Record:
        raw = (_FIRST + number).to_bytes(4, "big")
        return Record(address=Address.unpack(raw), mac=Mac.unpack(b"\x02\x77" + raw), generation=serial)


class Crowd:
    """All of them, on one store."""

    def __init__(self, url: str, overlay: str, hosts: int) -> None:
        self._store = ConsulStore(url)
        self._overlay = OverlayName(overlay)
        me = HostId.random()
        held = Records(self._store, _PREFIX, me).definition(self._overlay)
        if held is None:
            raise SystemExit(f"there is no overlay {overlay}")
        self._definition: Definition = held.value
        self._session = self._store.open_session("crowd", _TTL)
        self.hosts = [One(number, Records(self._store, _PREFIX, HostId.random())) for number in range(hosts)]
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="renew", daemon=True)
        self._renewing.start()

    def _renew(self) -> None:
        while not self._over.wait(_TTL / 3):
            self._store.renew_session(self._session)

    def come(self) -> None:
        """Announce and publish all hosts, one container each."""
        for one in self.hosts:
            name = f"crowd-{one.number}"
            alive = Alive(host=one.records.me, name=name, vteps=(one.vtep,))
            if not Presence(self._store, _PREFIX, one.records.me).announce(alive, self._session, None):
                raise SystemExit(f"{name} could not be announced")
            self._join(one, Member(name=name, vtep=one.vtep))
            self._publish(one, 1, 1)

    def _join(self, one: One, member: Member) -> None:
        while True:  # the hosts of the ground write the definition too
            held = one.records.definition(self._overlay)
            if held is None:
                raise SystemExit("the overlay is gone")
            if one.records.join(held, member):
                return

    def _publish(self, one: One, endpoints: int, serial: int) -> None:
        new = one.list(endpoints, self._overlay, serial)
        while True:  # the ring is shared with an eighth of the others
            ring = one.records.ring(self._overlay)
            done = one.records.publish(self._definition, new, one.listed, ring, (), ())
            if isinstance(done, Published):
                one.listed = done.listed
                return

    def change(self, changes: int, seconds: float) -> None:
        """Containers come and go."""
        began = time.monotonic()
        for number in range(changes):
            one = self.hosts[number % len(self.hosts)]
            turn = number // len(self.hosts)
            self._publish(one, 2 if turn % 2 == 0 else 1, 2 + turn)
            self._over.wait(max(0.0, began + (number + 1) * seconds / changes - time.monotonic()))

    def go(self) -> None:
        """End the session: nobody of it is alive any more."""
        self._over.set()
        self._renewing.join(10)
        self._store.close_session(self._session)
        self._store.close()


def main(url: str, overlay: str, hosts: int, changes: int, seconds: float) -> None:
    """Come, change, wait for the end of standard input."""
    crowd = Crowd(url, overlay, hosts)
    try:
        crowd.come()
        print("there", flush=True)
        crowd.change(changes, seconds)
        print("changed", flush=True)
        sys.stdin.read()
    finally:
        crowd.go()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
