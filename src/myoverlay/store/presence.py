"""Who is there: `alive/<host>`, which hangs on a host's session, and the store's own identity.

<prefix>/alive/<host>   that a host is there, its name and VTEPs
<prefix>/incarnation    a random id and a counter: who finds another id, or a lower count, than it remembers, knows
                        that the store was emptied, replaced or restored
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

import msgspec

from myoverlay.errors import Denied
from myoverlay.store import Check, Committed, Conflict, Delete, Lock, Op, Put, Reset, Unchanged, Unlock
from myoverlay.store.typed import Held, Typed, tail
from myoverlay.values import COUNT_LIMIT, Alive, HostId, Value, check_count, encode


class Incarnation(Value, frozen=True, kw_only=True):
    """Which store this is (`id`, made anew whenever somebody saw that it had lost something), and how old it is.

    `born`: when the id was made, in Unix milliseconds, and in any case later than every one that its maker knew.
    """

    id: str
    count: int = 1
    born: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.id) <= 64 or not self.id.isalnum():
            raise ValueError("an incarnation's id is 1 to 64 letters and digits")
        check_count(self.count)
        check_count(self.born)

    @classmethod
    def fresh(cls, born: int) -> Incarnation:
        return cls(id=uuid.uuid4().hex, born=min(born, COUNT_LIMIT))

    def older(self) -> Incarnation:
        """The same store, a little later."""
        return msgspec.structs.replace(self, count=min(self.count + 1, COUNT_LIMIT))


#: What is read where the key says nothing sensible; by identity, since a store may have any id.
GARBLED = Incarnation(id="unreadable")


class Present(msgspec.Struct, frozen=True):
    """The hosts whose session lives, at an index."""

    hosts: frozenset[HostId]
    index: int


class Presence(Typed):
    """Reads and writes who is there. Every method may raise Unavailable."""

    #: May the token not check that another host is not there?
    _reads_first = False

    def alive(self, *, timeout: float = 3.0) -> dict[HostId, Held[Alive]]:
        """The hosts whose session lives, with what they say of themselves."""
        entries = self.store.list(self.key("alive", ""), timeout=timeout).entries
        return self.by_host(Alive, self.direct(entries, "alive"))

    def alive_of(self, hosts: Iterable[HostId], *, timeout: float = 3.0) -> dict[HostId, Alive]:
        """What these hosts say of themselves; a host that is not there, or says nothing sensible, is absent."""
        entries = self.store.get_many([self.key("alive", host) for host in hosts], timeout=timeout)
        return {host: held.value for host, held in self.by_host(Alive, entries.values()).items()}

    def wait(self, index: int, *, timeout: float) -> Present | Unchanged | Reset:
        """Wait until a host came or went, or says something else of itself.

        Costs the names alone: 52 bytes for each host that is there.
        """
        seen = self.store.wait_keys(self.key("alive", ""), index, timeout=timeout, values=True)
        if isinstance(seen, Unchanged | Reset):
            return seen
        hosts = set()
        for key in seen.keys:
            try:
                hosts.add(HostId(tail(key)))
            except ValueError as error:
                self.distrust(key, str(error))
        return Present(frozenset(hosts), seen.index)

    def own(self, *, timeout: float = 3.0) -> tuple[Alive | None, str | None]:
        """What stands under this host's own id, and the session that holds it."""
        entry = self.store.get(self.key("alive", self.me), timeout=timeout)
        held = self.read(Alive, entry)
        return (held.value if held else None), (entry.session if entry else None)

    def announce(self, alive: Alive, session: str, old: str | None, *, timeout: float = 3.0) -> bool:
        """Bind `alive/<me>` to the session, taking it over from an `old` one of ours."""
        key, value = self.key("alive", self.me), encode(alive)
        ops: list[Op] = [Lock(key, value, session)]
        if old is not None and old != session:
            ops.insert(0, Unlock(key, value, old))
        return not isinstance(self.store.commit(ops, timeout=timeout), Conflict)

    def commit_without(self, host: HostId, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        """A write that is right only while the host is not there.

        For the check that a key does not exist Consul (1.8.7) asks the right to write it, which a host's token does not
        have for another one's. Then it is read first: who comes back in that moment puts right what is its own
        (`audit`).
        """
        absent = Check(self.key("alive", host), 0)
        if not self._reads_first:
            try:
                return self.store.commit([*ops, absent], timeout=timeout)
            except Denied:
                self._reads_first = self._is_denied(absent, timeout)
                if not self._reads_first:
                    raise
        if self.store.get(absent.key, timeout=timeout) is not None:
            return Conflict((len(ops),), "the host is there")
        return self.store.commit(ops, timeout=timeout)

    def _is_denied(self, check: Check, timeout: float) -> bool:
        try:
            self.store.commit([check], timeout=timeout)
        except Denied:
            return True
        return False

    def witness(self, host: HostId, *, timeout: float = 3.0) -> str | None:
        """What was said last by somebody who hears the host; None where nobody ever did."""
        entry = self.store.get(self.key("witness", host), timeout=timeout)
        return entry.value[:64].decode("ascii", "replace") if entry is not None else None

    def bear_witness(self, host: HostId, *, timeout: float = 3.0) -> None:
        """Say that this host hears the other one, which is cut off from the store. If that is back, nothing is said."""
        said = Put(self.key("witness", host), uuid.uuid4().hex.encode())
        self.commit_without(host, [said], timeout=timeout)

    def end_witness(self, host: HostId, *, timeout: float = 3.0) -> None:
        """The host needs no witness any more: it is back, or buried."""
        entry = self.store.get(self.key("witness", host), timeout=timeout)
        if entry is not None:
            self.store.commit([Delete(entry.key, entry.index)], timeout=timeout)

    def incarnation(self, *, timeout: float = 3.0) -> Held[Incarnation] | None:
        """Which store this is; GARBLED where there is a key that cannot be read: it is to be written over."""
        entry = self.store.get(self.key("incarnation"), timeout=timeout, sure=True)
        if entry is None:
            return None
        return self.read(Incarnation, entry) or Held(GARBLED, entry.index)

    def write_incarnation(self, held: Held[Incarnation] | None, new: Incarnation, *, timeout: float = 3.0) -> bool:
        """By compare-and-set; False where somebody was faster."""
        put = Put(self.key("incarnation"), encode(new), index=held.index if held else 0)
        return not isinstance(self.store.commit([put], timeout=timeout), Conflict)
