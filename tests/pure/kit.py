"""What the pure tests are arranged with: clocks that stand still, a store that can be switched off, hosts on paper."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from myoverlay.errors import Unavailable
from myoverlay.host.ceding import Ceding
from myoverlay.host.claiming import Claiming
from myoverlay.host.holdings import Holdings
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.pools import Pools
from myoverlay.host.telling import Telling
from myoverlay.host.upkeep import Upkeep
from myoverlay.store import Put, Store
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import (
    Address,
    Alive,
    Definition,
    Endpoint,
    HostId,
    Mac,
    Network,
    OverlayName,
    PoolUse,
    Record,
    Subnet,
)

PREFIX = "myoverlay"
SUBNET = Subnet("10.5.0.0/24")
DEMO = OverlayName("demo")
ANN, BOB, EVE = HostId("a" * 32), HostId("b" * 32), HostId("e" * 32)


def soon(seconds: float = 8.0) -> float:
    """A deadline that no healthy test reaches."""
    return time.monotonic() + seconds


def until(condition: Callable[[], Any], seconds: float = 8.0) -> Any:
    """Ask again and again until the answer is true; fail after so many seconds."""
    deadline, pause = soon(seconds), threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        pause.wait(0.002)
    return answer


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls at once, a thread each; what they returned or raised, in order."""
    results: list[Any] = [None] * len(calls)
    line = threading.Barrier(len(calls))

    def run(place: int) -> None:
        line.wait(10)
        try:
            results[place] = calls[place]()
        except Exception as error:  # noqa: BLE001 - handed to the test
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a call hangs"
    return results


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Switch:
    """A host's way to the store, which can be cut: then every call raises Unavailable.

    `calls` are the calls that reached the store, by name and first argument; `before` is told of each beforehand.
    With `unheard` writes are done, and their answers are lost; with `blind` no single key is found. `patience` bounds
    what waits may take, so that nothing blocks for a minute.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.off = False
        self.unheard = False
        self.blind = False
        self.calls: list[tuple[str, Any]] = []
        self.before: Callable[[str, Any], None] = lambda _name, _what: None
        self.patience = 5.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.off:
                raise Unavailable("the store is switched off")
            what = args[0] if args else None
            self.calls.append((name, what))
            self.before(name, what)
            if name.startswith("wait"):
                kwargs["timeout"] = min(self.patience, kwargs["timeout"])
            if self.blind and name == "get":
                return None
            done = getattr(self.inner, name)(*args, **kwargs)
            if self.unheard and name == "commit":
                raise Unavailable("the store did it, and its answer was lost")
            return done

        return call

    def count(self, name: str) -> int:
        """How often a call of that name reached the store."""
        return sum(one == name for one, _ in self.calls)


def every(store: Store, prefix: str = "") -> dict[str, bytes]:
    """All keys below a prefix with their values (without one: below any that tests use)."""
    prefixes = (prefix,) if prefix else ("myoverlay", "demo", "foreign", "zoo", "app")
    return {entry.key: entry.value for one in prefixes for entry in store.list(one).entries}


def put(store: Store, key: str, value: bytes | str, flags: int = 0) -> None:
    """A bare PUT, as somebody with curl makes it."""
    store.commit([Put(key, value.encode() if isinstance(value, str) else value, flags)])


def definition(**changes: Any) -> Definition:
    fields: dict[str, Any] = {
        "overlay": DEMO,
        "subnet": SUBNET,
        "gateway": Address("10.5.0.1"),
        "vni": 0x700001,
        "mtu": 1450,
        "holders": (ANN,),
    }
    return Definition(**(fields | changes))


def network(**changes: Any) -> Network:
    of = changes.pop("definition", None) or definition()
    fields: dict[str, Any] = {
        "network": "n" * 64,
        "overlay": of.overlay,
        "subnet": of.subnet,
        "vtep": Address("192.0.2.1"),
        "underlay": "eth0",
        "definition": of,
    }
    return Network(**(fields | changes))


def endpoint(address: str, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "endpoint": f"e{address.replace('.', 'x')}".ljust(64, "0"),
        "network": "n" * 64,
        "address": Address(address),
        "mac": Mac.of(Address(address)),
        "generation": 1,
    }
    return Endpoint(**(fields | changes))


def record(address: str, mac: str | None = None, generation: int = 1) -> Record:
    known = Address(address)
    return Record(address=known, mac=Mac(mac) if mac else Mac.of(known), generation=generation)


class Host:
    """One host's journal, records and leases on a store that it may share, with a wire that can be cut."""

    def __init__(
        self,
        name: str,
        directory: Path,
        store: SqliteStore,
        clock: Clock,
        names: dict[HostId, str],
        base: Subnet,
        routes: Iterable[str],
    ) -> None:
        self.name = name
        self.wire = Switch(store)
        self.journal = Journal(directory)
        self.me = self.journal.host_id()
        names[self.me] = name
        self.records = Records(self.wire, PREFIX, self.me)
        self.presence = Presence(self.wire, PREFIX, self.me)
        taken = tuple(Subnet(route) for route in routes)
        self.pools = Pools(self.journal, self.records, base, lambda _: taken, clock)
        claiming, name, self.tally = Claiming(), names.__getitem__, Tally()
        self.ceding = Ceding(self.journal, self.records, claiming, self.pools.wanted, name)
        self.leases = Leases(
            self.journal, self.records, self.presence, self.pools, claiming, self.ceding, name, self.tally, clock
        )  # fmt: skip
        self.telling = Telling(self.journal, self.records, self.leases, name, self.tally)
        self.upkeep = Upkeep(self.journal, self.records, self.pools, self.leases, self.telling)
        self.leftovers = Leftovers(self.tally)
        self.holdings = Holdings(
            self.journal,
            self.records,
            self.pools,
            self.leases,
            self.telling,
            self.leftovers,
            names.__getitem__,
            clock,
        )

    def live(self) -> str:
        """Be announced as alive; returns the session."""
        session = self.wire.open_session(self.name, 10.0)
        vteps = (Address("192.0.2.1"),)
        assert self.presence.announce(Alive(host=self.me, name=self.name, vteps=vteps, version="9.8.7"), session, None)
        return session

    def pool(self, subnet: str | None = str(SUBNET), within: str | None = None, overlay: str | None = None) -> PoolUse:
        return self.pools.request(
            Subnet(subnet) if subnet else None,
            Subnet(within) if within else None,
            OverlayName(overlay) if overlay else None,
            soon(),
        )

    def network(self, use: PoolUse, overlay: str = "demo", **changes: Any) -> Network:
        """Docker made a network of the pool: bound in the store and noted in the journal."""
        name = OverlayName(overlay)
        self.pools.bind(use, name, soon())
        held = self.records.pool(use.subnet)
        assert held is not None
        place = changes.pop("records", None)
        of = definition(overlay=name, subnet=use.subnet, gateway=held.value.gateway, holders=(self.me,), records=place)
        new = network(definition=of, network=f"{overlay}-{self.name}".ljust(64, "0"), pool=use.pool, **changes)
        self.journal.networks.put(new.network, new)
        return new

    def container(self, on: Network, address: Address) -> Endpoint:
        """Docker made an endpoint with the address."""
        new = endpoint(address, network=on.network)
        self.journal.endpoints.put(new.endpoint, new)
        return new

    def remove(self, on: Network, use: PoolUse) -> None:
        """Docker removed the network: what is left to do is noted, and told the store by `settle`."""
        for one in self.journal.endpoints.all():
            self.journal.endpoints.drop(one.endpoint)
        self.journal.networks.drop(on.network)
        self.pools.release(use.pool)

    def claim(self, use: PoolUse, asked: str | None = None) -> Address:
        return self.leases.claim(use.pool, Address(asked) if asked else None, soon())[0]

    def settle(self) -> None:
        self.holdings.abandon()
        self.upkeep.settle(soon())

    def held(self, kind: str) -> list[Address]:
        """The addresses that the journal holds for that use, lowest first."""
        return sorted((one.address for one in self.journal.leases.all() if one.use == kind), key=lambda a: a.number)

    def close(self) -> None:
        self.journal.close()
