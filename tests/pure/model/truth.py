"""What must hold: at every change of a table or a key, and once everything has healed and had its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from myoverlay.host.peers import TICK
from myoverlay.plan import pools as plan
from myoverlay.plan import shape
from myoverlay.store import Entry
from myoverlay.store.pooled import MARK
from myoverlay.values import Address, Fdb, Neigh, decoder
from tests.pure.model.engine import Container, Engine
from tests.pure.model.kernel import Row, Space
from tests.pure.model.machine import Failure, Machine

if TYPE_CHECKING:
    from tests.pure.model.world import Overlay, World

_JSON = decoder(dict)
#: How long a watcher may take for what was listed, seconds.
IN_TIME = 15.0


class Truth:
    """The judge. It knows what Docker knows on every host, and sees every table and key."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Addresses that two hosts have because one promised it while it could not ask the store.
        self.promised: set[tuple[str, Address]] = set()
        #: Addresses that the others took from a host which none of them could reach for the lease grace.
        self.given_up: dict[tuple[tuple[str, Address], Machine], float] = {}
        #: What each host listed when it last could, by host and overlay.
        self._last_word: dict[str, set[str]] = {}
        #: When a host's list said the last time that an address is no longer its own.
        self._taken_back: dict[tuple[str, str, Address], float] = {}
        #: Whose the leases in the store are, by their keys.
        self._owners: dict[str, tuple[str, ...]] = {}
        #: Containers that their host has ever listed in the store; those that it lists now, and since when.
        self._told: set[Container] = set()
        self._listed: dict[Container, float] = {}
        #: Who reached the store while it listed which container.
        self._heard: set[tuple[str, Container]] = set()
        #: Did a person say that the dead will not come back? Then nothing of them is excused any more.
        self.forgotten = False

    def fail(self, invariant: str, told: str) -> None:
        raise Failure(invariant, told)

    # -- who lives -------------------------------------------------------------------------------------------------

    def live(self, overlay: str | None = None) -> Iterator[Container]:
        for engine in self._world.engines:
            for container in engine.containers.values():
                if container.live and overlay in (None, container.overlay.name):
                    yield container

    def contested(self, container: Container) -> bool:
        """Do two, or it and an outsider, have its address or MAC? Only by Docker's own IPAM, or a promise."""
        overlay, address = container.overlay.name, container.address
        if (overlay, address) in self.promised and self._is_outsiders(overlay, address):
            return True
        same = [
            other
            for other in self.live(container.overlay.name)
            if other.address == container.address or other.mac == container.mac
        ]
        return len(same) > 1

    # -- at every step ---------------------------------------------------------------------------------------------

    def given(self, engine: Engine, overlay: Overlay, address: Address, promised: bool) -> None:
        """Our IPAM gave an address."""
        key = (overlay.name, address)
        if promised and self._is_outsiders(overlay.name, address):
            self.promised.add(key)
        for other in self._world.engines:
            if key not in other.held:
                continue
            lost = self._is_lost(other.machine) or self._is_loss_unseen(other.machine)
            if promised or other.held[key] or lost or (key, other.machine) in self.given_up:
                self.promised.add(key)
                continue
            self.fail(
                "no two share an address",
                f"{engine.machine.name} was given {address} of {overlay.name}, which {other.machine.name} has",
            )

    def given_again(self, address: Address, lived: Iterable[Container]) -> None:
        """Our IPAM gave an address on a host where these lived all the while: its release would free it under them."""
        for container in lived:
            if container.address == address:
                self.fail("no two share an address", f"{address} of {container} was given once more")

    def started(self, container: Container) -> None:
        """A container runs."""
        self._note_told(container)
        if not container.overlay.ours or (container.overlay.name, container.address) in self.promised:
            return
        for other in self.live(container.overlay.name):
            if other is not container and other.address == container.address:
                self.fail("no two share an address", f"{container} and {other} are both live")

    def rows_gone(self, machine: Machine, space: Space, gone: Iterable[Row], why: str) -> None:
        """Rows were taken away or written over: none of them may be a living container's."""
        engine = self._world.engine(machine)
        if not any(network.overlay.name == space.name and not network.going for network in engine.networks.values()):
            return
        for row in gone:
            for container in self.live(space.name):
                if not self._was_programmed(space, row, container) or container.machine is machine:
                    continue
                if not self._may_go(machine, container) and not self._is_left_listed(container):
                    self.fail("no living row is withdrawn", f"{machine.name}: {row} of {container}: {why}")

    def check_in_time(self) -> None:
        """What a host listed a while ago is known to all who reached the store all the while, whoever lists it too."""
        self._note_heard()
        now = self._world.scheduler.now
        if now - self._world.lost_at < self._world.grace + IN_TIME:
            return
        for engine in self._world.engines:
            machine = engine.machine
            if machine.daemon is None or machine.reaching_since is None or now - machine.reaching_since < IN_TIME:
                continue
            for network in engine.networks.values():
                local, space = machine.daemon.overlays.find(network.id), machine.kernel.pins.get(network.overlay.name)
                # Who has no container there does not watch; the first one begins it.
                if local is None or space is None or machine.daemon.discovery.watch_of(local) is None:
                    continue
                if local.listed.is_set():
                    self._check_in_time(machine, space)

    def _check_in_time(self, machine: Machine, space: Space) -> None:
        if self._world.scheduler.now - self._world.spoilt_at.get((machine.name, space.name), float("-inf")) < IN_TIME:
            return
        for container in self.live(space.name):
            listed = self._listed.get(container, float("inf"))
            if container.machine is machine or self._world.scheduler.now - listed < IN_TIME:
                continue
            # What its host has withdrawn since, as another's, and a snapshot brought back, is an old word.
            if container.address not in self._last_word.get(f"{container.machine.id}/overlays/{space.name}", ()):
                continue
            # Whose rows went because it was dead for the grace has them again in time, not at once.
            if self._may_go(machine, container) or self._world.found_again(machine, container.machine) < IN_TIME:
                continue
            # Whom another host had it from keeps it until he takes it back, and the observer may hear that he lives.
            if self._is_kept(machine, container):
                continue
            for row in container.rows:
                if row not in space.rows():
                    self.fail("reachable", f"{machine.name} does not reach {container} in time: no {row}")

    def _was_programmed(self, space: Space, row: Row, container: Container) -> bool:
        """Had the host both its rows? A move with the same MAC finds the neighbour's there before its own is known."""
        neigh, fdb = container.rows
        if row == neigh:
            return space.fdb.get(container.mac) == container.machine.vtep
        return row == fdb and space.neigh.get(container.address) == container.mac

    def _may_go(self, machine: Machine, container: Container) -> bool:
        """Two have it, or one that has joined there; or nobody there could know that its host lives.

        One that has not joined yet takes nothing from anybody: its claim may be refused.
        """
        journal = machine.daemon.journal.endpoints.all() if machine.daemon is not None else ()
        # Docker may have given up on one that the plugin has: it stays until that is found out.
        joining = any(one.joined and (one.address == container.address or one.mac == container.mac) for one in journal)
        # One that two hosts were given counts as had by both from the moment that the second is about to start.
        promised = (container.overlay.name, container.address) in self.promised
        joining = joining or (promised and self._is_started_elsewhere(container))
        unheard = self._world.unheard(machine, container.machine) >= self._world.grace
        # Nobody hears at once that the way is there again, and a doubt may have kept rows until just now.
        unheard = unheard or self._world.found_again(machine, container.machine) < 2 * TICK
        # A row of a former container with the same address says nothing of one that its host could not publish yet, or
        # that this one could not hear of: the store may have told it meanwhile that the former is gone.
        untold = container not in self._told or (machine.name, container) not in self._heard
        # The store lost what the one had there, so the other could take it: Docker's own IPAM gives an address twice.
        taken = not container.overlay.ours and not self._is_listed(container) and self._is_listed_elsewhere(container)
        if joining or unheard or untold or taken:
            return True
        return self.contested(container) or self._is_unknown(machine, container)

    def _is_outsiders(self, overlay: str, address: Address) -> bool:
        return any(isinstance(row, Neigh) and row.address == address for row in self._world.rows_outside(overlay))

    def _is_started_elsewhere(self, container: Container) -> bool:
        return any(self._like(container))

    def _is_listed_elsewhere(self, container: Container) -> bool:
        return any(self._is_listed(other) for other in self._like(container))

    def _like(self, container: Container) -> Iterator[Container]:
        """Others that were given its address."""
        for engine in self._world.engines:
            for other in engine.containers.values():
                alike = other.address == container.address and other.overlay is container.overlay
                if alike and other is not container:
                    yield other

    def _is_left_listed(self, container: Container) -> bool:
        """Is it had, by its last word, by a host that cannot take that back just now? Then it clashes with that."""
        place = f"/overlays/{container.overlay.name}"
        return any(
            not machine.writes() and container.address in self._last_word.get(f"{machine.id}{place}", ())
            for machine in self._world.machines
            if machine is not container.machine
        )

    def _is_kept(self, observer: Machine, container: Container) -> bool:
        """Had another host that lives its address, and took it back a moment ago at most?"""
        world, now = self._world, self._world.scheduler.now
        place = f"/overlays/{container.overlay.name}"
        for machine in world.machines:
            # That it lost its power a moment ago nobody knows yet.
            off = not machine.powered and now - machine.off_since >= IN_TIME
            gone = off or world.unheard(observer, machine) >= world.grace
            if machine is container.machine or gone:
                continue
            if container.address in self._last_word.get(f"{machine.id}{place}", ()):
                return True
            if now - self._taken_back.get((machine.id, container.overlay.name, container.address), -IN_TIME) < IN_TIME:
                return True
            if self._is_brought_back(observer, machine, container):
                return True
        return False

    def _is_brought_back(self, observer: Machine, machine: Machine, container: Container) -> bool:
        """Does a snapshot say that a host has it which cannot say otherwise? Who began since knows no better."""
        name = container.overlay.name
        records = (self._value(f"hosts/{machine.id}/overlays/{name}") or {}).get("records", ())
        began = observer.run.listed_at.get(name) if observer.run is not None else None
        since = began is None or began >= self._world.lost_at
        return since and not machine.writes() and any(one["address"] == container.address for one in records)

    def _is_unknown(self, machine: Machine, container: Container) -> bool:
        """The store lost the list of the container's host longer than a grace ago, the host could not write it again,
        and the observer, started anew, had not listed before: nothing tells it that the host is one of the overlay's.
        """
        world, now, host = self._world, self._world.scheduler.now, container.machine
        listed = machine.run.listed_at.get(container.overlay.name) if machine.run is not None else None
        if host.lost_since is not None and self._is_lost(host) and (listed is None or listed > host.lost_since):
            return True
        # Buried by one that could not hear it, while the observer, which could, did not reach the store to say so.
        buried = self.given_up.get(((container.overlay.name, container.address), host))
        if buried is not None and not host.writes() and (listed is None or listed > buried):
            return True
        if now - world.lost_at >= world.grace:
            return False
        # Within the doubt: a run that had not listed before the store was rolled back has but the snapshot's word.
        return now >= world.lost_at and (listed is None or listed >= world.lost_at)

    def _is_lost(self, host: Machine) -> bool:
        """The store lost what the host holds longer than a grace ago, and the host could not write it again."""
        since = host.lost_since
        return since is not None and self._world.scheduler.now - since >= self._world.grace and not host.writes()

    def _is_loss_unseen(self, host: Machine) -> bool:
        """The store lost what the host holds, it could not write that again, and nobody else could see the loss.

        What they watch is as it was, so the store still goes by the identity that it was rolled back to.
        """
        goes_by = (self._value("incarnation") or {}).get("id")
        return host.lost_since is not None and not host.writes() and goes_by == self._world.rolled_back_to

    def keys_changed(self, keys: set[str]) -> None:
        """A host of ours wrote to the store."""
        for key in keys:
            if (host := self._world.actor) is not None and key.startswith(f"myoverlay/hosts/{host.id}/overlays/"):
                listed = self._value(key.removeprefix("myoverlay/")) or {}
                place = key.removeprefix("myoverlay/hosts/")
                before, now = self._last_word.get(place, set()), {one["address"] for one in listed.get("records", ())}
                self._last_word[place] = now
                overlay = place.rpartition("/")[2]
                for address in before - now:
                    self._taken_back[host.id, overlay, Address(address)] = self._world.scheduler.now
        if any("/hosts/" in key for key in keys):
            for container in self.live():
                self._note_told(container)
            self._note_heard()
        entries = self._world.store.entries()
        self._note_freed(keys - entries.keys())
        for key in keys & self._world.foreign.keys():
            entry = entries.get(key)
            if entry is None or entry.value != self._world.foreign[key] or entry.flags == MARK:
                self.fail("foreign keys stay", f"{self._world.actor} changed {key}")

    def store_lost(self) -> None:
        """It was emptied or rolled back: what a host has listed may stand there no more."""
        self._listed.clear()

    def _note_freed(self, keys: set[str]) -> None:
        """Others free only addresses of a host that nobody who shares the overlay, and reaches the store, can reach."""
        for overlay in self._world.overlays:
            pool = f"myoverlay/pools/{overlay.subnet.key}/"
            for address in (Address(key.removeprefix(pool)) for key in keys if key.startswith(pool)):
                key = (overlay.name, address)
                for engine in self._world.engines:
                    theirs = engine.machine.id in self._owners.get(f"{pool}{address}", ())
                    if not theirs or engine.machine is self._world.actor or key not in engine.held:
                        continue
                    if not self._is_beyond_reach(engine.machine, overlay):
                        self.fail("no living address is freed", f"{self._world.actor} freed {key}: {engine.machine}")
                    self.given_up[key, engine.machine] = self._world.scheduler.now

    def note_owners(self, keys: set[str]) -> None:
        """Whoever wrote these keys: whose leases they are now."""
        entries = self._world.store.entries()
        for key in keys:
            if key.startswith("myoverlay/pools/"):
                self._owners[key] = tuple(_JSON(entries[key].value)["hosts"]) if key in entries else ()

    def _is_beyond_reach(self, host: Machine, overlay: Overlay) -> bool:
        world, sharing = self._world, list[Machine]()
        for engine in world.engines:
            network = engine.network_of(overlay)
            # Who came to share it a moment ago had no time to say whom he hears.
            if network is not None and world.scheduler.now - network.since >= world.lease_grace / 4:
                sharing.append(engine.machine)
        others = [one for one in sharing if one is not host and one.writes()]
        return all(world.unheard(one, host) >= world.lease_grace for one in others)

    # -- when everything has healed --------------------------------------------------------------------------------

    def check_reachable(self) -> None:
        """Every live container is known to every host that watches its overlay, by exactly its rows."""
        for machine, space, watching in self._spaces():
            if not watching:
                continue
            have = space.rows()
            for container in self.live(space.name):
                if self.contested(container):
                    continue
                if container.machine is machine:
                    self._check_local(machine, space, container)
                elif missing := [str(row) for row in container.rows if row not in have]:
                    self.fail("reachable", f"{machine.name} does not reach {container}: no {', '.join(missing)}")
                elif not machine.kernel.lets_in(space, container.machine.vtep):
                    self.fail("reachable", f"{machine.name} keeps out {container.machine.name}, where {container} is")

    def _check_local(self, machine: Machine, space: Space, container: Container) -> None:
        if container.port not in space.links:
            self.fail("reachable", f"{container} has no cable on its own host")
        if container.address in space.neigh or container.mac in space.fdb:
            self.fail("reachable", f"{container} has a row on its own host")

    def _spaces(self) -> Iterator[tuple[Machine, Space, bool]]:
        for engine in self._world.engines:
            machine = engine.machine
            if not machine.runs:
                continue
            for network in engine.networks.values():
                local = machine.daemon.overlays.find(network.id)
                if local is None:
                    self.fail("reachable", f"{machine.name} has lost network {network.overlay.name}")
                space = machine.kernel.pins.get(network.overlay.name)
                if space is None or space.tunnel is None:
                    self.fail("reachable", f"{machine.name} has no namespace or tunnel for {network.overlay.name}")
                    return
                yield machine, space, machine.daemon.discovery.watch_of(local) is not None

    def check_guarded(self) -> None:
        """Nobody may send but hosts of the world, each on overlays that it has, and outsiders by their keys."""
        for machine, space, watching in self._spaces():
            fence, tunnel = machine.kernel.fence, space.tunnel
            if fence is None or tunnel is None or not watching:
                continue
            members = {e.machine.vtep for e in self._world.engines if e.machine.kernel.pins.get(space.name) is not None}
            outside = {row.vtep for row in self._world.rows_outside(space.name) if isinstance(row, Fdb)}
            known = set(space.fdb.values()) | members | outside
            allowed = {at.vtep for at in fence.live if at.pair == (tunnel.port, tunnel.vni)}
            if strangers := allowed - known:
                self.fail("guarded", f"{machine.name} lets in {', '.join(sorted(strangers))} on {space.name}")

    def check_contested(self) -> None:
        """Of two that have one address (Docker's own IPAM, or a promise) one is published, and the other is named.

        Both are where the store lost what the one had, and it was given to the other: each keeps it, and one says so.
        """
        by_address: dict[tuple[str, Address], list[Container]] = {}
        for container in self.live():
            by_address.setdefault((container.overlay.name, container.address), []).append(container)
        for (overlay, address), several in by_address.items():
            if len(several) < 2:
                continue
            listed = [c for c in several if self._is_listed(c)]
            if len(listed) > 1 and not any(self._names_another(c.machine) for c in listed):
                self.fail("a clash is named", f"{address} of {overlay} is published by all of {listed}")
            for container in several:
                if container not in listed and not container.machine.daemon.tally.get("published", "clash"):
                    self.fail("a clash is named", f"{container} lost {address} and nobody said so")

    @staticmethod
    def _names_another(machine: Machine) -> bool:
        """Does it say that somebody else claims what it has?"""
        tally = machine.daemon.tally if machine.daemon is not None else None
        return tally is not None and (tally.get("published", "disputed") or tally.get("contradictions")) > 0

    def _note_heard(self) -> None:
        for machine in self._world.machines:
            if machine.daemon is not None and machine.reaching_since is not None:
                self._heard.update((machine.name, container) for container in self._listed)

    def _note_told(self, container: Container) -> None:
        if self._is_listed(container):
            self._told.add(container)
            self._listed.setdefault(container, self._world.scheduler.now)
        else:
            self._listed.pop(container, None)

    def _is_listed(self, container: Container) -> bool:
        value = self._value(f"hosts/{container.machine.id}/overlays/{container.overlay.name}")
        records = value.get("records", ()) if value is not None else ()
        # A list from before a roll-back may have a former container of that address: it says nothing of this one.
        return any(r["address"] == container.address and r["generation"] >= container.born for r in records)

    def check_nothing_dead(self) -> None:
        """Tables, journals, namespaces and the store hold what lives, and nothing else."""
        for machine, space, watching in self._spaces():
            self._check_rows(machine, space, watching)
        for engine in self._world.engines:
            if engine.machine.runs:
                self._check_machine(engine)
        alive = set(self._entries("alive/"))
        if alive != {machine.id for machine in self._world.machines if machine.runs}:
            self.fail("who lives is announced", f"announced are {self._names(alive)}")
        self._check_lists()
        self._check_index()
        self._check_overlays()
        self._check_leases()

    def _check_rows(self, machine: Machine, space: Space, watching: bool) -> None:
        live = {row: c for c in self.live(space.name) if c.machine is not machine for row in c.rows}
        wanted = set(live) | self._world.rows_outside(space.name)
        contested = {c.address for c in self.live(space.name) if self.contested(c)}
        contested_macs = {c.mac for c in self.live(space.name) if self.contested(c)}
        for row in space.rows() - wanted:
            if isinstance(row, Neigh) and row.address in contested:
                continue
            if isinstance(row, Fdb) and row.mac in contested_macs:
                continue
            self.fail("nothing dead stays", f"{machine.name} has {row} in {space.name}")

    def _check_machine(self, engine: Engine) -> None:
        machine = engine.machine
        journal = machine.daemon.journal
        pins = {network.overlay.name for network in engine.networks.values()}
        if set(machine.kernel.pins) != pins:
            self.fail("nothing dead stays", f"{machine.name} has namespaces {set(machine.kernel.pins)}, not {pins}")
        known = {endpoint.endpoint for endpoint in journal.endpoints.all()}
        if known != set(engine.containers):
            self.fail(
                "nothing dead stays",
                f"{machine.name} knows endpoints {[e[:12] for e in known ^ set(engine.containers)]} wrongly",
            )
        for network in engine.networks.values():
            ports = {c.port for c in engine.containers.values() if c.network is network}
            links = set(machine.kernel.pins[network.overlay.name].links) - {shape.BRIDGE, shape.VXLAN}
            if links != ports:
                self.fail("nothing dead stays", f"{machine.name} has cables {links}, not {ports}")
        if machine.kernel.loose:
            self.fail("nothing dead stays", f"{machine.name} has loose ends {set(machine.kernel.loose)}")
        if journal.leaving.all():
            self.fail("nothing dead stays", f"{machine.name} has not told that it left {journal.leaving.all()}")

    # -- the store -------------------------------------------------------------------------------------------------

    def _entries(self, below: str) -> dict[str, Entry]:
        prefix = f"myoverlay/{below}"
        entries = self._world.store.entries()
        return {
            key.removeprefix(prefix): entry
            for key, entry in entries.items()
            if key.startswith(prefix) and key not in self._world.foreign
        }

    def _value(self, key: str) -> dict[str, Any] | None:
        entry = self._world.store.entries().get(f"myoverlay/{key}")
        return _JSON(entry.value) if entry is not None else None

    def _check_lists(self) -> None:
        """Each host lists exactly its live containers."""
        for rest, entry in self._entries("hosts/").items():
            host, _, overlay = rest.partition("/overlays/")
            machine = next((one for one in self._world.machines if one.id == host), None)
            if machine is None:
                self.fail("nothing dead stays", f"a list of {host}, who never was")
                return
            listed = {r["address"] for r in _JSON(entry.value).get("records", ())}
            mine = [c for c in self.live(overlay) if c.machine is machine]
            if not machine.powered:
                if self._alone(machine, overlay):
                    continue
                self.fail("nothing dead stays", f"{machine.name} is dead, and a list of {overlay} says {listed}")
            wanted = {c.address for c in mine if not self.contested(c)}
            spare = {c.address for c in mine if self.contested(c)}
            if listed - spare != wanted:
                self.fail("nothing dead stays", f"{machine.name} lists {listed} of {overlay}, lives: {wanted}")

    def _alone(self, machine: Machine, overlay: str) -> bool:
        """Does no living host share the overlay with a dead one? Then nobody buries it, until a person does."""
        return not self.forgotten and not any(
            network.overlay.name == overlay
            for engine in self._world.engines
            if engine.machine.runs
            for network in engine.networks.values()
        )

    def _check_index(self) -> None:
        """The index holds exactly the live containers' keys, with our mark, and the outsiders'."""
        for overlay in self._world.overlays:
            place = overlay.records or f"myoverlay/overlays/{overlay.name}/records"
            if self._abandoned(overlay):
                continue
            have = {
                key.removeprefix(f"{place}/"): entry
                for key, entry in self._world.store.entries().items()
                if key.startswith(f"{place}/") and key not in self._world.foreign
            }
            live = list(self.live(overlay.name))
            wanted = {f"arp/{c.address}" for c in live} | {f"fib/{c.mac}" for c in live}
            contested = {f"arp/{c.address}" for c in live if self.contested(c)}
            contested |= {f"fib/{c.mac}" for c in live if self.contested(c)}
            if wrong := (set(have) ^ wanted) - contested:
                self.fail("nothing dead stays", f"index of {overlay.name}: {sorted(wrong)} surplus or missing")

    def _abandoned(self, overlay: Overlay) -> bool:
        """Is it one that only dead hosts have, so that nobody buries them there until a person does?

        A host that died between asking for the overlay's pool and creating its network has but the pool.
        """
        if self.forgotten:
            return False
        definition = self._value(f"overlays/{overlay.name}/definition") or {}
        pool = self._value(f"subnets/{overlay.subnet.key}") or {}
        engines = self._world.engines
        had = {e.machine.id for e in engines if not e.machine.powered and e.network_of(overlay) is not None}
        dead = {e.machine.id for e in engines if not e.machine.powered}
        used = any(e.machine.runs and e.network_of(overlay) is not None for e in engines)
        return not used and bool(had or dead & {*definition.get("holders", ()), *pool.get("users", ())})

    def _check_overlays(self) -> None:
        for overlay in self._world.overlays:
            if self._abandoned(overlay):
                continue
            holders = {
                engine.machine.id
                for engine in self._world.engines
                if engine.machine.runs and engine.network_of(overlay) is not None
            }
            definition = self._value(f"overlays/{overlay.name}/definition")
            told = set(definition.get("holders", ())) if definition is not None else set()
            if told != holders or (definition is not None and not holders):
                self.fail(
                    "nothing dead stays", f"{overlay.name} is held by {self._names(told)}, not {self._names(holders)}"
                )
            members = set(self._entries(f"overlays/{overlay.name}/members/"))
            if members != holders:
                self.fail(
                    "nothing dead stays",
                    f"members of {overlay.name}: {self._names(members)}, not {self._names(holders)}",
                )
            if not holders and (rest := self._entries(f"overlays/{overlay.name}/")):
                self.fail("nothing dead stays", f"of {overlay.name}, which nobody has, there is {sorted(rest)}")
        vnis = Counter(_JSON(entry.value)["overlay"] for entry in self._entries("vni/").values())
        defined = {o.name for o in self._world.overlays if self._value(f"overlays/{o.name}/definition") is not None}
        if set(vnis) != defined or any(count > 1 for count in vnis.values()):
            self.fail("nothing dead stays", f"VNIs are held by {dict(vnis)}, defined are {defined}")

    def _names(self, hosts: Iterable[str]) -> list[str]:
        names = {machine.id: machine.name for machine in self._world.machines}
        return sorted(names.get(host, host) for host in hosts)  # type: ignore[call-overload]

    def _check_leases(self) -> None:
        """Leases are exactly what Docker holds and what is kept in reserve, in the store and in each journal."""
        for overlay in self._world.overlays:
            if not overlay.ours or self._abandoned(overlay):
                continue
            pool = self._value(f"subnets/{overlay.subnet.key}")
            users = {e.machine.id for e in self._world.engines if e.machine.runs and e.network_of(overlay) is not None}
            told = set(pool.get("users", ())) if pool is not None else set()
            if told != users:
                self.fail(
                    "nothing dead stays",
                    f"pool {overlay.subnet} is used by {self._names(told)}, not {self._names(users)}",
                )
            self._check_pool(overlay, told)

    def _unkept(self, machine: Machine, leases: list[dict[str, Any]]) -> set[Address]:
        """Addresses it promised while the store was away, and that are another's there: both are named."""
        if not machine.runs:
            return set()
        others = {lease["address"] for lease in leases if machine.id not in lease["hosts"]}
        return {one.address for one in machine.daemon.journal.leases.all() if one.promised and one.address in others}

    def _check_pool(self, overlay: Overlay, users: set[str]) -> None:
        leases = [_JSON(entry.value) for entry in self._entries(f"pools/{overlay.subnet.key}/").values()]
        for engine in self._world.engines:
            machine = engine.machine
            mine = {lease["address"] for lease in leases if machine.id in lease["hosts"] and lease["use"] == "endpoint"}
            spare = {lease["address"] for lease in leases if machine.id in lease["hosts"] and lease["use"] == "reserve"}
            held = {address for (name, address) in engine.held if name == overlay.name and machine.powered}
            lost = {address for (name, address) in self.promised if name == overlay.name}
            lost |= self._unkept(machine, leases)
            if not machine.runs and not self.forgotten and machine.id not in users:
                continue  # it ended before it was announced in a store that had lost it: a lease alone tells of it
            if mine - lost != held - lost:
                self.fail(
                    "leases are right", f"{machine.name} has leases {mine} of {overlay.name}, Docker holds {held}"
                )
            if not machine.runs:
                if spare:
                    self.fail("nothing dead stays", f"{machine.name} is dead and keeps {spare} in reserve")
                continue
            journal = machine.daemon.journal.leases.all()
            kept = {one.address for one in journal if one.subnet == overlay.subnet and one.use == "reserve"}
            taken = {one.address for one in journal if one.subnet == overlay.subnet and one.use == "endpoint"}
            if kept != spare or taken - lost != held - lost:
                self.fail(
                    "leases are right", f"{machine.name} notes {kept | taken} of {overlay.name}, holds {spare | held}"
                )
            size = plan.reserve_size(overlay.subnet) if engine.network_of(overlay) is not None else 0
            if len(spare) != size and len(leases) < overlay.subnet.size - 2 * size:
                self.fail(
                    "leases are right", f"{machine.name} keeps {len(spare)} of {size} in reserve of {overlay.name}"
                )
