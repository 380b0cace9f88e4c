"""What is put down of calls, misses and the store's changes, and how it is followed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from myoverlay.docker.app import create_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.host.hearing import Event
from myoverlay.host.view import View
from myoverlay.operate.recorder import KINDS, Recorder
from myoverlay.operate.recording import MANY, Follow, Recording
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import Address, HostList, Mac, Miss, OverlayName, Peer, Record
from tests.pure.kit import BOB, EVE, Clock, network

WEB: Any = SimpleNamespace(network=network())


class Site:
    """A recorder behind the application, and an overlay `demo`."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.here = [WEB]
        overlays: Any = SimpleNamespace(all=lambda: tuple(self.here))
        peers: Any = SimpleNamespace(known=SimpleNamespace(names={BOB: "bob"}))
        self.recorder = Recorder(limit, Clock(1000.0))
        self.recording = Recording(self.recorder, overlays, peers)
        nobody: Any = SimpleNamespace()
        drivers = NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody)
        self.client = create_app(*drivers, Tally(), self.recording.methods(), self.recording.called).test_client()

    def post(self, method: str, **body: Any) -> Any:
        return self.client.post(f"/{method}", data=json.dumps(body)).get_json()

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.recorder.everything()]


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_call_is_noted_with_whom_it_is_about(site: Site) -> None:
    """Method, network and its overlay, endpoint, milliseconds, status; the sentence of a refusal too."""
    site.post(
        "NetworkDriver.ProgramExternalConnectivity", NetworkID=WEB.network.network, EndpointID="e" * 64, Options={}
    )
    site.post("NetworkDriver.AllocateNetwork", NetworkID="f" * 64)
    good, bad = site.notes()
    assert good.pop("ms") >= 0
    assert good == {
        "at": 1000.0, "kind": "call", "overlay": "demo", "method": "NetworkDriver.ProgramExternalConnectivity",
        "network": WEB.network.network[:12], "endpoint": "e" * 12, "status": 200, "said": "",
    }  # fmt: skip
    assert (bad["status"], bad["overlay"]) == (400, "")
    assert "belong to their host" in bad["said"]


def test_nothing_else_of_a_call_is_kept(site: Site) -> None:
    """Options, which people may put anything into, are not in it; bodies that are no JSON are noted as refused."""
    site.post(
        "NetworkDriver.ProgramExternalConnectivity", NetworkID="f" * 64, EndpointID="e", Options={"token": "s3cret"}
    )
    site.client.post("/NetworkDriver.Join", data=b"\xff{")
    site.client.post("/NetworkDriver.Leave", data=b"")
    assert b"s3cret" not in b"".join(site.recorder.everything())
    assert [note["status"] for note in site.notes()] == [200, 400, 400]


def test_our_own_commands_are_not_noted(site: Site) -> None:
    """Who follows is not what he follows."""
    assert site.post("Control.Watch")["last"] == 0
    assert site.notes() == []


def test_a_network_that_went_is_still_called_by_its_overlay(site: Site) -> None:
    """DeleteNetwork is answered when the network is gone; the note says on which overlay it was."""
    about = {"NetworkID": WEB.network.network, "EndpointID": "e" * 64, "Options": {}}
    site.post("NetworkDriver.ProgramExternalConnectivity", **about)
    site.here.clear()
    site.post("NetworkDriver.RevokeExternalConnectivity", **about)
    assert [note["overlay"] for note in site.notes()] == ["demo", "demo"]


def records(*numbers: int, mac: int = 0) -> tuple[Record, ...]:
    return tuple(Record(address=Address(f"10.5.0.{n}"), mac=Mac(f"02:42:0a:05:{mac:02x}:{n:02x}")) for n in numbers)


def listed(*numbers: int, vtep: str = "192.0.2.2", mac: int = 0) -> Held[HostList]:
    overlay = OverlayName("demo")
    return Held(HostList(host=BOB, overlay=overlay, vtep=Address(vtep), records=records(*numbers, mac=mac)), 1)


def changes(site: Site, before: View, after: View) -> list[tuple[str, str]]:
    known = len(site.notes())
    site.recording.learned(WEB, before, after)
    return [(note["change"], note.get("address", "")) for note in site.notes()[known:]]


def test_changes_of_the_store_are_told_one_by_one(site: Site) -> None:
    """Hosts and containers that came, went or are another; what was read again and is the same is no change."""
    none, one = View(), View(lists={BOB: listed(2)})
    assert changes(site, none, one) == [("host came", ""), ("came", "10.5.0.2")]
    same = View(lists=dict(one.lists or {}))
    assert changes(site, one, same) == []
    again = View(lists={BOB: listed(2)})
    assert changes(site, one, again) == []
    assert changes(site, one, View(lists={BOB: listed(2, 3)})) == [("came", "10.5.0.3")]
    assert changes(site, one, View(lists={BOB: listed(2, mac=7)})) == [("changed", "10.5.0.2")]
    assert changes(site, one, View(lists={BOB: listed(2, vtep="192.0.2.9")})) == [("host moved", "")]
    assert changes(site, one, View(lists={})) == [("host went", ""), ("went", "10.5.0.2")]
    assert {note["host"] for note in site.notes()} == {"bob"}
    assert {note["overlay"] for note in site.notes()} == {"demo"}


def test_a_first_listing_of_many_is_one_note(site: Site) -> None:
    """A host with more than a few containers does not push everything else out of the ring."""
    numbers = range(2, MANY + 4)
    assert changes(site, View(), View(lists={BOB: listed(*numbers)})) == [
        ("host came", ""),
        (f"{len(numbers)} containers changed", ""),
    ]


