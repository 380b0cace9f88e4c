"""Claims kept word by word: who has an address keeps it, whatever others say, and nothing is lost on the way."""

from __future__ import annotations

from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from myoverlay.plan import rows
from myoverlay.plan.claims import Claims, Said, Touched, said_by, said_outside
from myoverlay.plan.rows import Rows, Set, Unset, Written
from myoverlay.store.records import believed
from myoverlay.values import COUNT_LIMIT, Address, Fdb, HostId, HostList, Mac, Neigh, Peer, Record
from tests.pure.kit import ANN, BOB, EVE, definition, record

#: The last is the gateway's, the one before in no overlay of ours.
ADDRESSES = [Address(f"10.5.0.{last}") for last in range(2, 7)] + [Address("10.9.0.1"), Address("10.5.0.1")]
MACS = [Mac(f"02:42:00:00:00:0{last}") for last in range(1, 5)]
VTEPS = [Address("192.0.2.1"), Address("192.0.2.2"), Address("224.0.0.1")]
OF = definition()

records = st.builds(
    Record,
    address=st.sampled_from(ADDRESSES),
    mac=st.sampled_from(MACS),
    generation=st.integers(0, 3),
    names=st.sampled_from([(), ("www",)]),
)
lists = st.tuples(
    st.sampled_from([ANN, BOB, EVE]), st.none() | st.tuples(st.sampled_from(VTEPS), st.lists(records, max_size=5))
)
outsiders = st.lists(
    st.builds(Peer, address=st.sampled_from(ADDRESSES[:5]), mac=st.sampled_from(MACS), vtep=st.sampled_from(VTEPS[:2])),
    max_size=3,
    unique_by=lambda peer: peer.address,
)
deaths = st.frozensets(st.sampled_from([ANN, BOB, EVE]))
local = st.lists(st.builds(record, st.sampled_from(ADDRESSES[:3]), st.sampled_from(MACS)), max_size=2)


class Heard:
    """Word by word: claims, the rows that were written for them, and all that was said.

    `peers` and `macs` are who has what by a reading of the rules that looks at everything, each time.
    """

    def __init__(self) -> None:
        self.claims = Claims()
        self.written = Written()
        self.lists: dict[HostId, HostList] = {}
        self.outsiders: tuple[Peer, ...] = ()
        self.dead: set[HostId] = set()
        self.peers: dict[Address, Peer] = {}
        self.macs: dict[Mac, Peer] = {}

    def hear(self, word: object, here: list[Record], only: set[Address] | None) -> Touched:
        if isinstance(word, frozenset):
            self.dead = set(word)
            self.claims, touched = self.claims.judged(self.dead)
        else:
            self.claims, touched = self.claims.heard([self._said(word)], self.dead)
        seen = self.written.about(touched.addresses, touched.macs)
        steps: list[Set | Unset] = rows.diff(self.claims.wanted(touched, here, only), seen)
        self.written = self.written.after(steps)
        self._choose(judging=isinstance(word, frozenset))
        return touched

    def _said(self, word: object) -> Said:
        if not isinstance(word, tuple):
            said = said_outside(self.outsiders, cast("list[Peer]", word))
            self.outsiders = tuple(cast("list[Peer]", word))
            return said
        host, told = cast("tuple[HostId, tuple[Address, list[Record]] | None]", word)
        before = self.lists.pop(host, None)
        if told is not None:
            self.lists[host] = HostList(host=host, overlay=OF.overlay, vtep=told[0], records=tuple(told[1]))
        return said_by(OF, host, before, self.lists.get(host))

    def _choose(self, judging: bool) -> None:
        """One claim of each host for an address, the later one; then the rules, in their order.

        Between two words that do not concern it, an address stays with whoever has it, dead or not.
        """
        claims: dict[Address, dict[HostId | None, Peer]] = {}
        for peer in (*believed(OF, self.lists), *self.outsiders):
            mine = claims.setdefault(peer.address, {})
            if peer.host not in mine or peer.generation > mine[peer.host].generation:
                mine[peer.host] = peer
        before, macs = self.peers, self.macs
        self.peers = {}
        for address, of in claims.items():
            had = before.get(address)
            chosen = max(of.values(), key=lambda one: self._worth(one, had))
            assert (
                had is None
                or had.host not in of
                or had.host in self.dead
                or chosen.host == had.host
                or (had.host is None and chosen.host is not None)
            )
            self.peers[address] = chosen
        self.macs = {}
        for peer in self.peers.values():
            other, had = self.macs.get(peer.mac), macs.get(peer.mac)
            if other is None or self._worth(peer, had) > self._worth(other, had):
                self.macs[peer.mac] = peer

    def _worth(self, one: Peer, had: Peer | None) -> tuple[bool, bool, bool, tuple[int, str, str]]:
        return (
            one.host not in self.dead, one.host is not None, had is not None and had.host == one.host, rows.rank(one)
        )  # fmt: skip


