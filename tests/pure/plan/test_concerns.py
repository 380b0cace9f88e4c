"""What calls a person, and what is said of another host: a table of situations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from myoverlay.plan.concerns import BUG, RECENT, RISING, Terms, ago, concerns, explained, few, patience, span
from myoverlay.plan.fates import State
from myoverlay.plan.sight import HeldSight, PeerSight
from myoverlay.tally import COUNTERS
from tests.pure.sights import overlay, peer, sight

TERMS = Terms(grace=60.0, lease_grace=600.0, port=4789)


def why(**changes: Any) -> tuple[str, bool]:
    known = explained(peer("bob", **changes), 100, 1450, TERMS)
    return known.why, known.wrong


@pytest.mark.parametrize(
    ("changes", "words", "wrong"),
    [
        ({}, "in the store, and its kernel answers", False),
        ({"heard": None, "since": 10.0}, "in the store; not asked yet", False),
        ({"heard": None, "since": 61.0}, "never answered through VXLAN: is UDP 4789 let through?", True),
        ({"heard": 59.0}, "its kernel answers", False),
        ({"heard": 61.0}, "silent since 61 s ago: is UDP 4789", True),
        ({"carries": False}, "packets of 1450 bytes do not come through, small ones do", True),
        ({"carries": True}, "its kernel answers", False),
        ({"state": State.PENDING, "heard": 90.0}, "its session is gone; its kernel is being asked", False),
        ({"state": State.CUT_OFF, "heard": 2.0}, "its kernel answered 2.0 s ago: rows, names and addresses stay", True),
        ({"state": State.DEAD, "since": 20.0}, "its rows go in 40 s, its addresses are kept for 10 min", True),
        ({"state": State.DEAD, "since": 60.0}, "its rows went, its addresses are kept for 9 min", True),
        ({"state": State.DEAD, "since": 600.0}, "its rows went, its addresses may be given anew", True),
    ],
)  # fmt: skip
def test_why_a_host_is_what_it_is(changes: dict[str, Any], words: str, wrong: bool) -> None:
    """Each state has its reason in words, and says whether a person has to see to it."""
    said, calls = why(**changes)
    assert words in said
    assert calls is wrong


def test_patience_grows_with_the_hosts() -> None:
    """Fifty packets a second reach 10,000 hosts in 200 s: a host is not silent before its turn came four times."""
    assert patience(1) == patience(700) == 60.0
    assert patience(10_000) == 800.0


def test_a_host_that_is_well_calls_nobody() -> None:
    """All green: no concern, whatever benign things were counted."""
    counts = {("misses", "local"): 9, ("session", "opened"): 1, ("watch_rounds", "change"): 3}
    assert concerns(sight(counts=counts, ages=dict.fromkeys(counts, 0.0))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"barred": "host eve uses the VTEP as well"}, ["this host takes no part: host eve uses the VTEP as well"]),
        ({"store": {"answers": False, "since": 12.0, "failure": "refused"}}, ["has not answered for 12 s: refused"]),
        ({"store": {"answers": False, "since": 3.0, "failure": "refused"}}, []),
        ({"store": {"failed": 5.0, "failure": "it says permission denied: a/b"}}, ["permission denied: a/b"]),
        ({"store": {"failed": 5.0, "failure": "it did not answer"}}, []),
        ({"session": False}, ["no session in the store"]),
        ({"session": False, "started": 10.0}, []),
        ({"store": {"unreadable": {"a/b": "no JSON", "a/c": "x"}}}, ["the key a/b in the store cannot be read"]),
        ({"peers": (peer("x", state=State.DEAD), peer("y", state=State.DEAD))}, ["2 hosts are dead: x, y"]),
        ({"peers": (peer("x", state=State.CUT_OFF),)}, ["1 host is cut off: x"]),
        ({"peers": (peer("x", state=State.PENDING),)}, []),
        ({"peers": (peer("x", wrong=True, why="too narrow"),)}, ["1 host is not reached as"]),
        ({"overlays": (overlay("web", built=False),)}, ["not built on this host: web"]),
        ({"overlays": (overlay("web", heard=151.0),)}, ["what changes elsewhere is not heard of: web"]),
        ({"overlays": (overlay("web", heard=None),)}, []),
        ({"compared": 61.0}, ["the kernel was compared last 61 s ago"]),
        ({"unguarded": "no nf_tables"}, ["VXLAN is taken from anyone: no nf_tables"]),
        ({"overlays": (overlay("web", unbound="no nft"),)}, ["containers may speak under any address: web: no nft"]),
        ({"heartbeat_trouble": "no VTEP yet"}, ["the other hosts cannot be asked: no VTEP yet"]),
        ({"held": (HeldSight(kind="link", overlay="web", count=60),)}, ["60 things nobody asks for wait for a word"]),
        ({"names": {"resolver": {"process": 7, "troubles": ["port 53 is taken"]}}}, ["names: port 53 is taken"]),
        ({"names": {"resolver": {"process": None, "troubles": []}}}, ["names are not answered"]),
        ({"names": {"docker": {"followed": False, "trouble": "away"}}}, ["Docker is not heard: away"]),
        ({"names": {"catalogue": {"trouble": "denied"}}}, ["Consul's catalogue: denied"]),
        ({"metrics_at": "http://x", "metrics_trouble": "in use"}, ["metrics are not served at http://x: in use"]),
    ],
)  # fmt: skip
def test_what_calls_a_person(changes: dict[str, Any], words: list[str]) -> None:
    """Each situation gives its own sentences, in their order, each with a remedy; nothing else is said beside."""
    found = concerns(sight(**changes))
    assert len(found) == len(words), found
    for concern, expected in zip(found, words, strict=True):
        assert expected in concern.what
        assert concern.remedy


@pytest.mark.parametrize(("name", "label", "recent", "what", "remedy"), RISING)
def test_a_fault_calls_while_it_is_recent(name: str, label: str | None, recent: float, what: str, remedy: str) -> None:
    """A counted fault is told of for a while, with how often and how long ago; later it is history."""
    key = (name, label or "x")
    assert name in COUNTERS
    (found,) = concerns(sight(counts={key: 3}, ages={key: recent - 1}))
    assert found.what.startswith(f"{what}: 3 since the start, the last ")
    assert concerns(sight(counts={key: 3}, ages={key: recent + 1})) == []
    assert recent in (RECENT, BUG)


def test_a_label_that_is_benign_calls_nobody() -> None:
    """Only `late` of the misses does."""
    key = ("misses", "pull")
    assert concerns(sight(counts={key: 3}, ages={key: 0.0})) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "0.0 s"),
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (119.0, "119 s"),
        (600.0, "10 min"),
        (7200.0, "2 h"),
        (2e5, "2 d"),
    ],
)
def test_times_read_as_people_say_them(seconds: float, words: str) -> None:
    """From tenths of a second to days."""
    assert span(seconds) == words
    assert ago(seconds) == f"{words} ago"
    assert ago(None) == "never"


def test_few_names_stand_for_many() -> None:
    """Three in their order, and how many more."""
    assert few(["d", "b", "a", "c", "e"]) == "a, b, c and 2 more"


def test_a_sight_keeps_what_it_was_told() -> None:
    """Explaining changes nothing but the reason."""
    known = peer("bob")
    said = explained(known, 1, 1450, TERMS)
    assert isinstance(said, PeerSight)
    assert msgspec.structs.replace(said, why="", wrong=False) == known
