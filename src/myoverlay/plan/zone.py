"""Who is told what about a name: only containers that share an overlay with the one who asks.

Values in, values out: texts are in their normal forms, names in lower case without a last dot. A `Directory` is what a
resolver knows, and forgets nothing at once: a name of ours that has gone is answered as gone for a while, so that the
question goes to nobody else. Dataclasses, for the resolver's process does without msgspec, which is 3 MB.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, KeysView, Mapping
from dataclasses import dataclass

#: Seconds that a name that has gone is remembered, and of how many.
GONE, GONE_LIMIT = 600.0, 4096
#: Types of questions (RFC 1035, 3596, 6895).
A, NS, SOA, PTR, AAAA, DS, DNSKEY, IXFR, AXFR, ANY = 1, 2, 6, 12, 28, 43, 48, 251, 252, 255
#: What may be asked about a name of one label that is no host: the root's delegations, for who validates answers.
_OF_ZONES = frozenset((NS, SOA, DS, DNSKEY))
_REVERSE = ".in-addr.arpa"


@dataclass(frozen=True, slots=True)
class End:
    """An endpoint: its address, its names, the chief one first, and the sandbox of one that is on this host."""

    address: str
    names: tuple[str, ...] = ()
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """One overlay as its host knows it. `gone` are names that were of it and are not answered: their host is dead."""

    overlay: str
    subnet: str
    internal: bool = False
    ends: tuple[End, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What is otherwise in a zone: endpoints that are so now, addresses that have none, names as in `Zone.gone`."""

    overlay: str
    ends: tuple[End, ...] = ()
    went: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Name and type; classes other than IN do not come so far."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """The name is ours, and this is where its containers are."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pointer:
    """What the address is called."""

    name: str


@dataclass(frozen=True, slots=True)
class Empty:
    """The name is ours and has nothing of this type."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """There is no such name for this asker, and nobody else is to be asked."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not from there: an internal network's questions do not leave the host."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The host's resolvers may know."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nobody who could be answered asks so."""


Verdict = Addresses | Pointer | Empty | Nobody | Refuse | Forward | Ignore


