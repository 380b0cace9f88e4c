"""Values: one normal form each, bad input refused at birth, v4 and v6 alike, JSON that newer versions may add to."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.naming import check_prefix
from myoverlay.values import (
    COUNT_LIMIT,
    Address,
    Alive,
    Definition,
    Endpoint,
    HostId,
    HostList,
    Lease,
    LocalLease,
    Mac,
    Miss,
    Network,
    OverlayName,
    Pool,
    PoolUse,
    Record,
    Subnet,
    check_mtu,
    check_port,
    check_vni,
    decoder,
    encode,
)
from tests.pure.kit import ANN, BOB, definition, endpoint, network

addresses = st.ip_addresses().map(lambda ip: Address(str(ip).partition("%")[0]))


@st.composite
def subnets(draw: st.DrawFn) -> Subnet:
    ip = draw(st.ip_addresses())
    length = draw(st.integers(0, ip.max_prefixlen))
    return Subnet(str(ipaddress.ip_network((int(ip).to_bytes(ip.max_prefixlen // 8, "big"), length), strict=False)))


@pytest.mark.parametrize(
    ("kind", "text", "normal"),
    [
        (Address, "10.5.0.3", "10.5.0.3"),
        (Address, "FD00:0:0::0003", "fd00::3"),
        (Subnet, "10.5.0.0/24", "10.5.0.0/24"),
        (Subnet, "10.5.0.0/255.255.255.0", "10.5.0.0/24"),
        (Subnet, "FD00:0::/64", "fd00::/64"),
        (Mac, "02:42:0A:05:00:02", "02:42:0a:05:00:02"),
        (OverlayName, "10.5.0.0-24", "10.5.0.0-24"),
        (OverlayName, "a" * 63, "a" * 63),
        (HostId, "0123456789abcdef" * 2, "0123456789abcdef" * 2),
    ],
)
def test_a_text_has_one_normal_form(kind: type[str], text: str, normal: str) -> None:
    """However a person writes it, a value compares, hashes and prints as its normal form."""
    value = kind(text)
    assert value == normal
    assert str(value) == normal
    assert hash(value) == hash(normal)
    assert kind(value) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Address, ""),
        (Address, "10.5.0.256"),
        (Address, "10.5.0.03"),
        (Address, "10.5.0.3/24"),
        (Address, "10.5.0.3\n"),
        (Address, "fe80::1%eth0"),
        (Address, "1"),
        (Address, "１0.5.0.3"),
        (Subnet, "10.5.0.0"),
        (Subnet, "10.5.0.1/24"),
        (Subnet, "10.5.0.0/33"),
        (Subnet, "fe80::%eth0/64"),
        (Subnet, "10.5.0.0/24\n"),
        (Mac, ""),
        (Mac, "02-42-0a-05-00-02"),
        (Mac, "02:42:0a:05:00"),
        (Mac, "02:42:0a:05:00:02\n"),
        (Mac, "01:42:0a:05:00:02"),
        (Mac, "ff:ff:ff:ff:ff:ff"),
        (Mac, "00:00:00:00:00:00"),
        (OverlayName, ""),
        (OverlayName, "a" * 64),
        (OverlayName, "Demo"),
        (OverlayName, "-demo"),
        (OverlayName, "de/mo"),
        (OverlayName, "demo\n"),
        (HostId, "0" * 31),
        (HostId, "A" * 32),
        (HostId, "0" * 32 + "\n"),
    ],
)
def test_bad_text_is_refused_at_birth(kind: type[str], text: str) -> None:
    """What has not the form is a ValueError, so that no function behind has to check it again."""
    with pytest.raises(ValueError, match=r"."):
        kind(text)


@given(addresses)
def test_addresses_pack_and_unpack(address: Address) -> None:
    """Bytes of network order and back give the same address, for both families; the number is those bytes."""
    assert Address.unpack(address.packed) == address
    assert len(address.packed) == {4: 4, 6: 16}[address.version]
    assert address.number == int(ipaddress.ip_address(str(address)))


@pytest.mark.parametrize("raw", [b"", b"\x0a\x05\x00", bytes(5), bytes(17)])
def test_an_address_has_4_or_16_bytes(raw: bytes) -> None:
    """Another number of bytes is no address."""
    with pytest.raises(ValueError, match="4 or 16 bytes"):
        Address.unpack(raw)


@pytest.mark.parametrize(
    ("text", "unicast"),
    [
        ("192.0.2.1", True),
        ("fd00::1", True),
        ("224.0.0.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("ff02::1", False),
        ("::1", False),
        ("::", False),
    ],
)
def test_is_unicast_tells_what_a_host_could_have(text: str, unicast: bool) -> None:
    """Multicast, loopback, unspecified and reserved addresses are no host's, in either family."""
    assert Address(text).is_unicast is unicast


