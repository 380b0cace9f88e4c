"""What the miss loop does with many questions at once."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.errors import KernelRefused
from myoverlay.host.misses import Lookup, MissLoop
from myoverlay.plan import answers
from myoverlay.plan.gate import BURST
from myoverlay.store.records import LookedUp
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, Mac, Miss, Peer, Subnet

PEER = Peer(address=Address("10.5.9.9"), mac=Mac("02:42:0a:05:09:09"), vtep=Address("192.0.2.2"))


class _Local:
    """An overlay whose only peer is PEER; `said` is what was done, in its order."""

    def __init__(self, said: list[str]) -> None:
        self.said, self.eager, self.asked_present = said, False, 0
        self.view = SimpleNamespace(peers={PEER.address: PEER}, macs={PEER.mac: PEER})
        definition = SimpleNamespace(gateway=None, subnet=Subnet("10.5.0.0/16"))
        self.network = SimpleNamespace(overlay="web", definition=definition)

    def present(self) -> tuple[()]:
        self.asked_present += 1
        return ()

    def answer(self, peer: Peer) -> None:
        self.said.append(f"answer {peer.address}")


class _Lookup:
    """Admits the first two questions."""

    def __init__(self, said: list[str]) -> None:
        self.said, self.count = said, 0

    def ask(self, local: Any, ask: answers.Ask) -> bool:
        self.count += 1
        if self.count <= 2:
            self.said.append(f"ask {ask.address}")
        return self.count <= 2

    def has_room(self) -> bool:
        return self.count < 2


def step(misses: Sequence[Miss]) -> tuple[list[str], list[str], dict[tuple[str, str], int], _Local]:
    """What was done, what was noted, what was counted."""
    said: list[str] = []
    noted: list[str] = []
    tally, local = Tally(), _Local(said)
    overlays: Any = SimpleNamespace(by_socket=dict)
    loop = MissLoop(overlays, _Lookup(said), tally)  # type: ignore[arg-type]
    loop.on_miss = lambda _, miss, outcome: noted.append(f"{outcome} {miss.address or miss.mac}")
    ground = SimpleNamespace(misses=SimpleNamespace(read=lambda: list(misses)), ifindex=5)
    try:
        loop.step(local, ground)  # type: ignore[arg-type]
    finally:
        loop.stop(1)
    return said, noted, {key: count for key, count in tally.all().items() if count}, local


def nobody(number: int) -> Miss:
    return Miss(ifindex=5, address=Address(f"10.5.1.{number}"))


def test_who_is_known_is_answered_before_anybody_is_looked_for() -> None:
    """The valid question among many is the first to be dealt with, by address and by MAC, wherever it stands."""
    for valid in (Miss(ifindex=5, address=PEER.address), Miss(ifindex=5, mac=PEER.mac)):
        said, _, counts, _ = step([*map(nobody, range(100)), valid, *map(nobody, range(100, 200))])
        assert said == ["answer 10.5.9.9", "ask 10.5.1.0", "ask 10.5.1.1"]
        assert counts == {("misses", "pull"): 1, ("misses", "asked"): 2, ("misses", "limited"): 198}


def test_a_storm_leaves_one_note_a_batch_and_reads_this_host_once() -> None:
    """What was turned away is counted each, and noted once; what was done is noted each."""
    _, noted, _, local = step([nobody(number) for number in range(50)])
    assert noted == ["asked 10.5.1.0", "asked 10.5.1.1", "limited 10.5.1.49"]
    assert local.asked_present == 1


def test_who_was_asked_for_just_now_keeps_nobody_from_being_asked_for() -> None:
    """A question that is open is turned away by itself; where no more may be asked all that came with it are."""
    tally = Tally()
    lookup = Lookup(SimpleNamespace(), SimpleNamespace(), tally, lambda: 1.0)  # type: ignore[arg-type]
    overlays: Any = SimpleNamespace(by_socket=dict)
    loop, local = MissLoop(overlays, lookup, tally), _Local([])
    local.network.network = "n"
    asked = [nobody(1), nobody(1), nobody(2), *(Miss(ifindex=5, address=Address(f"10.5.2.{n}")) for n in range(250))]
    ground = SimpleNamespace(misses=SimpleNamespace(read=lambda: asked), ifindex=5)
    try:
        loop.step(local, ground)  # type: ignore[arg-type]
    finally:
        loop.stop(1)
    assert tally.all()["misses", "asked"] == BURST
    assert tally.all()["misses", "limited"] == len(asked) - BURST


def test_questions_of_another_device_are_left_alone() -> None:
    """A namespace may have others' devices too."""
    said, noted, counts, _ = step([Miss(ifindex=6, address=PEER.address)])
    assert (said, noted, counts) == ([], [], {})


