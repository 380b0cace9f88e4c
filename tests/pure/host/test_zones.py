"""An overlay as a zone: of each address the holder's names, and of the dead none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from myoverlay.host.view import View
from myoverlay.host.zones import Known, change_of, zone_of
from myoverlay.plan import rows
from myoverlay.plan.believe import believed
from myoverlay.plan.zone import A, Addresses, Directory, End, Nobody, Question
from myoverlay.store.typed import Held
from myoverlay.values import Address, Endpoint, HostId, HostList, Mac, Peer, Record
from tests.pure.kit import ANN, BOB, EVE, definition, endpoint, network

PEERS: dict[Peer, Peer] = {}


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
    # One that is as it was is the same object, as where a view follows a view.
    peers = {address: PEERS.setdefault(peer, peer) for address, peer in rows.newest(believed(of, told)).items()}
    view = View(lists={host: Held(one, 1) for host, one in told.items()}, peers=peers)
    return SimpleNamespace(network=network(definition=of), view=view, endpoints=lambda: list(endpoints))


def ends(local: Any, *dead: HostId) -> tuple[set[End], tuple[str, ...]]:
    zone = zone_of(local.network, Known(local, dead))
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
    known = Known(local, ())
    assert known.differs(None)
    assert not Known(local, ()).differs(known)
    assert Known(local, {BOB}).differs(known)
    local.endpoints = lambda: [endpoint("10.5.0.2", joined=True)]
    assert Known(local, ()).differs(known)
    other = local_of(bob=(named("10.5.0.3", "bob"),))
    assert Known(other, ()).differs(known)


names = st.sampled_from([(), ("www",), ("api",), ("www", "api"), ("db.internal",)])
told = st.lists(
    st.builds(lambda last, names, at: named(f"10.5.0.{last}", *names, generation=at), st.integers(2, 5), names,
              st.integers(1, 3)),
    max_size=4,
    unique_by=lambda record: record.address,
).map(tuple)  # fmt: skip
here = st.lists(
    st.builds(lambda last, names, box: endpoint(f"10.5.0.{last}", names=names, sandbox=box, joined=True),
              st.integers(2, 5), names, st.sampled_from(["", "s"])),
    max_size=2,
    unique_by=lambda one: one.address,
)  # fmt: skip
states = st.tuples(here, told, told, st.sets(st.sampled_from([ANN, BOB])))


def known_in(state: tuple[list[Endpoint], tuple[Record, ...], tuple[Record, ...], set[HostId]]) -> tuple[Any, Known]:
    own, ann, bob, dead = state
    local = local_of(*own, ann=ann, bob=bob)
    return local.network, Known(local, dead)


def answers(directory: Directory) -> dict[str, object]:
    """What is found under each name, in no order; and which addresses have which names and sandbox."""
    found: dict[str, object] = {}
    for name in ("www", "api", "db.internal"):
        verdict = directory.decide("demo", "10.5.0.99", Question(name, A), 0.0)
        found[name] = set(verdict.addresses) if isinstance(verdict, Addresses) else verdict
    book = directory._books["demo"]
    return {**found, "ends": book.by_address, "boxes": set(book.sandboxes)}


@given(st.lists(states, min_size=1, max_size=5))
def test_change_by_change_is_all_at_once(
    course: list[tuple[list[Endpoint], tuple[Record, ...], tuple[Record, ...], set[HostId]]],
) -> None:
    """A resolver that is told only what is otherwise answers as one that is shown everything anew."""
    network, known = known_in(course[0])
    told, shown = Directory(), Directory()
    told.show(zone_of(network, known), 0.0)
    shown.show(zone_of(network, known), 0.0)
    for state in course[1:]:
        network, after = known_in(state)
        told.change(change_of(network, known, after), 0.0)
        known = after
        shown.show(zone_of(network, known), 0.0)
        assert answers(told) == answers(shown)


def test_a_name_that_went_is_remembered_as_ours() -> None:
    """By a change as by a whole zone: it is asked nowhere else; and one that comes back is there."""
    local = local_of(bob=(named("10.5.0.3", "db.internal"),))
    before, directory = Known(local, ()), Directory()
    directory.show(zone_of(local.network, before), 0.0)
    asked = Question("db.internal", A)
    dead = Known(local, {BOB})
    directory.change(change_of(local.network, before, dead), 1.0)
    assert directory.decide("demo", "10.5.0.99", asked, 2.0) == Nobody()
    directory.change(change_of(local.network, dead, before), 3.0)
    assert directory.decide("demo", "10.5.0.99", asked, 4.0) == Addresses(("10.5.0.3",))
    gone = Known(local_of(bob=()), ())
    directory.change(change_of(local.network, before, gone), 5.0)
    assert directory.decide("demo", "10.5.0.99", asked, 6.0) == Nobody()


def test_a_dead_hosts_name_for_an_address_that_is_here_is_gone_too() -> None:
    """Also as a change: a dotted one would be asked elsewhere."""
    local = local_of(endpoint("10.5.0.3", names=("here",), joined=True), bob=(named("10.5.0.3", "db.internal"),))
    before, after = Known(local, ()), Known(local, {BOB})
    assert zone_of(local.network, after).gone == change_of(local.network, before, after).gone == ("db.internal",)


def test_of_an_address_that_a_list_has_twice_the_newer_record_is_heard() -> None:
    """Whichever stands first, in a whole zone and in a change."""
    new, old = named("10.5.0.3", "new", generation=2), named("10.5.0.3", "old", generation=1)
    nobody = local_of(bob=())
    for records in ((new, old), (old, new)):
        local = local_of(bob=records)
        change = change_of(local.network, Known(nobody, ()), Known(local, ()))
        assert ends(local)[0] == set(change.ends) == {End("10.5.0.3", ("new",))}


def test_a_change_holds_what_is_otherwise_alone() -> None:
    """Of two hundred names the one that came; the resolver is not told the others again."""
    many = [named(f"10.5.0.{last}", f"n{last}") for last in range(2, 202)]
    before = local_of(bob=tuple(many))
    after = local_of(bob=(*many, named("10.5.0.250", "new")))
    change = change_of(after.network, Known(before, ()), Known(after, ()))
    assert change.ends == (End("10.5.0.250", ("new",)),)
    assert not change.went
    assert not change.gone
