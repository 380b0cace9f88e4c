"""A machine's kernel on paper: what the host's loops use of links, pins and tables, in dictionaries.

It outlives the daemon, and goes with the power. `tests/pure/model/kernel_contract.py` says what it must do like the
real one. Each change of a table is told to `on_rows`, so that nothing is withdrawn unseen.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from myoverlay.errors import KernelRefused, Refused
from myoverlay.fence import At, Bound, Dropped, Fence, Pair
from myoverlay.kernel.linkforms import Observed
from myoverlay.plan import rows as plan
from myoverlay.plan import shape
from myoverlay.values import Address, Bridge, Fdb, Mac, Miss, Neigh, Subnet, Veth, Vxlan

Thing = Bridge | Vxlan | Veth
Row = Neigh | Fdb


class Link(NamedTuple):
    value: Thing
    index: int


class Space:
    """An overlay namespace: links by name, and the rows of its tunnel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: dict[str, Link] = {}
        #: Who may come out of which port; None: whoever likes.
        self.bound: frozenset[Bound] | None = None
        self.neigh: dict[Address, Mac] = {}
        self.fdb: dict[Mac, Address] = {}

    @property
    def tunnel(self) -> Vxlan | None:
        link = self.links.get(shape.VXLAN)
        return link.value if link is not None and isinstance(link.value, Vxlan) else None

    def rows(self) -> set[Row]:
        neigh = {Neigh(address=address, mac=mac) for address, mac in self.neigh.items()}
        return neigh | {Fdb(mac=mac, vtep=vtep) for mac, vtep in self.fdb.items()}


class Kernel:
    """Everything of one machine that is not on its disk."""

    def __init__(self, vtep: Address, mtu: int = 1500) -> None:
        self.vtep = vtep
        self.mtu = mtu
        self.pins: dict[str, Space] = {}
        #: Containers' ends that nobody has moved into a container, by name.
        self.loose: dict[str, Space] = {}
        self._numbers = itertools.count(10)
        #: Called after each change of a tunnel's tables, with the rows that are no longer there and why.
        self.on_rows: Callable[[Space, list[Row], str], None] = lambda _space, _gone, _why: None
        self.unreachable: set[Address] = set()
        #: The guard's sets, and the generation of the host's rules; None: there is no table.
        self.fence: Fence | None = None
        self.generation = 1
        #: Called with what a stranger could have used: a link without a guard, a row to somebody who is kept out.
        self.on_hole: Callable[[str], None] = lambda _: None

    def power_off(self) -> None:
        self.fence, self.generation = None, 1
        self.pins.clear()
        self.loose.clear()

    def take(self, link: str) -> bool:
        """Docker moves a container's end into the container; False where it is not there."""
        return self.loose.pop(link, None) is not None

    def kill_cable(self, port: str) -> None:
        """The container's namespace ends, and its cable with it."""
        for space in self.pins.values():
            space.links.pop(port, None)

    def ensure(self, space: Space, thing: Thing) -> None:
        name = shape.name_of(thing)
        link = space.links.get(name)
        if link is not None and link.value == thing:
            return
        if isinstance(thing, Vxlan):
            self._ensure_tunnel(space, link, thing)
        elif isinstance(thing, Veth):
            if link is None and thing.link is not None:
                if thing.link in self.loose:
                    raise KernelRefused(f"making {thing.port}", errno.EEXIST, "File exists")
                self.loose[thing.link] = space
            if thing.mac not in {one.mac for one in space.bound or () if one.port == thing.port}:
                self.on_hole(f"the cable {thing.port} of {space.name} is laid for a container that is not bound")
            space.links[name] = Link(thing, link.index if link is not None else next(self._numbers))
        else:
            space.links[name] = Link(thing, link.index if link is not None else next(self._numbers))

    def _ensure_tunnel(self, space: Space, link: Link | None, thing: Vxlan) -> None:
        if self.holder_of(thing.vni, thing.port, space) is not None:
            raise KernelRefused(f"making {thing.name}", errno.EEXIST, "File exists")
        old = link.value if link is not None else None
        if isinstance(old, Vxlan) and (old.vni, old.port, old.local) == (thing.vni, thing.port, thing.local):
            space.links[thing.name] = Link(thing, link.index if link else 0)
            return
        self.remove(space, thing.name, "device made anew")
        if self.fence is None or At(Pair(thing.port, thing.vni), thing.local) not in self.fence.own:
            self.on_hole(f"the tunnel of {space.name} goes up, and nobody guards it")
        space.links[thing.name] = Link(thing, next(self._numbers))

    def remove(self, space: Space, name: str, why: str = "device removed") -> None:
        link = space.links.pop(name, None)
        if link is None:
            return
        if isinstance(link.value, Veth) and link.value.link is not None:
            self.loose.pop(link.value.link, None)
        if isinstance(link.value, Vxlan):
            gone = list(space.rows())
            space.neigh.clear()
            space.fdb.clear()
            if gone:
                self.on_rows(space, gone, why)

    def delete_pin(self, name: str) -> None:
        space = self.pins.pop(name, None)
        if space is not None:
            for link in tuple(space.links):
                self.remove(space, link, "namespace removed")

    def holder_of(self, vni: int, port: int, but: Space | None = None) -> str | None:
        for space in self.pins.values():
            tunnel = space.tunnel
            if space is not but and tunnel is not None and (tunnel.vni, tunnel.port) == (vni, port):
                return f"namespace {space.name}"
        return None

    def set(self, space: Space, index: int, row: Row) -> KernelRefused | None:
        refused = self._refusal(space, index, row)
        if refused is not None:
            return refused
        gone: list[Row] = []
        if isinstance(row, Neigh):
            old = space.neigh.get(row.address)
            space.neigh[row.address] = row.mac
            if old is not None and old != row.mac:
                gone.append(Neigh(address=row.address, mac=old))
        else:
            former = space.fdb.get(row.mac)
            space.fdb[row.mac] = row.vtep
            if not self.lets_in(space, row.vtep):
                self.on_hole(f"{space.name} sends to {row.vtep}, whose answers are kept out")
            if former is not None and former != row.vtep:
                gone.append(Fdb(mac=row.mac, vtep=former))
        if gone:
            self.on_rows(space, gone, f"overwritten by {row}")
        return None

    def lets_in(self, space: Space, vtep: Address) -> bool:
        """Does the guard take from this VTEP what is for the overlay?"""
        tunnel = space.tunnel
        if tunnel is None or self.fence is None:
            return False
        return At(Pair(tunnel.port, tunnel.vni), vtep) in self.fence.live

    def unset(self, space: Space, index: int, row: Row) -> KernelRefused | None:
        refused = self._refusal(space, index, row)
        if refused is not None:
            return refused
        if isinstance(row, Neigh) and space.neigh.get(row.address) == row.mac:
            del space.neigh[row.address]
        elif isinstance(row, Fdb) and space.fdb.get(row.mac) == row.vtep:
            del space.fdb[row.mac]
        else:
            return None
        self.on_rows(space, [row], "unset")
        return None

    def _refusal(self, space: Space, index: int, row: Row) -> KernelRefused | None:
        link = space.links.get(shape.VXLAN)
        if link is None or link.index != index:
            return KernelRefused(f"setting {row} on interface {index}", errno.ENODEV, "No such device")
        return None


