"""Who is meant by a word: here, on this host's overlays elsewhere, and among the containers of all other hosts."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from myoverlay.operate.seek import PATIENCE, Seeker
from myoverlay.path import FOUND, LONGEST, End, Found, Seek, Sought
from myoverlay.values import Address, HostId, Mac, OverlayName, decoder, encode
from tests.pure.kit import BOB, EVE
from tests.pure.paper import Site, at

WEB, RED = OverlayName("web"), OverlayName("red")


def found(word: str, host: HostId, overlay: OverlayName = RED, **more: Any) -> Found:
    end = End(address=Address("10.9.0.2"), mac=Mac("02:42:0a:09:00:02"), vtep=Address("192.0.2.9"), host=host)
    return Found(word=word, overlay=overlay, end=end, **more)


class Others:
    """Plays those who are asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[HostId, Sought] = {}
        self.asked: list[Seek] = []

    def ask(self, question: Seek, hosts: Any, deadline: float, patience: float) -> dict[HostId, Sought]:
        assert set(hosts) == {BOB, EVE}
        assert patience == PATIENCE
        self.asked.append(question)
        return self.answers


@pytest.fixture
def others() -> Others:
    return Others()


@pytest.fixture
def seeker(others: Others) -> Seeker:
    site = Site()
    return Seeker(site.me, site.of().overlays, cast(Any, others), lambda: (BOB, EVE))


def test_who_is_known_here(seeker: Seeker) -> None:
    """By name, address or the begin of its endpoint's id, here; by the first two elsewhere on its overlays."""
    own = next(iter(seeker.known("app-0-1", "")))
    assert (own.end.address, own.names, own.overlay) == (at(0, 1), ("app-0-1",), WEB)
    assert [one.end.address for one in seeker.known("app-2-0", "")] == [at(2, 0)]
    assert [one.end.address for one in seeker.known(str(at(1, 1)), "web")] == [at(1, 1)]
    assert seeker.known("app-0-1", "red") == seeker.known("nobody", "") == []


def test_an_id_means_its_endpoint_from_six_letters_on(others: Others) -> None:
    """Shorter, it may be a name."""
    site = Site()
    site.local.own[0] = msgspec.structs.replace(site.local.own[0], endpoint="c0ffee" + "7" * 58)
    seeker = Seeker(site.me, site.of().overlays, cast(Any, others), tuple)
    for word, meant in (("c0ffee" + "7" * 58, True), ("c0ffee", True), ("c0ffe", False), ("c0ffee8", False)):
        assert [one.end.address for one in seeker.known(word, "")] == [at(0, 0)] * meant


def test_a_host_tells_of_its_own_containers_alone(seeker: Seeker) -> None:
    """Not of those it knows elsewhere; who has none that is meant says nothing, and of many no more than a few."""
    ask = {"id": f"{1:032x}", "asker": BOB}
    said = seeker.look(Seek(**ask, words=("app-0-0", "app-1-0", "nobody")))
    assert said is not None
    assert [(one.word, one.end.address) for one in said.found] == [("app-0-0", at(0, 0))]
    assert seeker.look(Seek(**ask, words=("app-1-0",))) is None
    assert seeker.look(Seek(**ask, words=("app-0-0",), overlay="red")) is None
    assert seeker.look(Seek(**ask, words=())) is None


def test_what_others_found_is_theirs(seeker: Seeker, others: Others) -> None:
    """A host that speaks of another's container, or of a word that nobody asked for, is not believed."""
    others.answers = {
        BOB: Sought(host=BOB, found=(found("db", BOB, names=("db",)), found("db", EVE), found("other", BOB))),
        EVE: Sought(host=EVE),
    }
    told = seeker.ask(("db", "x" * (LONGEST + 1)), "", 0.0)
    assert {word: [(one.end.host, one.names) for one in meant] for word, meant in told.items()} == {
        "db": [(BOB, ("db",))]
    }
    (question,) = others.asked
    assert question.words == ("db",)


def test_answers_are_bounded() -> None:
    """What an enemy writes is set aside."""
    read = decoder(Sought)
    one = encode(found("db", BOB)).decode()
    assert read(f'{{"host": "{BOB}", "found": [{one}]}}'.encode()).found[0].word == "db"
    for bad in (
        f'{{"host": "{BOB}", "found": [{",".join([one] * (FOUND + 1))}]}}',
        f'{{"host": "{BOB}", "found": [{one.replace("db", "d" * (LONGEST + 1))}]}}',
        f'{{"host": "x", "found": [{one}]}}',
    ):
        with pytest.raises(ValueError, match=r".+"):
            read(bad.encode())
