"""The words of the field as frozen values. Each refuses bad input at birth, so that nobody checks a form twice.

Texts that have a form (`Address`, `Mac`, …) are subclasses of `str` in one normal form: they hash, compare and travel
through JSON as what a person would write. IPv4 and IPv6 are held alike everywhere.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Self, TypeVar

import msgspec

from myoverlay.naming import Shown, check_prefix, clean

#: VXLAN network identifiers are 24 bit (RFC 7348 section 5); 0 is what a device without one carries.
VNI_LIMIT = 1 << 24
#: Where automatic VNIs come from: clear of Swarm's, which start at 4096.
VNI_FIRST, VNI_LAST = 0x700000, 0x7FFFFF
#: What VXLAN adds to a frame: inner Ethernet 14, VXLAN 8, UDP 8, outer IPv4 20 (IPv6: 40).
VXLAN_OVERHEAD = {4: 50, 6: 70}
#: IPv4 hosts must take 576 bytes (RFC 791); IPv6 links must carry 1280 (RFC 8200). Linux takes up to 65535.
MTU_LIMITS = (576, 65535)
VXLAN_PORT = 4789
#: Counts that come from the store stay far below what any reader of JSON holds in an integer.
COUNT_LIMIT = (1 << 53) - 1


class Address(str):
    """An IP address in its normal form. Raises ValueError where it is none, or carries a scope."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if isinstance(text, cls):
            return text
        if "%" in text:
            raise ValueError(f"{text!r} is not an IP address without a scope")
        with contextlib.suppress(OSError, ValueError):  # nearly all are IPv4 in that form already: 12 µs less of 13
            if socket.inet_ntoa(socket.inet_pton(socket.AF_INET, text)) == text:
                return super().__new__(cls, text)
        return super().__new__(cls, ipaddress.ip_address(str(text)))

    @property
    def version(self) -> int:
        return 6 if ":" in self else 4

    @property
    def packed(self) -> bytes:
        return socket.inet_pton(socket.AF_INET6 if ":" in self else socket.AF_INET, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """The address in 4 or 16 bytes of network order."""
        if len(raw) not in (4, 16):
            raise ValueError(f"an IP address has 4 or 16 bytes, not {len(raw)}")
        return cls(socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw))

    @property
    def number(self) -> int:
        return int.from_bytes(self.packed, "big")

    @property
    def is_unicast(self) -> bool:
        """Could a host have it? (Not multicast, loopback, unspecified or reserved.)"""
        ip = _ip(str(self))
        return not (ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_reserved)


#: Of VTEPs and subnets there are few, and they are asked about with every change.
_ip, _network = lru_cache(maxsize=4096)(ipaddress.ip_address), lru_cache(maxsize=4096)(ipaddress.ip_network)


