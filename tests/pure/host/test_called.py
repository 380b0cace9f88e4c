"""Names on their way from Docker to an endpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.host.called import _LIMIT, Called
from myoverlay.values import Address
from tests.pure.kit import DEMO

TWO, THREE = Address("10.5.0.2"), Address("10.5.0.3")


class FakeOverlays:
    """One network, whose endpoint e1 takes names."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.local = SimpleNamespace(network=SimpleNamespace(network="n1", overlay=DEMO), name=self.name)

    def name(self, endpoint: str, names: tuple[str, ...]) -> bool:
        news = endpoint == "e1" and names != self.names
        self.names = names if news else self.names
        return news

    def find(self, network: str) -> Any:
        return self.local if network == "n1" else None

    def all(self) -> tuple[Any, ...]:
        return (self.local,)


def made() -> tuple[Called, FakeOverlays, list[str]]:
    overlays, offered = FakeOverlays(), list[str]()
    return Called(overlays, offered.append), overlays, offered  # type: ignore[arg-type]


def test_a_hint_serves_once_and_for_its_address_alone() -> None:
    """Another pool's address, and the next endpoint with the address, are not called so."""
    called, _, _ = made()
    called.hint("p1", TWO, "Web")
    assert called.take("p1", THREE) == called.take("p2", TWO) == called.take(None, TWO) == ()
    assert called.take("p1", TWO) == ("web",)
    assert called.take("p1", TWO) == ()


def test_an_address_asked_for_without_a_name_has_none() -> None:
    """An engine before 29 says none; what an earlier holder was called is forgotten."""
    called, _, _ = made()
    called.hint("p1", TWO, "web")
    called.hint("p1", TWO, "")
    assert called.take("p1", TWO) == ()


def test_hints_that_nobody_takes_are_bounded() -> None:
    """The oldest go."""
    called, _, _ = made()
    for number in range(2 * _LIMIT):
        called.hint(f"p{number}", TWO, "web")
    assert called.take("p0", TWO) == ()
    assert called.take(f"p{2 * _LIMIT - 1}", TWO) == ("web",)


def test_what_docker_says_is_offered_where_it_is_news() -> None:
    """Once; bad names are left out; networks and endpoints of others are passed over."""
    called, overlays, offered = made()
    assert called.networks() == {"n1"}
    assert called.say("n1", "e1", ("Web", "no name", "www"))
    assert overlays.names == ("web", "www")
    assert not called.say("n1", "e1", ("web", "www"))
    assert not called.say("n2", "e1", ("x",))
    assert not called.say("n1", "e2", ("x",))
    assert offered == [DEMO]


def test_names_too_many_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """A ninth name, and one too long beside the others; what is no name is no news, nor what another network has."""
    called, overlays, _ = made()
    called.say("n1", "e1", ("web", "no name"))
    called.say("n2", "e9", tuple(f"n{n}" for n in range(9)))
    assert caplog.messages == []
    for _ in range(2):
        called.say("n1", "e1", ("web", *(f"n{n}" for n in range(9)), "n1"))
    (said,) = caplog.messages
    assert said == "endpoint e1 of web is not called n7, n8: it may have 8 names of 200 characters together"
    assert overlays.names == ("web", *(f"n{n}" for n in range(7)))
    long = ".".join(["a" * 60] * 3) + ".bb"
    called.say("n1", "e2", ("db", long, "c" * 30))
    assert caplog.messages[1].startswith(f"endpoint e2 of db is not called {'c' * 30}: ")