Guard = Callable[[str], None]


def free(_what: str) -> None:
    """A guard that lets everything pass."""


class FakeNamespace:
    """An open namespace."""

    def __init__(self, space: Space, path: Path | None = None) -> None:
        self.space = space
        self.path = path
        self.inode = id(space)
        self.fd = 0

    def dup(self) -> FakeNamespace:
        return FakeNamespace(self.space, self.path)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> FakeNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakePins:
    """`kernel.pins.Pins`. `guard` is told of each call, before and after it."""

    def __init__(self, kernel: Kernel, guard: Guard = free, folder: Path = Path("/model/netns")) -> None:
        self._kernel = kernel
        self._guard = guard
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def is_there(self, name: str) -> bool:
        self._guard("pins")
        return name in self._kernel.pins

    def create(self, name: str) -> FakeNamespace:
        self._guard(f"pin {name}")
        space = self._kernel.pins.setdefault(name, Space(name))
        self._guard("")
        return FakeNamespace(space, self.path(name))

    def keep(self, name: str, ns: Any) -> bool:
        self._guard(f"keep {name}")
        if self._kernel.pins.get(name) is ns.space:
            return False
        self._kernel.pins[name] = ns.space
        return True

    def leave(self) -> None:
        """The directory is nowhere."""

    def delete(self, name: str) -> None:
        self._guard(f"unpin {name}")
        self._kernel.delete_pin(name)
        self._guard("")

    def names(self) -> set[str]:
        self._guard("pins")
        return set(self._kernel.pins)


class Coming:
    """`kernel.links.Asked`, done when somebody looks: whoever ends before that has not laid it."""

    def __init__(self, work: Callable[[], tuple[str, ...]]) -> None:
        self._work = work
        self._unset: tuple[str, ...] | None = None
        self._refused: KernelRefused | None = None

    def is_well(self) -> bool:
        with suppress(KernelRefused):
            self.wait(0.0)
        return self._refused is None

    def wait(self, deadline: float) -> tuple[str, ...]:
        if self._refused is not None:
            raise self._refused
        if self._unset is None:
            try:
                self._unset = self._work()
            except KernelRefused as error:
                self._refused = error
                raise
        return self._unset


