"""Rows of the VXLAN device: which, and in an order that loses no packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan import rows
from myoverlay.plan.rows import Rows, Set, Unset, Written
from myoverlay.values import Address, Fdb, Mac, Neigh, Peer, Record
from tests.pure.kit import ANN, BOB, record

ADDRESSES = [Address(f"10.5.0.{last}") for last in range(2, 8)]
MACS = [Mac(f"02:42:00:00:00:0{last}") for last in range(1, 6)]
VTEPS = [Address(f"192.0.2.{last}") for last in range(1, 4)]


class Table:
    """Both tables as the kernel keeps them: one row per address, one per MAC."""

    def __init__(self, seen: Rows) -> None:
        self.neigh = {row.address: row.mac for row in seen.neigh}
        self.fdb = {row.mac: row.vtep for row in seen.fdb}

    def apply(self, step: Set | Unset) -> None:
        row = step.row
        table, key, value = (
            (self.neigh, row.address, row.mac) if isinstance(row, Neigh) else (self.fdb, row.mac, row.vtep)
        )
        if isinstance(step, Set):
            table[key] = value  # type: ignore[index, assignment]
        else:
            table.pop(key, None)  # type: ignore[call-overload]

    def rows(self) -> Rows:
        return Rows(
            frozenset(Neigh(address=address, mac=mac) for address, mac in self.neigh.items()),
            frozenset(Fdb(mac=mac, vtep=vtep) for mac, vtep in self.fdb.items()),
        )


def made(neigh: dict[Address, Mac], fdb: dict[Mac, Address]) -> Rows:
    table = Table(Rows())
    table.neigh, table.fdb = neigh, fdb
    return table.rows()


tables = st.builds(
    made,
    st.dictionaries(st.sampled_from(ADDRESSES), st.sampled_from(MACS)),
    st.dictionaries(st.sampled_from(MACS), st.sampled_from(VTEPS)),
)


def run(seen: Rows, *steps: Set | Unset) -> Rows:
    table = Table(seen)
    for step in steps:
        table.apply(step)
    return table.rows()


@given(tables, tables)
def test_the_steps_lead_to_what_is_wanted(want: Rows, seen: Rows) -> None:
    """Applied in order they give exactly the wanted tables, and then there is nothing more to do."""
    assert run(seen, *rows.diff(want, seen)) == want
    assert rows.diff(want, want) == []


@given(tables, tables, st.data())
def test_steps_may_be_repeated_from_any_place(want: Rows, seen: Rows, data: st.DataObject) -> None:
    """A batch that is applied twice, or again from an offset after a crash, leaves the tables equal."""
    steps = rows.diff(want, seen)
    offset = data.draw(st.integers(0, len(steps)))
    assert run(seen, *steps, *steps[offset:]) == want
    assert run(seen, *steps[:offset], *steps) == want


@given(tables, tables)
def test_no_step_is_idle(want: Rows, seen: Rows) -> None:
    """Each step changes something: a row that is right is not written again."""
    table = Table(seen)
    for step in rows.diff(want, seen):
        before = table.rows()
        table.apply(step)
        assert table.rows() != before


@given(tables, tables)
def test_at_no_moment_is_a_mac_told_that_cannot_be_forwarded(want: Rows, seen: Rows) -> None:
    """Between any two steps each neighbour row has the FDB row of its MAC.

    Left out are rows that had none before and are to have none after: those that were bare when we came (until their
    FDB row is written), and those that are wanted bare.
    """
    forwarded, wanted = {row.mac for row in seen.fdb}, {row.mac for row in want.fdb}
    table = Table(seen)
    for step in rows.diff(want, seen):
        table.apply(step)
        for row in table.rows().neigh:
            bare = row.mac not in forwarded if row in seen.neigh else False
            if not bare and not (row in want.neigh and row.mac not in wanted):
                assert row.mac in table.fdb, f"{step}: {row} leads nowhere"


def test_many_steps_have_the_same_order() -> None:
    """More than somebody would read are not sorted: still each MAC can be forwarded before an address is told, and
    until nobody is told it."""
    count = rows._READABLE + 1
    macs = [Mac.unpack(number.to_bytes(6, "big")) for number in range(1, count + 1)]
    many = made(
        {Address(f"10.6.{at >> 8}.{at & 255}"): mac for at, mac in enumerate(macs)}, dict.fromkeys(macs, VTEPS[0])
    )
    for want, seen, order in ((many, Rows(), (Fdb, Neigh)), (Rows(), many, (Neigh, Fdb))):
        steps = rows.diff(want, seen)
        assert [type(step.row) for step in steps] == [order[0]] * count + [order[1]] * count
        assert run(seen, *steps) == want


@given(tables, tables)
def test_what_is_written_as_a_whole_is_what_the_steps_lead_to(want: Rows, seen: Rows) -> None:
    """By its rows, and by their keys, whether these were asked for before or not."""
    whole, after = Written(want), Written(seen).after(rows.diff(want, seen))
    assert whole.all() == after.all() == want
    assert dict(whole.neigh) == dict(after.neigh)
    assert dict(whole.fdb) == dict(after.fdb)
    assert whole.all() == want
    assert whole.about(ADDRESSES, MACS) == Written(want).about(ADDRESSES, MACS) == want
    assert whole.about(ADDRESSES[:1], ()).fdb == frozenset()


def test_a_change_is_written_over() -> None:
    """An address that moves to another MAC, or a MAC to another VTEP, is never without a row in between."""
    seen = made({ADDRESSES[0]: MACS[0]}, {MACS[0]: VTEPS[0]})
    want = made({ADDRESSES[0]: MACS[1]}, {MACS[0]: VTEPS[1], MACS[1]: VTEPS[1]})
    assert [str(step) for step in rows.diff(want, seen)] == [
        "set 02:42:00:00:00:01 dst 192.0.2.2",
        "set 02:42:00:00:00:02 dst 192.0.2.2",
        "set 10.5.0.2 lladdr 02:42:00:00:00:02",
    ]


@given(tables, tables)
def test_merged_loses_nothing(seen: Rows, more: Rows) -> None:
    """What is merged holds all of `more` and of what was seen all that has no newer row; steps to it only write."""
    both = rows.merged(seen, more)
    assert both == run(seen, *(Set(row) for row in (*more.fdb, *more.neigh)))
    assert all(isinstance(step, Set) for step in rows.diff(both, seen))


def peer(address: int = 0, mac: int = 0, vtep: int = 0, host: object = ANN, generation: int = 1) -> Peer:
    return Peer(address=ADDRESSES[address], mac=MACS[mac], vtep=VTEPS[vtep], host=host, generation=generation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        (peer(generation=1, host=BOB), peer(generation=2, host=ANN)),  # the newer
        (peer(generation=0, host=None), peer(generation=0, host=ANN)),  # ours over an outsider
        (peer(host=ANN), peer(host=BOB)),  # any order that all hosts agree on
        (peer(host=None, vtep=0), peer(host=None, vtep=1)),
    ],
)
def test_newest(loser: Peer, winner: Peer) -> None:
    """One peer per address, the same whatever the order they are heard in."""
    assert rows.newest([loser, winner]) == rows.newest([winner, loser]) == {winner.address: winner}


def test_wanted_gives_each_peer_both_rows() -> None:
    """A peer gets a neighbour row and the FDB row of its MAC."""
    one = peer()
    assert rows.wanted({one.address: one}, []) == made({one.address: one.mac}, {one.mac: one.vtep})


def test_wanted_leaves_local_addresses_and_macs_to_the_bridge() -> None:
    """A local endpoint's address gets no neighbour row and its MAC no FDB row, whatever others say."""
    claims_address = peer(0, 1)
    claims_mac = peer(1, 0)
    local = [record(ADDRESSES[0], MACS[0])]
    want = rows.wanted({one.address: one for one in (claims_address, claims_mac)}, local)
    assert ADDRESSES[0] not in {row.address for row in want.neigh}
    assert MACS[0] not in {row.mac for row in want.fdb}


