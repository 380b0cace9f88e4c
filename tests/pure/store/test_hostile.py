"""Every kind of value that is read from the store, as an enemy would write it: bad, or harmless, and never a crash.

Each example begins as a right value, of which one part is made another: that comes further than bytes at random.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myoverlay.networks import Answer, Became, Cannot, Carry, HeldNetwork, NetworkPlan, Question
from myoverlay.outlook import About, Glance, Look, Outlook, TableRow, Tables
from myoverlay.path import End, Found, Hop, PathAnswer, PathQuestion, Seek, Sought, State, Tunnel
from myoverlay.store.metered import Metered
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.outlooks import OutlookRecords
from myoverlay.store.paths import PathRecords, SeekRecords
from myoverlay.store.presence import Incarnation, Presence
from myoverlay.store.records import Member, Records, VniHolder
from myoverlay.store.rings import Ring
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import (
    Address,
    Alive,
    HostList,
    Lease,
    Mac,
    Pool,
    Record,
    decoder,
    encode,
)
from tests.pure.kit import ANN, BOB, DEMO, PREFIX, SUBNET, definition, put

ID, X, VTEP, MAC = "f" * 32, Address("10.5.0.3"), Address("192.0.2.1"), Mac("02:42:0a:05:00:03")
END = End(address=X, mac=MAC, vtep=VTEP, host=ANN)
#: A right value of each kind that lies in the store.
VALUES: tuple[Any, ...] = (
    Alive(host=ANN, name="ann", vteps=(VTEP,), version="1"),
    HostList(
        host=ANN, overlay=DEMO, vtep=VTEP, records=(Record(address=X, mac=MAC, generation=1, names=("db",)),), serial=2
    ),
    definition(holders=(ANN,)),
    Member(name="ann", vtep=VTEP),
    VniHolder(overlay=DEMO, subnet=SUBNET),
    Ring(last=2, hosts=(ANN, BOB)),
    Pool(subnet=SUBNET, overlay=DEMO, users=(ANN,)),
    Lease(address=X, use="endpoint", hosts=(ANN,), wanted=BOB),
    Incarnation(id=ID, count=2, born=3),
    NetworkPlan(name=DEMO, id=ID, subnet=SUBNET, options={"vni": "7"}, labels={"a": "b"}, aux={"dns": X}, maker="ann"),
    HeldNetwork(host=ANN, network=DEMO, plan=ID, became=Became.FAILED, said="it is so", host_name="ann"),
    Question(
        id=ID,
        asker=ANN,
        overlay=DEMO,
        area=SUBNET,
        vnis=(7,),
        port=4789,
        mtu=1450,
        carry=(Carry(overlay=DEMO, vni=7, port=4789),),
    ),
    Answer(
        host=ANN,
        name="ann",
        routes=(SUBNET,),
        taken={7: "web"},
        silent=(BOB,),
        unsure=("x",),
        cannot=(Cannot(overlay=DEMO, holder="x"),),
    ),
    PathQuestion(id=ID, asker=ANN, overlay=DEMO, source=END, target=END),
    PathAnswer(
        host=ANN,
        name="ann",
        hops=(Hop(name="br0", state=State.RIGHT, saw="up"),),
        here=(END,),
        tunnel=Tunnel(vni=7, port=1, mtu=2),
    ),
    Seek(id=ID, asker=ANN, words=("db",), overlay="demo"),
    Sought(host=ANN, found=(Found(word="db", overlay=DEMO, end=END, names=("db",)),)),
    Look(id=ID, asker=ANN, about=(About(host=BOB, overlay=DEMO, keys=("x",)),)),
    Outlook(
        host=ANN,
        name="ann",
        glances=(Glance(BOB, "alive", 0.1, 0.0, True),),
        tables=(Tables(overlay=DEMO, rows=(TableRow("arp", "a", "b", "permanent"),), ports={X: "p1"}),),
    ),
)

#: What stands instead of one part of it.
parts = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=9).map(str),
    st.sampled_from(
        ["", "\x1b[2J", "\r\n", "x" * 5000, "../..", "10.5.0.0/24", "::1", "224.0.0.1", "0.0.0.0", "9" * 4000, "\ud7ff"]
    ),
    st.lists(st.sampled_from(["10.5.0.3", ANN, 1, None]), max_size=400),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inner:
        yield from _places(value, (*path, name))


def _with(tree: Any, path: tuple[Any, ...], part: Any) -> Any:
    if not path:
        return part
    copy = tree.copy()
    copy[path[0]] = _with(tree[path[0]], path[1:], part)
    return copy


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value that was read."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name))


#: Longer and odder texts than these are said to nobody: words of a search stand in JSON alone.
LONGEST, SPOKEN = 1000, ("Found", "Seek", "Sought", "Look", "Outlook")


@pytest.mark.parametrize("right", VALUES, ids=lambda value: type(value).__name__)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_read_is_right_or_harmless(right: Any, data: st.DataObject) -> None:
    """One part is another: it is refused in one short sentence, or what comes of it is bounded and shows no tricks."""
    kind = type(right)
    tree = json.loads(encode(right))
    path = data.draw(st.sampled_from(list(_places(tree))))
    raw = json.dumps(_with(tree, path, data.draw(parts))).encode()
    try:
        read = decoder(kind)(raw)
    except ValueError:
        return
    assert decoder(kind)(encode(read)) == read
    for text in _texts(read):
        assert len(text) <= LONGEST
        assert not set(map(unicodedata.category, text)) & {"Cc", "Cs", "Zl", "Zp"} or kind.__name__ in SPOKEN


@pytest.mark.parametrize("kind", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_no_value_at_all(kind: Any) -> None:
    """Too deep, too long, other text than UTF-8, numbers of thousands of digits: a ValueError, whatever it is."""
    read = decoder(type(kind))
    for raw in (
        b"",
        b"\xff" * 100,
        b"[" * 100_000,
        b'{"x":' * 50_000,
        b"9" * 5_000,
        b"null",
        b"[]",
        b'"x"',
        encode(kind)[:-1],
        encode(kind) + b"x",
        b'{"last":' + b"9" * 5_000 + b"}",
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - which words is not the point
            read(raw)


Read = Callable[[Metered], object]
#: A key of each kind, and what reads it.
READERS: dict[str, tuple[str, Read]] = {
    "alive": (f"alive/{ANN}", lambda s: Presence(s, PREFIX, BOB).alive()),
    "list": (f"hosts/{ANN}/overlays/demo", lambda s: Records(s, PREFIX, BOB).lists(DEMO, [ANN])),
    "definition": ("overlays/demo/definition", lambda s: Records(s, PREFIX, BOB).definition(DEMO)),
    "member": (f"overlays/demo/members/{ANN}", lambda s: Records(s, PREFIX, BOB).members(DEMO)),
    "changes": ("overlays/demo/changes/1", lambda s: Records(s, PREFIX, BOB).changes(DEMO, 0, timeout=1)),
    "arp": ("overlays/demo/records/arp/10.5.0.3", lambda s: Records(s, PREFIX, BOB).lookup(definition(), X)),
    "fib": (f"overlays/demo/records/fib/{MAC}", lambda s: Records(s, PREFIX, BOB).lookup_mac(definition(), MAC)),
    "pool": ("subnets/10.5.0.0-24", lambda s: Records(s, PREFIX, BOB).pools()),
    "lease": ("pools/10.5.0.0-24/10.5.0.3", lambda s: Records(s, PREFIX, BOB).leases(SUBNET)),
    "vni": ("vni/7", lambda s: Records(s, PREFIX, BOB).vnis()),
    "incarnation": ("incarnation", lambda s: Presence(s, PREFIX, BOB).incarnation()),
    "plan": ("networks/demo", lambda s: NetworkRecords(s, PREFIX, BOB).plans()),
    "held": (f"hosts/{ANN}/networks/demo", lambda s: NetworkRecords(s, PREFIX, BOB).everywhere()),
    "ask": (f"incarnation/asks/{ID}", lambda s: NetworkRecords(s, PREFIX, BOB).questions(0, timeout=1)),
    "answer": (f"answers/{ID}/{ANN}", lambda s: NetworkRecords(s, PREFIX, BOB).answers(ID, 0, timeout=1)),
    "path": (f"incarnation/paths/{ID}", lambda s: _entries(s, PathRecords(s, PREFIX, BOB).question)),
    "path answer": (f"path-answers/{ID}/{ANN}", lambda s: PathRecords(s, PREFIX, BOB).answers(ID, 0, timeout=1)),
    "seek": (f"incarnation/seeks/{ID}", lambda s: _entries(s, SeekRecords(s, PREFIX, BOB).question)),
    "seek answer": (f"seek-answers/{ID}/{ANN}", lambda s: SeekRecords(s, PREFIX, BOB).answers(ID, 0, timeout=1)),
    "look": (
        f"incarnation/looks/{ANN}",
        lambda s: OutlookRecords(s, PREFIX, BOB).looks(s.list(f"{PREFIX}/incarnation").entries),
    ),
    "outlook": (f"outlooks/{ANN}", lambda s: OutlookRecords(s, PREFIX, BOB).told()),
}


def _entries(store: Metered, read: Callable[[Any], object]) -> None:
    for entry in store.list(f"{PREFIX}/incarnation").entries:
        read(entry)


@pytest.mark.parametrize(("key", "read"), READERS.values(), ids=READERS)
def test_each_kind_of_key_is_quarantined_and_counted(tmp_path: Path, key: str, read: Read) -> None:
    """The reader goes on, the key is named for `status`, whoever read it; it counts once, not with each reading."""
    counted: list[int] = []
    inner = SqliteStore(tmp_path / "store.db")
    store = Metered(inner, bad=lambda: counted.append(1))
    bad = f"{PREFIX}/{key}"
    for number, value in enumerate((b"\xff\x00", b"[" * 100_000, b'{"host": 7, "last": "x", "use": "x"}'), 1):
        put(inner, bad, value)
        for _ in range(3):
            read(store)
        assert list(store.quarantine) == [bad]
        assert len(counted) <= number
    assert counted
    assert list(Records(store, PREFIX, BOB).unreadable(60.0)) == [bad], "what others read is told as well"
    inner.close()


def test_a_ring_is_no_longer_than_rings_are() -> None:
    """A watcher reads the list of every host that a ring names: one of thousands would have it read them all."""
    assert decoder(Ring)(encode(Ring(last=9, hosts=(ANN,) * 32))).last == 9
    raw = json.dumps({"last": 9, "hosts": [ANN] * 33}).encode()
    with pytest.raises(ValueError, match="32"):
        decoder(Ring)(raw)
