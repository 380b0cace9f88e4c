"""`network create`, `ls`, `inspect`, `rm` of hosts on paper: real store, real answers, Docker played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from myoverlay.errors import Clash, Refused, Unknown, Unreadable
from myoverlay.host import networks as host_networks
from myoverlay.host import preflight as host_preflight
from myoverlay.host.follow import NetworkFollower
from myoverlay.host.networks import ClusterNetworks, Made
from myoverlay.host.preflight import Asker, Respondent
from myoverlay.networks import Answer, Became, HeldNetwork, Question
from myoverlay.plan.blueprint import Wish
from myoverlay.plan.following import Found
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.presence import Presence
from myoverlay.store.records import Member, Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive, HostId, HostList, OverlayName, Subnet
from tests.pure.host.test_follow import Docker
from tests.pure.kit import ANN, BOB, EVE, PREFIX, Switch, definition, put, record, soon, until

WEB = OverlayName("web")
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}


class Host:
    """A host that answers what it is told to, and follows."""

    def __init__(self, site: Site, me: HostId) -> None:
        self.me = me
        self.docker = Docker()
        self.answer: dict[str, Any] = {"carries": 1450, "follows": True}
        self.asked: list[Question] = []
        records = NetworkRecords(site.store, PREFIX, me)
        session = site.store.open_session(NAMES[me], 10.0)
        alive = Alive(host=me, name=NAMES[me], vteps=(Address(f"192.0.2.{int(me[0], 16)}"),))
        assert Presence(site.store, PREFIX, me).announce(alive, session, None)
        self.answers = Respondent(records, self._observe, lambda: True, lambda: None, Tally())
        self.follow = NetworkFollower(
            records, self.docker, NAMES[me], lambda: True, lambda: False, lambda: None, Tally()
        )  # fmt: skip
        self.records = records

    def _observe(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer(host=self.me, name=NAMES[self.me], **self.answer)

    def loops(self) -> list[Any]:
        return [self.answers, self.follow]


class Site:
    """Hosts on a store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.started: list[Any] = []
        self.doubt = False
        self.hosts = {me: Host(self, me) for me in NAMES}
        self.networks = self.of(ANN)

    def of(self, me: HostId, allowed: Callable[[], None] = lambda: None, wire: Switch | None = None) -> ClusterNetworks:
        store: Any = wire or self.store
        records = NetworkRecords(store, PREFIX, me)
        presence = Presence(store, PREFIX, me)
        return ClusterNetworks(
            records,
            Records(store, PREFIX, me),
            presence,
            Asker(records, presence),
            allowed,
            lambda: self.doubt,
            lambda _vtep, _deadline: 1450,
            Subnet("10.128.0.0/9"),
            4789,
            NAMES[me],
        )

    def start(self, *but: HostId, follow: bool = True) -> None:
        """All hosts begin to answer and to follow, but those."""
        for me, host in self.hosts.items():
            for loop in host.loops() if follow else [host.answers]:
                if me not in but:
                    loop.start()
                    self.started.append(loop)

    def create(self, force: bool = False, **words: Any) -> Made:
        return self.networks.create(Wish(**({"name": WEB} | words)), force, soon())

    def use(
        self,
        me: HostId,
        address: str,
        overlay: OverlayName = WEB,
        subnet: str = "10.5.0.0/24",
        names: tuple[str, ...] = (),
    ) -> None:
        """A container of the host on the overlay."""
        records = Records(self.store, PREFIX, me)
        of = definition(overlay=overlay, subnet=Subnet(subnet), gateway=None, holders=(me,))
        vtep = Address("192.0.2.9")
        if records.definition(overlay) is None:
            assert records.found(of, Member(name=NAMES[me], vtep=vtep)) is None
        new = HostList(
            host=me, overlay=overlay, vtep=vtep, records=(msgspec.structs.replace(record(address), names=names),)
        )
        records.publish(of, new, records.own_list(overlay, vtep), records.ring(overlay), (), ())