@given(subnets())
def test_a_subnets_key_leads_back_to_it(subnet: Subnet) -> None:
    """The form for keys has no slash and gives the same subnet again, v6 too."""
    assert "/" not in subnet.key
    assert Subnet.from_key(subnet.key) == subnet


@pytest.mark.parametrize("key", ["", "10.5.0.0", "10.5.0.0/24", "10.5.0.1-24", "10.5.0.0-24-24", "-"])
def test_a_bad_subnet_key_is_refused(key: str) -> None:
    """Only `base-length` without host bits is a subnet's key."""
    with pytest.raises(ValueError, match=r"."):
        Subnet.from_key(key)


@pytest.mark.parametrize(
    ("text", "first", "last", "size"),
    [
        ("10.5.0.0/24", "10.5.0.1", "10.5.0.254", 254),
        ("10.5.0.0/30", "10.5.0.1", "10.5.0.2", 2),
        ("10.5.0.0/31", "10.5.0.0", "10.5.0.1", 2),
        ("10.5.0.7/32", "10.5.0.7", "10.5.0.7", 1),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", 2**64 - 1),
        ("fd00::/126", "fd00::1", "fd00::3", 3),
        ("fd00::/127", "fd00::", "fd00::1", 2),
        ("fd00::7/128", "fd00::7", "fd00::7", 1),
    ],
)
def test_hosts_of_a_subnet(text: str, first: str, last: str, size: int) -> None:
    """IPv4 leaves out network and broadcast address, IPv6 the anycast one; point-to-point subnets leave out none."""
    subnet = Subnet(text)
    assert (subnet.at(subnet.first), subnet.at(subnet.last), subnet.size) == (first, last, size)
    assert subnet.is_host(Address(first))
    assert subnet.is_host(Address(last))


@given(subnets(), addresses)
def test_containment_is_the_librarys(subnet: Subnet, address: Address) -> None:
    """An address is inside exactly where `ipaddress` says so, and never in the other family's subnet."""
    theirs, ip = ipaddress.ip_network(str(subnet)), ipaddress.ip_address(str(address))
    assert (address in subnet) is (theirs.version == ip.version and ip in theirs)
    assert not subnet.is_host(address) or address in subnet


def test_plain_text_is_in_no_subnet() -> None:
    """Only an Address is inside a subnet, so that `in` never searches the text."""
    assert "10.5.0" not in Subnet("10.5.0.0/24")
    assert "10.5.0.3" not in Subnet("10.5.0.0/24")


@given(subnets(), st.integers(-(2**130), 2**130))
def test_at_gives_what_is_inside_and_refuses_the_rest(subnet: Subnet, number: int) -> None:
    """A number inside gives the address with that number; any other, however large or negative, is a ValueError."""
    net = ipaddress.ip_network(str(subnet))
    if int(net.network_address) <= number <= int(net.broadcast_address):
        assert subnet.at(number).number == number
    else:
        with pytest.raises(ValueError, match="outside"):
            subnet.at(number)
    assert subnet.at(int(net.broadcast_address)) in subnet


@given(subnets(), subnets())
def test_overlap_and_cover_are_the_librarys(one: Subnet, two: Subnet) -> None:
    """Overlapping is symmetric and within a family; covering is being a supernet."""
    mine, theirs = ipaddress.ip_network(str(one)), ipaddress.ip_network(str(two))
    same = mine.version == theirs.version
    assert one.overlaps(two) is two.overlaps(one) is (same and mine.overlaps(theirs))
    assert one.covers(two) is (same and theirs.subnet_of(mine))
    assert one.covers(one)


@pytest.mark.parametrize(
    ("address", "mac"), [("10.5.0.3", "02:42:0a:05:00:03"), ("fd00::a:3", "02:42:00:0a:00:03")]
)  # fmt: skip
def test_a_mac_is_derived_from_an_address(address: str, mac: str) -> None:
    """As in Docker and the tutorial: 02:42 and the last four bytes."""
    assert Mac.of(Address(address)) == mac


@given(st.binary(min_size=6, max_size=6))
def test_macs_pack_and_unpack(raw: bytes) -> None:
    """Six bytes are a MAC and back, unless the group bit is set or all are zero."""
    if raw[0] & 1 or not any(raw):
        with pytest.raises(ValueError, match="unicast"):
            Mac.unpack(raw)
    else:
        assert Mac.unpack(raw).packed == raw


def test_a_mac_has_six_bytes() -> None:
    """Five or seven bytes are none."""
    for raw in (bytes(5), b"\x02" * 7):
        with pytest.raises(ValueError, match="6 bytes"):
            Mac.unpack(raw)