def test_outsiders_are_told_too(site: Site) -> None:
    """A key that somebody PUT is a change of the store as well."""
    peer = Peer(address=Address("10.5.0.9"), mac=Mac("02:42:0a:05:00:09"), vtep=Address("192.0.2.7"))
    assert changes(site, View(outsiders=()), View(outsiders=(peer,))) == [("came", "10.5.0.9")]
    assert site.notes()[-1]["host"] == "an outsider"
    assert changes(site, View(lists={EVE: listed(2)}), View(lists={EVE: listed(2)}, outsiders=())) == []


def test_misses_are_told_with_what_became_of_them(site: Site) -> None:
    """L3 by address, L2 by MAC, and what the store was asked for."""
    site.recording.heard(WEB, Miss(ifindex=3, address=Address("10.5.0.3")), "late")
    site.recording.heard(WEB, Miss(ifindex=3, mac=Mac("02:42:0a:05:00:03")), "asked")
    site.recording.missed(WEB, Address("10.5.0.3"), None, "found")
    assert [(n["layer"], n.get("address") or n.get("mac"), n["outcome"]) for n in site.notes()] == [
        (3, "10.5.0.3", "late"), (2, "02:42:0a:05:00:03", "asked"), (3, "10.5.0.3", "found"),
    ]  # fmt: skip


def test_the_kernels_events_are_told(site: Site) -> None:
    """Rows and links lost or foreign, overruns, and repairs with their reason: each with what it happened to."""
    site.recording.happened(WEB, [Event("row gone", "10.5.0.3 lladdr x"), Event("link gone", "vxlan1")])
    site.recording.overran(WEB)
    site.recording.repaired("demo", "missing row", ["10.5.0.3 lladdr x"])
    site.recording.repaired("", "surplus link", ["mo0123"])
    assert {note["kind"] for note in site.notes()} == {"kernel"}
    assert [(note["overlay"], note["event"], note.get("reason", "")) for note in site.notes()] == [
        ("demo", "row gone", ""), ("demo", "link gone", ""), ("demo", "overrun", ""),
        ("demo", "repaired", "missing row"), ("", "repaired", "surplus link"),
    ]  # fmt: skip
    assert [note["thing"] for note in site.notes()][:2] == ["10.5.0.3 lladdr x", "vxlan1"]
    got = site.post("Control.Watch", after=0, run=site.recorder.run, kinds=["kernel"], overlay="demo")
    assert len(got["notes"]) == 4


def test_many_events_of_one_kind_are_one_note(site: Site) -> None:
    """A table that somebody emptied does not push everything else out of the ring."""
    gone = [Event("row gone", f"10.5.0.{n}") for n in range(MANY + 1)]
    site.recording.happened(WEB, [*gone, Event("link gone", "vxlan1")])
    site.recording.repaired("demo", "missing row", [event.thing for event in gone])
    assert [note["thing"] for note in site.notes()] == [
        f"{MANY + 1} of them, the first 10.5.0.0", "vxlan1", f"{MANY + 1} of them, the first 10.5.0.0",
    ]  # fmt: skip
    site.recording.happened(WEB, gone[:MANY])
    assert len(site.notes()) == 3 + MANY


def test_events_stay_within_the_cap() -> None:
    """They share the ring with all else: its bytes are bounded, the latest are kept."""
    site = Site(limit=8192)
    for number in range(1000):
        site.recording.happened(WEB, [Event("foreign row", f"10.5.{number}.1 lladdr x")])
    assert 4096 < site.recorder.size <= 8192
    assert site.notes()[-1]["thing"] == "10.5.999.1 lladdr x"


def test_it_is_followed_by_number(site: Site) -> None:
    """First where the end is, then what came behind it; another run's number begins again and says so."""
    begun = site.post("Control.Watch")
    assert (begun["notes"], begun["again"]) == ([], False)
    site.recorder.note("store", "demo", change="came")
    site.recorder.note("store", "other", change="came")
    site.recorder.note("call", "demo", method="x")
    ask = {"after": begun["last"], "run": begun["run"]}
    got = site.post("Control.Watch", **ask, kinds=["store"], overlay="demo")
    assert [note["change"] for note in got["notes"]] == ["came"]
    assert (got["last"], got["dropped"]) == (3, 0)
    assert len(site.post("Control.Watch", **ask)["notes"]) == 3
    other = site.post("Control.Watch", after=700, run="another")
    assert other["again"]
    assert len(other["notes"]) == 3


def test_who_is_slow_is_told_how_much_is_lost() -> None:
    """The ring has let go what he did not read: he is told how many notes that were, once."""
    site = Site(limit=4096)
    begun = site.post("Control.Watch")
    for number in range(100):
        site.recorder.note("store", "demo", change=f"{number}")
    got = site.post("Control.Watch", after=begun["last"], run=begun["run"])
    assert got["dropped"] == 100 - len(got["notes"]) > 0
    assert got["notes"][-1]["change"] == "99"
    assert site.post("Control.Watch", after=got["last"], run=got["run"])["dropped"] == 0


def test_what_cannot_be_followed_is_refused() -> None:
    """Other kinds than there are, and a recorder that is off: one sentence."""
    assert "call, store, miss, kernel" in Site().post("Control.Watch", kinds=["secrets"])["Err"]
    assert "what may be followed" in Site().post("Control.Watch", kinds=[])["Err"]
    assert "MYOVERLAY_RECORDER is 0" in Site(limit=0).post("Control.Watch")["Err"]


def test_follow_asks_for_everything_by_default() -> None:
    """Nothing said: all kinds, all overlays, no waiting."""
    assert msgspec.json.decode(b"{}", type=Follow) == Follow(after=-1, run="", kinds=KINDS, overlay="", wait=0.0)
