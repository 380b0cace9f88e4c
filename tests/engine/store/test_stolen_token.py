"""Somebody has a host's token. One row for each kind of key: what he writes there changes, redirects and hides no
endpoint of a living host. On a real Consul with ACLs, whole hosts with real kernels, packets that arrive or do not.

What he can do all the same stands in SECURITY.md, each line with the row here that shows it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from myoverlay.errors import Denied
from myoverlay.host import discover, publish
from myoverlay.host.told import Known
from myoverlay.plan import claims
from myoverlay.plan.rows import rank
from myoverlay.store.consul import ConsulStore
from myoverlay.store.pooled import MARK
from myoverlay.values import COUNT_LIMIT, Address, Fdb, Mac, OverlayName, Peer, Record
from tests.attack.board import Board, board
from tests.engine.store.policed import OVERLAY, PolicedHosts, Thief, begin
from tests.engine.store.trouble import bugs, wait_settled
from tests.kernel.host.hosts import Host, Refusal
from tests.kernel.host.tools import in_parallel, until

__all__ = ["board"]

POOL = "10.5.0.0-24"
STRANGER = Mac("02:66:66:66:66:66")


class Row(NamedTuple):
    """`act` writes. `refused`: Consul does not allow it. `again`: hosts are also started anew amid the lie.

    `news`: is what starts afterwards told as ever? Else it is refused in a sentence, or told later.
    """

    act: Callable[[Thief], Any]
    refused: bool = False
    again: bool = False
    news: bool = True


def loudest(t: Thief, address: str = "", mac: str = "") -> Record:
    return Record(
        address=Address(address or t.x.address), mac=Mac(mac or t.x.mac), generation=COUNT_LIMIT, names=("db",)
    )


def _everything(t: Thief) -> None:
    """Claims, index, holders, leases and the store's own identity at once."""
    t.claim(loudest(t))
    t.index()
    t.change(t.of("definition"), holders=[t.me])
    t.change(t.key("subnets", POOL), users=[t.me])
    t.put(t.key("pools", POOL, t.x.address), {"address": t.x.address, "use": "endpoint", "hosts": [t.me]})
    t.put(t.key("incarnation"), {"id": uuid.uuid4().hex, "count": 1, "born": COUNT_LIMIT})


def _rings(t: Thief, value: Any) -> None:
    for name in t.store.keys(t.of("changes", "")).keys:
        t.put(name, value(t.json(name)) if callable(value) else value)


