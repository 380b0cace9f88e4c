"""What the fuzzing has found, each mended: an input of each."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

import pytest

from myoverlay.docker import wire
from myoverlay.errors import Refused, Unavailable
from myoverlay.kernel import bound, linkforms, nft, observe, traffic, underlay
from myoverlay.kernel.rtnetlink import Reply, attribute, verdict
from myoverlay.store import Entry
from myoverlay.store.records import Member, Records
from myoverlay.store.rings import Ring
from myoverlay.values import Address, Alive, Lease, Pool, Subnet, encode
from tests.fuzz import http, netlink, records
from tests.fuzz.netlink import Paper
from tests.pure.kit import ANN, BOB, DEMO, EVE, SUBNET

NETWORK = (
    '{"NetworkID":"n1","IPv4Data":[{"Pool":"10.5.0.0/24","Gateway":"%s"}],'
    '"Options":{"com.docker.network.generic":{"overlay":"demo"}}}'
)


def call(method: str, body: bytes, verb: str = "POST") -> tuple[int, dict[str, Any]]:
    """A call of a daemon as new: status and answer."""
    target = http.Target()
    try:
        status, _, raw = target._ask(http.Call(verb, method, body, str(len(body))))
    finally:
        target.close()
    return status, json.loads(raw)


@pytest.mark.parametrize("body", [b'{"a":' * 5000, b"[" * 5000, b'{"PoolID":"\xff"}'])
@pytest.mark.parametrize("method", ["NetworkDriver.GetCapabilities", "NetworkDriver.Leave", "Plugin.Activate"])
def test_a_body_without_end_is_noted_all_the_same(method: str, body: bytes) -> None:
    """The flight recorder reads what the method itself does not: a body that nobody can read is no bug of ours."""
    assert call(method, body)[0] in (200, 400)


@pytest.mark.parametrize("gateway", ["10.6.0.1/24", "fd00::1/64", "10.5.0.0/24", "10.5.0.255/24"])
def test_a_gateway_outside_is_refused(gateway: str) -> None:
    """It was a ValueError, and so a bug of ours."""
    status, answer = call("NetworkDriver.CreateNetwork", (NETWORK % gateway).encode())
    assert status == 400
    assert "no host address of 10.5.0.0/24" in answer["Err"]


@pytest.mark.parametrize("text", ["", "a\nb", "\0", "a/b", "é", "x" * 129, "n1\n", "-", " "])
def test_an_id_that_docker_never_makes_is_refused(text: str) -> None:
    """Links are named by it, and the log names it."""
    for kind in (wire.OfEndpoint, wire.CreateEndpoint, wire.Join):
        for body in ({"NetworkID": text, "EndpointID": "e1"}, {"NetworkID": "n1", "EndpointID": text}):
            with pytest.raises(Refused, match="not understood"):
                wire.read(kind, json.dumps(body).encode())
    for kind in (wire.OfNetwork, wire.CreateNetwork):
        with pytest.raises(Refused, match="not understood"):
            wire.read(kind, json.dumps({"NetworkID": text}).encode())
    assert wire.read(wire.OfNetwork, json.dumps({"NetworkID": "9" * 64}).encode()).network == "9" * 64


@pytest.mark.parametrize("vtep", ["\u202e", "eth0\n", "\0", "a\x1b[2J"])
def test_an_interface_that_cannot_be_shown_is_refused(vtep: str) -> None:
    """The sentence that names it stays a line, whoever says it."""
    options = {"com.docker.network.generic": {"overlay": "demo", "vtep": vtep}}
    body = {"NetworkID": "n1", "IPv4Data": [{"Pool": "10.5.0.0/24"}], "Options": options}
    status, answer = call("NetworkDriver.CreateNetwork", json.dumps(body).encode())
    assert status == 400
    assert answer["Err"].isprintable()


def test_a_path_forges_no_line() -> None:
    """An unknown method is named in one line."""
    status, answer = call("a\nb\x1b[2J", b"{}")
    assert status == 404
    assert answer["Err"].isprintable()


def test_options_are_no_method() -> None:
    """OPTIONS is refused in JSON as every other verb is, and does not keep the connection."""
    assert call("Plugin.Activate", b"", "OPTIONS")[0] == 405


@pytest.mark.parametrize("body", [b"[" * 5000, b'[{"Key":"a","x":' + b"[" * 5000, b'{"ID":"\xff"}', b'"\xff"'])
def test_an_answer_that_cannot_be_read_is_unavailable(body: bytes) -> None:
    """Whoever asks Consul hears that, whatever the bytes: a thread that waits there goes on."""
    target = records.Target()
    headers = records.email.message_from_string("X-Consul-Index: 12\n\n")
    target.line.answer = records.wire_module.Answer(200, headers, body)
    store, catalogue = target.consul, target.catalogue
    for ask in (
        lambda: store.get("k"),
        lambda: store.get_many(["k"]),
        lambda: store.list("myoverlay/"),
        lambda: store.keys("myoverlay/"),
        lambda: store.wait("myoverlay/", 5, timeout=0.0),
        lambda: store.open_session("ann", 10.0),
        lambda: catalogue.read(ANN),
        lambda: catalogue.hosts(),
    ):
        with pytest.raises(Unavailable):
            ask()


def test_what_was_repaired_is_forgotten() -> None:
    """A key that was bad and is good leaves nothing behind, however many there are."""
    reader = Records(records.Paper(), "myoverlay", ANN)  # type: ignore[arg-type]
    for number in range(50):
        key = f"myoverlay/subnets/{number}"
        reader.read(Pool, Entry(key, b"{", 0, 1))
        reader.read(Pool, Entry(key, encode(Pool(subnet=SUBNET)), 0, 2))
    assert not reader.quarantine
    assert not reader.quarantine.at


def test_a_key_below_anothers_is_not_his() -> None:
    """`vni/x/7` ends in 7 and is no VNI's; so with hosts, pools and leases: what stands in the right place counts."""
    target = records.Target()
    paper, reader = target.store, target.records
    lease = Lease(address=Address("10.5.0.20"), use="endpoint", hosts=(EVE,))
    pool = Pool(subnet=Subnet("10.77.0.0/24"), users=(EVE,))
    for key, value in (
        ("vni/x/7", b"{}"),
        ("pools/10.5.0.0-24/x/10.5.0.20", encode(lease)),
        ("subnets/x/10.77.0.0-24", encode(pool)),
        (f"alive/x/{BOB}", encode(Alive(host=BOB, name="eve", vteps=()))),
        ("overlays/demo/changes/x/7", encode(Ring(last=9, hosts=(EVE,)))),
        (f"overlays/demo/members/x/{BOB}", encode(Member(name="eve", vtep=Address("192.0.2.66")))),
    ):
        paper.entries[f"myoverlay/{key}"] = Entry(f"myoverlay/{key}", value, 0, 9)
    assert reader.vnis()[7] is not None
    assert reader.leases(SUBNET)[Address("10.5.0.20")].value.hosts == (BOB,)
    assert [held.value.users for held in reader.pools()] == [(BOB,)]
    assert target.presence.alive()[BOB].value.name == "bob"
    assert reader.changes(DEMO, 0, timeout=0).rings["7"].hosts == (BOB,)
    assert reader.members(DEMO)[BOB].name == "bob"
    assert len(reader.quarantine) == 5
    assert len(target.presence.quarantine) == 1


