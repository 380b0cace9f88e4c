"""What an overlay is: the options of `docker network create -o`, and whether two hosts mean the same."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from myoverlay.egress import check_choice
from myoverlay.errors import Clash, Refused
from myoverlay.naming import check_prefix
from myoverlay.values import (
    VNI_FIRST,
    VNI_LAST,
    VXLAN_OVERHEAD,
    Address,
    Definition,
    OverlayName,
    Subnet,
    check_mtu,
    check_port,
    check_vni,
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one `docker network create`, checked. None: not given."""

    overlay: OverlayName | None = None
    vni: int | None = None
    mtu: int | None = None
    port: int | None = None
    vtep: str | None = None
    records: str | None = None
    outsiders: bool | None = None
    egress: str | None = None


class Option(NamedTuple):
    """One row of the options table: how its text is read, and what it means."""

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"{text!r} is neither on nor off")
    return text == "on"


def _vtep(text: str) -> str:
    if not text or len(text) > 45 or "/" in text or not text.isprintable():
        raise ValueError(f"{text!r} is neither an address nor an interface of this host")
    return text


MTU_OF_DOCKER = "com.docker.network.driver.mtu"

OPTIONS = (
    Option("overlay", "overlay", OverlayName, "name that all hosts know the overlay by"),
    Option("vni", "vni", lambda t: check_vni(_number(t)), "VXLAN network identifier, 1 to 16777215"),
    Option("mtu", "mtu", lambda t: check_mtu(_number(t)), "MTU inside the overlay; default: the underlay's less 50"),
    Option("port", "port", lambda t: check_port(_number(t)), "UDP port of VXLAN"),
    Option("vtep", "vtep", _vtep, "underlay address or interface of this host"),
    Option("records", "records", check_prefix, "where `arp/` and `fib/` keys lie in the store; default: below our prefix"),
    Option("outsiders", "outsiders", _switch, "on: keys that others PUT there are followed; default: on with `records`"),
    Option("egress", "egress", check_choice, "how containers reach what is beyond the overlay. own: by the overlay's gateway; docker: by a second interface on Docker's `docker_gwbridge`; default: `MYOVERLAY_EGRESS`"),
    Option(MTU_OF_DOCKER, "mtu", lambda t: check_mtu(_number(t)), "Docker's own name for `mtu`"),
)  # fmt: skip


def read_options(given: Mapping[str, str]) -> Options:
    """The options a person wrote. Raises Refused with a sentence that names the valid ones."""
    table = {option.name: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in table:
            valid = ", ".join(option.name for option in OPTIONS)
            raise Refused(f"unknown option {name!r}: valid are {valid}")
        option = table[name]
        try:
            value = option.parse(str(text))
        except ValueError as error:
            raise Refused(f"option {name}: {error}") from None
        if values.setdefault(option.field, value) != value:
            raise Refused(
                f"options mtu={given['mtu']} and {MTU_OF_DOCKER}={given[MTU_OF_DOCKER]} contradict each other"
            )
    return Options(**values)


def name_of(option: OverlayName | None, ipam: OverlayName | None, subnet: Subnet, written: bool | None) -> OverlayName:
    """The overlay's name (design section 3). `written`: a person wrote the pool; None: it is not from our IPAM.

    Without a name the subnet serves, but only if a person chose it: Docker's default IPAM gives the same pool on
    every host, and strangers would be joined.
    """
    if option is not None and ipam is not None and option != ipam:
        raise Refused(f"-o overlay={option} and --ipam-opt overlay={ipam} contradict each other")
    name = option or ipam
    if name is not None:
        return name
    if written:
        return OverlayName(subnet.key)
    if written is None:
        raise Refused(
            "-o overlay=NAME is required: the subnet comes from another IPAM driver, so it cannot name the overlay"
            " (or use --ipam-driver myoverlay with --subnet)"
        )
    raise Refused("-o overlay=NAME or --subnet is required: a subnet chosen automatically cannot name the overlay")


def vnis(name: OverlayName) -> Iterator[int]:
    """VNIs to try for an overlay: from a place its name decides, so that few collide, through the whole range."""
    span = VNI_LAST - VNI_FIRST + 1
    start = zlib.crc32(name.encode()) % span
    for step in range(span):
        yield VNI_FIRST + (start + step) % span


def carries(underlay_mtu: int, vtep: Address) -> int:
    """The MTU that fits through VXLAN over an underlay."""
    return underlay_mtu - VXLAN_OVERHEAD[vtep.version]


def agree(definition: Definition, options: Options, subnet: Subnet, gateway: Address | None) -> None:
    """Raises Refused, in one sentence with both values, where a host asks for something else than is defined."""
    asked = (
        ("subnet", subnet, definition.subnet),
        ("gateway", gateway, definition.gateway),
        ("vni", options.vni, definition.vni),
        ("mtu", options.mtu, definition.mtu),
        ("port", options.port, definition.port),
        ("records", options.records, definition.records),
    )
    for what, mine, theirs in asked:
        if mine is not None and mine != theirs:
            hint = ""
            if what == "subnet":
                hint = f"; use --subnet {theirs}, or --ipam-driver myoverlay --ipam-opt overlay={definition.overlay}"
            raise Refused(
                f"overlay {definition.overlay} is defined with {what} {theirs or 'none'}, this host asks for {mine}{hint}"
            )


def check_same(mine: Definition, theirs: Definition) -> None:
    """Raises Clash, with both values, where the store defines an overlay otherwise than the one that runs here."""
    for what in ("subnet", "gateway", "vni", "mtu", "port", "records"):
        here, there = getattr(mine, what), getattr(theirs, what)
        if here != there:
            raise Clash(
                f"overlay {mine.overlay} runs on this host with {what} {here or 'none'}, but the store defines it with"
                f" {there or 'none'}: remove its network on the hosts of one side and create it again"
            )


def check_fits(definition: Definition, carried: int, towards: str) -> None:
    """Raises Refused where the underlay carries less than the overlay's MTU."""
    if carried < definition.mtu:
        raise Refused(
            f"overlay {definition.overlay} has MTU {definition.mtu}, but {towards} carries only {carried}:"
            f" raise the underlay's MTU or create the overlay with -o mtu={carried}"
        )


def vni_taken(vni: int, holder: str) -> Clash:
    """The refusal for a VNI that somebody has."""
    return Clash(f"VNI {vni} is taken by {holder}: choose another with -o vni=, or leave it out")