def test_random_host_ids_differ() -> None:
    """Two first starts make two hosts; the short form is the start of the id."""
    one, two = HostId.random(), HostId.random()
    assert one != two
    assert one.startswith(one.short)
    assert len(one.short) == 12


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_vni, (1, 2**24 - 1), (0, -1, 2**24)),
        (check_mtu, (576, 1450, 65535), (575, 65536, -1)),
        (check_port, (1, 4789, 65535), (0, 65536)),
        (
            check_prefix,
            ("myoverlay", "demo-1", "a/b_c/d.e", "a" * 200),
            ("", "/a", "a/", "a//b", ".", "..", "a/../b", "-a", "a b", "ä", "a\n", "a" * 201),
        ),
    ],
)
def test_checks_of_numbers_and_places(check: object, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    """Limits are inside, what is beyond is refused; a place in the store is never empty and never climbs."""
    assert callable(check)
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match=r"."):
            check(value)


@pytest.mark.parametrize(
    "change",
    [
        {"vni": 0},
        {"mtu": 100},
        {"port": 0},
        {"gateway": Address("10.6.0.1")},
        {"gateway": Address("fd00::1")},
        {"records": "/demo"},
    ],
)
def test_a_definition_checks_itself(change: dict[str, object]) -> None:
    """A definition that no host could build does not come to be, wherever it was read."""
    with pytest.raises(ValueError, match=r"."):
        definition(**change)


def test_a_lease_has_a_known_use_and_a_host() -> None:
    """A lease without a host could never be freed; an unknown use could not be judged."""
    with pytest.raises(ValueError, match="endpoint"):
        Lease(address=Address("10.5.0.3"), use="spare", hosts=(ANN,))
    with pytest.raises(ValueError, match="host"):
        Lease(address=Address("10.5.0.3"), use="aux", hosts=())


def test_link_names_fit_the_kernel() -> None:
    """Both ends of a veth have at most 15 characters (IFNAMSIZ less one), and differ."""
    one = endpoint("10.5.0.3")
    assert len(one.link) <= 15
    assert len(one.port) <= 15
    assert one.link != one.port


def test_a_miss_knows_its_layer() -> None:
    """A question about an address is of layer 3, one about a MAC of layer 2."""
    assert Miss(ifindex=1, address=Address("10.5.0.3")).layer == 3
    assert Miss(ifindex=1, mac=Mac("02:42:0a:05:00:03")).layer == 2


VALUES = [
    definition(records="demo-1", holders=(ANN, BOB)),
    Definition(overlay=OverlayName("six"), subnet=Subnet("fd00::/64"), vni=1, mtu=1280),
    network(pool="10.5.0.0-24", outsiders=True),
    endpoint("10.5.0.3", joined=True),
    HostList(
        host=ANN,
        overlay=OverlayName("demo"),
        vtep=Address("fd00::1"),
        records=(Record(address=Address("10.5.0.3"), mac=Mac("02:42:0a:05:00:03"), generation=COUNT_LIMIT),),
    ),
    Alive(host=ANN, name="ann", vteps=(Address("192.0.2.1"), Address("fd00::1"))),
    Pool(subnet=Subnet("10.5.0.0/24"), users=(ANN,)),
    Lease(address=Address("10.5.0.3"), use="aux", hosts=(ANN, BOB)),
    PoolUse(pool="p", subnet=Subnet("10.5.0.0/24"), written=True, at=1.5),
    LocalLease(subnet=Subnet("10.5.0.0/24"), address=Address("10.5.0.3"), use="releasing", at=1.5, promised=True),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_survive_json(value: object) -> None:
    """A value written and read is equal, and its texts are of their kinds again."""
    again = decoder(type(value))(encode(value))
    assert again == value
    for name in ("subnet", "address", "mac", "overlay", "host"):
        assert type(getattr(again, name, None)) is type(getattr(value, name, None))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_unknown_fields_are_ignored(value: object) -> None:
    """A newer version may say more: an older one reads the rest."""
    raw = json.loads(encode(value)) | {"since_version_9": {"a": [1, 2, None]}}
    assert decoder(type(value))(json.dumps(raw).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"address":"10.5.0.3"}',
        b'{"address":"10.5.0.3","mac":3}',
        b'{"address":"10.5.0.3","mac":"02:42:0a:05:00:03","generation":-1}',
        b'{"address":"10.5.0.3","mac":"02:42:0a:05:00:03","generation":1e3}',
        b'{"address":"10.5.0.3","mac":"02:42:0a:05:00:03","generation":' + b"9" * 4000 + b"}",
        b'{"address":"10.5.0.300","mac":"02:42:0a:05:00:03"}',
        b'{"more":' + b"[" * 100_000,
    ],
)
def test_bad_json_is_a_value_error(raw: bytes) -> None:
    """Whatever an enemy writes is a ValueError, never another exception: too deep a nesting and huge numbers too."""
    with pytest.raises(ValueError, match=r"."):
        decoder(Record)(raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps(text).encode()))
def test_no_bytes_break_a_decoder(raw: bytes) -> None:
    """Arbitrary bytes are refused by every decoder, with ValueError alone."""
    for kind in (Definition, Network, Endpoint, HostList, Alive, Pool, Lease, PoolUse, LocalLease):
        with pytest.raises(ValueError, match=r"."):
            decoder(kind)(raw)