@pytest.mark.parametrize("known", [True, False])
def test_the_list_of_a_known_host_is_read_without_asking_who_is_a_member(known: bool) -> None:
    """A packet waits for it. Where its list does not say it, the members are asked for."""
    fetched: list[set[str]] = []
    view = SimpleNamespace(peers={}, macs={}, lists={"h2": SimpleNamespace(value=SimpleNamespace(vtep=PEER.vtep))})

    def fetch(hosts: set[str]) -> None:
        fetched.append(hosts)
        if ("h2" if known else "h3") in hosts:
            view.peers[PEER.address] = PEER

    def members(*_: object, **__: object) -> dict[str, Any]:
        fetched.append({"members"})
        return {
            "h2": SimpleNamespace(vtep=PEER.vtep),
            "h3": SimpleNamespace(vtep=PEER.vtep),
            "h4": SimpleNamespace(vtep="x"),
        }

    answered: list[tuple[Peer, bool]] = []
    network = SimpleNamespace(network="n", overlay="web", definition=None, outsiders=False)
    local: Any = SimpleNamespace(
        view=view, network=network, eager=True, answer=lambda peer, learned: answered.append((peer, learned))
    )
    records: Any = SimpleNamespace(lookup=lambda *_, **__: LookedUp(PEER, True, {}), members=members)
    watch = SimpleNamespace(fetch=fetch, at_hand=dict, learn=lambda _: None)
    discovery: Any = SimpleNamespace(watch_of=lambda _: watch)
    lookup = Lookup(records, discovery, Tally())
    assert lookup.ask(local, answers.Ask(address=PEER.address))
    lookup.round()
    assert answered == [(PEER, True)]  # what was learned is programmed: the rows are there
    assert fetched == ([{"h2"}] if known else [{"h2"}, {"members"}, {"h3"}])


@pytest.mark.parametrize("listed", [True, False])
def test_in_a_small_overlay_one_question_is_enough(listed: bool) -> None:
    """All lists come with the index: who is in one is answered whatever the index says, who is in none is unknown."""
    answered: list[tuple[Peer, bool]] = []
    asked: list[Any] = []
    view = SimpleNamespace(peers={}, macs={}, lists={})

    def lookup(_definition: object, address: Address, near: object, **_: object) -> LookedUp:
        asked.append((address, near))
        return LookedUp(None, False, {HostId("a" * 32): PEER} if listed else {})  # type: ignore[dict-item]

    def learn(lists: dict[str, Peer]) -> None:
        view.peers.update({peer.address: peer for peer in lists.values()})

    network = SimpleNamespace(network="n", overlay="web", definition=None, outsiders=False)
    local: Any = SimpleNamespace(
        view=view, network=network, eager=False, answer=lambda peer, learned: answered.append((peer, learned))
    )
    watch = SimpleNamespace(at_hand=lambda: {"a": None}, learn=learn)
    one = Lookup(SimpleNamespace(lookup=lookup), SimpleNamespace(watch_of=lambda _: watch), Tally())  # type: ignore[arg-type]
    assert one.ask(local, answers.Ask(address=PEER.address))
    one.round()
    assert asked == [(PEER.address, {"a": None})]
    assert answered == ([(PEER, True)] if listed else [])


