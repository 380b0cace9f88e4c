"""What libnetwork's remote drivers send and expect, Engine 20.10 to 29: a struct per request and answer.

Unknown fields are ignored, so that a newer engine may say more; an empty body is refused, because a retried call can
arrive with one. Source: moby libnetwork/docs/remote.md and ipam.md, and drivers/remote/api, ipams/remote/api.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, TypeVar

import msgspec

from myoverlay.errors import Refused
from myoverlay.values import Address, Mac, OverlayName, Subnet

GENERIC = "com.docker.network.generic"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
#: The container's published ports, in Join's options: on each network of the container, whichever is to publish them.
PORT_MAP = "com.docker.network.portmap"
MAC_OPTION = "com.docker.network.endpoint.macaddress"
ADDRESS_TYPE = "RequestAddressType"
GATEWAY = "com.docker.network.gateway"
#: The container's name, from Engine 29 on.
ENDPOINT_NAME = "com.docker.network.endpoint.name"

#: Docker's have 64 hex digits. Links are named by them, and sentences and the log name them.
Id = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A request body."""


class IpamData(Message, frozen=True, kw_only=True):
    pool: str = msgspec.field(name="Pool", default="")
    gateway: str = msgspec.field(name="Gateway", default="")


class CreateNetwork(Message, frozen=True, kw_only=True):
    network: Id = msgspec.field(name="NetworkID")
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)
    ipv4: tuple[IpamData, ...] | None = msgspec.field(name="IPv4Data", default=None)
    ipv6: tuple[IpamData, ...] | None = msgspec.field(name="IPv6Data", default=None)

    def option(self, name: str) -> Any:
        return (self.options or {}).get(name)

    @property
    def generic(self) -> dict[str, str]:
        """What a person wrote with `-o`."""
        given = self.option(GENERIC) or {}
        if not isinstance(given, dict):
            raise Refused(f"{GENERIC} is no table of options")
        return {str(name): str(text) for name, text in given.items()}


class OfNetwork(Message, frozen=True, kw_only=True):
    network: Id = msgspec.field(name="NetworkID")


class OfEndpoint(Message, frozen=True, kw_only=True):
    network: Id = msgspec.field(name="NetworkID")
    endpoint: Id = msgspec.field(name="EndpointID")


class Interface(Message, frozen=True, kw_only=True):
    address: str = msgspec.field(name="Address", default="")
    address6: str = msgspec.field(name="AddressIPv6", default="")
    mac: str = msgspec.field(name="MacAddress", default="")


class CreateEndpoint(Message, frozen=True, kw_only=True):
    network: Id = msgspec.field(name="NetworkID")
    endpoint: Id = msgspec.field(name="EndpointID")
    interface: Interface | None = msgspec.field(name="Interface", default=None)
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)

    @property
    def mac(self) -> Mac | None:
        """The MAC a person asked for: as text in the interface, or as base64 of six bytes in the options."""
        if self.interface is not None and self.interface.mac:
            return value(Mac, self.interface.mac)
        raw = (self.options or {}).get(MAC_OPTION)
        if not isinstance(raw, str) or not raw:
            return None
        try:
            return Mac.unpack(base64.b64decode(raw, validate=True))
        except (ValueError, binascii.Error) as error:
            raise Refused(f"{MAC_OPTION}: {error}") from None


class Join(Message, frozen=True, kw_only=True):
    network: Id = msgspec.field(name="NetworkID")
    endpoint: Id = msgspec.field(name="EndpointID")
    sandbox: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{0,255}\Z")] = msgspec.field(name="SandboxKey", default="")
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)

    @property
    def publishes(self) -> bool:
        """Are ports of the container published?"""
        return bool((self.options or {}).get(PORT_MAP))


class Discover(Message, frozen=True, kw_only=True):
    kind: int = msgspec.field(name="DiscoveryType", default=0)


class RequestPool(Message, frozen=True, kw_only=True):
    pool: str = msgspec.field(name="Pool", default="")
    within: str = msgspec.field(name="SubPool", default="")
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)
    v6: bool = msgspec.field(name="V6", default=False)


class ReleasePool(Message, frozen=True, kw_only=True):
    pool: str = msgspec.field(name="PoolID")


class RequestAddress(Message, frozen=True, kw_only=True):
    pool: str = msgspec.field(name="PoolID")
    address: str = msgspec.field(name="Address", default="")
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)


class ReleaseAddress(Message, frozen=True, kw_only=True):
    pool: str = msgspec.field(name="PoolID")
    address: str = msgspec.field(name="Address", default="")


M = TypeVar("M", bound=msgspec.Struct)
V = TypeVar("V", Address, Mac, OverlayName, Subnet)


def read(kind: type[M], body: bytes) -> M:
    """A request body as its struct. Raises Refused in one sentence."""
    if not body.strip():
        raise Refused("the request has no body: Docker sends one with every such call, so this is a broken retry")
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:  # DecodeError, and what is no UTF-8 or nested without end
        raise Refused(f"the request is not understood: {error}") from None


#: The fields of a call that its line in the log shows, in that order, and as what.
_ABOUT = {"network": "network", "endpoint": "endpoint", "pool": "pool", "address": "address"}
_SHOWN = 64


def about(call: msgspec.Struct) -> dict[str, str]:
    """What a call is about: ids are cut as Docker's own are, and what is no plain text of a sane length is left out."""
    found = {}
    for name, label in _ABOUT.items():
        text = getattr(call, name, None)
        if isinstance(text, str) and text and text.isascii() and text.isprintable():
            found[label] = text[:12] if name in ("network", "endpoint") else text[:_SHOWN]
    interface = getattr(call, "interface", None)
    if isinstance(interface, Interface) and interface.address.isascii() and interface.address.isprintable():
        found["address"] = interface.address[:_SHOWN]
    return found


def value(kind: type[V], text: str) -> V:
    """A text of Docker's as a value. Raises Refused."""
    try:
        return kind(text)
    except ValueError as error:
        raise Refused(str(error)) from None


def address_of(cidr: str) -> Address:
    """The address in `10.5.0.3/24` or `10.5.0.3`."""
    return value(Address, cidr.partition("/")[0])