ROWS: dict[str, Row] = {
    # -- what is another host's alone
    "hosts/<other>/overlays: written": Row(
        lambda t: t.put(t.key("hosts", t.them, "overlays", OVERLAY), {"host": t.them}), refused=True
    ),
    "hosts/<other>/overlays: deleted": Row(
        lambda t: t.delete(t.key("hosts", t.them, "overlays", OVERLAY)), refused=True
    ),
    "hosts/<other>/networks: written": Row(lambda t: t.put(t.key("hosts", t.them, "networks", "x"), {}), refused=True),
    "alive/<other>: written": Row(lambda t: t.put(t.key("alive", t.them), {}), refused=True),
    "alive/<other>: deleted": Row(lambda t: t.delete(t.key("alive", t.them)), refused=True),
    "alive/<other>: locked": Row(lambda t: t.take_lock(t.key("alive", t.them)), refused=True),
    "a key of somebody else": Row(lambda t: t.put("elsewhere/x", "x"), refused=True),
    # -- the own list
    "own list: the address, loudly": Row(lambda t: t.claim(loudest(t)), again=True),
    "own list: the address with another MAC": Row(lambda t: t.claim(loudest(t, mac=STRANGER)), again=True),
    "own list: the MAC at another address": Row(lambda t: t.claim(loudest(t, address="10.5.0.200")), again=True),
    "own list: the other's VTEP": Row(lambda t: t.tell(vtep=t.victim.vtep)),
    "own list: the address, and the index": Row(lambda t: (t.claim(loudest(t)), t.index()), again=True),
    "own list: nonsense": Row(lambda t: t.put(t.key("hosts", t.me, "overlays", OVERLAY), b"\xff" * 1000)),
    # -- the own life, and the other's session
    "alive/<own>: the other's name and VTEP": Row(
        lambda t: t.put(
            t.key("alive", t.me), {"host": t.me, "name": t.victim.name, "vteps": [t.victim.vtep], "version": "1"}
        )
    ),
    "the other's session, at the same agent": Row(
        lambda t: t.store.close_session(str(t.entry(t.key("alive", t.them)).session))
    ),
    # -- the index
    "arp/, fib/: ours, to the thief": Row(lambda t: t.index(), again=True),
    "arp/, fib/: ours, another MAC": Row(lambda t: t.index(mac=STRANGER), again=True),
    "arp/, fib/: an outsider's": Row(lambda t: t.index(flags=0), again=True),
    "arp/, fib/: deleted": Row(
        lambda t: (t.delete(t.of("records", "arp", t.x.address)), t.delete(t.of("records", "fib", t.x.mac)))
    ),
    "arp/, fib/: nonsense": Row(
        lambda t: (
            t.put(t.of("records", "arp", t.x.address), b"\x00" * 70, MARK),
            t.put(t.of("records", "fib", t.x.mac), "224.0.0.1", MARK),
        )
    ),
    # -- overlays
    "definition: the other holds no part": Row(lambda t: t.change(t.of("definition"), holders=[t.me]), again=True),
    "definition: another VNI": Row(lambda t: t.change(t.of("definition"), vni=4711), again=True),
    "definition: another place for records": Row(
        lambda t: t.change(t.of("definition"), records="elsewhere"), again=True
    ),
    "definition: nonsense": Row(lambda t: t.put(t.of("definition"), "{")),
    "definition: deleted": Row(lambda t: t.delete(t.of("definition")), again=True),
    "members: the other elsewhere": Row(lambda t: t.change(t.of("members", t.them), vtep=t.own.vtep), again=True),
    "members: the other gone": Row(lambda t: t.delete(t.of("members", t.them))),
    "changes: turned back": Row(lambda t: _rings(t, lambda ring: {"last": 1, "hosts": [t.me]})),
    "changes: without the other": Row(lambda t: _rings(t, lambda ring: ring | {"hosts": [t.me] * len(ring["hosts"])})),
    "changes: far ahead": Row(lambda t: _rings(t, lambda ring: ring | {"last": COUNT_LIMIT - 1})),
    "changes: nonsense": Row(lambda t: _rings(t, b"[" * 100_000)),
    "changes: deleted": Row(lambda t: [t.delete(name) for name in t.store.keys(t.of("changes", "")).keys]),
    "vni: another overlay's": Row(
        lambda t: [t.put(k, {"overlay": "evil", "subnet": "10.9.0.0/24"}) for k in t.store.keys(t.key("vni", "")).keys],
        again=True,
    ),
    "vni: deleted": Row(lambda t: [t.delete(k) for k in t.store.keys(t.key("vni", "")).keys], again=True),
    # -- pools and leases
    "subnets: without the other": Row(lambda t: t.change(t.key("subnets", POOL), users=[t.me]), again=True),
    "subnets: another overlay's": Row(lambda t: t.change(t.key("subnets", POOL), overlay="evil"), again=True),
    "subnets: deleted": Row(lambda t: t.delete(t.key("subnets", POOL)), again=True),
    "pools: the lease is the thief's": Row(
        lambda t: t.put(
            t.key("pools", POOL, t.x.address), {"address": t.x.address, "use": "endpoint", "hosts": [t.me]}
        ),
        again=True,
    ),
    "pools: the lease is deleted": Row(lambda t: t.delete(t.key("pools", POOL, t.x.address)), again=True),
    "pools: the lease is nonsense": Row(lambda t: t.put(t.key("pools", POOL, t.x.address), "?")),
    # -- which store this is
    "incarnation: another store": Row(
        lambda t: t.put(t.key("incarnation"), {"id": uuid.uuid4().hex, "count": 1, "born": COUNT_LIMIT}), again=True
    ),
    "incarnation: of long ago": Row(lambda t: t.change(t.key("incarnation"), count=1), again=True),
    "incarnation: deleted": Row(lambda t: t.delete(t.key("incarnation")), again=True),
    "incarnation: nonsense": Row(lambda t: t.put(t.key("incarnation"), b"\x00"), again=True),
    # -- questions, answers, witness, networks of all hosts
    "questions: nonsense": Row(
        lambda t: [
            t.put(t.key("incarnation", kind, "f" * 32), value)
            for kind in ("asks", "paths", "seeks", "looks")
            for value in (b"[" * 100_000, "{}", "null")
        ]
    ),
    "answers: in the other's name": Row(
        lambda t: [t.put(t.key(kind, "f" * 32, t.them), "{}") for kind in ("answers", "path-answers", "seek-answers")]
    ),
    "outlooks: in the other's name": Row(lambda t: t.put(t.key("outlooks", t.them), {"host": t.them})),
    "witness: for the other": Row(lambda t: t.put(t.key("witness", t.them), uuid.uuid4().hex)),
    "networks: the overlay is to be removed": Row(
        lambda t: t.put(
            t.key("networks", OVERLAY),
            {"name": OVERLAY, "id": "f" * 32, "subnet": "10.5.0.0/24", "going": True, "forced": True},
        )
    ),
    # -- all of it
    "everything at once": Row(_everything, again=True),
}


