"""What a miss of the kernel deserves."""

from __future__ import annotations

import pytest

from myoverlay.plan.answers import Answer, Ask, Here, Silence, decide
from myoverlay.values import Address, Mac, Miss, Peer
from tests.pure.kit import ANN, SUBNET, record

GATEWAY = Address("10.5.0.1")
LOCAL = record("10.5.0.3")
PEER = Peer(address=Address("10.5.0.4"), mac=Mac("02:42:0a:05:00:04"), vtep=Address("192.0.2.2"), host=ANN)
FAR = Peer(address=Address("10.9.0.4"), mac=Mac("02:42:0a:09:00:04"), vtep=Address("192.0.2.2"))


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (Address("10.5.0.1"), Silence("local")),  # the bridge answers for it
        (Address("10.5.0.3"), Silence("local")),  # the container answers for itself
        (Address("10.5.0.4"), Answer(PEER, "?")),
        (Address("10.5.0.5"), Ask(address=Address("10.5.0.5"))),
        (Address("10.5.0.0"), Silence("unknown")),
        (Address("10.5.0.255"), Silence("unknown")),
        (Address("10.6.0.1"), Silence("unknown")),
        (Address("fe80::1"), Silence("unknown")),
        (Address("10.9.0.4"), Answer(FAR, "?")),
        (Mac("02:42:0a:05:00:03"), Silence("local")),
        (Mac("02:42:0a:05:00:04"), Answer(PEER, "?")),
        (Mac("02:42:0a:05:00:05"), Ask(mac=Mac("02:42:0a:05:00:05"))),
    ],
)
def test_decide(asked: Address | Mac, answer: object, eager: bool) -> None:
    """Peers are answered from memory, local noise is never answered, what could exist is asked of the store.

    Where rows are programmed before anybody asks, a question about a known peer is late: that is the drift alarm.
    """
    of = {"address": asked} if isinstance(asked, Address) else {"mac": asked}
    peers = {one.address: one for one in (PEER, FAR)}
    macs = {one.mac: one for one in (PEER, FAR)}
    expected = Answer(answer.peer, "late" if eager else "pull") if isinstance(answer, Answer) else answer
    assert decide(Miss(ifindex=1, **of), peers, macs, Here.of([LOCAL], GATEWAY, SUBNET), eager) == expected


def test_a_local_container_is_local_even_where_a_peer_claims_it() -> None:
    """A second answer for an address of this host would be a false duplicate."""
    claim = Peer(address=LOCAL.address, mac=LOCAL.mac, vtep=Address("192.0.2.2"))
    peers, macs = {claim.address: claim}, {claim.mac: claim}
    for miss in (Miss(ifindex=1, address=LOCAL.address), Miss(ifindex=1, mac=LOCAL.mac)):
        assert decide(miss, peers, macs, Here.of([LOCAL], None, SUBNET), True) == Silence("local")


def test_an_empty_question_asks_nothing_of_memory() -> None:
    """A miss without a MAC is about nobody that is known."""
    assert decide(Miss(ifindex=1), {}, {PEER.mac: PEER}, Here.of([], None, SUBNET), True) == Ask()
