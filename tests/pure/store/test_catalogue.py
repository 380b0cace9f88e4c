"""Consul's catalogue against the fake: what is registered, read, refused and collected."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from myoverlay.errors import Unavailable
from myoverlay.store.catalogue import Catalogue, Service, services_of
from myoverlay.store.consul import ConsulStore
from myoverlay.values import Address, OverlayName
from tests.pure.kit import ANN, BOB, PREFIX
from tests.pure.store.fake_consul import FakeConsul, Pair, Reply, Seen

WEB = OverlayName("web")
DB = services_of(WEB, Address("10.5.0.2"), ("db", "db-1"))


@pytest.fixture
def catalogue(fake: FakeConsul) -> Iterator[Catalogue]:
    store = ConsulStore(fake.address)
    yield Catalogue(store, PREFIX)
    store.close()


def test_each_name_that_can_be_asked_for_is_a_service() -> None:
    """Names with a dot, of RFC 2782's forms, and Consul's own are none; the overlay is a tag that is a DNS label."""
    found = services_of(OverlayName("10.5.0.0-24"), Address("10.5.0.2"), ("db", "a.b", "_x", "consul", "shop_db_1"))
    assert {one.name for one in found} == {"db", "shop_db_1"}
    assert {one.tags for one in found} == {("10-5-0-0-24",)}
    assert {one.address for one in found} == {"10.5.0.2"}
    assert len({one.id for one in found}) == 2


def test_what_is_written_is_read_and_goes(fake: FakeConsul, catalogue: Catalogue) -> None:
    """A node with its services; some go, others come; then the node goes, also twice."""
    assert catalogue.read(ANN) is None
    assert catalogue.write(ANN, "192.0.2.1", DB, frozenset()) == {}
    there = catalogue.read(ANN)
    assert there is not None
    assert (there.vtep, there.services) == ("192.0.2.1", DB)
    other = services_of(WEB, Address("10.5.0.3"), ("db",))
    assert catalogue.write(ANN, "192.0.2.9", other, DB) == {}
    there = catalogue.read(ANN)
    assert there is not None
    assert (there.vtep, there.services) == ("192.0.2.9", other)
    for _ in range(2):
        catalogue.remove(ANN)
    assert catalogue.read(ANN) is None
    assert fake.nodes == {}


def test_a_leader_that_replays_its_log_is_waited_for(fake: FakeConsul, catalogue: Catalogue) -> None:
    """Else a host took what stands there for nothing, and did not withdraw who went while Consul was away."""
    catalogue.write(ANN, "192.0.2.1", DB, frozenset())
    fake.replaying = True
    there = catalogue.read(ANN)
    assert there is not None
    assert there.services == DB


def test_more_services_than_a_transaction_takes(fake: FakeConsul, catalogue: Catalogue) -> None:
    """A full host's: all are there, in few requests."""
    many = frozenset(one for n in range(1, 251) for one in services_of(WEB, Address(f"10.5.0.{n}"), (f"c{n}", "all")))
    assert catalogue.write(ANN, "192.0.2.1", many, frozenset()) == {}
    assert len(fake.seen) == 8
    there = catalogue.read(ANN)
    assert there is not None
    assert there.services == many


def test_what_consul_refuses_keeps_nobody_out(fake: FakeConsul, catalogue: Catalogue) -> None:
    """The token may not register one of the names: that is told, and the others are there."""
    fake.refused = "db"
    assert {one.name: said for one, said in catalogue.write(ANN, "192.0.2.1", DB, frozenset()).items()} == {
        "db": "Permission denied"
    }
    there = catalogue.read(ANN)
    assert there is not None
    assert {one.name for one in there.services} == {"db-1"}


def test_hosts_are_those_of_our_prefix(fake: FakeConsul, catalogue: Catalogue) -> None:
    """Nodes of others, and of another prefix, are none."""
    catalogue.write(ANN, "192.0.2.1", DB, frozenset())
    fake.nodes["store"] = {"Node": {"Node": "store", "Address": "192.0.2.3", "Meta": {"myoverlay": PREFIX}}}
    fake.nodes[f"myoverlay-{BOB}"] = {"Node": {"Node": f"myoverlay-{BOB}", "Meta": {"myoverlay": "other"}}}
    assert catalogue.hosts() == {ANN}


@pytest.mark.parametrize("key", ["alive", "witness"])
def test_who_is_there_or_heard_is_not_collected(fake: FakeConsul, catalogue: Catalogue, key: str) -> None:
    """Looked at in the transaction itself."""
    catalogue.write(BOB, "192.0.2.2", DB, frozenset())
    fake.kv[f"{PREFIX}/{key}/{BOB}"] = Pair(b"", 0, 5, 5)
    assert not catalogue.collect(BOB)
    assert catalogue.read(BOB) is not None
    fake.kv.clear()
    assert catalogue.collect(BOB)
    assert catalogue.read(BOB) is None


def test_a_host_is_collected_that_is_heard_no_more(fake: FakeConsul, catalogue: Catalogue) -> None:
    """What was said before it died stays in the store; said once more, also in between, it counts again."""
    catalogue.write(BOB, "192.0.2.2", DB, frozenset())
    assert catalogue.heard(BOB) == 0
    fake.kv[f"{PREFIX}/witness/{BOB}"] = Pair(b"", 0, 5, 5)
    before = catalogue.heard(BOB)
    assert before == 5
    fake.kv[f"{PREFIX}/witness/{BOB}"] = Pair(b"", 0, 5, 6)
    assert not catalogue.collect(BOB, before)
    assert catalogue.read(BOB) is not None
    assert catalogue.collect(BOB, catalogue.heard(BOB))
    assert catalogue.read(BOB) is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b"No cluster leader"),
        Reply(403, b"Permission denied"),
        Reply(200, b"<html>"),
        Reply(200, b'{"Node": 7}'),
        Reply(409, {"Errors": []}),
        None,
    ],
)
def test_whatever_goes_wrong_is_unavailable(fake: FakeConsul, catalogue: Catalogue, reply: Reply | None) -> None:
    """An answer that is none, or the end of the connection."""

    def fault(_seen: Seen, _connection: socket.socket) -> Reply | None:
        return reply

    fake.fault = fault
    with pytest.raises(Unavailable):
        catalogue.read(ANN)
    with pytest.raises(Unavailable):
        catalogue.write(ANN, "192.0.2.1", DB, frozenset())
    with pytest.raises(Unavailable):
        catalogue.remove(ANN)


@pytest.mark.parametrize("position", [0, 99])
def test_a_no_to_the_node_itself_is_unavailable(fake: FakeConsul, catalogue: Catalogue, position: int) -> None:
    """Without it there is no service; nor is anything done where Consul does not say what it refuses."""

    def fault(_seen: Seen, _connection: socket.socket) -> Reply:
        return Reply(409, {"Errors": [{"OpIndex": position, "What": "no"}]})

    fake.fault = fault
    with pytest.raises(Unavailable, match=r"no$"):
        catalogue.write(ANN, "192.0.2.1", DB, frozenset())
    with pytest.raises(Unavailable, match=r"no$"):
        catalogue.remove(ANN)


def test_services_have_an_order() -> None:
    """So that the same change is the same request."""
    assert sorted(DB) == sorted(DB, key=lambda one: one.id)
    assert all(isinstance(one, Service) for one in DB)
