"""Hosts that write, by the store's real code and without a daemon: a whole site, and changes in it at any rate."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from myoverlay.store.consul import ConsulStore
from myoverlay.store.presence import Presence
from myoverlay.store.records import MAX_CLAIMS, Claim, Member, Published, Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, Alive, Definition, HostId, HostList, Mac, OverlayName, Record, Subnet

OVERLAY = OverlayName("scale")
SUBNET = Subnet("10.64.0.0/10")
PREFIX = "myoverlay"
VNI = 0x700001
#: Addresses of each host, of which it uses the first ones.
SHARE = 256
_FIRST = int.from_bytes(Address("10.64.0.0").packed, "big")
_THREADS = 16


def now_us() -> int:
    """Microseconds of a clock that all processes of this machine have alike: what a change is stamped with."""
    return time.monotonic_ns() // 1000


def address_of(host: int, place: int) -> Address:
    return Address.unpack((_FIRST + 256 + host * SHARE + place).to_bytes(4, "big"))


def vtep_of(host: int) -> Address:
    return Address.unpack(bytes((172, 16 + (host >> 16), host >> 8 & 255, host & 255)))


def definition(holders: Sequence[HostId]) -> Definition:
    return Definition(
        overlay=OVERLAY, subnet=SUBNET, vni=VNI, mtu=1450, gateway=Address("10.64.0.1"), holders=tuple(holders)
    )


class Writer:
    """One host: its list, and its records in the index."""

    def __init__(self, store: ConsulStore, number: int, endpoints: int) -> None:
        self.number = number
        self.id = HostId(f"{0x5CA1E << 100 | number:032x}")
        self.endpoints = endpoints
        self._records = Records(store, PREFIX, self.id)
        self._presence = Presence(store, PREFIX, self.id)
        self._store = store
        self._turn = threading.Lock()
        self._places = list(range(endpoints))
        self._next = endpoints
        self._held: Held[HostList] | None = None
        self.conflicts = 0

    def _record(self, place: int, stamp: int) -> Record:
        address = address_of(self.number, place)
        return Record(address=address, mac=Mac.of(address), generation=stamp, names=(f"app-{self.number}-{place}",))

    def appear(self, of: Definition, index: bool) -> None:
        """Be alive, and publish all endpoints; with `index` also the tutorial's keys."""
        name, vtep = f"host-{self.number}", vtep_of(self.number)
        session = self._store.open_session(name, 86400.0)
        alive = Alive(host=self.id, name=name, vteps=(vtep,), version="1")
        assert self._presence.announce(alive, session, None), "nobody else has this host's key"
        stamp = now_us()
        records = tuple(self._record(place, stamp) for place in self._places)
        chunks = [records[at : at + MAX_CLAIMS] for at in range(0, len(records), MAX_CLAIMS)] if index else [()]
        for chunk in chunks:
            self._publish(of, records, [Claim(record) for record in chunk], ())

    def change(self, of: Definition) -> None:
        """One container stops and another starts: an address goes, another comes."""
        with self._turn:
            old = self._places.pop(0)
            new = self._next
            self._next = (self._next + 1) % SHARE
            self._places.append(new)
            listed = self._held
            assert listed is not None
            gone = address_of(self.number, old)
            kept = tuple(record for record in listed.value.records if record.address != gone)
            stale = [record for record in listed.value.records if record.address == gone]
            drops = list(self._records.index_entries(of, stale).values())
            self._publish(of, (*kept, self._record(new, now_us())), [Claim(self._record(new, now_us()))], drops)

    def _publish(self, of: Definition, records: tuple[Record, ...], claims: list[Claim], drops: Sequence) -> None:  # type: ignore[type-arg]
        serial = self._held.value.serial + 1 if self._held is not None else 1
        new = HostList(host=self.id, overlay=OVERLAY, vtep=vtep_of(self.number), records=records, serial=serial)
        while True:
            ring = self._records.ring(OVERLAY, timeout=30.0)
            done = self._records.publish(of, new, self._held, ring, claims, drops, timeout=30.0)
            if isinstance(done, Published):
                self._held = done.listed
                return
            assert not done.listed, "a list has no other writer"
            assert not done.claims, "an address has one host"
            self.conflicts += 1


class Site:
    """`hosts` hosts of `endpoints` each, on one overlay."""

    def __init__(self, address: str, hosts: int, endpoints: int) -> None:
        self.store = ConsulStore(address)
        self.hosts = [Writer(self.store, number, endpoints) for number in range(hosts)]
        self.definition = definition([one.id for one in self.hosts])
        self.changes = 0
        #: How much later than it was due a change was begun, and how long all took, seconds.
        self.late = self.took = 0.0

    def appear(self, index: bool) -> None:
        """Everything of all hosts."""
        first = self.hosts[0]
        member = Member(name="host-0", vtep=vtep_of(0))
        assert Records(self.store, PREFIX, first.id).found(self.definition, member) is None, "the store is empty"
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda one: one.appear(self.definition, index), self.hosts))

    def alive(self) -> int:
        """Hosts that have a session, those that watch among them."""
        return len(Presence(self.store, PREFIX, self.hosts[0].id).alive())

    def list_bytes(self) -> int:
        """What one host's list is, as JSON."""
        listed = self.hosts[0]._held
        assert listed is not None
        return len(msgspec.json.encode(listed.value, enc_hook=str))

    def write(self, rate: float, seconds: float) -> None:
        """So many changes a second, by the hosts in turns; none waits for another while there are threads for them.
        Where the machine does not carry the rate, `took` says how long they took from when the first one was due.
        """
        order, due = random.Random(1).sample(self.hosts, len(self.hosts)), _ticks(rate, seconds)
        began = due[0]
        with ThreadPoolExecutor(_THREADS) as pool:
            done = [pool.submit(self._at, when, one) for when, one in zip(due, itertools.cycle(order), strict=False)]
            for one in done:
                one.result()
        self.took = time.monotonic() - began

    def _at(self, when: float, host: Writer) -> None:
        pause = when - time.monotonic()
        if pause > 0:
            time.sleep(pause)  # the rate is what is measured at: there is no condition to wait for
        else:
            self.late = max(self.late, -pause)
        host.change(self.definition)
        self.changes += 1

    def close(self) -> None:
        self.store.close()


def _ticks(rate: float, seconds: float) -> list[float]:
    begun = time.monotonic() + 0.1
    return [begun + number / rate for number in range(round(rate * seconds))]
