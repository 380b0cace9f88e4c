"""Claims kept word by word are those of all words at once, whatever was said in which order."""

from __future__ import annotations

from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from myoverlay.plan import rows
from myoverlay.plan.claims import Claims, Touched, said_by, said_outside
from myoverlay.plan.rows import Rows, Set, Unset, Written
from myoverlay.store.records import believed
from myoverlay.values import Address, HostId, HostList, Mac, Peer, Record
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
local = st.lists(st.builds(record, st.sampled_from(ADDRESSES[:3]), st.sampled_from(MACS)), max_size=2)


class Heard:
    """Word by word: claims, the rows that were written for them, and all that was said."""

    def __init__(self) -> None:
        self.claims = Claims()
        self.written = Written()
        self.lists: dict[HostId, HostList] = {}
        self.outsiders: tuple[Peer, ...] = ()

    def hear(self, word: object, here: list[Record], only: set[Address] | None) -> Touched:
        if isinstance(word, tuple):
            host, told = cast("tuple[HostId, tuple[Address, list[Record]] | None]", word)
            before = self.lists.get(host)
            now = (
                HostList(host=host, overlay=OF.overlay, vtep=told[0], records=tuple(told[1]))
                if told is not None
                else None
            )
            self.lists.pop(host, None)
            if now is not None:
                self.lists[host] = now
            said = said_by(OF, host, before, now)
        else:
            said = said_outside(self.outsiders, cast("list[Peer]", word))
            self.outsiders = tuple(cast("list[Peer]", word))
        self.claims, touched = self.claims.heard([said])
        seen = self.written.about(touched.addresses, touched.macs)
        steps: list[Set | Unset] = rows.diff(self.claims.wanted(touched, here, only), seen)
        self.written = self.written.after(steps)
        return touched

    def all_at_once(self) -> dict[Address, Peer]:
        return rows.newest((*believed(OF, self.lists), *self.outsiders))


@settings(max_examples=300)
@given(st.lists(lists | outsiders, max_size=12), local, st.none() | st.sets(st.sampled_from(ADDRESSES)))
def test_word_by_word_is_all_at_once(words: list[object], here: list[Record], only: set[Address] | None) -> None:
    """After every word: the same peers, a MAC's best peer, and the same rows as from reading everything anew.

    Lists hold the same address twice, MACs of others, addresses that several hosts claim, VTEPs that are none.
    """
    heard = Heard()
    for word in words:
        heard.hear(word, here, only)
        peers = heard.all_at_once()
        assert dict(heard.claims.peers) == peers
        for mac in MACS:
            there = sorted((peer for peer in peers.values() if peer.mac == mac), key=rows.rank, reverse=True)
            assert [rows.rank(peer) for peer in heard.claims.behind(mac)] == [rows.rank(peer) for peer in there]
        assert set(heard.claims.macs) == {peer.mac for peer in peers.values()}
        assert heard.written.all() == rows.wanted(peers, here, only)
        assert all(heard.claims.rivals.values())
        assert all(heard.claims.twins.values())


def test_who_lost_is_heard_again_when_the_winner_goes() -> None:
    """The claim of a host whose list did not change comes into its own."""
    heard = Heard()
    for host, generation in ((ANN, 1), (BOB, 2)):
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