class FakeLinks:
    """`kernel.links.Links`."""

    def __init__(self, kernel: Kernel, guard: Guard = free) -> None:
        self._kernel = kernel
        self._guard = guard
        self.failed_removals = 0

    def start(self) -> None:
        """There is no thread."""

    def stop(self, timeout: float) -> None:
        """There is no thread."""

    def ensure(self, ns: Any, thing: Thing, *, deadline: float, ipv6: bool = False) -> tuple[str, ...]:
        self._guard(f"ensure {shape.name_of(thing)}")
        self._kernel.ensure(ns.space, thing)
        self._guard("")
        return ()

    def begin(self, ns: Any, thing: Thing, *, deadline: float) -> Coming:
        return Coming(lambda: self.ensure(ns, thing, deadline=deadline))

    def remove(self, ns: Any, name: str, *, deadline: float, wait: bool = True) -> None:
        self._guard(f"remove {name}")
        self._kernel.remove(ns.space, name)
        self._guard("")

    def far_ends(self, ns: Any, *, deadline: float) -> dict[str, str]:
        self._guard("far ends")
        values = [link.value for link in ns.space.links.values()]
        return {v.port: v.link for v in values if isinstance(v, Veth) and v.link in self._kernel.loose}

    def names(self) -> set[str]:
        self._guard("names")
        return {"lo", "eth0", *self._kernel.loose}

    def loose_ends(self, prefix: str, *, deadline: float) -> set[str]:
        self._guard("loose ends")
        return set()  # the bridge's ends are never born in the host's namespace

    def remove_here(self, name: str, *, deadline: float) -> None:
        self._guard(f"remove {name}")
        space = self._kernel.loose.pop(name, None)
        if space is not None:
            for link in [link for link in space.links.values() if isinstance(link.value, Veth)]:
                if link.value.link == name:
                    del space.links[link.value.port]

    def addresses(self, *, deadline: float) -> frozenset[Address]:
        self._guard("addresses")
        return frozenset({self._kernel.vtep})

    def observe(self, ns: Any, *, deadline: float, memory: object = None) -> tuple[Observed, ...]:
        self._guard("observe")
        return tuple(Observed(name=name, value=link.value) for name, link in ns.space.links.items())

    def ifindex(self, ns: Any, name: str, *, deadline: float) -> int | None:
        self._guard("ifindex")
        link = ns.space.links.get(name)
        return link.index if link is not None else None

    def routes(self, *, deadline: float) -> tuple[Subnet, ...]:
        self._guard("routes")
        return (Subnet("192.0.2.0/24"),)

    def address_of(self, name_or_address: str, *, deadline: float) -> tuple[Address, str, int]:
        self._guard("address")
        if name_or_address not in ("", "eth0", self._kernel.vtep):
            raise Refused(f"{name_or_address} is no interface or address of this host: eth0, {self._kernel.vtep} are")
        return self._kernel.vtep, "eth0", self._kernel.mtu

    def route_mtu(self, address: Address, *, deadline: float) -> int:
        self._guard("route")
        return self._kernel.mtu

    def holder_of(self, vni: int, port: int, *, search: Sequence[Path], deadline: float) -> str | None:
        self._guard("holder")
        return self._kernel.holder_of(vni, port)


class FakeTables:
    """`kernel.neigh.Tables`."""

    def __init__(self, kernel: Kernel, space: Space, ifindex: int, guard: Guard = free) -> None:
        self._kernel = kernel
        self._space = space
        self.ifindex = ifindex
        self._guard = guard

    def set(self, rows: Sequence[Row]) -> list[tuple[Row, KernelRefused]]:
        return self._each(rows, "set", self._kernel.set)

    def unset(self, rows: Sequence[Row]) -> list[tuple[Row, KernelRefused]]:
        return self._each(rows, "unset", self._kernel.unset)

    def _each(self, rows: Sequence[Row], verb: str, act: Callable[..., KernelRefused | None]) -> Any:
        refused = []
        for row in rows:
            self._guard(f"{verb} {row}")
            said = act(self._space, self.ifindex, row)
            if said is not None:
                refused.append((row, said))
        if rows:
            self._guard("")
        return refused

    def dump(self) -> tuple[set[Neigh], set[Fdb]]:
        self._guard("dump")
        link = self._space.links.get(shape.VXLAN)
        rows = self._space.rows() if link is not None and link.index == self.ifindex else set()
        neigh = {row for row in rows if isinstance(row, Neigh)}
        return neigh, {row for row in rows if isinstance(row, Fdb)}

    def close(self) -> None:
        """Nothing is held."""