class Site:
    """Three hosts: `one` looks on, `two` is the victim, the third's token is stolen; `y` and `x` are containers."""

    def __init__(self, hosts: PolicedHosts) -> None:
        self.hosts = hosts
        self.one, self.two, self.three = (hosts.host(grace=2) for _ in range(3))
        in_parallel(*[lambda host=host: host.create_network() for host in (self.one, self.two, self.three)])
        self.y, self.x = self.one.run(), self.two.run("10.5.0.77")
        self.mine = self.three.run()
        until(lambda: self.one.knows(self.x, self.mine) and self.three.knows(self.x), 20)
        wait_settled(self.one, self.two, self.three)
        # From here on nobody but the thief writes with that token.
        self.thief = Thief(
            ConsulStore(hosts.agent.address, token=hosts.token_of(self.three)), self.three, self.two, self.x
        )

    def news(self, must: bool) -> None:
        """A container starts at the victim and is told; whoever was told has read all that was written before."""
        try:
            fresh = self.two.run()
        except Refusal:
            assert not must
            return
        until(lambda: self.one.knows(fresh), 20, "what started at the victim to be known")
        self.two.remove(fresh)

    def check(self) -> None:
        """The endpoint is where it was: its rows, its record, its packets."""
        assert self.one.knows(self.x), f"the rows at the bystander: {self.one.rows()}"
        told = self.two.daemon.records.lists(OverlayName(OVERLAY), [self.thief.them])[self.thief.them]
        assert self.x.address in {record.address for record in told.value.records}, "its owner withdrew it"
        assert None not in self.y.ping(self.x.address, count=3)
        assert None not in self.x.ping(self.y.address, count=3)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(discover, "RELIST", 1.0)
    monkeypatch.setattr(publish, "RECLAIM", 0.5)
    agent = begin(tmp_path_factory.mktemp("consul"))
    try:
        with PolicedHosts(tmp_path, agent) as hosts:
            site = Site(hosts)
            yield site
            site.thief.store.close()
    finally:
        agent.kill()


def _loudest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: the later generation has the address, and the MAC."""

    def chosen(_: object, told: list[Peer], _had: object) -> tuple[Peer | None, tuple[Peer, ...]]:
        ordered = sorted(told, key=rank, reverse=True)
        return (ordered[0] if ordered else None), tuple(ordered[1:])

    monkeypatch.setattr(claims._Draft, "_chosen", chosen)


def _index_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: whoever has the index keys has the address."""
    monkeypatch.setattr(Known, "granted", property(lambda _: frozenset()))
    monkeypatch.setattr(publish.Publisher, "_was_granted", lambda *_: False)