@settings(max_examples=300)
@given(st.lists(lists | outsiders | deaths, max_size=12), local, st.none() | st.sets(st.sampled_from(ADDRESSES)))
def test_word_by_word_is_all_at_once(words: list[object], here: list[Record], only: set[Address] | None) -> None:
    """After every word: the same peers, a MAC's best peer, and the same rows as from reading everything anew.

    Lists hold the same address twice, MACs of others, addresses that several hosts claim, VTEPs that are none; hosts
    die and are there again.
    """
    heard = Heard()
    for word in words:
        heard.hear(word, here, only)
        assert dict(heard.claims.peers) == heard.peers
        for mac in MACS:
            there = {peer for peer in heard.peers.values() if peer.mac == mac}
            assert len(heard.claims.behind(mac)) == len(there)
            assert set(heard.claims.behind(mac)) == there
            assert not there or rows.rank(heard.claims.behind(mac)[0]) == rows.rank(heard.macs[mac])
        assert set(heard.claims.macs) == {peer.mac for peer in heard.peers.values()}
        every = Touched(set(heard.claims.peers), set(heard.claims.macs))
        assert heard.written.all() == heard.claims.wanted(every, here, only)
        assert all(heard.claims.rivals.values())
        assert all(heard.claims.twins.values())


def test_whoever_has_an_address_keeps_it() -> None:
    """Who claims what another host lists, however loudly, gets neither its address nor its MAC; no outsider does.

    When the owner is dead it does, and keeps it when the other is there again.
    """
    heard = Heard()
    theirs = record("10.5.0.2", generation=1)
    heard.hear((ANN, (VTEPS[0], [theirs])), [], None)
    stolen = record("10.5.0.2", str(MACS[0]), generation=COUNT_LIMIT)
    beside = record("10.5.0.3", str(theirs.mac), generation=COUNT_LIMIT)
    touched = heard.hear((BOB, (VTEPS[1], [stolen, beside])), [], None)
    heard.hear([Peer(address=theirs.address, mac=MACS[1], vtep=VTEPS[1])], [], None)
    rows_now = heard.written.all()
    assert heard.claims.peers[theirs.address].host == ANN
    assert Fdb(mac=theirs.mac, vtep=VTEPS[0]) in rows_now.fdb
    assert theirs.address not in touched.addresses
    # Its own record changes, and is still its own.
    heard.hear((ANN, (VTEPS[0], [record("10.5.0.2", generation=2)])), [], None)
    assert heard.claims.peers[theirs.address].generation == 2
    heard.hear(frozenset({ANN}), [], None)
    assert heard.claims.peers[theirs.address].host == BOB
    assert Fdb(mac=theirs.mac, vtep=VTEPS[1]) in heard.written.all().fdb
    heard.hear(frozenset(), [], None)
    assert heard.claims.peers[theirs.address].host == BOB


def test_rows_of_before_tell_whose_it_was() -> None:
    """A plugin that starts anew amid a lie goes by what its own kernel still holds, not by who is louder."""
    told = [
        said_by(OF, host, None, HostList(host=host, overlay=OF.overlay, vtep=vtep, records=(one,)))
        for host, vtep, one in (
            (ANN, VTEPS[0], record("10.5.0.2", generation=1)),
            (BOB, VTEPS[1], record("10.5.0.2", generation=COUNT_LIMIT)),
        )
    ]
    mac = record("10.5.0.2").mac
    for vtep, host in ((VTEPS[0], ANN), (VTEPS[1], BOB)):
        former = Written.of(
            Rows(frozenset({Neigh(address=ADDRESSES[0], mac=mac)}), frozenset({Fdb(mac=mac, vtep=vtep)}))
        )
        claims, _ = Claims().heard(told, (), former)
        assert claims.peers[ADDRESSES[0]].host == host
        assert claims.macs[mac].host == host
    assert Claims().heard(told)[0].peers[ADDRESSES[0]].host == BOB, "who knows nothing goes by the later one"


def test_who_lost_is_heard_again_when_the_winner_goes() -> None:
    """The claim of a host whose list did not change comes into its own."""
    heard = Heard()
    for host, generation in ((BOB, 2), (ANN, 1)):
        heard.hear((host, (VTEPS[0], [record("10.5.0.2", generation=generation)])), [], None)
    assert heard.claims.peers[ADDRESSES[0]].host == BOB
    heard.hear((BOB, None), [], None)
    assert heard.claims.peers[ADDRESSES[0]].host == ANN


def test_a_word_touches_what_it_says_otherwise() -> None:
    """A list of a hundred of which one is another touches that one; the same list again touches nothing."""
    many = [record(f"10.5.0.{last}") for last in range(2, 102)]
    heard = Heard()
    heard.hear((ANN, (VTEPS[0], many)), [], None)
    touched = heard.hear((ANN, (VTEPS[0], [*many[1:], record("10.5.0.200")])), [], None)
    assert touched.addresses == {"10.5.0.2", "10.5.0.200"}
    assert len(touched.macs) == 2
    assert heard.hear((ANN, (VTEPS[0], [*many[1:], record("10.5.0.200")])), [], None) == Touched(set(), set())
    assert Rows() == Claims().wanted(touched, [], None)