def test_messages_that_are_cut_off_are_passed_over() -> None:
    """Each reader of a dump looks at the length first."""
    wire_of: Any = Paper([b"", b"\1" * 7])
    assert underlay.places(wire_of) == []
    assert observe.bridged_macs(wire_of, 1, 2) == set()
    assert traffic.read(wire_of, {1: "eth0"}) == ()
    assert linkforms.flags_of(b"\1" * 7) == 0


def test_an_address_of_another_length_is_not_the_other_end() -> None:
    """An address with the other end's cut off is read as one without."""
    body = underlay.IFADDR.pack(2, 24, 0, 0, 5)
    body += attribute(underlay.IFA_LOCAL, socket.inet_aton("10.5.0.1")) + attribute(underlay.IFA_ADDRESS, b"\1\2")
    (place,) = underlay.places(Paper([body]))  # type: ignore[arg-type]
    assert place.address == place.other == "10.5.0.1"


def test_a_route_longer_than_its_address_leads_nowhere() -> None:
    """A prefix of 33 bits is none."""
    head = underlay.RTMSG.pack(2, 33, 0, 0, 254, 0, 0, 1, 0)
    wire_of: Any = Paper([head + attribute(underlay.RTA_DST, socket.inet_aton("10.5.0.0"))])
    assert underlay.routes(wire_of) == ()


def test_an_interface_number_has_a_sign() -> None:
    """What the kernel tells as a number is asked for again as it is."""
    assert underlay.index_in(struct.pack("=I", 0xFFFFFFFF)) == -1
    assert underlay.index_in(struct.pack("=i", 7)) == 7
    assert underlay.index_in(b"\1") == 0
    wire_of: Any = Paper([])
    assert observe.link(wire_of, -1) is None


@pytest.mark.parametrize(
    ("code", "said"), [(-(2**31), "error 2147483648"), (-17, "File exists"), (-4096, "error 4096"), (0, "")]
)
def test_an_error_number_of_any_size_is_told(code: int, said: str) -> None:
    """The C library takes none beyond 32 bits, and knows none beyond 4095."""
    assert verdict(Reply(2, 0, 1, struct.pack("=i", code)))[1] == said


def test_an_element_that_is_none_of_ours_has_the_table_made_anew() -> None:
    """A multicast MAC in the table that binds containers: it is not as laid, so `look` says so and it is laid again."""
    port = b"p1".ljust(16, b"\0") + bytes.fromhex("01005e0000010000")
    key = lambda raw: attribute(1, attribute(1, attribute(1, raw)))  # noqa: E731
    body = nft.HEAD.pack(5, 0, 0) + attribute(3, key(port) + key(port + Address("10.5.0.7").packed))
    table: Any = object.__new__(bound.BoundTable)
    door = netlink._door(Paper([body]))
    table._lock, table._open, table._generation = threading.Lock(), lambda: door, None
    table._form = table._shape(door)
    assert table.look() is None