class Subnet(str):
    """An address and prefix length with no host bits set, as `10.5.0.0/24`."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if isinstance(text, cls):
            return text
        if "/" not in text or "%" in text:
            raise ValueError(f"{text!r} is not an address with a prefix length, such as 10.5.0.0/24")
        return super().__new__(cls, ipaddress.ip_network(str(text)))

    @classmethod
    def from_key(cls, key: str) -> Self:
        """The subnet of `10.5.0.0-24`."""
        return cls("/".join(key.replace("/", " ").rsplit("-", 1)))

    @property
    def key(self) -> str:
        """The form that fits into a key of the store and a name of an overlay: `10.5.0.0-24`."""
        return self.replace("/", "-")

    @property
    def version(self) -> int:
        return _network(self).version

    @property
    def prefixlen(self) -> int:
        return _network(self).prefixlen

    @property
    def first(self) -> int:
        """The lowest number a host may have: IPv4 leaves out the network's own address (but for /31 and /32)."""
        net = _network(self)
        bare = net.prefixlen >= net.max_prefixlen - 1
        return int(net.network_address) + (0 if bare else 1)

    @property
    def last(self) -> int:
        """The highest number a host may have: IPv4 leaves out the broadcast address."""
        net = _network(self)
        bare = net.version == 6 or net.prefixlen >= net.max_prefixlen - 1
        return int(net.broadcast_address) - (0 if bare else 1)

    @property
    def size(self) -> int:
        """How many hosts fit."""
        return self.last - self.first + 1

    def at(self, number: int) -> Address:
        """The address with that number, which must lie inside."""
        net = _network(self)
        if not int(net.network_address) <= number <= int(net.broadcast_address):
            raise ValueError(f"number {number} is outside {self}")
        return Address.unpack(number.to_bytes(net.max_prefixlen // 8, "big"))

    def __contains__(self, item: object) -> bool:
        """Is the address inside? (Any text that is no address is not.)"""
        if not isinstance(item, Address):
            return False
        net = _network(self)
        return item.version == net.version and int(net.network_address) <= item.number <= int(net.broadcast_address)

    def is_host(self, address: Address) -> bool:
        """May a host have it: inside, and neither the network's own nor the broadcast address?"""
        return address.version == self.version and self.first <= address.number <= self.last

    def overlaps(self, other: Subnet) -> bool:
        return self.version == other.version and _network(self).overlaps(_network(other))

    def covers(self, other: Subnet) -> bool:
        """Does it hold the whole of `other`?"""
        return self.version == other.version and self.overlaps(other) and self.prefixlen <= other.prefixlen


class Mac(str):
    """A unicast Ethernet address, lower case with colons. Raises ValueError for multicast and all zeros."""

    __slots__ = ()
    _form = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")

    def __new__(cls, text: str) -> Self:
        if isinstance(text, cls):
            return text
        low = str(text).lower()
        if not cls._form.fullmatch(low):
            raise ValueError(f"{text!r} is not a MAC address such as 02:42:0a:05:00:02")
        if int(low[:2], 16) & 1 or low == "00:00:00:00:00:00":
            raise ValueError(f"{text!r} is not a unicast MAC address")
        return super().__new__(cls, low)

    @classmethod
    def of(cls, address: Address) -> Self:
        """The MAC that Docker and the tutorial derive from an address: 02:42 and its last four bytes."""
        return cls.unpack(b"\x02\x42" + address.packed[-4:])

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        if len(raw) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(raw)}")
        return cls(raw.hex(":"))

    @property
    def packed(self) -> bytes:
        return bytes.fromhex(self.replace(":", ""))


class OverlayName(str):
    """The name all hosts know an overlay by."""

    __slots__ = ()
    _form = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

    def __new__(cls, text: str) -> Self:
        if not cls._form.fullmatch(text):
            raise ValueError(
                f"{text!r} is no overlay name: 1 to 63 of a-z 0-9 . _ - are allowed, the first a letter or digit"
            )
        return super().__new__(cls, text)


class HostId(str):
    """Who a host is, whatever its name and address: a random UUID in 32 hex digits, made at first start."""

    __slots__ = ()
    _form = re.compile(r"[0-9a-f]{32}")

    def __new__(cls, text: str) -> Self:
        if not cls._form.fullmatch(text):
            raise ValueError(f"{text!r} is no host id: 32 hex digits are")
        return super().__new__(cls, text)

    @classmethod
    def random(cls) -> Self:
        return cls(uuid.uuid4().hex)

    @property
    def short(self) -> str:
        return self[:12]


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A frozen value that knows its JSON; unknown fields are a newer version's. `gc`: 100,000s, none in a circle."""


class Definition(Value, frozen=True, kw_only=True):
    """What all hosts agree on about an overlay. `holders` are the hosts that have a Docker network on it."""

    overlay: OverlayName
    subnet: Subnet
    vni: int
    mtu: int
    port: int = VXLAN_PORT
    gateway: Address | None = None
    records: str | None = None
    holders: tuple[HostId, ...] = ()

    def __post_init__(self) -> None:
        check_vni(self.vni)
        check_mtu(self.mtu)
        check_port(self.port)
        if self.gateway is not None and self.gateway not in self.subnet:
            raise ValueError(f"the gateway {self.gateway} is outside {self.subnet}")
        if self.records is not None:
            check_prefix(self.records)


class Network(Value, frozen=True, kw_only=True):
    """A network of this host, as Docker has it. `asked`: `-o vtep=` as written; `egress`: its own cable's address."""

    network: str
    overlay: OverlayName
    subnet: Subnet
    vtep: Address
    underlay: str
    definition: Definition
    internal: bool = False
    outsiders: bool = False
    pool: str | None = None
    asked: str = ""
    egress: Address | None = None


class Endpoint(Value, frozen=True, kw_only=True):
    """Docker's word for one container's place on a network. `joined`: Docker was given its interface. `sandbox`: its
    container, as far as Docker says. `route`: the prefix length of its way to the resolver, 0 where it has none."""

    endpoint: str
    network: str
    address: Address
    mac: Mac
    generation: int
    joined: bool = False
    names: tuple[str, ...] = ()
    sandbox: str = ""
    route: int = 0

    @property
    def link(self) -> str:
        """The container's end of the veth, in the host's namespace until Docker takes it (IFNAMSIZ is 15)."""
        return f"mo{self.endpoint[:12]}"

    @property
    def port(self) -> str:
        """The bridge's end of the veth, in the overlay namespace."""
        return f"p{self.endpoint[:12]}"


class Record(Value, frozen=True, kw_only=True):
    """One endpoint as its owner tells it to the others. What is no name is left out; it hides no endpoint."""

    address: Address
    mac: Mac
    generation: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_count(self.generation)
        if self.names:
            msgspec.structs.force_setattr(self, "names", clean(self.names))


class HostList(Value, frozen=True, kw_only=True):
    """All endpoints of one host on one overlay: the truth about them, written by that host alone.

    `incarnation`: the id of the store that it was written under, once the host knew that its leases are there too.
    `tentative`: addresses told before the index has them: another host may turn out to have them. `accuses`: hosts that
    it saw claim what another had. `serial`: the later of two lists has the higher; 0: of a version that knew none."""

    host: HostId
    overlay: OverlayName
    vtep: Address
    records: tuple[Record, ...] = ()
    incarnation: Shown = ""
    serial: Annotated[int, msgspec.Meta(ge=0, le=COUNT_LIMIT)] = 0
    schema: int = 1
    reader: int = 1
    tentative: tuple[Address, ...] = ()
    accuses: Annotated[tuple[HostId, ...], msgspec.Meta(max_length=64)] = ()


class Alive(Value, frozen=True, kw_only=True):
    """What hangs on a host's session: that it is there, its name and its VTEPs."""

    host: HostId
    name: Shown
    vteps: Annotated[tuple[Address, ...], msgspec.Meta(max_length=64)]
    version: Shown = ""
    schema: int = 1


class Peer(Value, frozen=True, kw_only=True):
    """An endpoint that lives elsewhere, as this host sees it. `host` is None for an outsider's."""

    address: Address
    mac: Mac
    vtep: Address
    host: HostId | None = None
    generation: int = 0


class Pool(Value, frozen=True, kw_only=True):
    """A subnet that addresses are leased from. `users` are the hosts that asked for it."""

    subnet: Subnet
    overlay: OverlayName | None = None
    gateway: Address | None = None
    users: tuple[HostId, ...] = ()


class Lease(Value, frozen=True, kw_only=True):
    """A taken address. `use`: endpoint (its owner, then who promised it too), aux (several), reserve (`wanted`)."""

    address: Address
    use: str
    hosts: tuple[HostId, ...]
    wanted: HostId | None = None

    def __post_init__(self) -> None:
        if self.use not in ("endpoint", "reserve", "aux"):
            raise ValueError(f"a lease is for an endpoint, a reserve or aux, not for {self.use!r}")
        if not self.hosts:
            raise ValueError("a lease belongs to a host")


class PoolUse(Value, frozen=True, kw_only=True):
    """That Docker asked this host for a pool. `written`: a person chose the subnet; `at`: when, in Unix seconds."""

    pool: str
    subnet: Subnet
    written: bool
    at: float
    within: Subnet | None = None
    overlay: OverlayName | None = None


class LocalLease(Value, frozen=True, kw_only=True):
    """A lease of this host. `use` is as in Lease, or `releasing`: the store has not been told yet that it is free.
    `at`: since when. `promised`: to be written there. `unsure`: maybe not ours. `owed`: Docker may yet give it back."""

    subnet: Subnet
    address: Address
    use: str
    at: float
    promised: bool = False
    unsure: bool = False
    owed: bool = False


class Neigh(Value, frozen=True, kw_only=True):
    """A row of the VXLAN device's neighbour table: who asks for the address is told the MAC."""

    address: Address
    mac: Mac

    def __str__(self) -> str:
        return f"{self.address} lladdr {self.mac}"


class Fdb(Value, frozen=True, kw_only=True):
    """A row of the VXLAN device's forwarding table: frames for the MAC go to the VTEP."""

    mac: Mac
    vtep: Address

    def __str__(self) -> str:
        return f"{self.mac} dst {self.vtep}"


class Miss(Value, frozen=True, kw_only=True):
    """The kernel's question: whose MAC is it (L3: `address`), or behind which VTEP (L2: `mac`)?"""

    ifindex: int
    address: Address | None = None
    mac: Mac | None = None

    @property
    def layer(self) -> int:
        return 3 if self.address is not None else 2


class Bridge(Value, frozen=True, kw_only=True):
    """The switch inside an overlay namespace. `mac` is fixed: a bridge without one changes it as ports come and go.
    `resolver`: the link-local address that names are asked at; `reach`: whom it answers, without an `address`."""

    name: str
    mac: Mac
    mtu: int
    address: Address | None = None
    prefixlen: int = 0
    resolver: Address | None = None
    reach: Subnet | None = None


class Vxlan(Value, frozen=True, kw_only=True):
    """The tunnel device, a port of the bridge. `local` is this host's VTEP; without one each route chooses its own."""

    name: str
    bridge: str
    vni: int
    port: int
    local: Address | None
    mtu: int
    learning: bool = False
    proxy: bool = True
    l2miss: bool = True
    l3miss: bool = True


class Veth(Value, frozen=True, kw_only=True):
    """A cable: `port` is the bridge's end, `link` the container's, which starts in the host's namespace with `mac`.
    Without `link` it is a tap, for a VM's process to hold. `address` is noted on cables laid by hand."""

    port: str
    link: str | None
    bridge: str
    mac: Mac
    mtu: int
    address: Address | None = None


def check_vni(vni: int) -> int:
    if not 1 <= vni < VNI_LIMIT:
        raise ValueError(f"{vni} is no VNI: 1 to {VNI_LIMIT - 1} are")
    return vni


def check_mtu(mtu: int) -> int:
    if not MTU_LIMITS[0] <= mtu <= MTU_LIMITS[1]:
        raise ValueError(f"{mtu} is no MTU: {MTU_LIMITS[0]} to {MTU_LIMITS[1]} are")
    return mtu


def check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no UDP port: 1 to 65535 are")
    return port


def check_count(count: int) -> int:
    if not 0 <= count <= COUNT_LIMIT:
        raise ValueError(f"a count is 0 to {COUNT_LIMIT}")  # the bad one may have thousands of digits
    return count


T = TypeVar("T")
_host = lru_cache(maxsize=4096)(HostId)  # a ring names 32, of which one is new: the others were checked before


def _revive(kind: type, raw: Any) -> Any:
    if kind in (Address, Subnet, Mac, OverlayName, HostId) and isinstance(raw, str):
        return (_host if kind is HostId else kind)(raw)
    raise ValueError(f"expected {kind.__name__}")


def encode(value: Any) -> bytes:
    """A value as JSON."""
    return msgspec.json.encode(value, enc_hook=str)


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """What reads JSON as a `kind`; it raises ValueError (msgspec.ValidationError is one) for anything else."""
    decode = msgspec.json.Decoder(kind, dec_hook=_revive).decode

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    return read
