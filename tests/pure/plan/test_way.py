"""The way between two containers: what is known of each station, and the first that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from myoverlay.outlook import Glance, TableRow, Tables
from myoverlay.plan.way import Side, State, first_wrong, way
from myoverlay.values import Address, HostId, Mac, OverlayName

A, B = Address("10.5.0.2"), Address("10.5.0.3")
VTEP_A, VTEP_B = Address("192.0.2.1"), Address("192.0.2.2")
WELL = Glance(HostId("b" * 32), "alive", 0.00042, 0.0, True)


def tables(own: Address, other: Address, vtep: Address, *but: str) -> Tables:
    """What a host tells of which all is well, without the rows and ports that are `but`."""
    rows = (
        TableRow("arp", other, Mac.of(other), "permanent"),
        TableRow("fdb", Mac.of(other), vtep, "permanent"),
    )
    ports = {own: f"p{own[-1]}"} if "port" not in but else {}
    told = tuple(row for row in rows if row.table not in but)
    return Tables(overlay=OverlayName("web"), rows=told, keys=(other, Mac.of(other)), ports=ports)


def sides(*but: str, far: tuple[str, ...] = ()) -> tuple[Side, Side]:
    source = Side("ann", A, Mac.of(A), VTEP_A, "app", tables(A, B, VTEP_B, *but))
    return source, Side("bob", B, Mac.of(B), VTEP_B, "", tables(B, A, VTEP_A, *far))


def test_all_stations_in_their_order() -> None:
    """From the container through both hosts to the other: each by its name, and none is wrong."""
    stations = way(*sides(), WELL, 1500, at_home=False)
    assert [(one.where, one.kind, one.name) for one in stations] == [
        ("ann", "container", "app"),
        ("ann", "veth", "p2"),
        ("ann", "bridge", "br0"),
        ("ann", "neighbour", "vxlan1"),
        ("ann", "fdb", "vxlan1"),
        ("ann", "vtep", "192.0.2.1"),
        ("ann → bob", "underlay", "underlay"),
        ("bob", "vtep", "192.0.2.2"),
        ("bob", "fdb", "vxlan1"),
        ("bob", "neighbour", "vxlan1"),
        ("bob", "bridge", "br0"),
        ("bob", "veth", "p3"),
        ("bob", "container", "10.5.0.3"),
    ]
    assert {one.state for one in stations} == {State.RIGHT}
    assert first_wrong(stations) is None
    assert stations[6].saw == "0.42 ms there and back, packets of 1500 bytes come back"


def test_at_home_there_is_no_tunnel() -> None:
    """Two containers of one host have its bridge between them, and nothing else."""
    stations = way(*sides(), None, 1500, at_home=True)
    assert [one.kind for one in stations] == ["container", "veth", "bridge", "veth", "container"]


class Fault(NamedTuple):
    name: str
    put: Callable[[], tuple[tuple[Side, Side], Glance | None]]
    place: int
    says: str


def _moved(rows: Tables, table: str, to: str) -> Tables:
    changed = tuple(TableRow(r.table, r.key, to, r.state) if r.table == table else r for r in rows.rows)
    return Tables(overlay=rows.overlay, rows=changed, keys=rows.keys, ports=rows.ports)


def _replaced(which: int, table: str, to: str) -> tuple[Side, Side]:
    both = list(sides())
    told = both[which].tables
    assert told is not None
    both[which] = both[which]._replace(tables=_moved(told, table, to))
    return both[0], both[1]


FAULTS = (
    Fault("no port", lambda: (sides("port"), WELL), 1, "the host has no container with 10.5.0.2"),
    Fault("no neighbour", lambda: (sides("arp"), WELL), 3, "no row for 10.5.0.3: it should lead to 02:42:0a:05:00:03"),
    Fault("other MAC", lambda: (_replaced(0, "arp", "02:42:0a:05:00:09"), WELL), 3, "leads to 02:42:0a:05:00:09"),
    Fault("no FDB row", lambda: (sides("fdb"), WELL), 4, "no row for 02:42:0a:05:00:03: it should lead to 192.0.2.2"),
    Fault("wrong VTEP", lambda: (_replaced(0, "fdb", "192.0.2.9"), WELL), 4, "leads to 192.0.2.9"),
    Fault("dead", lambda: (sides(), Glance(WELL.host, "dead")), 6, "bob is dead"),
    Fault("MTU", lambda: (sides(), Glance(WELL.host, "alive", 0.1, 0, False)), 6, "packets of 1500 bytes do not come"),
    Fault("no FDB row there", lambda: (sides(far=("fdb",)), WELL), 8, "no row for 02:42:0a:05:00:02"),
    Fault("no neighbour there", lambda: (sides(far=("arp",)), WELL), 9, "no row for 10.5.0.2"),
    Fault("wrong VTEP there", lambda: (_replaced(1, "fdb", "192.0.2.9"), WELL), 8, "leads to 192.0.2.9"),
    Fault("no port there", lambda: (sides(far=("port",)), WELL), 11, "the host has no container with 10.5.0.3"),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_shown_at_its_place(fault: Fault) -> None:
    """Each is wrong at its station, alone, and says what it saw there."""
    both, glance = fault.put()
    stations = way(*both, glance, 1500, at_home=False)
    assert [place for place, one in enumerate(stations) if one.state is State.WRONG] == [fault.place]
    assert fault.says in stations[fault.place].saw


def test_of_two_faults_the_nearer_is_first() -> None:
    """A person begins where the packet does."""
    stations = way(*sides("fdb", far=("arp",)), WELL, 1500, at_home=False)
    assert first_wrong(stations) == 4


def test_what_was_not_told_is_not_made_up() -> None:
    """Without a host's tables, or with trouble in place of them, its stations are unseen, not right and not wrong."""
    source, target = sides()
    trouble = Tables(overlay=OverlayName("web"), trouble="its namespace is not there")
    for tables_there, said in ((None, "not told"), (trouble, "its namespace is not there")):
        stations = way(source, target._replace(tables=tables_there), None, 0, at_home=False)
        assert [one.state for one in stations[6:]] == [State.UNSEEN, State.RIGHT, *[State.UNSEEN] * 4, State.RIGHT]
        assert {stations[8].saw, stations[9].saw, stations[10].saw} == {said}


def test_a_row_that_was_not_asked_about_is_not_missing() -> None:
    """Tables told before the pair was chosen, or cut short, say nothing of a row that is not among them."""
    source, target = sides("arp", "fdb")
    before = Tables(overlay=OverlayName("web"), ports={A: "p2"})
    stations = way(source._replace(tables=before), target, WELL, 1500, at_home=False)
    assert [stations[3].state, stations[4].state] == [State.UNSEEN, State.UNSEEN]
    assert first_wrong(stations) is None


def test_a_row_that_is_pulled_when_used_is_not_missing() -> None:
    """Above the eager limit a row that is not there says nothing."""
    source, target = sides("arp", "fdb")
    stations = way(source._replace(eager=False), target, WELL, 1500, at_home=False)
    assert [stations[3].state, stations[4].state] == [State.UNSEEN, State.UNSEEN]
    assert "it is written when it is used" in stations[3].saw


def test_an_outsider_s_side_is_unseen() -> None:
    """Nobody tells what lies on its host; it is called by its VTEP."""
    source, target = sides()
    stations = way(source, target._replace(host="", tables=None), None, 1500, at_home=False)
    assert stations[-1].where == "an outsider at 192.0.2.2"
    assert first_wrong(stations) is None
