"""Who is told what: only who shares an overlay, and nothing of ours is asked elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from myoverlay.plan import zone
from myoverlay.plan.zone import (
    AAAA,
    ANY,
    AXFR,
    DS,
    GONE,
    NS,
    PTR,
    A,
    Addresses,
    Directory,
    Empty,
    End,
    Forward,
    Ignore,
    Nobody,
    Pointer,
    Question,
    Refuse,
    Zone,
)

WEB = Zone(
    "web",
    "10.5.0.0/24",
    ends=(
        End("10.5.0.2", ("ann", "www"), "s-ann"),
        End("10.5.0.3", ("both",), "s-both"),
        End("10.5.0.4", ("bob", "www", "api.example.com")),
        End("10.5.0.5"),
    ),
)
DATA = Zone("data", "10.6.0.0/24", ends=(End("10.6.0.2", ("db",), "s-db"), End("10.6.0.3", ("both",), "s-both")))
INSIDE = Zone("in", "10.7.0.0/24", internal=True, ends=(End("10.7.0.2", ("vault",), "s-in"), End("10.7.0.3", (), "s-both")))  # fmt: skip # noqa: E501
#: The same subnet as web's, on another overlay.
TWIN = Zone("twin", "10.5.0.0/24", ends=(End("10.5.0.2", ("twin",), "s-twin"),))


@pytest.fixture
def directory() -> Directory:
    known = Directory()
    for one in (WEB, DATA, INSIDE, TWIN):
        known.show(one, 0.0)
    return known


def found(verdict: Any) -> set[str]:
    assert isinstance(verdict, Addresses), verdict
    return set(verdict.addresses)


@pytest.mark.parametrize(
    ("overlay", "source", "name", "kind", "verdict"),
    [
        ("web", "10.5.0.2", "ann", A, Addresses(("10.5.0.2",))),
        ("web", "10.5.0.2", "bob", A, Addresses(("10.5.0.4",))),
        ("web", "10.5.0.2", "bob", ANY, Addresses(("10.5.0.4",))),
        ("web", "10.5.0.2", "bob", AAAA, Empty()),
        ("web", "10.5.0.2", "api.example.com", A, Addresses(("10.5.0.4",))),
        # Another overlay's name, and nobody's: not asked elsewhere, since it has no dot.
        ("web", "10.5.0.2", "db", A, Nobody()),
        ("web", "10.5.0.2", "nobody", A, Nobody()),
        ("web", "10.5.0.2", "nobody", AAAA, Nobody()),
        # The root's delegations have no dot either.
        ("web", "10.5.0.2", "com", NS, Forward()),
        ("web", "10.5.0.2", "com", DS, Forward()),
        ("web", "10.5.0.2", "", NS, Forward()),
        ("web", "10.5.0.2", "www.example.com", A, Forward()),
        # An alias on another overlay takes a dotted name from nobody.
        ("data", "10.6.0.2", "api.example.com", A, Forward()),
        ("web", "10.5.0.2", "ann", AXFR, Refuse()),
        # The source alone says nothing: the twin has the same subnet.
        ("twin", "10.5.0.2", "twin", A, Addresses(("10.5.0.2",))),
        ("twin", "10.5.0.2", "ann", A, Nobody()),
        # Attached by hand: on that overlay all the same.
        ("web", "10.5.0.77", "ann", A, Addresses(("10.5.0.2",))),
        ("web", "10.5.0.77", "www.example.com", A, Forward()),
        # Forged, or asked where nobody is known.
        ("web", "10.6.0.2", "ann", A, Ignore()),
        ("gone", "10.5.0.2", "ann", A, Ignore()),
        ("in", "10.7.0.2", "vault", A, Addresses(("10.7.0.2",))),
        ("in", "10.7.0.2", "www.example.com", A, Refuse()),
        ("in", "10.7.0.2", "nobody", A, Nobody()),
        ("in", "10.7.0.2", "9.9.9.9.in-addr.arpa", PTR, Refuse()),
        # On an internal network, and on others too.
        ("in", "10.7.0.3", "www.example.com", A, Forward()),
        ("in", "10.7.0.3", "db", A, Addresses(("10.6.0.2",))),
        ("web", "10.5.0.2", "4.0.5.10.in-addr.arpa", PTR, Pointer("bob")),
        ("web", "10.5.0.2", "4.0.5.10.in-addr.arpa", A, Empty()),
        ("web", "10.5.0.2", "5.0.5.10.in-addr.arpa", PTR, Nobody()),
        ("web", "10.5.0.2", "99.0.5.10.in-addr.arpa", PTR, Nobody()),
        ("web", "10.5.0.2", "2.0.6.10.in-addr.arpa", PTR, Nobody()),
        ("web", "10.5.0.2", "8.8.8.8.in-addr.arpa", PTR, Forward()),
        ("web", "10.5.0.2", "0.5.10.in-addr.arpa", NS, Forward()),
        # From the host's own address: as if we were not there.
        ("", "172.17.0.2", "ann", A, Forward()),
        ("", "172.17.0.2", "nobody", A, Forward()),
        ("", "172.17.0.2", "2.0.5.10.in-addr.arpa", PTR, Nobody()),
        ("", "172.17.0.2", "ann", AXFR, Refuse()),
    ],
)
def test_who_is_told_what(directory: Directory, overlay: str, source: str, name: str, kind: int, verdict: Any) -> None:
    """Each kind of asker and question has the answer that the design gives it."""
    assert directory.decide(overlay, source, Question(name, kind), 1.0) == verdict


def test_a_container_on_several_networks_hears_of_all(directory: Directory) -> None:
    """Whichever of its networks the question comes in by."""
    for overlay, source in (("web", "10.5.0.3"), ("data", "10.6.0.3"), ("in", "10.7.0.3")):
        assert found(directory.decide(overlay, source, Question("db", A), 1.0)) == {"10.6.0.2"}
        assert found(directory.decide(overlay, source, Question("both", A), 1.0)) == {"10.5.0.3", "10.6.0.3"}


def test_several_containers_of_a_name_take_turns(directory: Directory) -> None:
    """All are told each time, and each is told first as often."""
    answers = [directory.decide("web", "10.5.0.3", Question("www", A), 1.0) for _ in range(10)]
    assert all(found(answer) == {"10.5.0.2", "10.5.0.4"} for answer in answers)
    firsts = [answer.addresses[0] for answer in answers if isinstance(answer, Addresses)]
    assert firsts.count("10.5.0.2") == firsts.count("10.5.0.4") == 5


def test_a_name_that_has_gone_is_answered_as_gone_for_a_while(directory: Directory) -> None:
    """Also one with dots is not asked elsewhere then; when it comes back it is answered at once."""
    less = Zone("web", WEB.subnet, ends=WEB.ends[:2], gone=("lost.example.com",))
    directory.show(less, 10.0)
    for name in ("api.example.com", "lost.example.com", "bob"):
        assert directory.decide("web", "10.5.0.2", Question(name, A), 11.0) == Nobody()
    assert directory.decide("web", "10.5.0.2", Question("api.example.com", A), 11.0 + GONE) == Forward()
    assert directory.decide("data", "10.6.0.2", Question("api.example.com", A), 11.0) == Forward()
    directory.show(WEB, 12.0)
    assert found(directory.decide("web", "10.5.0.2", Question("api.example.com", A), 12.0)) == {"10.5.0.4"}


def test_what_is_remembered_is_bounded() -> None:
    """Names that come and go without end do not fill the memory."""
    directory = Directory()
    for round_ in range(30):
        names = tuple(f"n{round_}-{n}" for n in range(500))
        directory.show(Zone("web", "10.5.0.0/24", ends=(End("10.5.0.2", names),)), float(round_))
    assert len(directory._gone["web"]) <= zone.GONE_LIMIT


def test_an_overlay_that_is_dropped_is_forgotten(directory: Directory) -> None:
    """Its names, and what of them had gone."""
    directory.drop("web")
    assert directory.decide("web", "10.5.0.2", Question("ann", A), 1.0) == Ignore()
    assert directory.decide("data", "10.6.0.3", Question("ann", A), 1.0) == Nobody()


def test_what_is_here_is_here() -> None:
    """Another host's word about an address of this one does not count, nor is it listed without names."""
    ends = zone.ends_of(
        [("10.5.0.2", ("ann",), "s")], {"10.5.0.2": ("impostor",), "10.5.0.3": ("bob",), "10.5.0.4": ()}
    )
    assert ends == (End("10.5.0.2", ("ann",), "s"), End("10.5.0.3", ("bob",)))
