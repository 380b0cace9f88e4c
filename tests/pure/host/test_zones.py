"""An overlay as a zone: of each address the holder's names, and of the dead none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from myoverlay.host.view import View
from myoverlay.host.zones import Known, zone_of
from myoverlay.plan import rows
from myoverlay.plan.zone import End
from myoverlay.store.records import believed
from myoverlay.store.typed import Held
from myoverlay.values import Address, Endpoint, HostId, HostList, Mac, Record
from tests.pure.kit import ANN, BOB, EVE, definition, endpoint, network


def named(address: str, *names: str, generation: int = 1) -> Record:
    return Record(address=Address(address), mac=Mac.of(Address(address)), generation=generation, names=names)


def local_of(*endpoints: Endpoint, **lists: tuple[Record, ...]) -> Any:
    """An overlay with these endpoints here, and these records on the hosts ANN, BOB and EVE."""
    of = definition()
    ids = {"ann": ANN, "bob": BOB, "eve": EVE}
    told = {
        ids[name]: HostList(host=ids[name], overlay=of.overlay, vtep=Address(f"192.0.2.{place}"), records=records)
        for place, (name, records) in enumerate(lists.items(), 1)
    }
    view = View(lists={host: Held(one, 1) for host, one in told.items()}, peers=rows.newest(believed(of, told)))
    return SimpleNamespace(network=network(definition=of), view=view, endpoints=lambda: list(endpoints))


def ends(local: Any, *dead: HostId) -> tuple[set[End], tuple[str, ...]]:
    zone = zone_of(local, Known(local, lambda host: host in dead))
    return set(zone.ends), zone.gone


def test_names_of_all_hosts_are_in_it() -> None:
    """Those of endpoints here once they have joined, with their sandbox, and of the others by their lists."""
    mine = endpoint("10.5.0.2", names=("me",), sandbox="s", joined=True)
    coming = endpoint("10.5.0.9", names=("soon",), sandbox="t")
    local = local_of(mine, coming, bob=(named("10.5.0.3", "bob"), named("10.5.0.4")))
    assert ends(local) == ({End("10.5.0.2", ("me",), "s"), End("10.5.0.3", ("bob",))}, ())


def test_an_address_that_two_hosts_list_is_the_newer_ones() -> None:
    """A container that moved is not answered with what its former host still says of the address."""
    local = local_of(bob=(named("10.5.0.3", "old", generation=1),), eve=(named("10.5.0.3", "new", generation=2),))
    assert ends(local) == ({End("10.5.0.3", ("new",))}, ())
    here = endpoint("10.5.0.3", names=("here",), joined=True)
    assert ends(local_of(here, bob=(named("10.5.0.3", "old"),)))[0] == {End("10.5.0.3", ("here",))}


def test_a_dead_hosts_names_are_gone() -> None:
    """At once, while its rows stay for the grace; its names are known as ours all the same."""
    local = local_of(bob=(named("10.5.0.3", "bob"),), eve=(named("10.5.0.4", "eve", "www"),))
    assert ends(local, EVE) == ({End("10.5.0.3", ("bob",))}, ("eve", "www"))


def test_a_record_that_cannot_be_in_the_overlay_has_no_name() -> None:
    """The gateway's address, or one outside the subnet, is nobody's."""
    local = local_of(bob=(named("10.5.0.1", "gateway"), named("10.9.0.3", "far")))
    assert ends(local) == (set(), ())


def test_a_zone_is_made_anew_when_something_differs() -> None:
    """Another view, other endpoints, another host dead; not for nothing."""
    local = local_of(bob=(named("10.5.0.3", "bob"),))
    known = Known(local, lambda _: False)
    assert known.differs(None)
    assert not Known(local, lambda _: False).differs(known)
    assert Known(local, lambda host: host == BOB).differs(known)
    local.endpoints = lambda: [endpoint("10.5.0.2", joined=True)]
    assert Known(local, lambda _: False).differs(known)
    other = local_of(bob=(named("10.5.0.3", "bob"),))
    assert Known(other, lambda _: False).differs(known)
