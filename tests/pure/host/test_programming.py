"""Peers' rows, change by change: what was touched is written, and the tables are what they would be written anew."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from myoverlay.errors import KernelRefused
from myoverlay.host.converge import Converger
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.plan import rows
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import Address, Fdb, HostId, HostList, Mac, Neigh, Peer, Record, Subnet
from tests.pure.kit import DEMO, Host, definition, endpoint, network, soon
from tests.pure.model.kernel import FakeGround, FakeLinks, FakePins, FakeTables, Kernel, free

WIDE = Subnet("10.5.0.0/16")
LIMIT = 4


class Site:
    """A real overlay and converger on a kernel of paper. `written` are the rows of each batch."""

    def __init__(self, host: Host, limit: int = LIMIT) -> None:
        kernel = Kernel(Address("192.0.2.1"))
        self.written: list[list[Neigh | Fdb]] = []
        self.refuses = False

        def ground(namespace: Any, ifindex: int, ports: Any) -> FakeGround:
            made = FakeGround(kernel, free, namespace, ifindex, ports)
            made.tables = _Tables(self, kernel, namespace.space, ifindex)
            return made

        tally = Tally()
        converger = Converger(FakeLinks(kernel), FakePins(kernel), tally, Leftovers(tally), ground)  # type: ignore[arg-type]
        of = definition(subnet=WIDE)
        self.local = LocalOverlay(network(definition=of, subnet=WIDE), host.journal, converger, limit)
        self.local.build(soon())
        self.index = 0

    def learn(self, host: HostId, *records: Record, anew: bool = False) -> list[Neigh | Fdb]:
        """The rows that were written or taken away for it."""
        self.index += 1
        told = HostList(host=host, overlay=DEMO, vtep=Address(f"192.0.2.{host[0]}"), records=records)
        self.written = []
        self.local.learn({host: Held(told, self.index)}, anew)
        return [row for batch in self.written for row in batch]

    def tables(self) -> rows.Rows:
        assert self.local.ground is not None
        neigh, fdb = self.local.ground.tables.dump()
        return rows.Rows(frozenset(neigh), frozenset(fdb))


class _Tables(FakeTables):
    def __init__(self, site: Site, *given: Any) -> None:
        super().__init__(*given)
        self._site = site

    def set(self, rows: Sequence[Neigh | Fdb]) -> Any:
        if self._site.refuses:
            raise KernelRefused("setting rows", 100, "Network is down")
        self._site.written.append(list(rows))
        return super().set(rows)

    def unset(self, rows: Sequence[Neigh | Fdb]) -> Any:
        self._site.written.append(list(rows))
        return super().unset(rows)


IDS = [HostId(f"{number}" + "0" * 31) for number in range(2, 8)]


def one(third: int, last: int, mac: int | None = None, generation: int = 1) -> Record:
    address = Address(f"10.5.{third}.{last}")
    return Record(
        address=address,
        mac=Mac(f"02:42:00:00:00:{mac:02x}") if mac is not None else Mac.of(address),
        generation=generation,
    )


@pytest.mark.parametrize(("hosts", "limit"), [(2, 4000), (60, 4000), (2, 0), (60, 0)])
def test_a_change_costs_what_it_touches(host: Callable[[str], Host], hosts: int, limit: int) -> None:
    """One container more on one host: its two rows (above the limit none) and two keys looked at, at every size."""
    site = Site(host("ann"), limit)
    ids = [HostId(f"2{number:031x}") for number in range(hosts)]
    for number, who in enumerate(ids):
        site.learn(who, *(one(number, last) for last in range(2, 52)), anew=number == 0)
    looked: list[int] = []
    converger: Any = site.local._converger
    real = converger.peers

    def peers(ground: Any, want: rows.Rows, complete: bool, local: Any, touched: Any = None) -> None:
        assert touched is not None, "everything is looked at"
        looked.append(len(touched.addresses) + len(touched.macs))
        real(ground, want, complete, local, touched)

    converger.peers = peers
    written = site.learn(ids[0], *(one(0, last) for last in range(2, 53)))
    assert looked == [2]
    assert written == ([Fdb(mac=one(0, 52).mac, vtep=Address("192.0.2.2")), Neigh(address=one(0, 52).address, mac=one(0, 52).mac)] if limit else [])  # fmt: skip # noqa: E501
    assert len(site.local.view.peers) == 50 * hosts + 1


@pytest.mark.parametrize("seed", range(60))
def test_change_by_change_is_all_at_once(host: Callable[[str], Host], seed: int) -> None:
    """Whatever comes in whatever order, the tables are those that everything that is known would give, written anew.

    Hosts come, change, leave; containers here come and go, also with others' addresses and MACs; misses are answered,
    also by who is not believed; the overlay passes the eager limit in both directions.
    """
    chance, site = random.Random(seed), Site(host("ann"))
    local, programming = site.local, site.local._programming
    site.learn(IDS[0], anew=True)
    for _ in range(40):
        act = chance.randrange(6)
        if act < 3:
            some = {chance.randrange(2, 9): None for _ in range(chance.randrange(7))}
            site.learn(chance.choice(IDS), *(one(0, n, chance.randrange(1, 9), chance.randrange(3)) for n in some))
        elif act == 3:
            local.learn({}, anew=False, left=[chance.choice(IDS)])
        elif act == 4 and local.view.peers:
            peer = chance.choice(list(local.view.peers.values()))
            local.answer(
                chance.choice([peer, Peer(address=peer.address, mac=one(0, 9, 9).mac, vtep=Address("192.0.2.99"))])
            )
            continue  # what was answered is looked at with the next change
        else:
            if not _turn_own(local, chance):
                continue
        assert site.tables() == programming.wanted(local.view), act
        assert local.ground is not None
        assert local.ground.rows.all() == site.tables()


def _turn_own(local: LocalOverlay, chance: random.Random) -> bool:
    """A container of this host comes, or one goes; False where it is refused."""
    own = local.endpoints()
    if own and chance.random() < 0.5:
        local.delete_endpoint(chance.choice(own).endpoint, soon())
        return True
    new = endpoint(f"10.5.0.{chance.randrange(2, 9)}", mac=Mac(f"02:42:00:00:00:{chance.randrange(1, 9):02x}"))
    if any(new.address == each.address or new.mac == each.mac for each in own):
        return False
    local.add_endpoint(new.endpoint, new.address, new.mac, 1, soon())
    local.join(new.endpoint, soon())
    return True


@pytest.mark.parametrize("learned", [True, False])
def test_whose_rows_are_written_is_told_of_alone(host: Callable[[str], Host], learned: bool) -> None:
    """Who asked hears of the peer both ways; its rows are written for that unless they were as it was learned."""
    site = Site(host("ann"))
    site.learn(IDS[0], one(0, 2), anew=True)
    (peer,) = site.local.view.peers.values()
    tally, site.written = site.local._converger._tally, []
    site.local.answer(peer, learned)
    assert sum(map(len, site.written)) == (0 if learned else 2)
    assert tally.all()["announcements", "miss"] == 1
    assert site.tables() == site.local._programming.wanted(site.local.view)


def test_who_is_no_peer_any_more_is_not_passed_on(host: Callable[[str], Host]) -> None:
    """It was told of, and another since: its row, and its MAC in the containers' caches, would be the wrong ones."""
    site = Site(host("ann"))
    site.learn(IDS[0], one(0, 2), anew=True)
    (peer,) = site.local.view.peers.values()
    site.written = []
    site.local.answer(msgspec.structs.replace(peer, mac=Mac("02:42:0a:05:99:99")), learned=True)
    assert not any(site.written)
    assert not site.local._converger._tally.all().get(("announcements", "miss"))


def test_what_failed_is_written_with_the_next_change(host: Callable[[str], Host]) -> None:
    """Where the kernel refused a batch nothing of it is forgotten: after that everything is looked at."""
    site = Site(host("ann"))
    site.learn(IDS[0], one(0, 2), anew=True)
    site.refuses = True
    with pytest.raises(KernelRefused):
        site.learn(IDS[1], one(0, 3))
    site.refuses = False
    site.learn(IDS[2], one(0, 4))
    assert site.tables() == rows.wanted(site.local.view.peers, [])
    assert len(site.tables().neigh) == 3


def test_what_is_not_complete_withdraws_nothing(host: Callable[[str], Host]) -> None:
    """Before everybody was listed an address that a list no longer has keeps its rows; then they go."""
    site = Site(host("ann"))
    site.learn(IDS[0], one(0, 2), one(0, 3))
    site.learn(IDS[0], one(0, 3))
    assert {row.address for row in site.tables().neigh} == {"10.5.0.2", "10.5.0.3"}
    site.learn(IDS[0], one(0, 3), anew=True)
    assert {row.address for row in site.tables().neigh} == {"10.5.0.3"}