def _is_redirected(site: Site) -> bool:
    return _leads_astray(site, site.one) or not site.one.knows(site.x)


def _leads_astray(site: Site, host: Host) -> bool:
    return Fdb(mac=site.x.mac, vtep=site.three.vtep) in host.rows()


def _is_withdrawn(site: Site) -> bool:
    held = site.two.daemon.records.lists(OverlayName(OVERLAY), [site.thief.them]).get(site.thief.them)
    return held is not None and site.x.address not in {record.address for record in held.value.records}


#: Rows whose defence can be switched off: how, and what is seen then.
OFF: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Site], bool], str]] = {
    "own list: the address, loudly": (_loudest_wins, _is_redirected, "redirected"),
    "own list: the address with another MAC": (_loudest_wins, _is_redirected, "redirected"),
    "own list: the MAC at another address": (_loudest_wins, _is_redirected, "redirected"),
    "arp/, fib/: an outsider's": (_index_wins, _is_withdrawn, "withdrawn by its owner"),
    "own list: the address, and the index": (_index_wins, _is_withdrawn, "withdrawn by its owner"),
}


@pytest.mark.parametrize("name", OFF)
def test_without_the_defence_it_succeeds(site: Site, board: Board, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same writes, and the endpoint is another's, or gone: what the row below shows is not shown by chance."""
    switch_off, succeeded, word = OFF[name]
    switch_off(monkeypatch)
    ROWS[name].act(site.thief)
    site.two.daemon.audit.want()
    until(lambda: succeeded(site), 30, f"{name}: {word}")
    board.write(f"stolen token, {name}", word, "stays what it is")


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_endpoint_of_a_living_host_stays_what_it_is(site: Site, row: Row) -> None:
    """No packet is lost while it is tried, nor afterwards; not even where the hosts' plugins start anew meanwhile."""
    if row.refused:
        with pytest.raises(Denied):
            row.act(site.thief)
        site.check()
        return
    with site.y.pinging(site.x, 0.05) as pings:
        row.act(site.thief)
        site.news(row.news)
        site.two.daemon.audit.want()
        site.news(row.news)
        if row.again:
            for host in (site.two, site.one):
                host.restart()
                until(host.daemon.liveness.announced.is_set, 20)
            until(lambda: site.one.local().listed.is_set(), 20)
            site.news(must=False)
        site.check()
    assert len(pings.replies) == len(pings.sent), "packets were lost"
    assert bugs(site.one) == bugs(site.two) == {}


#: What a host is told that begins to know the overlay while it is lied to.
BEGINNING = (
    "own list: the address, loudly",
    "own list: the address with another MAC",
    "own list: the MAC at another address",
    "own list: the address, and the index",
)


def _begin_amid(site: Site, name: str) -> Host:
    """A fourth host, which has its first container there when the others have heard what the thief says."""
    ROWS[name].act(site.thief)
    site.news(must=True)
    late = site.hosts.host(grace=2)
    late.create_network()
    return late


@pytest.mark.parametrize("name", BEGINNING)
def test_a_host_that_begins_meanwhile_is_not_taken_in(site: Site, name: str) -> None:
    """It never has a row that leads to the thief, and soon those that lead to the owner: the bystander told whom it saw
    claim what another had."""
    late = _begin_amid(site, name)
    fresh = late.run()
    astray: list[bool] = []
    until(lambda: astray.append(_leads_astray(site, late)) or late.knows(site.x), 20, "the owner to be believed")
    assert not any(astray)
    assert None not in fresh.ping(site.x.address, count=3, timeout=3)
    assert not _leads_astray(site, late)
    site.check()


def test_without_the_witness_a_host_that_begins_is_taken_in(
    site: Site, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the later claim, as it was, its packets go to the thief."""
    _loudest_wins(monkeypatch)
    late = _begin_amid(site, BEGINNING[0])
    late.run()
    until(lambda: _leads_astray(site, late), 20, "the host that begins to be taken in")
    board.write("stolen token, told to a host that begins to know the overlay", "redirected", "stays what it is")