class FakeAnnouncer:
    """`kernel.frames.Announcer`: what was announced, last."""

    def __init__(self) -> None:
        self.said: list[tuple[Address, Mac]] = []

    def announce(self, address: Address, mac: Mac) -> None:
        self.said.append((address, mac))
        del self.said[:-50]

    def close(self) -> None:
        """Nothing is held."""


class FakeMisses:
    """`kernel.neigh.MissSocket`."""

    _numbers = itertools.count(100_000)

    def __init__(self) -> None:
        self._number = next(self._numbers)
        self.waiting: list[Miss] = []

    def fileno(self) -> int:
        return self._number

    def read(self) -> list[Miss]:
        heard, self.waiting = self.waiting, []
        return heard

    def close(self) -> None:
        """Nothing is held."""


class FakeGround:
    """`host.ground.Ground`."""

    def __init__(self, kernel: Kernel, guard: Guard, namespace: Any, ifindex: int, ports: Iterable[str]) -> None:
        self.namespace = namespace
        self.ifindex = ifindex
        self.ports = set(ports)
        self.coming: dict[str, Coming] = {}
        self.leaving: set[str] = set()
        self.memory = None
        self.rows, self.born = plan.Written(), False
        self.tables = FakeTables(kernel, namespace.space, ifindex, guard)
        self.announcer = FakeAnnouncer()
        self.misses = FakeMisses()
        self._guard = guard
        self._bound = self._indexes()

    def link_names(self) -> set[str]:
        self._guard("links")
        return {"lo", *self.namespace.space.links}

    def is_bound(self) -> bool:
        self._guard("links")
        return self._indexes() == self._bound

    def _indexes(self) -> list[int]:
        links = self.namespace.space.links
        return [links[name].index if name in links else 0 for name in (shape.VXLAN, shape.BRIDGE)]

    def close(self) -> None:
        """Nothing is held."""


class FakeFenceTable:
    """`kernel.fence.FenceTable`: it remembers nothing of an earlier run but what the kernel holds."""

    def __init__(self, kernel: Kernel, guard: Guard = free) -> None:
        self._kernel = kernel
        self._guard = guard
        self._laid = False
        self._generation: int | None = None

    def held(self) -> Fence:
        self._guard("fence held")
        return self._kernel.fence or Fence()

    def lay(self, fence: Fence) -> None:
        self._guard("fence lay")
        self._write(fence)
        self._laid = True
        self._guard("")

    def change(self, more: Fence, less: Fence) -> None:
        if not more and not less:
            return
        self._guard("fence change")
        there = self._kernel.fence
        if there is None or less.without(there):
            raise KernelRefused("changing the guard's table myoverlay", errno.ENOENT, "No such file or directory")
        self._write(there.without(less).beside(more))
        self._guard("")

    def is_untouched(self) -> bool:
        self._guard("fence generation")
        return self._generation == self._kernel.generation

    def stands(self) -> bool:
        self._guard("fence stands")
        return self._laid and self._kernel.fence is not None

    def look(self) -> Fence | None:
        self._guard("fence look")
        if not self._laid or self._kernel.fence is None:
            return None
        self._generation = self._kernel.generation
        return self._kernel.fence

    def dropped(self) -> Dropped:
        self._guard("fence dropped")
        return Dropped()

    def remove(self) -> None:
        self._guard("fence remove")
        self._kernel.fence, self._laid = None, False
        self._kernel.generation += 1
        self._guard("")

    def close(self) -> None:
        """Nothing is held."""

    def _write(self, fence: Fence) -> None:
        self._kernel.fence = fence
        self._kernel.generation += 1
        self._generation = self._kernel.generation


class FakeBoundTable:
    """`kernel.bound.BoundTable`: it lies in its namespace, and goes with it."""

    def __init__(self, home: Callable[[], Any], guard: Guard = free) -> None:
        self._home = home
        self._guard = guard
        self._laid = False

    def lay(self, value: frozenset[Bound]) -> None:
        self._guard("bound lay")
        self._home().space.bound = value
        self._laid = True
        self._guard("")

    def change(self, more: frozenset[Bound], less: frozenset[Bound]) -> None:
        self._guard("bound change")
        space = self._home().space
        if space.bound is None or less - space.bound:
            raise KernelRefused("changing table myoverlay", errno.ENOENT, "No such file or directory")
        space.bound = space.bound - less | more
        self._guard("")

    def is_untouched(self) -> bool:
        self._guard("bound generation")
        return False

    def look(self) -> frozenset[Bound] | None:
        self._guard("bound look")
        found: frozenset[Bound] | None = self._home().space.bound
        return found if self._laid else None

    def counts(self) -> dict[str, int]:
        self._guard("bound counts")
        return {"spoofed": 0}

    def remove(self) -> None:
        self._guard("bound remove")
        self._home().space.bound = None
        self._laid = False

    def close(self) -> None:
        """Nothing is held."""