@pytest.fixture
def site(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(host_preflight, "PATIENCE", 5.0)
    monkeypatch.setattr(host_networks, "FOLLOWING", 5.0)
    site = Site(store)
    yield site
    for loop in site.started:
        loop.cancel()
    store.close()
    for loop in site.started:
        loop.join(10)


@pytest.fixture
def brief(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is waited for in vain: not for long."""
    monkeypatch.setattr(host_preflight, "PATIENCE", 0.5)
    monkeypatch.setattr(host_networks, "FOLLOWING", 0.5)


def test_one_command_and_all_hosts_have_it(site: Site) -> None:
    """Subnet, VNI and MTU are chosen for all; every Docker has it when the command ends; nothing speaks against it."""
    site.hosts[BOB].answer["routes"] = (Subnet("10.128.0.0/24"),)
    site.hosts[EVE].answer["carries"] = 1400
    site.start()
    made = site.create(labels={"team": "shop"})
    assert made.plan.subnet == "10.128.1.0/24"
    assert made.plan.options["mtu"] == "1400"
    assert made.warnings == made.late == ()
    assert {one.host: one.became for one in made.held} == dict.fromkeys(NAMES, Became.HELD)
    assert all(host.docker.names() == {"web"} for host in site.hosts.values())
    assert [question.mtu for question in site.hosts[BOB].asked] == [1450, 1400], "the size that will be used was tried"
    ((plan, held),) = site.networks.list(soon())
    assert plan == made.plan
    assert len(held) == 3


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"routes": (Subnet("10.5.0.0/16"),)}, "subnet 10.5.0.0/24 overlaps the route 10.5.0.0/16 of host bob"),
        ({"taken": {4242: "device x"}}, "VNI 4242 is taken on host bob by device x"),
        ({"taken": {0: "a program"}}, "UDP port 4789 is taken on host bob by a program"),
        ({"carries": 1300}, "MTU 1450 does not fit through the underlay of host bob, which carries 1300"),
    ],
)
def test_what_speaks_against_it_is_refused_unless_forced(site: Site, found: dict[str, Any], sentence: str) -> None:
    """The sentence names the host and what a person can do; nothing was written; forced, it is a warning."""
    site.hosts[BOB].answer |= found
    site.start()
    words: dict[str, Any] = {"subnet": Subnet("10.5.0.0/24"), "options": {"vni": "4242", "mtu": "1450"}}
    with pytest.raises(Refused) as caught:
        site.create(**words)
    assert str(caught.value) == f"{sentence} (--force defines the network all the same)"
    assert site.networks.list(soon()) == ()
    assert site.create(force=True, **words).warnings == (sentence,)


def test_another_vni_is_taken_where_one_is_not_free_everywhere(site: Site) -> None:
    """Where nobody asked for one."""
    site.start()
    first = int(site.create().plan.options["vni"])
    site.networks.remove(WEB, False, soon())
    site.hosts[EVE].answer["taken"] = {first: "device x"}
    assert int(site.create().plan.options["vni"]) != first


@pytest.mark.usefixtures("brief")
def test_hosts_that_are_silent_or_do_not_follow_are_named(site: Site) -> None:
    """One that does not answer is a warning; one that answers and makes nothing in time is named as late."""
    site.start(EVE, follow=False)
    made = site.create()
    assert made.warnings == ("host eve did not answer in time: what is free there is not known",)
    assert made.late == ("ann", "bob")
    for host in site.hosts.values():
        host.answer["follows"] = False
    made = site.create(name=OverlayName("db"))
    assert "no host that answered follows" in made.warnings[-1]
    assert made.late == ()


@pytest.mark.usefixtures("brief")
def test_a_name_is_given_once(site: Site) -> None:
    """What is still being removed somewhere is named, and forced it is replaced."""
    site.start()
    first = site.create().plan
    with pytest.raises(Clash, match="network web exists already, made on host ann"):
        site.of(BOB).create(Wish(name=WEB), True, soon())
    gone = HostId("d" * 32)
    away = HeldNetwork(host=gone, network=WEB, plan=first.id, became=Became.HELD, host_name="dora")
    NetworkRecords(site.store, PREFIX, gone).say(away)
    assert [one.host for one in site.networks.remove(WEB, False, soon()).held] == [gone]
    with pytest.raises(Clash, match="network web is still being removed on dora: wait, or --force"):
        site.create()
    second = site.create(force=True).plan
    assert second.id != first.id
    assert not second.going


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("mine", "other", "taken"),
    [
        ({}, {}, "subnet 10.128.0.0/24"),
        ({"subnet": Subnet("10.5.0.0/24")}, {"subnet": Subnet("10.5.0.0/16")}, "subnet 10.5.0.0/16"),
        ({"options": {"overlay": "one"}}, {"options": {"overlay": "one"}}, "overlay one"),
        (
            {"options": {"vni": "77"}, "subnet": Subnet("10.5.0.0/24")},
            {"options": {"vni": "77"}, "subnet": Subnet("10.6.0.0/24")},
            "VNI 77",
        ),
        ({"subnet": Subnet("10.5.0.0/24")}, {"subnet": Subnet("10.6.0.0/24")}, ""),
    ],
)
def test_of_two_at_once_one_is_refused_where_they_overlap(
    site: Site, mine: dict[str, Any], other: dict[str, Any], taken: str
) -> None:
    """In the last moment before the one is written another is: what it took is named, and nothing is written."""
    site.start(follow=False)
    wire, other_name = Switch(site.store), OverlayName("db")

    def meanwhile(name: str, what: Any) -> None:
        if name == "commit" and any(op.key == f"{PREFIX}/networks/web" for op in what):
            wire.before = lambda _name, _what: None
            site.create(name=other_name, **other)

    wire.before = meanwhile
    networks = site.of(BOB, wire=wire)
    wish = Wish(name=WEB, **mine)
    if taken:
        with pytest.raises(Clash, match=f"network db, defined on host ann just now, was given {taken}: try again"):
            networks.create(wish, True, soon())
        assert [one.name for one, _ in site.networks.list(soon())] == ["db"]
    else:
        networks.create(wish, False, soon())
        assert [one.name for one, _ in site.networks.list(soon())] == ["db", "web"]


@pytest.mark.usefixtures("brief")
def test_of_two_at_once_with_one_name_one_is_refused(site: Site) -> None:
    """However different they are otherwise."""
    site.start(follow=False)
    wire = Switch(site.store)

    def meanwhile(name: str, what: Any) -> None:
        if name == "commit" and any(op.key == f"{PREFIX}/networks/web" for op in what):
            wire.before = lambda _name, _what: None
            site.create(subnet=Subnet("10.6.0.0/24"))

    wire.before = meanwhile
    with pytest.raises(Clash, match="network web was defined or removed by another host just now"):
        site.of(BOB, wire=wire).create(Wish(name=WEB, subnet=Subnet("10.5.0.0/24")), True, soon())
    assert site.networks.inspect(WEB, soon()).plan.maker == "ann"


def test_what_stands_in_the_way_is_named(site: Site) -> None:
    """A key that cannot be read, and a host that may not take part."""
    put(site.store, f"{PREFIX}/networks/web", b"{")
    with pytest.raises(Unreadable, match="the key myoverlay/networks/web in the store cannot be read"):
        site.create()

    def barred() -> None:
        raise Clash("this host has left")

    for act in (
        lambda: site.of(BOB, barred).create(Wish(name=WEB), True, soon()),
        lambda: site.of(BOB, barred).remove(WEB, True, soon()),
    ):
        with pytest.raises(Clash, match="this host has left"):
            act()


def test_in_a_doubt_nothing_is_chosen(site: Site) -> None:
    """A store that lost something may not know yet what is taken; forced it is made all the same."""
    site.start()
    site.doubt = True
    with pytest.raises(Clash, match="the store lost something lately"):
        site.create()
    assert site.create(force=True).held


def test_who_uses_it_is_named_and_taken_off_by_force(site: Site) -> None:
    """Refused naming address and host; with force every follower takes its containers off."""
    site.start()
    site.create(subnet=Subnet("10.5.0.0/24"))
    site.use(BOB, "10.5.0.7")
    with pytest.raises(Clash, match=r"network web is in use by 10\.5\.0\.7 on host bob: stop them, or --force"):
        site.networks.remove(WEB, False, soon())
    site.use(BOB, "10.5.0.7", names=("shop", "web"))
    with pytest.raises(Clash, match=r"network web is in use by shop at 10\.5\.0\.7 on host bob: stop"):
        site.networks.remove(WEB, False, soon())
    shown = site.networks.inspect(WEB, soon())
    assert [(user.names, user.address, user.host) for user in shown.users] == [(("shop", "web"), "10.5.0.7", BOB)]
    gone = site.networks.remove(WEB, True, soon())
    assert gone.held == ()
    assert [user.address for user in gone.users] == ["10.5.0.7"], "what is still listed is told"
    assert all("force web" in host.docker.calls for host in site.hosts.values())
    with pytest.raises(Unknown, match="`myoverlay network ls` names those that are"):
        site.networks.inspect(WEB, soon())


@pytest.mark.usefixtures("brief")
def test_a_removal_can_be_asked_for_again(site: Site) -> None:
    """With what remains told each time; force makes it forced."""
    site.start()
    site.create()
    site.hosts[EVE].docker.no = "has active endpoints"
    assert [(one.host, one.became) for one in site.networks.remove(WEB, False, soon()).held] == [(EVE, Became.REMAINS)]
    again = site.networks.remove(WEB, True, soon())
    assert again.plan.forced
    assert again.held[0].said == "Docker says: has active endpoints"


def test_a_store_that_goes_while_followers_are_waited_for_undoes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is defined; what was heard is told, the others are late, and the reason is a warning."""
    monkeypatch.setattr(host_networks, "FOLLOWING", 5.0)
    site.start(EVE)
    site.start(ANN, BOB, follow=False)
    wire, looks = Switch(site.store), []
    wire.patience = 0.1

    def cut(name: str, _what: Any) -> None:
        """After a look that showed what two of them say."""
        if name == "wait_keys" and len(site.networks.list(soon())[0][1]) == 2:
            looks.append(name)
            wire.off = len(looks) > 1

    wire.before = cut
    made = site.of(BOB, wire=wire).create(Wish(name=WEB), False, soon())
    assert {one.host for one in made.held} == {ANN, BOB}
    assert made.late == ("eve",)
    assert made.warnings == ("the network is defined, and what became of it is not known: the store is switched off",)
    assert site.networks.inspect(WEB, soon()).plan == made.plan


def test_a_store_that_goes_while_a_removal_is_waited_for_undoes_nothing(site: Site) -> None:
    """What was known before is told as what remains; the removal goes on."""
    site.start()
    site.create()
    wire = Switch(site.store)

    def cut(name: str, _what: Any) -> None:
        wire.off = name == "wait_keys"

    wire.before = cut
    rest = site.of(BOB, wire=wire).remove(WEB, False, soon())
    assert {one.host for one in rest.held} == set(NAMES)
    assert rest.plan.going
    until(lambda: not any(host.docker.names() for host in site.hosts.values()))


def test_states_of_a_foreign_network_are_shown(site: Site) -> None:
    """The host with the conflict says so, by its name."""
    site.hosts[EVE].docker.networks["f"] = Found(id="f" * 64, name="web", driver="bridge")
    site.start()
    made = site.create()
    conflicts = [one for one in made.held if one.became is Became.CONFLICT]
    assert [one.host_name for one in conflicts] == ["eve"]
    assert "driver bridge" in conflicts[0].said
