"""The path between two containers: its ends, what was read on it, its hops as judged, and the question to another host.

What a host answers was written by somebody else: it is set aside in these forms, and everything in them is bounded.
"""

from __future__ import annotations

import enum
from typing import Annotated, NamedTuple

import msgspec

from myoverlay.networks import check_id
from myoverlay.values import Address, HostId, Mac, OverlayName, Value

#: Hops of one host's half at most, and characters of a text about one.
HOPS, SAID = 32, 400
#: Characters of a word that means a container, and of a name; containers that a host names for it, and names of one.
LONGEST, FOUND = 255, 8


class End(Value, frozen=True, kw_only=True):
    """One end of a path, as some host knows it. `host` is None for an outsider's."""

    address: Address
    mac: Mac
    vtep: Address
    host: HostId | None = None


class State(enum.Enum):
    """What came of looking at a hop."""

    RIGHT = "right"
    WRONG = "wrong"
    #: It could not be looked at, or what was found there could not be judged; nothing follows from it.
    UNSEEN = "unseen"


class Hop(Value, frozen=True, kw_only=True):
    """One station of the path: what is there, what should be, and what repairs it.

    `heals`: the plugin puts it right by itself, at its next look at the kernel.
    """

    name: str
    state: State
    saw: str
    wanted: str = ""
    remedy: str = ""
    heals: bool = False

    def __post_init__(self) -> None:
        for text in (self.name, self.saw, self.wanted, self.remedy):
            if len(text) > SAID or not text.isprintable():
                raise ValueError(f"a text about a hop is longer than {SAID} characters or not printable")


class PathQuestion(Value, frozen=True, kw_only=True):
    """Which path: from `source` to `target` on the overlay, as the asker knows the two."""

    id: str
    asker: HostId
    overlay: OverlayName
    source: End
    target: End

    def __post_init__(self) -> None:
        check_id(self.id)

    def hosts(self) -> frozenset[HostId]:
        """The hosts of both ends."""
        return frozenset(end.host for end in (self.source, self.target) if end.host is not None)


class Tunnel(Value, frozen=True, kw_only=True):
    """What an overlay's hosts must have alike."""

    vni: int
    port: int
    mtu: int


class PathAnswer(Value, frozen=True, kw_only=True):
    """One host's half of a path, in the order a packet from source to target takes it.

    `here` are the ends that are on this host, by their addresses; `there` what it believes of the other.
    """

    host: HostId
    name: str
    hops: Annotated[tuple[Hop, ...], msgspec.Meta(max_length=HOPS)] = ()
    here: Annotated[tuple[End, ...], msgspec.Meta(max_length=2)] = ()
    there: End | None = None
    tunnel: Tunnel | None = None

    def __post_init__(self) -> None:
        if len(self.name) > SAID or not self.name.isprintable():
            raise ValueError("the host's name is too long or not printable")


class Seek(Value, frozen=True, kw_only=True):
    """Who is meant by these words? Asked of all hosts; `overlay`: only there, "" for any."""

    id: str
    asker: HostId
    words: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=LONGEST)], ...], msgspec.Meta(max_length=2)]
    overlay: Annotated[str, msgspec.Meta(max_length=LONGEST)] = ""

    def __post_init__(self) -> None:
        check_id(self.id)


class Found(Value, frozen=True, kw_only=True):
    """A container of the host that says so, and the word that means it."""

    word: Annotated[str, msgspec.Meta(max_length=LONGEST)]
    overlay: OverlayName
    end: End
    names: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=LONGEST)], ...], msgspec.Meta(max_length=FOUND)] = ()


class Sought(Value, frozen=True, kw_only=True):
    """What a host found among its own containers. Who found nothing says nothing."""

    host: HostId
    found: Annotated[tuple[Found, ...], msgspec.Meta(max_length=FOUND)] = ()


# What the kernel was read to have on the path.


class Route(NamedTuple):
    """The kernel's answer to where a packet would go. `mtu`: what it carries; `trouble`: why it goes nowhere."""

    out: str = ""
    gateway: Address | None = None
    source: Address | None = None
    mtu: int = 0
    up: bool = True
    trouble: str = ""


class Neighbour(NamedTuple):
    """A row of a neighbour table: the MAC ("" where there is none) and its state as `ip neigh` calls it."""

    mac: str
    state: str


class Link(NamedTuple):
    """What matters of a link on a path. `master`: the bridge's name, "" for none; `forwards`: of a bridge's port."""

    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: str = ""
    forwards: bool = True
    arp: bool = True


class Room(NamedTuple):
    """A container's namespace. `link` None: no interface has the address. `seen` False: only its link could be read.

    `traffic`: traffic control on the link.
    """

    link: Link | None
    route: Route
    neighbour: Neighbour | None
    seen: bool = True
    traffic: tuple[Sieve, ...] = ()


class Heard(NamedTuple):
    """What came out of a container after an echo to it that bore the other end's address.

    `to`: the MAC that its answer went to, "" where none came; `holder`: the address of the overlay that has that MAC,
    where it is not the other end's. `asked`: it asked for the MAC of the other end. `sought`: of what else it asked.
    `others`: an echo from another address was answered; `beside`: one from an address of the overlay.
    """

    to: str = ""
    holder: str = ""
    asked: bool = False
    sought: tuple[str, ...] = ()
    others: bool = False
    beside: bool = False


class Forwarding(NamedTuple):
    """A row of the VXLAN device's forwarding table; `own`: it has a port, VNI or interface of its own."""

    vtep: str
    state: str
    own: bool


class Device(NamedTuple):
    """The VXLAN device: its link, and what it was born with."""

    link: Link
    vni: int
    port: int
    local: str


class Floor(NamedTuple):
    """An overlay namespace. `ports`: which link has a bridge row of a MAC, of those asked for."""

    bridge: Link | None
    device: Device | None
    links: dict[str, Link]
    macs: dict[str, str]
    neighbour: Neighbour | None
    forwarding: Forwarding | None


class Rules(NamedTuple):
    """What `nft` lists in a namespace. `trouble`: why it could not be read. `legacy`: iptables tables beside it.

    `traffic`: traffic control on devices there.
    """

    listed: str = ""
    devices: str = ""
    trouble: str = ""
    legacy: tuple[str, ...] = ()
    traffic: tuple[Sieve, ...] = ()


class Does(enum.Enum):
    """What traffic control does to a packet that it meets. `MAYBE`: that cannot be told."""

    NOTHING = "nothing"
    PASSES = "passes"
    DROPS = "drops"
    MAYBE = "maybe"


class Key(NamedTuple):
    """Bytes that a filter asks for, from the network header on; before it is the Ethernet header."""

    at: int
    mask: bytes
    value: bytes


class Sieve(NamedTuple):
    """A queue or a filter of traffic control. `find`: what removes it, after the word `tc`; `longest`: bytes that get
    through a queue, 0: nothing does; `protocol`: as Ethernet calls it, 3 for all; `keys` None: they cannot be told.
    """

    device: str
    way: str
    said: str
    find: str
    does: Does
    longest: int = 0
    protocol: int = 3
    keys: tuple[Key, ...] | None = ()
