"""Records that anybody writes: an outsider's where outsiders are not wanted, and one over what a living host has."""

from __future__ import annotations

import itertools

import pytest

from myoverlay.store.pooled import MARK
from myoverlay.values import Address, Fdb, Mac, Neigh
from tests.attack.board import Board
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import until

_subnets = itertools.count(30)
ROGUE, SOMEWHERE = Mac("02:66:66:66:66:66"), Address("172.30.0.99")


def scene(hosts: Hosts, outsiders: str) -> tuple[Host, Host, Container, Container, str]:
    """Two hosts with a container each, and where the records of their overlay lie."""
    subnet = f"10.{next(_subnets)}.0.0/24"
    one, two = hosts.host(), hosts.host()
    for host in (one, two):
        host.create_network(subnet, outsiders=outsiders)
    a, b = one.run(), two.run()
    until(lambda: one.knows(b) and two.knows(a), what="the rows")
    return one, two, a, b, f"myoverlay/overlays/{one.local().network.overlay}/records"


def is_let_in(host: Host, vtep: Address) -> bool:
    held = host.daemon.guard._table.held()
    return held is not None and any(at.vtep == vtep for at in held.live)


@pytest.mark.parametrize("flags", [0, MARK], ids=["plain", "marked as ours"])
def test_a_rogue_record_gets_no_rows(hosts: Hosts, board: Board, flags: int) -> None:
    """Where outsiders are on, who writes the two keys is of the overlay; where they are off, which is the default, he
    has no rows and the guard does not let him in; nor where he marks them as ours, whom no host's list names."""
    came = {}
    for outsiders in ("on", "off"):
        one, two, a, b, records = scene(hosts, outsiders)
        rogue = one.local().network.subnet.at(one.local().network.subnet.first + 98)
        hosts.put(f"{records}/arp/{rogue}", ROGUE, flags)
        hosts.put(f"{records}/fib/{ROGUE}", SOMEWHERE, flags)
        later = two.run()  # who heard of that has read what was written before
        until(lambda one=one, later=later: one.knows(later), what="the later one's rows")
        a.ping(rogue)  # asks for it: a miss is looked up in the index
        rows = {Neigh(address=rogue, mac=ROGUE), Fdb(mac=ROGUE, vtep=SOMEWHERE)}
        if outsiders == "on" and not flags:
            until(lambda one=one, rows=rows: rows <= one.rows() and is_let_in(one, SOMEWHERE), what="the outsider")
        came[outsiders] = "taken in" if rows & one.rows() or is_let_in(one, SOMEWHERE) else "no rows"
        assert None not in a.ping(b.address, 3)
        for host in (one, two):
            host.stop()
    if not flags:
        board.write("a rogue record: keys of a stranger in the index", came["on"] + " (outsiders on)", came["off"])
    assert came == {"on": "no rows" if flags else "taken in", "off": "no rows"}


def test_a_rogue_record_over_a_living_endpoint(hosts: Hosts, board: Board) -> None:
    """Where outsiders are on too, its address and MAC stay the container's, and no ping is lost."""
    one, two, a, b, records = scene(hosts, "on")
    with a.pinging(b, 0.02) as pings:
        hosts.put(f"{records}/arp/{b.address}", ROGUE)
        hosts.put(f"{records}/fib/{ROGUE}", SOMEWHERE)
        hosts.put(f"{records}/fib/{b.mac}", SOMEWHERE)
        later = two.run()
        until(lambda: one.knows(later), what="the later one's rows")
        two.daemon.audit.want()
        until(
            lambda: two.count("published", "disputed") or two.count("published", "done") > 2, what="its owner to look"
        )
        assert one.knows(b)
        assert not {row for row in one.rows() if getattr(row, "vtep", None) == SOMEWHERE and row.mac == b.mac}
    assert len(pings.replies) == len(pings.sent)
    board.write(
        "a rogue record over a living host's endpoint (outsiders on)", "(by an outsider's keys, below)", "stays"
    )


def test_the_tutorials_host_is_still_reached(hosts: Hosts, board: Board) -> None:
    """Made by hand, known by its two keys alone, with the guard off and on: it is of the overlay, and answers."""
    options = {"overlay": "demo", "records": "demo-1", "vni": 42, "subnet": "192.168.0.0/24"}
    hand = hosts.by_hand("demo-1")
    outsider = hand.run("192.168.0.203")
    hand.put(outsider)
    came = {}
    for guard in ("off", "on"):
        host = hosts.host(guard=guard)
        host.create_network(gateway="192.168.0.1", **options)
        ours = host.run()
        until(lambda host=host: host.knows(outsider), what="the outsider's rows")
        hand.learn()
        pings = ours.ping(outsider.address, count=3) + outsider.ping(ours.address, count=3)
        came[guard] = "lost" if None in pings else "reached"
    board.write("none: the tutorial's hand-made host, where outsiders are on", came["off"], came["on"])
    assert came == {"off": "reached", "on": "reached"}