class _Asked:
    """A look-up that finds nobody, in an overlay where PEER is told of later; `told` are the answers."""

    def __init__(self) -> None:
        self.now = 1.0
        self.told: list[tuple[Peer, bool]] = []
        self.refuses = False
        self.view: Any = SimpleNamespace(peers={}, macs={}, lists={})
        network = SimpleNamespace(network="n", overlay="web", definition=None, outsiders=False)
        self.local: Any = SimpleNamespace(view=self.view, network=network, eager=True, answer=self._answer)
        self.on_lookup: Any = lambda: None
        self.discovery: Any = SimpleNamespace(watch_of=lambda _: None)
        records: Any = SimpleNamespace(lookup=self._look_up)
        self.lookup = Lookup(records, self.discovery, Tally(), lambda: self.now)
        assert self.lookup.ask(self.local, answers.Ask(address=PEER.address))

    def _answer(self, peer: Peer, learned: bool) -> None:
        self.told.append((peer, learned))
        if self.refuses:
            raise KernelRefused("setting a row", 1, "no")

    def _look_up(self, *_: object, **__: object) -> LookedUp:
        self.on_lookup()
        return LookedUp(None, False, {})

    def tell(self) -> None:
        """The store tells of PEER."""
        self.view.peers[PEER.address] = PEER
        self.discovery.on_known(self.local, None, self.view)


def test_who_is_told_of_after_he_was_asked_for_in_vain_is_passed_on_at_once() -> None:
    """The container that asked would ask again only after a second; who was passed on once is not so again."""
    asked = _Asked()
    asked.lookup.round()
    assert asked.told == []
    asked.tell()
    asked.tell()
    assert asked.told == [(PEER, True)]


@pytest.mark.parametrize("queued", [True, False])
def test_who_is_told_of_before_he_is_looked_for_is_passed_on(queued: bool) -> None:
    """Also while the question is still queued; after three seconds whoever waited has given up."""
    asked = _Asked()
    if not queued:
        asked.lookup.round()
    asked.now += 2.9
    asked.tell()
    assert asked.told == [(PEER, True)]


def test_who_is_told_of_long_after_he_was_asked_for_is_not_passed_on() -> None:
    """Whoever waits has asked again by then."""
    asked = _Asked()
    asked.lookup.round()
    asked.now += 3.0
    asked.tell()
    assert asked.told == []


def test_a_slow_look_up_that_finds_somebody_says_so() -> None:
    """However long it took: the watch, which came too late to pass him on, leaves that to it."""
    asked = _Asked()

    def tell() -> None:
        asked.now += 4.0
        asked.tell()

    asked.on_lookup = tell
    asked.lookup.round()
    assert asked.told == [(PEER, True)]


def test_one_that_the_kernel_refuses_keeps_nothing_from_being_noted(caplog: pytest.LogCaptureFixture) -> None:
    """Others are told of what the store said after that: it must not end there."""
    asked = _Asked()
    asked.refuses = True
    asked.lookup.round()
    asked.tell()
    assert asked.told == [(PEER, True)]
    assert "is not passed on: setting a row" in caplog.text


def test_who_is_told_of_while_he_is_looked_for_is_passed_on_once() -> None:
    """By whoever learned of him first."""
    asked = _Asked()
    asked.on_lookup = asked.tell
    asked.lookup.round()
    assert asked.told == [(PEER, True)]


def test_others_and_other_networks_are_left_alone() -> None:
    """What is told of another overlay, or of another address, answers nobody."""
    asked = _Asked()
    asked.lookup.round()
    other = SimpleNamespace(**{**vars(asked.local), "network": SimpleNamespace(network="m", overlay="web")})
    asked.discovery.on_known(other, None, SimpleNamespace(peers={PEER.address: PEER}))
    asked.discovery.on_known(asked.local, None, SimpleNamespace(peers={}))
    assert asked.told == []
    asked.tell()
    assert asked.told == [(PEER, True)]
