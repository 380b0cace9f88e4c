"""Networks that are defined once for all hosts: what a person asked for, what each host says became of it, and the
questions that are asked of all hosts before one is made.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from myoverlay.values import (
    Address,
    HostId,
    OverlayName,
    Subnet,
    Value,
    check_mtu,
    check_port,
    check_vni,
)

#: Docker's own, on every host.
PREDEFINED = frozenset({"bridge", "host", "none", "default", "container", "ingress", "docker_gwbridge"})
#: A table of options, labels or addresses set aside: entries, and characters of a text.
MANY, LONG = 64, 255
#: Routes and hosts in an answer.
ANSWERED = 1024
#: Overlays that one question asks about.
CARRIED = 16
_ID = re.compile(r"[0-9a-f]{32}")


def fresh_id() -> str:
    """What tells a plan, or a question, from every other, also from a later one of the same name."""
    return uuid.uuid4().hex


def check_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ValueError("an id is 32 hex digits")
    return text


def plain(text: str, long: int = LONG) -> str:
    """Text that somebody else wrote, fit to be shown: one line, no control characters, not longer than that."""
    line = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in line)
    return shown if len(shown) <= long else shown[: long - 1] + "…"


def _check_texts(what: str, texts: Iterable[str], long: int = LONG) -> None:
    for text in texts:
        if len(text) > long or not text.isprintable():
            raise ValueError(f"{what}: a name or text is longer than {long} characters or not printable")


def _check_table(what: str, table: Mapping[str, object]) -> None:
    if len(table) > MANY:
        raise ValueError(f"{len(table)} {what} are too many: up to {MANY} are allowed")
    _check_texts(what, (*table, *map(str, table.values())))
    if "" in table:
        raise ValueError(f"{what}: a name is empty")


class NetworkPlan(Value, frozen=True, kw_only=True):
    """A Docker network that every following host is to have. `going`: they are to remove it, if `forced` under use.

    `options` are those of `docker network create -o`. What is chosen once for all (subnet, VNI, MTU) stands in it.
    """

    name: OverlayName
    id: str
    subnet: Subnet
    ip_range: Subnet | None = None
    gateway: Address | None = None
    aux: dict[str, Address] = {}
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    internal: bool = False
    maker: str = ""
    made_at: float = 0.0
    going: bool = False
    forced: bool = False

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.name in PREDEFINED:
            raise ValueError(f"{self.name!r} is a name of Docker's own: choose another")
        if self.subnet.version != 4 or not 8 <= self.subnet.prefixlen <= 30:
            raise ValueError(f"{self.subnet} cannot be an overlay's subnet: an IPv4 /8 to /30 can")
        if self.ip_range is not None and not self.subnet.covers(self.ip_range):
            raise ValueError(f"the range {self.ip_range} is outside {self.subnet}: choose an --ip-range inside it")
        for what, address in (("gateway", self.gateway), *((f"aux address {k}", v) for k, v in self.aux.items())):
            if address is not None and not self.subnet.is_host(address):
                raise ValueError(f"the {what} {address} is no host address of {self.subnet}")
        for what, table in (("options", self.options), ("labels", self.labels), ("aux addresses", self.aux)):
            _check_table(what, table)
        _check_texts("maker", (self.maker,))

    @property
    def overlay(self) -> OverlayName:
        """The overlay that the network stands for: what `-o overlay=` says, else the one of the network's name."""
        return OverlayName(self.options.get("overlay", self.name))


class Became(enum.Enum):
    """What became of a plan on a host."""

    HELD = "held"
    #: A network of that name is there which is not ours.
    CONFLICT = "conflict"
    FAILED = "failed"
    #: It is to be removed, and could not be yet.
    REMAINS = "remains"


class HeldNetwork(Value, frozen=True, kw_only=True):
    """What a host says became of a plan there. `said`: why it is not held, or not removed, in one sentence."""

    host: HostId
    network: OverlayName
    plan: str
    became: Became
    said: str = ""
    host_name: str = ""

    def __post_init__(self) -> None:
        check_id(self.plan)
        _check_texts("what a host says", (self.said, self.host_name), 2 * LONG)


class Carry(Value, frozen=True, kw_only=True):
    """An overlay as it stands: could a host carry it?"""

    overlay: OverlayName
    vni: int
    port: int

    def __post_init__(self) -> None:
        check_vni(self.vni)
        check_port(self.port)


class Cannot(Value, frozen=True, kw_only=True):
    """An overlay that a host cannot carry: `holder` has its VNI and port there, or, with `is_port`, its port alone.

    `member`: the host is on the overlay.
    """

    overlay: OverlayName
    holder: str
    is_port: bool = False
    member: bool = False

    def __post_init__(self) -> None:
        _check_texts("who is in the way", (self.holder,))


class Question(Value, frozen=True, kw_only=True):
    """What all hosts are asked before a network is made.

    `area`: which routes matter. `vnis`: which are free, with this UDP port. `mtu`: do packets of that size come
    through between hosts. `overlay`: what a host that is on it already has by right. `carry`: could these overlays be
    carried? With `brief` nobody is reached for.
    """

    id: str
    asker: HostId
    overlay: OverlayName
    area: Subnet
    vnis: Annotated[tuple[int, ...], msgspec.Meta(max_length=4)]
    port: int
    mtu: int
    vtep: str = ""
    carry: Annotated[tuple[Carry, ...], msgspec.Meta(max_length=CARRIED)] = ()
    brief: bool = False

    def __post_init__(self) -> None:
        check_id(self.id)
        check_port(self.port)
        check_mtu(self.mtu)
        for vni in self.vnis:
            check_vni(vni)
        _check_texts("underlay", (self.vtep,))


class Answer(Value, frozen=True, kw_only=True):
    """What a host found. `routes`: those that overlap the area; `taken`: who has a VNI, or the port (0); `carries`: the
    MTU that fits through its underlay; `silent` and `narrow`: hosts whose kernels it could not reach, or not by a
    packet of full size; `unsure`: what it could not find out; `clock`: when it was answered, in Unix seconds there;
    `cannot`: of the first `looked` overlays that were asked about those that it cannot carry.
    """

    host: HostId
    name: str
    follows: bool = False
    routes: Annotated[tuple[Subnet, ...], msgspec.Meta(max_length=ANSWERED)] = ()
    taken: Annotated[dict[int, str], msgspec.Meta(max_length=16)] = {}
    carries: int | None = None
    silent: Annotated[tuple[HostId, ...], msgspec.Meta(max_length=ANSWERED)] = ()
    narrow: Annotated[tuple[HostId, ...], msgspec.Meta(max_length=ANSWERED)] = ()
    unsure: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    clock: float | None = None
    cannot: Annotated[tuple[Cannot, ...], msgspec.Meta(max_length=CARRIED)] = ()
    looked: int = 0

    def __post_init__(self) -> None:
        _check_texts("answer", (self.name, *self.taken.values(), *self.unsure))