class _Book:
    """A zone with its indexes."""

    def __init__(self, zone: Zone) -> None:
        self.overlay, self.internal = zone.overlay, zone.internal
        self.subnet = ipaddress.ip_network(zone.subnet)
        self.by_address: dict[str, End] = {}
        #: How many endpoints each sandbox has here.
        self.sandboxes: dict[str, int] = {}
        #: A name's addresses; one alone without a list, for nearly all have one, and lists of 100,000 are 9 MB.
        self._named: dict[str, str | list[str]] = {}
        for end in zone.ends:
            self.put(end)

    @property
    def names(self) -> KeysView[str]:
        return self._named.keys()

    def named(self, name: str) -> list[str]:
        """The addresses that bear a name."""
        found = self._named.get(name, [])
        return [found] if isinstance(found, str) else found

    def put(self, end: End) -> None:
        """The endpoint is so from now on."""
        self.take(end.address)
        self.by_address[end.address] = end
        if end.sandbox:
            self.sandboxes[end.sandbox] = self.sandboxes.get(end.sandbox, 0) + 1
        for name in end.names:
            found = self.named(name)
            if len(found) < 2:  # it is no list of the table's yet
                found = [*found]
            found.append(end.address)
            self._named[name] = found if len(found) > 1 else end.address

    def take(self, address: str) -> tuple[str, ...]:
        """There is no endpoint there any more; returns the names that it had."""
        end = self.by_address.pop(address, None)
        if end is None:
            return ()
        if end.sandbox:
            self.sandboxes[end.sandbox] -= 1
            if not self.sandboxes[end.sandbox]:
                del self.sandboxes[end.sandbox]
        for name in end.names:
            found = self.named(name)
            found.remove(address)
            if len(found) < 2:
                self._named[name] = found[0] if found else ""
            if not found:
                del self._named[name]
        return end.names

    def has(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.subnet


class Directory:
    """All overlays of a host."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._gone: dict[str, dict[str, float]] = {}
        self._turn = itertools.count()

    def show(self, zone: Zone, now: float) -> None:
        """The overlay is so from now on."""
        old, new = self._books.get(zone.overlay), _Book(zone)
        gone = {name: until for name, until in self._gone.get(zone.overlay, {}).items() if until > now}
        left = old.names - new.names if old is not None else frozenset[str]()
        gone |= dict.fromkeys(sorted({*left, *zone.gone}), now + GONE)
        kept = [(name, until) for name, until in gone.items() if name not in new.names]
        self._gone[zone.overlay] = dict(kept[-GONE_LIMIT:])
        self._books[zone.overlay] = new

    def change(self, change: Change, now: float) -> None:
        """Of an overlay that was shown this is otherwise from now on; costs that alone."""
        book, gone = self._books.get(change.overlay), self._gone.get(change.overlay)
        if book is None or gone is None:
            return
        left = [name for end in change.ends for name in book.take(end.address)]
        left += [name for address in change.went for name in book.take(address)]
        for end in change.ends:
            book.put(end)
            for name in end.names:
                gone.pop(name, None)
        for name in (*left, *change.gone):
            if name not in book.names:
                gone.pop(name, None)  # it is the last one again
                gone[name] = now + GONE
        while len(gone) > GONE_LIMIT:
            del gone[next(iter(gone))]

    def drop(self, overlay: str) -> None:
        """The host is no longer on the overlay."""
        self._books.pop(overlay, None)
        self._gone.pop(overlay, None)

    def decide(self, overlay: str, source: str, question: Question, now: float) -> Verdict:
        """What to answer. `overlay`: in whose namespace the question came in; "" is the host's own.

        The source address alone says nothing: two overlays may have the same subnet.
        """
        if question.type in (AXFR, IXFR):
            return Refuse()
        if not overlay:
            return self._for_host(question)
        mine = self._books_of(overlay, source)
        if not mine:
            return Ignore()
        address = _reversed(question.name)
        if address is not None:
            return self._about_address(mine, address, question.type)
        found = [address for book in mine for address in book.named(question.name)]
        if found:
            return self._rotated(found) if question.type in (A, ANY) else Empty()
        return self._about_stranger(mine, question, now)

    def _books_of(self, overlay: str, source: str) -> list[_Book]:
        """The overlays of the asker: that which it asks in, and the others of its sandbox. None for a forged source.

        Who is no endpoint of Docker's is there all the same, attached by hand.
        """
        here = self._books.get(overlay)
        if here is None or not here.has(source):
            return []
        end = here.by_address.get(source)
        if end is None or not end.sandbox:
            return [here]
        return [here, *(b for b in self._books.values() if b is not here and end.sandbox in b.sandboxes)]

    def _about_address(self, mine: Iterable[_Book], address: str, kind: int) -> Verdict:
        inside = [book for book in mine if book.has(address)]
        ends = [book.by_address[address] for book in inside if address in book.by_address]
        named = next((end for end in ends if end.names), None)
        if named is not None:
            return Pointer(named.names[0]) if kind in (PTR, ANY) else Empty()
        if inside or any(book.has(address) for book in self._books.values()):
            return Nobody()
        return _leaving(mine)

    def _about_stranger(self, mine: Iterable[_Book], question: Question, now: float) -> Verdict:
        """A name of none of the asker's neighbours.

        A dotless one is never asked elsewhere: it is that of a container which is not there yet, or of one on another
        overlay. A dotted one is, whoever bears it on another overlay: an alias there must take no name from others.
        """
        name = question.name
        if any(self._gone[book.overlay].get(name, now) > now for book in mine):
            return Nobody()
        if name and "." not in name and question.type not in _OF_ZONES:
            return Nobody()
        return _leaving(mine)

    def _for_host(self, question: Question) -> Verdict:
        """Who asks by the host's own address is on no overlay: it is as if we were not there."""
        address = _reversed(question.name)
        if address is not None and any(book.has(address) for book in self._books.values()):
            return Nobody()
        return Forward()

    def _rotated(self, found: list[str]) -> Addresses:
        unique = list(dict.fromkeys(found))
        first = next(self._turn) % len(unique)
        return Addresses((*unique[first:], *unique[:first]))


def _leaving(mine: Iterable[_Book]) -> Verdict:
    return Refuse() if all(book.internal for book in mine) else Forward()


def _reversed(name: str) -> str | None:
    """The IPv4 address that a name of the reverse tree stands for."""
    if not name.endswith(_REVERSE):
        return None
    try:
        return str(ipaddress.IPv4Address(".".join(reversed(name.removesuffix(_REVERSE).split(".")))))
    except ValueError:
        return None


def ends_of(own: Iterable[tuple[str, tuple[str, ...], str]], others: Mapping[str, tuple[str, ...]]) -> tuple[End, ...]:
    """The endpoints of an overlay: this host's (address, names, sandbox), and the names of the others by address.

    What is here is here: another host's word about the same address does not count.
    """
    mine = {address: End(address, names, sandbox) for address, names, sandbox in own}
    far = (End(address, names) for address, names in others.items() if address not in mine and names)
    return (*mine.values(), *far)