def test_wanted_gives_one_vtep_to_a_mac() -> None:
    """Two addresses behind one MAC share the FDB row of the newer, whichever comes first."""
    old, new = peer(0, 0, 0, generation=1), peer(1, 0, 1, generation=2)
    for order in ([old, new], [new, old]):
        want = rows.wanted({one.address: one for one in order}, [])
        assert want.fdb == {Fdb(mac=MACS[0], vtep=VTEPS[1])}
        assert {row.address for row in want.neigh} == set(ADDRESSES[:2])


def test_above_the_limit_only_what_is_used_is_wanted() -> None:
    """With `only` no other peer gets a row of either table."""
    peers = {one.address: one for one in (peer(0, 0), peer(1, 1))}
    want = rows.wanted(peers, [], only={ADDRESSES[1]})
    assert want == made({ADDRESSES[1]: MACS[1]}, {MACS[1]: VTEPS[0]})
    assert rows.wanted(peers, [], only=set()) == Rows()


def test_moved_names_addresses_with_another_mac() -> None:
    """An address that is new, or the same as before, has not moved."""
    before = {ADDRESSES[0]: MACS[0], ADDRESSES[1]: MACS[1]}
    now = {ADDRESSES[0]: MACS[0], ADDRESSES[1]: MACS[2], ADDRESSES[2]: MACS[3]}
    assert rows.moved(before, now) == [Neigh(address=ADDRESSES[1], mac=MACS[2])]


def test_what_is_local_has_no_row() -> None:
    """Rows of a local endpoint's address and MAC are left out, whichever of the two they share, and no others."""
    near, far = Mac("02:42:0a:05:00:02"), Mac("02:42:0a:05:00:03")
    seen = rows.Rows(
        frozenset({Neigh(address=Address("10.5.0.2"), mac=far), Neigh(address=Address("10.5.0.3"), mac=far)}),
        frozenset({Fdb(mac=near, vtep=Address("192.0.2.9")), Fdb(mac=far, vtep=Address("192.0.2.9"))}),
    )
    left = rows.apart(seen, [Record(address=Address("10.5.0.2"), mac=near)])
    assert left.neigh == {Neigh(address=Address("10.5.0.3"), mac=far)}
    assert left.fdb == {Fdb(mac=far, vtep=Address("192.0.2.9"))}
    assert rows.apart(seen, []) == seen
