"""Records that people write by hand, in the tutorial's format."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from myoverlay.cli.main import cli
from myoverlay.store import Entry, Put
from myoverlay.store.consul import ConsulStore
from myoverlay.store.pooled import MARK
from tests.pure.store.fake_consul import FakeConsul

MAC = "02:42:c0:a8:00:03"


@pytest.fixture
def store(fake: FakeConsul) -> Iterator[ConsulStore]:
    store = ConsulStore(fake.address)
    yield store
    store.close()


def say(fake: FakeConsul, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["record", *words], env={"CONSUL_HTTP_ADDR": fake.address})
    assert done.exit_code == code, done.output
    return done.output


def entries(store: ConsulStore) -> dict[str, Entry]:
    return {entry.key: entry for entry in store.list("demo-1/").entries}


def test_both_records_are_written_together(fake: FakeConsul, store: ConsulStore) -> None:
    """ARP and FIB come in one transaction, plain text under the tutorial's keys, without our mark."""
    say(fake, "add", "192.168.0.3", "--vtep", "192.0.2.2")
    found = entries(store)
    assert {key: entry.value for key, entry in found.items()} == {
        "demo-1/arp/192.168.0.3": MAC.encode(),
        f"demo-1/fib/{MAC}": b"192.0.2.2",
    }
    assert {entry.flags for entry in found.values()} == {0}
    assert len({entry.index for entry in found.values()}) == 1
    assert "as before" in say(fake, "add", "192.168.0.3", "--vtep", "192.0.2.2")
    assert entries(store) == found


def test_what_somebody_else_wrote_stays(fake: FakeConsul, store: ConsulStore) -> None:
    """Another value is refused by name until `--replace`; a plugin host's record is refused always."""
    store.commit([Put("demo-1/arp/192.168.0.3", b"02:00:00:00:00:01")])
    words = ("add", "192.168.0.3", "--vtep", "192.0.2.2")
    assert "demo-1/arp/192.168.0.3 says 02:00:00:00:00:01" in say(fake, *words, code=1)
    assert list(entries(store)) == ["demo-1/arp/192.168.0.3"]
    say(fake, *words, "--replace")
    assert entries(store)["demo-1/arp/192.168.0.3"].value == MAC.encode()
    store.commit([Put("demo-1/arp/192.168.0.4", b"02:00:00:00:00:04", MARK)])
    for refused in (("add", "192.168.0.4", "--vtep", "192.0.2.2", "--replace"), ("del", "192.168.0.4")):
        assert "runs the plugin" in say(fake, *refused, code=1)
    assert entries(store)["demo-1/arp/192.168.0.4"].value == b"02:00:00:00:00:04"


def test_removal_takes_both_and_no_more(fake: FakeConsul, store: ConsulStore) -> None:
    """The MAC's record goes with its last address; a removal of nothing is no failure."""
    for address in ("192.168.0.3", "192.168.0.4"):
        say(fake, "add", address, MAC, "--vtep", "192.0.2.2", "--records", "demo-1")
    store.commit([Put("demo-1/other", b"x"), Put("demo-10/arp/192.168.0.3", b"x")])
    say(fake, "del", "192.168.0.3")
    assert set(entries(store)) == {"demo-1/arp/192.168.0.4", f"demo-1/fib/{MAC}", "demo-1/other"}
    assert "is removed" in say(fake, "del", "192.168.0.4")
    assert set(entries(store)) == {"demo-1/other"}
    assert "was not there" in say(fake, "del", "192.168.0.4")
    assert store.get("demo-10/arp/192.168.0.3") is not None


def test_listing(fake: FakeConsul, store: ConsulStore) -> None:
    """Halves are shown as such, and who wrote each; what is no address does not stop it."""
    say(fake, "add", "192.168.0.3", "--vtep", "192.0.2.2")
    store.commit([Put("demo-1/arp/192.168.0.4", b"02:00:00:00:00:04\n", MARK)])
    store.commit([Put("demo-1/fib/02:00:00:00:00:05", b"\xff\xfe")])
    found = json.loads(say(fake, "ls", "--json"))
    assert found == [
        {"address": "192.168.0.3", "mac": MAC, "vtep": "192.0.2.2", "plugin": False},
        {"address": "192.168.0.4", "mac": "02:00:00:00:00:04", "vtep": None, "plugin": True},
        {"address": "", "mac": "02:00:00:00:00:05", "vtep": "\ufffd\ufffd", "plugin": False},
    ]
    table = say(fake, "ls").splitlines()
    assert table[0].split() == ["ADDRESS", "MAC", "VTEP", "BY"]
    assert table[2].split() == ["192.168.0.4", "02:00:00:00:00:04", "-", "plugin"]


def test_a_place_that_would_reach_everybodys_keys(fake: FakeConsul) -> None:
    """An empty place, or one with a slash at its end, is refused in a sentence."""
    for place in ("", "demo-1/", "/demo"):
        assert "no place for records" in say(fake, "ls", "--records", place, code=1)
