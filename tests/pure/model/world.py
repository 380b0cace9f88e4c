"""The simulated world: hosts with the real control plane on one store, and the events that befall them.

A schedule is drawn from its seed beforehand: (seconds since the last event, kind, the event's own seed). So events can
be left out and the rest still means something, which is how a failing schedule is shrunk.
"""

from __future__ import annotations

import logging
import random as randomness
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, NamedTuple

import msgspec

from myoverlay import daemon as daemon_module
from myoverlay.errors import Unknown
from myoverlay.host import audit as audit_module
from myoverlay.host import discover as discover_module
from myoverlay.host import holdings as holdings_module
from myoverlay.host import reconcile as reconcile_module
from myoverlay.store import Put
from myoverlay.store.pooled import MARK
from myoverlay.values import Address, Fdb, Mac, Neigh, Subnet
from tests.pure.model.engine import FAR, Container, Engine
from tests.pure.model.machine import Failure, Machine
from tests.pure.model.scheduler import EPOCH, Scheduler
from tests.pure.model.store import MemoryStore, Snapshot
from tests.pure.model.truth import Truth

HOSTS, EVENTS = 5, 110
GRACE, LEASE_GRACE, ABANDONED = 20.0, 60.0, 90.0
#: What a host may take to look whether another one is heard, seconds: more than a round of fates.
UNHEARD = 2.0


class Event(NamedTuple):
    gap: float
    kind: str
    seed: int


class Overlay:
    """What people agreed on: a name, a subnet, and whose IPAM gives the addresses."""

    def __init__(self, name: str, subnet: str, ours: bool, records: str | None = None) -> None:
        self.name, self.subnet, self.ours, self.records = name, Subnet(subnet), ours, records
        self.gateway = self.subnet.at(self.subnet.first)

    @property
    def options(self) -> dict[str, str]:
        return {"overlay": self.name} | ({"records": self.records} if self.records else {})


#: How often each kind of event is drawn.
KINDS = {
    "create network": 7,
    "delete network": 3,
    "run": 24,
    "remove": 12,
    "move": 8,
    "kill": 3,
    "kill at a call": 8,
    "restart": 3,
    "power off": 2,
    "power on": 2,
    "cut from store": 5,
    "heal": 6,
    "cut hosts": 3,
    "store down": 2,
    "store up": 3,
    "lose answers": 4,
    "end session": 2,
    "flap": 2,
    "foreign key": 2,
    "outsider": 2,
    "wipe": 1,
    "snapshot": 2,
    "roll back": 1,
    "doom": 1,
    "tamper": 3,
    "run together": 5,
    "rescue": 4,
}


def draw(seed: int, kinds: dict[str, int] | None = None, count: int = EVENTS) -> list[Event]:
    """The events of a seed."""
    random = Random(seed)
    kinds = kinds or KINDS
    names, weights = list(kinds), list(kinds.values())
    events = [Event(0.2, "create network", random.getrandbits(32)) for _ in range(8)]
    for _ in range(count - len(events)):
        gap = random.choice((0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, random.uniform(0, 30)))
        events.append(Event(gap, random.choices(names, weights)[0], random.getrandbits(32)))
    return events


