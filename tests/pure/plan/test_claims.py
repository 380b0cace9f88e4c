"""Claims kept word by word: who has an address keeps it, whatever others say, and nothing is lost on the way."""

from __future__ import annotations

from typing import NamedTuple, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from myoverlay.plan import rows
from myoverlay.plan.believe import believed
from myoverlay.plan.claims import (
    WITNESSES,
    Accused,
    Claims,
    Said,
    Touched,
    accused_by,
    is_witness,
    said_by,
    said_outside,
)
from myoverlay.plan.rows import Rows, Set, Unset, Written
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
#: Two more, who only look on.
DAN, FAY = HostId("d" * 32), HostId("f" * 32)


class Against(NamedTuple):
    """Who names whom, as of now."""

    pairs: frozenset[tuple[HostId, HostId]]

    def by_host(self) -> Accused:
        return {of: frozenset(by for by, other in self.pairs if other == of) for _, of in self.pairs}


accusations = st.builds(
    Against,
    st.frozensets(st.tuples(st.sampled_from([ANN, BOB, EVE, DAN, FAY]), st.sampled_from([ANN, BOB, EVE])), max_size=5),
)
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
        self.accused: Accused = {}
        self.peers: dict[Address, Peer] = {}
        self.macs: dict[Mac, Peer] = {}
        self.nobodys: set[Address] = set()

    def hear(self, word: object, here: list[Record], only: set[Address] | None) -> Touched:
        if isinstance(word, frozenset):
            self.dead = set(word)
            self.claims, touched = self.claims.judged(self.dead, self.accused)
        elif isinstance(word, Against):
            self.accused = word.by_host()
            self.claims, touched = self.claims.judged(self.dead, self.accused)
        else:
            self.claims, touched = self.claims.heard([self._said(word)], self.dead, accused=self.accused)
        seen = self.written.about(touched.addresses, touched.macs)
        steps: list[Set | Unset] = rows.diff(self.claims.wanted(touched, here, only), seen)
        self.written = self.written.after(steps)
        self._choose()
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

    def _choose(self) -> None:
        """One claim of each host for an address, the later one; then the rules, in their order."""
        claims: dict[Address, dict[HostId | None, Peer]] = {}
        for peer in (*believed(OF, self.lists), *self.outsiders):
            mine = claims.setdefault(peer.address, {})
            if peer.host not in mine or peer.generation > mine[peer.host].generation:
                mine[peer.host] = peer
        before, macs, nobodys = self.peers, self.macs, self.nobodys
        self.peers, self.macs = {}, {}
        self.nobodys = set()
        for address, of in claims.items():
            had = before.get(address)
            chosen = self._best(list(of.values()), had)
            if had is not None and had.host in of and had.host not in self.dead and had.host is not None:
                assert chosen is not None
                assert chosen.host == had.host, "who has it keeps it"
            if chosen is not None:
                self.peers[address] = chosen
            else:
                self.nobodys.add(address)
        for mac in {peer.mac for peer in self.peers.values()}:
            behind = [peer for peer in self.peers.values() if peer.mac == mac]
            late = any(peer.address in nobodys for peer in behind)
            best = self._best(behind, None if late else macs.get(mac))
            if best is not None:
                self.macs[mac] = best

    def _best(self, claims: list[Peer], had: Peer | None) -> Peer | None:
        """Of living hosts that nothing tells apart, none."""
        hosts = {one.host for one in claims}
        worth = {
            one.host: (
                one.host not in self.dead,
                one.host is not None,
                had is not None and had.host == one.host,
                -len({by for by in self.accused.get(one.host, ()) if by not in hosts | self.dead} if one.host else ()),
            )
            for one in claims
        }
        top = max(worth.values())
        first = [one for one in claims if worth[one.host] == top]
        if top[0] and len({one.host for one in first}) > 1:
            return None
        return max(first, key=rows.rank)


@settings(max_examples=300)
@given(
    st.lists(lists | outsiders | deaths | accusations, max_size=12),
    local,
    st.none() | st.sets(st.sampled_from(ADDRESSES)),
)
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
            there = {peer for peer in heard.peers.values() if peer.mac == mac} if mac in heard.macs else set()
            assert len(heard.claims.behind(mac)) == len(there)
            assert set(heard.claims.behind(mac)) == there
            assert not there or rows.rank(heard.claims.behind(mac)[0]) == rows.rank(heard.macs[mac])
        assert set(heard.claims.macs) == set(heard.macs)
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
        former = Written(Rows(frozenset({Neigh(address=ADDRESSES[0], mac=mac)}), frozenset({Fdb(mac=mac, vtep=vtep)})))
        claims, _ = Claims().heard(told, (), former, listed=False)
        assert claims.peers[ADDRESSES[0]].host == host
        assert claims.macs[mac].host == host
        # Nor by who was there first after the start: the owner's list may have been lost with the store.
        for order in (told, told[::-1]):
            assert Claims().heard(order, (), former)[0].peers[ADDRESSES[0]].host == host


