"""A made-up site for the web page: overlays, hosts and endpoints of any number, as a host's daemon would hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from myoverlay.host.outlooks import Onlooker, Seen
from myoverlay.host.peers import Known
from myoverlay.host.view import View
from myoverlay.operate.web.picture import Of, Picture
from myoverlay.outlook import ROWS, About, Glance, Outlook, TableRow, Tables
from myoverlay.plan.fates import Fate, State
from myoverlay.store.typed import Held
from myoverlay.values import (
    Address,
    Endpoint,
    HostId,
    HostList,
    Mac,
    Network,
    OverlayName,
    Peer,
    Record,
    Subnet,
)
from tests.pure.kit import Clock, definition, endpoint, network
from tests.pure.sights import overlay, peer, sight

WEB = OverlayName("web")
_WIDE = Subnet("10.5.0.0/16")


def host_id(number: int) -> HostId:
    return HostId(f"{number:032x}")


def at(host: int, place: int) -> Address:
    """The address of a host's container."""
    return Address(f"10.5.{host}.{place + 2}")


class PaperOverlay:
    """`LocalOverlay` as the page reads it."""

    def __init__(self, network: Network, own: list[Endpoint], view: View, eager: bool = True) -> None:
        self.network = network
        self.own = own
        self.view = view
        self.eager = eager

    def endpoints(self) -> list[Endpoint]:
        return self.own


class PaperOnlooker:
    """`Onlooker` that is told what the hosts see, and notes what was asked for."""

    def __init__(self, seen: dict[HostId, Seen]) -> None:
        self.seen: Mapping[HostId, Seen] = seen
        self.asked: list[tuple[About, ...]] = []

    def view(self, about: Sequence[About] = ()) -> None:
        self.asked.append(tuple(about))


@dataclass
class Site:
    """`hosts` hosts with `each` containers; host 0 is the one whose page it is. Every host sees all others alive."""

    hosts: int = 3
    each: int = 2
    name: Callable[[int], str] = lambda number: f"host-{number}"
    called: Callable[[int, int], tuple[str, ...]] = lambda host, place: (f"app-{host}-{place}",)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.ids = [host_id(number) for number in range(self.hosts)]
        self.names = {one: self.name(number) for number, one in enumerate(self.ids)}
        self.states = dict.fromkeys(self.ids[1:], State.ALIVE)
        self.local = self._local()
        self.onlooker = PaperOnlooker({one: self._seen(number) for number, one in enumerate(self.ids)})

    @property
    def me(self) -> HostId:
        return self.ids[0]

    def vtep(self, number: int) -> Address:
        return Address(f"192.0.2.{number + 1}")

    def _local(self) -> PaperOverlay:
        of = definition(overlay=WEB, subnet=_WIDE, gateway=Address("10.5.255.254"))
        own = [endpoint(str(at(0, n)), names=self.called(0, n), joined=True) for n in range(self.each)]
        lists = {self.ids[n]: Held(self._list(n), 1) for n in range(1, self.hosts)}
        peers = {
            one.address: Peer(address=one.address, mac=one.mac, vtep=held.value.vtep, host=host)
            for host, held in lists.items()
            for one in held.value.records
        }
        return PaperOverlay(
            network(definition=of, vtep=self.vtep(0)), own, View(lists=lists, peers=peers, complete=True)
        )

    def _list(self, number: int) -> HostList:
        records = tuple(
            Record(address=at(number, n), mac=Mac.of(at(number, n)), names=self.called(number, n))
            for n in range(self.each)
        )
        return HostList(host=self.ids[number], overlay=WEB, vtep=self.vtep(number), records=records)

    def _seen(self, number: int) -> Seen:
        glances = tuple(Glance(one, "alive", 0.0004, 0.0, True) for one in self.ids if one != self.ids[number])
        outlook = Outlook(
            host=self.ids[number], name=self.names[self.ids[number]], version="0.1.0", mtu=1500, glances=glances
        )
        return Seen(outlook, self.clock.now - 2, number + 1)

    def tell(self, number: int, tables: Tables | None = None, glances: tuple[Glance, ...] | None = None) -> None:
        """A host tells something else."""
        old = self.onlooker.seen[self.ids[number]]
        new = Outlook(
            host=old.outlook.host,
            name=old.outlook.name,
            version=old.outlook.version,
            mtu=1500,
            glances=old.outlook.glances if glances is None else glances,
            tables=(tables,) if tables is not None else (),
        )
        self.onlooker.seen = {**self.onlooker.seen, self.ids[number]: Seen(new, old.at, old.index)}

    def tables(self, number: int, but: tuple[str, ...] = (), asked: tuple[Address, ...] = ()) -> Tables:
        """A host's tables as they should be, without the rows that are `but`; those of the addresses `asked` first."""
        rows = []
        for other in range(self.hosts):
            for place in range(self.each) if other != number else ():
                address, mac = at(other, place), Mac.of(at(other, place))
                rows += [
                    TableRow("arp", address, mac, "permanent"),
                    TableRow("fdb", mac, self.vtep(other), "permanent"),
                ]
        ports = {at(number, n): endpoint(str(at(number, n))).port for n in range(self.each)}
        keys = tuple(str(word) for one in asked for word in (one, Mac.of(one)))
        told = sorted((row for row in rows if row.key not in but), key=lambda row: row.key not in keys)
        return Tables(overlay=WEB, rows=tuple(told[:ROWS]), more=max(0, len(told) - ROWS), keys=keys, ports=ports)

    def of(self) -> Of:
        known = Known(
            present=frozenset(self.ids[1:]),
            names={one: self.names[one] for one in self.ids[1:]},
            versions=dict.fromkeys(self.ids[1:], "0.1.0"),
            listed={one: frozenset({WEB}) for one in self.ids[1:]},
        )
        peers = _Peers(known, self)
        return Of(
            me=self.me,
            name=self.names[self.me],
            lookout=cast(Any, _Lookout(self)),
            overlays=cast(Any, _Overlays(self)),
            peers=cast(Any, peers),
            fates=cast(Any, _Fates(self)),
            onlooker=cast(Onlooker, self.onlooker),
            now=self.clock,
            wall=self.clock,
        )

    def picture(self) -> Picture:
        return Picture(self.of())


@dataclass
class _Peers:
    known: Known
    site: Site

    def sharing(self) -> dict[HostId, frozenset[OverlayName]]:
        return dict.fromkeys(self.site.ids[1:], frozenset({WEB}))

    def where(self) -> dict[HostId, Address]:
        return {one: self.site.vtep(number) for number, one in enumerate(self.site.ids) if number}


@dataclass
class _Overlays:
    site: Site

    def all(self) -> tuple[Any, ...]:
        return (self.site.local,)


@dataclass
class _Fates:
    site: Site

    def all(self) -> dict[HostId, Fate]:
        return {host: Fate(state, 0.0) for host, state in self.site.states.items()}

    def fate(self, host: HostId) -> Fate | None:
        return self.all().get(host)


@dataclass
class _Lookout:
    site: Site

    def look(self) -> Any:
        peers = tuple(
            peer(self.site.names[one], id=one, state=state, vtep=self.site.vtep(self.site.ids.index(one)))
            for one, state in self.site.states.items()
        )
        own = len(self.site.local.own)
        return sight(
            id=self.site.me,
            name=self.site.names[self.site.me],
            peers=peers,
            overlays=(overlay("web", endpoints=own, peers=len(self.site.local.view.peers), hosts=self.site.hosts - 1),),
        )