class World:
    """One schedule's world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed ^ 0x5EED)
        self.scheduler = Scheduler(self.random)
        self.scheduler.rush = self.random.choice((0.0, 0.2, 0.6))
        self.pace = 0.3
        self.grace, self.lease_grace, self.abandoned = GRACE, LEASE_GRACE, ABANDONED
        self.environ: dict[str, str] = _graces()
        self.store = MemoryStore(self.scheduler, hurried=True)
        self.store.on_change = self._keys_changed
        self.store_down = False
        #: When the store was emptied or rolled back last.
        self.lost_at = float("inf")
        #: The store's identity that it was rolled back to last; empty: it was emptied, or lost nothing.
        self.rolled_back_to = ""
        #: Whose write to the store is under way, and whose code runs.
        self.actor: Machine | None = None
        self.speaker: Machine | None = None
        self.snapshots: list[Snapshot] = []
        #: The keys that are none of ours, as they are; the names of all that ever were.
        self.foreign: dict[str, bytes] = {}
        self.ever_foreign: set[str] = set()
        #: When somebody spoilt a host's rows of an overlay by hand last.
        self.spoilt_at: dict[tuple[str, str], float] = {}
        self.notes: list[str] = []
        self.refusals = 0
        self.truth = Truth(self)
        self.cuts: dict[frozenset[str], float] = {}
        #: From when until when two hosts were cut off from each other last.
        self.mended: dict[frozenset[str], tuple[float, float]] = {}
        self.overlays = [
            Overlay("wide", "10.10.0.0/24", True),
            Overlay("tight", "10.11.0.0/28", True),
            Overlay("foreign", "10.12.0.0/24", False),
            Overlay("open", "10.13.0.0/26", True, "demo-1"),
        ]
        self.machines = [Machine(self, number) for number in range(1, HOSTS + 1)]
        self.engines = [Engine(machine) for machine in self.machines]
        self._macs = 0

    # -- small things ----------------------------------------------------------------------------------------------

    def note(self, told: str) -> None:
        self.notes.append(f"{self.scheduler.now - EPOCH:9.3f} {told}")

    def hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def engine(self, machine: Machine) -> Engine:
        return self.engines[machine.number - 1]

    def foreign_address(self, machine: Machine, overlay: Overlay) -> Address:
        """What Docker's own IPAM chooses: of the host's own range, but now and then of everybody's."""
        here = {c.address for c in self.engine(machine).containers.values() if c.overlay is overlay}
        while True:
            own = self.random.random() < 0.8
            first = overlay.subnet.first + (20 * machine.number if own else 1)
            address = overlay.subnet.at(first + self.random.randrange(20 if own else 6))
            if address not in here and address != overlay.gateway:
                return address

    def unheard(self, observer: Machine, host: Machine) -> float:
        """How long the two have been cut off from each other, seconds."""
        since = self.cuts.get(frozenset((observer.name, host.name)))
        return self.scheduler.now - since if since is not None else 0.0

    def found_again(self, observer: Machine, host: Machine) -> float:
        """How long ago they were found again that had been cut off for the grace, seconds; else long ago."""
        since, until = self.mended.get(frozenset((observer.name, host.name)), (0.0, 0.0))
        return self.scheduler.now - until if until - since >= self.grace else float("inf")

    def _mend(self, pair: frozenset[str]) -> None:
        self.mended[pair] = (self.cuts.pop(pair), self.scheduler.now)

    def reach(self, one: Machine, other: Machine) -> bool:
        return one.powered and other.powered and frozenset((one.name, other.name)) not in self.cuts

    def rows_outside(self, overlay: str) -> set[Neigh | Fdb]:
        """The rows that outsiders' keys ask for."""
        rows: set[Neigh | Fdb] = set()
        place = next((o.records for o in self.overlays if o.name == overlay and o.records), None)
        for key, value in self.foreign.items():
            if place is not None and key.startswith(f"{place}/arp/"):
                mac = Mac(value.decode())
                vtep = self.foreign.get(f"{place}/fib/{mac}")
                if vtep is not None:
                    rows |= {
                        Neigh(address=Address(key.rpartition("/")[2]), mac=mac),
                        Fdb(mac=mac, vtep=Address(vtep.decode())),
                    }
        return rows

    def _keys_changed(self, keys: set[str]) -> None:
        if self.actor is not None:
            self.truth.keys_changed(keys)
        self.truth.note_owners(keys)
        for machine in self.machines:
            if machine.reaches_store:
                for driven in machine.loops:
                    if driven.blocked is not None and any(key.startswith(driven.blocked) for key in keys):
                        driven.wake(self.random.uniform(0.0005, 0.02))

    def _woken(self, machine: Machine, seconds: float) -> None:
        """Blocked calls end: the connection was reset, or the answer comes at last."""
        for driven in machine.loops:
            if driven.blocked is not None:
                driven.wake(self.random.uniform(0, seconds))

    # -- a schedule ------------------------------------------------------------------------------------------------

    def play(self, events: list[Event]) -> None:
        """Everything that befalls, then healing, then the end. Raises Failure."""
        for machine in self.machines:
            machine.start()
        for event in events:
            self.scheduler.run_until(self.scheduler.now + event.gap)
            self.truth.check_in_time()
            getattr(self, "_" + event.kind.replace(" ", "_"))(Random(event.seed))
        self._heal_all()
        self.scheduler.run_until(self.scheduler.now + 60, lambda: not any(e.working for e in self.engines))
        if any(engine.working for engine in self.engines):
            raise Failure("calls end", "an operation of Docker's does not end")
        self.scheduler.run_until(self.scheduler.now + 40)
        self.truth.check_reachable()
        self.truth.check_contested()
        self.pace = 1.0
        for seconds in (60, 60, max(ABANDONED, GRACE + LEASE_GRACE) + 5):
            # Somebody looks at what the brake holds, and says `myoverlay gc --yes`.
            for machine in self.machines:
                if machine.runs:
                    machine.daemon.leftovers.let_go()
            self.scheduler.run_until(self.scheduler.now + seconds)
        self.truth.check_reachable()
        self.truth.check_guarded()
        self.truth.check_nothing_dead()
        self._forget_the_dead()
        self.truth.check_nothing_dead()

    def _forget_the_dead(self) -> None:
        """Somebody says `myoverlay host forget` of the machine that never comes back, on any other."""
        for gone in self.machines:
            if gone.doomed:
                machine = self.random.choice([one for one in self.machines if one.runs])
                self.note(f"{machine.name}: {gone.name} is forgotten")
                try:
                    machine.call(partial(machine.daemon.graves.forget, gone.id, False, FAR))
                except Unknown as error:
                    self.note(f"{machine.name}: {error}")  # all of it was buried: the check that follows sees to it
        self.truth.forgotten = True
        self.scheduler.run_until(self.scheduler.now + 10)

    def _heal_all(self) -> None:
        self.note("everything heals")
        self.store_down = False
        for pair in tuple(self.cuts):
            self._mend(pair)
        for machine in self.machines:
            machine.cut, machine.deaf, machine.next_fuse = False, 0, None
            if machine.run is not None:
                machine.run.fuse = None
            if not machine.doomed:
                machine.power_on()
            self._woken(machine, 3.0)

    def close(self) -> None:
        for machine in self.machines:
            machine.close()

    def state(self) -> str:
        """Every host as Docker, its journal and its kernel see it, and the store: for whoever reads a failure."""
        lines = []
        for engine in self.engines:
            machine = engine.machine
            how = "runs" if machine.runs else "no daemon" if machine.powered else "no power"
            lines.append(
                f"{machine.name} {machine.vtep} {machine.id} {how}{', cut from the store' if machine.cut else ''}"
            )
            lines.append(
                f"  docker: {[n.overlay.name for n in engine.networks.values()]} {list(engine.containers.values())}"
            )
            for space in machine.kernel.pins.values():
                lines.append(f"  {space.name}: {sorted(space.links)} {', '.join(sorted(map(str, space.rows())))}")
            if machine.runs:
                journal = machine.daemon.journal
                lines.append(f"  endpoints: {[(one.address, one.joined) for one in journal.endpoints.all()]}")
                lines.append(f"  leases: {[(one.address, one.use) for one in journal.leases.all()]}")
        for key, entry in self.store.entries().items():
            lines.append(f"{key} [{entry.index}] {entry.value.decode('utf-8', 'replace')}")
        return "\n".join(lines)

    # -- events ----------------------------------------------------------------------------------------------------

    def _any_engine(self, random: Random) -> Engine | None:
        there = [engine for engine in self.engines if engine.machine.powered]
        return random.choice(there) if there else None

    def _any_network(self, random: Random) -> tuple[Engine, Any] | None:
        there = [(e, n) for e in self.engines if e.machine.powered for n in e.networks.values() if not n.going]
        return random.choice(there) if there else None

    def _any_container(self, random: Random) -> Container | None:
        there = [c for e in self.engines if e.machine.powered for c in e.containers.values() if c.live and not c.going]
        return random.choice(there) if there else None

    def _create_network(self, random: Random) -> None:
        engine, overlay = self._any_engine(random), random.choice(self.overlays)
        if engine is not None and overlay.name not in engine.busy and engine.network_of(overlay) is None:
            engine.begin(engine.create_network(overlay))

    def _delete_network(self, random: Random) -> None:
        found = self._any_network(random)
        if found is None:
            return
        engine, network = found
        if engine.working == 0 and not any(c.network is network for c in engine.containers.values()):
            engine.begin(engine.delete_network(network))

    def _run(self, random: Random) -> None:
        found = self._any_network(random)
        if found is None:
            return
        engine, network = found
        overlay, asked, mac = network.overlay, None, None
        if overlay.ours and random.random() < 0.25:
            asked = overlay.subnet.at(random.randrange(overlay.subnet.first + 1, overlay.subnet.last + 1))
        if random.random() < 0.1:
            mac = self._fresh_mac()
        engine.begin(engine.run(network, asked, mac))

    def _run_together(self, random: Random) -> None:
        """Containers start on all hosts of an overlay at the same moment."""
        overlay = random.choice(self.overlays)
        for engine in self.engines:
            network = engine.network_of(overlay)
            if network is not None and engine.machine.powered:
                engine.begin(engine.run(network))

    def _fresh_mac(self) -> Mac:
        self._macs += 1
        return Mac.unpack(b"\x02\xaa" + self._macs.to_bytes(4, "big"))

    def _remove(self, random: Random) -> None:
        container = self._any_container(random)
        if container is not None:
            engine, container.going = self.engine(container.machine), True
            engine.begin(engine.remove(container))

    def _move(self, random: Random) -> None:
        container = self._any_container(random)
        others = [
            e
            for e in self.engines
            if container is not None and e.machine is not container.machine and e.network_of(container.overlay)
        ]
        if container is not None and others:
            mac = random.choice((None, container.mac, self._fresh_mac()))
            engine, container.going = self.engine(container.machine), True
            engine.begin(engine.move(container, random.choice(others), mac))

    def _rescue(self, random: Random) -> None:
        """What ran on a machine without power is started on another one, with its address."""
        lost = [container for machine in self.machines if not machine.powered for container in machine.lost]
        if not lost:
            return
        container = random.choice(lost)
        places = [(engine, engine.network_of(container.overlay)) for engine in self.engines if engine.machine.powered]
        found = [(engine, network) for engine, network in places if network is not None and not network.going]
        if found:
            engine, network = random.choice(found)
            engine.begin(engine.run(network, container.address, random.choice((None, container.mac))))

    def _machine(self, random: Random) -> Machine:
        return random.choice(self.machines)

    def _kill(self, random: Random) -> None:
        machine = self._machine(random)
        machine.kill("kill -9")
        self.scheduler.after(random.choice((0.1, 1.0, 8.0)), machine.start)

    def _kill_at_a_call(self, random: Random) -> None:
        machine = self._machine(random)
        if machine.run is not None and machine.run.alive:
            machine.run.fuse = random.randrange(1, random.choice((10, 60, 300)))
            machine.restart_in = random.choice((0.1, 1.0, 8.0))
            machine.next_fuse = random.randrange(1, 60) if random.random() < 0.3 else None

    def _restart(self, random: Random) -> None:
        machine = self._machine(random)
        machine.kill("restarts")
        machine.start()

    def _power_off(self, random: Random) -> None:
        machine = self._machine(random)
        if machine.powered:
            self._lose_power(machine)
            self.scheduler.after(random.choice((5.0, 25.0, 60.0)), lambda: self._boot(machine))

    def _lose_power(self, machine: Machine) -> None:
        engine = self.engine(machine)
        if engine.busy:
            return  # Docker writes a network down after our answer: a power loss between leaves one that nobody knows
        machine.power_off()
        ran = engine.power_lost()
        machine.always = [(c.network, c.asked) for c in ran]
        machine.lost = [c for c in ran if not c.overlay.ours]

    def _power_on(self, random: Random) -> None:
        for machine in self.machines:
            if not machine.powered and not machine.doomed:
                self._boot(machine)
                return

    def _boot(self, machine: Machine) -> None:
        """The machine comes up; containers with `--restart always` start again."""
        if machine.powered or machine.doomed:
            return
        self.note(f"{machine.name}: has power again")
        machine.power_on()
        engine = self.engine(machine)
        for network, asked in machine.always:
            if not network.going and asked is None:
                engine.begin(engine.run(network, asked))
        machine.always, machine.lost = [], []

    def _doom(self, random: Random) -> None:
        """A machine that never comes back; never more than one."""
        machine = self._machine(random)
        if any(one.doomed for one in self.machines) or self.engine(machine).busy:
            return
        if machine.powered:
            self._lose_power(machine)
        machine.doomed = not machine.powered

    def _cut_from_store(self, random: Random) -> None:
        machine = self._machine(random)
        machine.cut = True
        self.note(f"{machine.name}: cut off from the store")
        if random.random() < 0.5:
            self._woken(machine, 0.1)

    def _heal(self, random: Random) -> None:
        cut = [machine for machine in self.machines if machine.cut]
        if self.cuts and random.random() < 0.5:
            pair = random.choice(sorted(self.cuts, key=sorted))
            self._mend(pair)
            self.note(f"{sorted(pair)} reach each other")
        elif cut:
            machine = random.choice(cut)
            machine.cut = False
            self.note(f"{machine.name}: reaches the store")
            self._woken(machine, 3.0)

    def _cut_hosts(self, random: Random) -> None:
        one, other = random.sample(self.machines, 2)
        pair = frozenset((one.name, other.name))
        since, until = self.mended.get(pair, (0.0, 0.0))
        # Between two cuts so close to each other nobody needs to have heard anything.
        self.cuts.setdefault(pair, since if self.scheduler.now - until < UNHEARD else self.scheduler.now)
        self.note(f"{one.name} and {other.name} cut off from each other")

    def _store_down(self, random: Random) -> None:
        self.store_down = True
        self.note("the store is away")
        for machine in self.machines:
            self._woken(machine, 0.1)

    def _store_up(self, random: Random) -> None:
        if self.store_down:
            self.store_down = False
            self.note("the store is back")
            for machine in self.machines:
                self._woken(machine, 3.0)

    def _lose_answers(self, random: Random) -> None:
        machine = self._machine(random)
        machine.deaf = random.randrange(1, 4)
        self.note(f"{machine.name}: {machine.deaf} answers get lost")

    def _end_session(self, random: Random) -> None:
        sessions = sorted(self.store._sessions)
        if sessions:
            self.note("a session is ended by somebody")
            self.store.close_session(random.choice(sessions))

    def _flap(self, random: Random) -> None:
        machine = self._machine(random)
        self.note(f"{machine.name}: flaps")

        def back() -> None:
            machine.cut = False
            self._woken(machine, 0.1)

        for number in range(random.randrange(2, 6)):
            self.scheduler.after(0.4 * number, lambda: setattr(machine, "cut", True))
            self.scheduler.after(0.4 * number + 0.2, back)

    def _foreign_key(self, random: Random) -> None:
        """Keys beside ours, below ours, and at the places where ours lie."""
        number = random.randrange(100)
        overlay = random.choice(self.overlays)
        places = ("zoo/", "myoverlay2/", f"myoverlay/overlays/{overlay.name}/x", "demo-1/x")
        key = f"{random.choice(places)}{number}"
        self._put_foreign(key, b"not ours")

    def _put_foreign(self, key: str, value: bytes) -> None:
        self.foreign[key] = value
        self.ever_foreign.add(key)
        self.store.commit([Put(key, value)])

    def _outsider(self, random: Random) -> None:
        """Somebody by hand joins the overlay that has its records in the tutorial's place, at an address of his own."""
        overlay = self.overlays[3]
        address = overlay.subnet.at(overlay.subnet.last - random.randrange(5))
        mac, place = Mac.of(address), overlay.records
        if any((overlay.name, address) in e.held for e in self.engines) or self.store.get(f"{place}/arp/{address}"):
            return
        leased = self.store.get(f"myoverlay/pools/{overlay.subnet.key}/{address}")
        if leased is None:
            self._put_foreign(f"{place}/arp/{address}", mac.encode())
            self._put_foreign(f"{place}/fib/{mac}", b"192.0.2.200")

    def _tamper(self, random: Random) -> None:
        """Somebody takes a row out, or puts a wrong one in, by hand."""
        machine = self._machine(random)
        spaces = [space for space in machine.kernel.pins.values() if space.neigh]
        if not spaces:
            return
        space = random.choice(spaces)
        address = random.choice(sorted(space.neigh))
        if random.random() < 0.5:
            del space.neigh[address]
        else:
            space.neigh[address] = self._fresh_mac()
        self.spoilt_at[machine.name, space.name] = self.scheduler.now
        self.note(f"{machine.name}: the row of {address} in {space.name} is spoilt by hand")

    def _wipe(self, random: Random) -> None:
        self.note("the store is emptied")
        self.foreign.clear()
        self._note_loss()
        self.store.wipe()
        self._restart_into_it(random)

    def _restart_into_it(self, random: Random) -> None:
        """A host's plugin may be started into the doubt: all that it knows of the others is what its kernel holds."""
        if random.random() < 0.4:
            self.scheduler.after(random.choice((0.0, 0.2, 2.0)), partial(self._restart, random))

    def _note_loss(self) -> None:
        """A host that could not write again what it lost before goes on being lost since then."""
        self.lost_at, self.rolled_back_to = self.scheduler.now, ""
        self.truth.store_lost()
        for machine in self.machines:
            if machine.lost_since is None or machine.writes():
                machine.lost_since = self.lost_at

    def _snapshot(self, random: Random) -> None:
        self.note(f"snapshot {len(self.snapshots)}")
        self.snapshots.append(self.store.snapshot())

    def _roll_back(self, random: Random) -> None:
        if self.snapshots:
            number = random.randrange(len(self.snapshots))
            self.note(f"the store is rolled back to snapshot {number}")
            self._note_loss()
            self.store.restore(self.snapshots[number])
            there = self.store.entries()
            held = there.get("myoverlay/incarnation")
            self.rolled_back_to = msgspec.json.decode(held.value)["id"] if held is not None else ""
            theirs = {key: there[key] for key in self.ever_foreign if key in there and there[key].flags != MARK}
            self.foreign = {key: entry.value for key, entry in theirs.items()}
            self._restart_into_it(random)