def _told(host: HostId, vtep: Address, *records: Record, accuses: tuple[HostId, ...] = ()) -> HostList:
    return HostList(host=host, overlay=OF.overlay, vtep=vtep, records=records, accuses=accuses)


def test_who_begins_to_know_goes_by_those_who_saw_it() -> None:
    """Two living hosts claim an address, and the louder is believed by nobody: it has no rows until a third host names
    one of them; then the other has it, MAC included, whatever it says later. The claimants' own words do not count.
    """
    mine, stolen = record("10.5.0.2", generation=1), record("10.5.0.2", generation=COUNT_LIMIT)
    lists = [_told(ANN, VTEPS[0], mine), _told(BOB, VTEPS[1], stolen, accuses=(ANN,))]
    said = [said_by(OF, one.host, None, one) for one in lists]
    for order in (said, said[::-1]):
        claims, _ = Claims().heard(order, (), accused=accused_by(lists), listed=False)
        assert claims.undecided == 1
        assert claims.wanted(Touched({mine.address}, {mine.mac}), [], None) == Rows()
        assert claims.is_claimed(mine.address, MACS[3])
        assert claims.accuses() == frozenset()
        third = _told(EVE, VTEPS[0], accuses=(BOB,))
        claims, _ = claims.judged((), accused_by([*lists, third]))
        assert claims.peers[mine.address].host == claims.macs[mine.mac].host == ANN
        assert claims.accuses() == {BOB}
        # It holds to that, whoever is accused now; but a dead host's word does not count from the beginning.
        claims, _ = claims.judged((), accused_by([*lists, _told(EVE, VTEPS[0], accuses=(ANN,))]))
        assert claims.peers[mine.address].host == ANN
        claims, _ = Claims().heard(order, {EVE}, accused=accused_by([*lists, third]), listed=False)
        assert claims.undecided == 1


def test_a_mac_is_nobody_s_where_two_claim_it_for_different_addresses() -> None:
    """Else whoever lists another's MAC at a free address would get all frames for it."""
    mine, beside = record("10.5.0.2", generation=1), record("10.5.0.3", str(record("10.5.0.2").mac), generation=9)
    lists = [_told(ANN, VTEPS[0], mine), _told(BOB, VTEPS[1], beside)]
    said = [said_by(OF, one.host, None, one) for one in lists]
    claims, _ = Claims().heard(said, (), listed=False)
    every = Touched({mine.address, beside.address}, {mine.mac})
    assert claims.wanted(every, [], None).fdb == frozenset()
    against = accused_by([_told(EVE, VTEPS[0], accuses=(BOB,))])
    claims, _ = claims.judged((), against)
    assert claims.wanted(every, [], None).fdb == {Fdb(mac=mine.mac, vtep=VTEPS[0])}
    # The same where he claims the address too, so that the MAC seemed to be his alone.
    lists[1] = _told(BOB, VTEPS[1], beside, record("10.5.0.2", generation=9))
    claims, _ = Claims().heard([said_by(OF, one.host, None, one) for one in lists], (), listed=False)
    assert claims.macs[mine.mac].host == BOB
    claims, _ = claims.judged((), against)
    assert claims.peers[mine.address].host == claims.macs[mine.mac].host == ANN


def test_of_two_that_come_at_once_the_first_written_has_it() -> None:
    """Where all was heard once, what comes in one answer is in Consul's order: whoever answers a claim by his own is
    the second. A host that changes its record keeps it, and its MAC, though another claims both.
    """
    mine, stolen = record("10.5.0.2", generation=1), record("10.5.0.2", generation=COUNT_LIMIT)
    lists = [_told(ANN, VTEPS[0], mine), _told(BOB, VTEPS[1], stolen, record("10.5.0.3", str(mine.mac)))]
    claims, _ = Claims().heard([said_by(OF, one.host, None, one) for one in lists])
    assert claims.peers[mine.address].host == claims.macs[mine.mac].host == ANN
    elsewhere = _told(ANN, VTEPS[0], record("10.5.0.4", str(mine.mac), generation=2))
    claims, _ = claims.heard([said_by(OF, ANN, lists[0], elsewhere)])
    assert claims.macs[mine.mac].host == ANN


def test_a_few_testify() -> None:
    """Of many hosts eight, the same to all who look, and never the accused; of few all."""
    hosts = [HostId(f"{number:032x}") for number in range(1000)]
    against = hosts[7]
    named = {host for host in hosts if host != against and is_witness(host, against, set(hosts) - {host})}
    assert len(named) == WITNESSES
    assert all(is_witness(host, against, hosts[:8]) for host in hosts[:7])


def test_who_lost_is_heard_again_when_the_winner_goes() -> None:
    """The claim of a host whose list did not change comes into its own."""
    heard = Heard()
    for host, generation in ((BOB, 2), (ANN, 9)):
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
