"""Docker's bodies as structs: what 20.10 to 29 send is read, what is broken is refused in one sentence."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.docker import wire
from myoverlay.errors import Refused
from myoverlay.values import Address, Mac, OverlayName, Subnet

BODIES = [
    wire.CreateNetwork,
    wire.OfNetwork,
    wire.OfEndpoint,
    wire.CreateEndpoint,
    wire.Join,
    wire.Discover,
    wire.RequestPool,
    wire.ReleasePool,
    wire.RequestAddress,
    wire.ReleaseAddress,
]
FULL = {
    "NetworkID": "n1",
    "EndpointID": "e1",
    "SandboxKey": "/var/run/docker/netns/1",
    "Interface": {"Address": "10.5.0.3/24", "AddressIPv6": "", "MacAddress": ""},
    "Options": {},
    "PoolID": "p1",
    "Address": "10.5.0.3",
    "Pool": "10.5.0.0/24",
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t"])
def test_an_empty_body_is_refused(kind: type[wire.Message], body: bytes) -> None:
    """A broken retry arrives without a body: it is never read as one with defaults."""
    with pytest.raises(Refused, match="no body"):
        wire.read(kind, body)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("body", [b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"x":' + b"[" * 100_000, b"{}}"])
def test_a_broken_body_is_refused(kind: type[wire.Message], body: bytes) -> None:
    """What is no JSON object of the right form is the caller's fault, in one sentence."""
    with pytest.raises(Refused, match="not understood"):
        wire.read(kind, body)


def test_a_text_that_is_no_utf8_is_refused() -> None:
    """Bytes that are no text are the caller's fault as well."""
    with pytest.raises(Refused, match="not understood"):
        wire.read(wire.OfNetwork, b'{"NetworkID": "\xff"}')


@pytest.mark.parametrize("kind", BODIES)
def test_unknown_fields_are_ignored(kind: type[wire.Message]) -> None:
    """A newer engine may say more."""
    plain = wire.read(kind, json.dumps(FULL).encode())
    assert wire.read(kind, json.dumps(FULL | {"Since29": {"a": [None]}}).encode()) == plain


@pytest.mark.parametrize("field", ["Interface", "Options"])
def test_null_is_what_go_sends_for_nothing(field: str) -> None:
    """Nil maps and structs travel as null and mean the same as their absence."""
    body = {"NetworkID": "n1", "EndpointID": "e1"}
    assert wire.read(wire.CreateEndpoint, json.dumps(body | {field: None}).encode()) == wire.read(
        wire.CreateEndpoint, json.dumps(body).encode()
    )


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """Arbitrary bytes are read or refused, and nothing else happens."""
    for kind in BODIES:
        with contextlib.suppress(Refused):
            assert isinstance(wire.read(kind, body), kind)


def test_what_a_person_wrote() -> None:
    """The `-o` options are found below Docker's generic key; null is none, and what is no table is refused."""

    def read(generic: object) -> dict[str, str]:
        body = {"NetworkID": "n1", "Options": {wire.GENERIC: generic, wire.INTERNAL: True}}
        return wire.read(wire.CreateNetwork, json.dumps(body).encode()).generic

    assert read({"overlay": "demo", "vni": 7}) == {"overlay": "demo", "vni": "7"}
    assert read(None) == read({}) == {}
    with pytest.raises(Refused, match="no table"):
        read(["overlay=demo"])


def mac_of(interface: object, options: object) -> Mac | None:
    body = {"NetworkID": "n1", "EndpointID": "e1", "Interface": interface, "Options": options}
    return wire.read(wire.CreateEndpoint, json.dumps(body).encode()).mac


SIX = base64.b64encode(b"\x02\x42\x0a\x05\x00\x63").decode()


@pytest.mark.parametrize(
    ("interface", "options", "mac"),
    [
        (None, None, None),
        ({"MacAddress": ""}, {}, None),
        ({"MacAddress": "02:42:0A:05:00:63"}, None, "02:42:0a:05:00:63"),
        ({"MacAddress": ""}, {wire.MAC_OPTION: SIX}, "02:42:0a:05:00:63"),
        ({"MacAddress": "02:42:0a:05:00:64"}, {wire.MAC_OPTION: SIX}, "02:42:0a:05:00:64"),
        (None, {wire.MAC_OPTION: None}, None),
        (None, {wire.MAC_OPTION: ""}, None),
    ],
)
def test_the_mac_a_person_asked_for(interface: object, options: object, mac: str | None) -> None:
    """It comes as text in the interface or as base64 of six bytes in the options; the interface goes first."""
    assert mac_of(interface, options) == mac


@pytest.mark.parametrize(
    ("interface", "options"),
    [
        ({"MacAddress": "ff:ff:ff:ff:ff:ff"}, None),
        ({"MacAddress": "zz"}, None),
        (None, {wire.MAC_OPTION: "!!"}),
        (None, {wire.MAC_OPTION: base64.b64encode(b"abc").decode()}),
        (None, {wire.MAC_OPTION: base64.b64encode(bytes(6)).decode()}),
    ],
)
def test_a_bad_mac_is_refused(interface: object, options: object) -> None:
    """A multicast, malformed or wrongly encoded MAC is the caller's fault."""
    with pytest.raises(Refused):
        mac_of(interface, options)


@pytest.mark.parametrize(
    ("kind", "text"), [(Address, "10.5.0.300"), (Mac, "x"), (OverlayName, "A"), (Subnet, "10.5.0.1/24")]
)
def test_a_bad_value_is_refused(kind: type[Address], text: str) -> None:
    """A text of Docker's that has not the form is Refused with that text, no bare ValueError."""
    with pytest.raises(Refused, match=text):
        wire.value(kind, text)


def test_addresses_come_with_or_without_their_length() -> None:
    """Docker writes the same address both ways."""
    assert wire.address_of("10.5.0.3/24") == wire.address_of("10.5.0.3") == Address("10.5.0.3")
    with pytest.raises(Refused):
        wire.address_of("/24")