def _graces() -> dict[str, str]:
    from myoverlay.settings import SETTINGS

    known = {row.env for row in SETTINGS}
    wanted = {"MYOVERLAY_NAMES": "off", "MYOVERLAY_GRACE": f"{GRACE:g}", "MYOVERLAY_LEASE_GRACE": f"{LEASE_GRACE:g}"}
    return {name: value for name, value in wanted.items() if name in known}


#: What takes five minutes takes a minute and a half here.
_SLOW = (
    (holdings_module, "ABANDONED"),
    (reconcile_module, "ABANDONED"),
    (audit_module, "SLOW"),
    (discover_module, "RELIST"),
)


class Notebook(logging.Handler):
    """What the program logs, among the notes."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.note(f"    {self._world.speaker or '?'} says: {record.getMessage()}")


@contextmanager
def determined(seed: int, wordy: bool = False) -> Iterator[None]:
    """Chance that the program takes from the machine comes from the seed meanwhile. `wordy`: its log is wanted."""
    state, uuid4 = randomness.getstate(), uuid.uuid4
    before = [(module, name, getattr(module, name)) for module, name in _SLOW]
    create_app = daemon_module.create_app
    daemon_module.create_app = lambda *_: None  # type: ignore[assignment, return-value]  # HTTP is not simulated
    source = Random(seed ^ 0xD1CE)
    randomness.seed(seed)
    uuid.uuid4 = lambda: uuid.UUID(int=source.getrandbits(128), version=4)
    for module, name in _SLOW:
        setattr(module, name, ABANDONED)
    log = logging.getLogger("myoverlay")
    level = log.level
    log.setLevel(logging.INFO if wordy else logging.CRITICAL + 1)
    try:
        yield
    finally:
        uuid.uuid4 = uuid4
        for module, name, value in before:
            setattr(module, name, value)
        daemon_module.create_app = create_app
        randomness.setstate(state)
        log.setLevel(level)


class Outcome(msgspec.Struct):
    """What became of a schedule."""

    seed: int
    invariant: str = ""
    told: str = ""
    notes: list[str] = []
    trace: str = ""
    state: str = ""
    steps: int = 0
    containers: int = 0
    refusals: int = 0


def play(seed: int, events: list[Event] | None = None, wordy: bool = False) -> Outcome:
    """Play a seed's schedule, or some of its events."""
    with determined(seed, wordy):
        world = World(seed)
        outcome = Outcome(seed)
        notebook = Notebook(world)
        log = logging.getLogger("myoverlay")
        if wordy:
            log.addHandler(notebook)
        try:
            world.play(draw(seed) if events is None else events)
        except Failure as failure:
            outcome.invariant, outcome.told = failure.invariant, str(failure)
            outcome.trace, outcome.state = traceback.format_exc(), world.state()
        finally:
            log.removeHandler(notebook)
            outcome.notes, outcome.steps = world.notes, world.scheduler.steps
            outcome.containers = sum(" runs" in note for note in world.notes)
            outcome.refusals = world.refusals
            world.close()
        return outcome
