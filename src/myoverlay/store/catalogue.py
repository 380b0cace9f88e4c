"""Consul's catalogue: a node for each host, and on it a service for each name of its endpoints.

    node     myoverlay-<host>               address: its VTEP; meta `myoverlay`: our prefix
    service  <overlay>.<address>.<name>     its name is NAME of NAME.service.consul; tag: the overlay, as a DNS label

The node is one that no agent keeps, so that nothing is done to it but by us: agents drop what they do not know of their
own node, and the Consul that is asked may be none of this machine. So no health check runs either: what a dead host has
there is taken away by the others.

https://developer.hashicorp.com/consul/api-docs/txn and …/catalog
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from myoverlay.errors import Unavailable
from myoverlay.store import MAX_OPS
from myoverlay.store.waits import CONSISTENT
from myoverlay.values import Address, HostId, OverlayName

if TYPE_CHECKING:  # whoever has the embedded store does without Consul's client
    from myoverlay.store.consul import ConsulStore

_NODE = "myoverlay-"
#: Names that `NAME.service.consul` can be: one label, and none of RFC 2782's forms.
_LABEL = re.compile(r"[a-z0-9][a-z0-9_-]*")
#: Consul's own service, by which its servers find each other.
_RESERVED = frozenset(("consul",))


class Service(msgspec.Struct, frozen=True, order=True):
    """One name of one endpoint."""

    id: str
    name: str
    address: str
    tags: tuple[str, ...]


class Registered(msgspec.Struct, frozen=True):
    """What stands in the catalogue of a host."""

    vtep: str
    services: frozenset[Service]


class _Service(msgspec.Struct, rename="pascal"):
    id: str = msgspec.field(name="ID")
    service: str
    address: str = ""
    tags: list[str] | None = None


class _Node(msgspec.Struct, rename="pascal"):
    node: str
    address: str = ""


class _Whole(msgspec.Struct, rename="pascal"):
    node: _Node
    services: dict[str, _Service] | None = None


_whole = msgspec.json.Decoder(_Whole | None).decode
_nodes = msgspec.json.Decoder(list[_Node]).decode


def services_of(overlay: OverlayName, address: Address, names: Iterable[str]) -> frozenset[Service]:
    """An endpoint by each of its names that Consul's DNS can be asked for."""
    tag = re.sub(r"[._]", "-", overlay)
    return frozenset(
        Service(id=f"{overlay}.{address}.{name}", name=name, address=str(address), tags=(tag,))
        for name in names
        if _LABEL.fullmatch(name) and name not in _RESERVED
    )


class Catalogue:
    """Reads and writes it. Every method may raise Unavailable."""

    def __init__(self, store: ConsulStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def read(self, host: HostId, *, timeout: float = 3.0) -> Registered | None:
        """What stands there of a host; a leader that was just made has not all of it yet, so it is waited for that."""
        path, what = f"/v1/catalog/node/{_NODE}{host}", f"reading node {_NODE}{host}"
        found = self._decoded(_whole, self._store.look(path, what, CONSISTENT, timeout=timeout))
        if found is None:
            return None
        services = (
            Service(id=one.id, name=one.service, address=one.address, tags=tuple(one.tags or ()))
            for one in (found.services or {}).values()
        )
        return Registered(found.node.address, frozenset(services))

    def hosts(self, *, timeout: float = 3.0) -> frozenset[HostId]:
        """The hosts that have a node, as far as the token may see."""
        ours = [("node-meta", f"myoverlay:{self._prefix}")]
        raw = self._store.look("/v1/catalog/nodes", "reading the nodes", ours, timeout=timeout, whole=False)
        nodes = self._decoded(_nodes, raw)
        return frozenset(host for node in nodes if (host := _host(node.node)) is not None)

    def write(
        self,
        host: HostId,
        vtep: str,
        put: Collection[Service],
        drop: Collection[Service],
        *,
        timeout: float = 3.0,
    ) -> dict[Service, str]:
        """Have the node, and on it these and no longer those. The services that Consul refuses, with its words."""
        node = {"Node": _NODE + host, "Address": vtep, "Meta": self._meta()}
        lines: list[tuple[Service | None, dict[str, Any]]] = [(None, {"Node": {"Verb": "set", "Node": node}})]
        lines += [(one, _line("delete", host, one)) for one in sorted(drop)]
        lines += [(one, _line("set", host, one)) for one in sorted(put)]
        refused: dict[Service, str] = {}
        for start in range(0, len(lines), MAX_OPS):
            refused |= self._some(lines[start : start + MAX_OPS], timeout)
        return refused

    def _meta(self) -> dict[str, str]:
        return {"myoverlay": self._prefix, "external-node": "true", "external-probe": "false"}

    def _some(self, lines: list[tuple[Service | None, dict[str, Any]]], timeout: float) -> dict[Service, str]:
        """One transaction; what it fails for is left out, and the rest is done."""
        refused: dict[Service, str] = {}
        while lines:
            errors = self._store.transact([line for _, line in lines], "registering names", timeout=timeout)
            if not errors:
                break
            named = {position: lines[position][0] for position in errors if 0 <= position < len(lines)}
            for position, service in named.items():
                if service is None:
                    raise Unavailable(f"Consul does not take this host's node: {errors[position]}")
                refused[service] = errors[position]
            if not named:
                raise Unavailable(f"Consul does not register names: {', '.join(errors.values())}")
            lines = [line for position, line in enumerate(lines) if position not in named]
        return refused

    def remove(self, host: HostId, *, timeout: float = 3.0) -> None:
        """Nothing stands there of the host any more."""
        self._remove(host, [], timeout)

    def heard(self, host: HostId, *, timeout: float = 3.0) -> int:
        """When somebody said last that he hears the host, as the store's index; 0 where nobody ever did."""
        entry = self._store.get(f"{self._prefix}/witness/{host}", timeout=timeout)
        return entry.index if entry is not None else 0

    def collect(self, host: HostId, heard: int = 0, *, timeout: float = 3.0) -> bool:
        """The same for another host; False, and nothing is done, where that is there, or was `heard` once more."""
        unless = [_unchanged(f"{self._prefix}/alive/{host}", 0), _unchanged(f"{self._prefix}/witness/{host}", heard)]
        return self._remove(host, unless, timeout)

    def _remove(self, host: HostId, unless: list[dict[str, Any]], timeout: float) -> bool:
        line = {"Node": {"Verb": "delete", "Node": {"Node": _NODE + host}}}
        errors = self._store.transact([*unless, line], f"removing node {_NODE}{host}", timeout=timeout)
        beyond = [said for position, said in errors.items() if not 0 <= position < len(unless)]
        if beyond:
            raise Unavailable(f"Consul does not remove node {_NODE}{host}: {beyond[0]}")
        return not errors

    def _decoded(self, decode: Any, raw: bytes) -> Any:
        try:
            return decode(raw)
        except (ValueError, RecursionError) as error:  # what is no UTF-8, or nested without end, as well
            raise Unavailable(f"Consul's catalogue cannot be read: {error}") from None


def _line(verb: str, host: HostId, one: Service) -> dict[str, Any]:
    service = {"ID": one.id, "Service": one.name, "Address": one.address, "Tags": list(one.tags)}
    return {"Service": {"Verb": verb, "Node": _NODE + host, "Service": service}}


def _unchanged(key: str, index: int) -> dict[str, Any]:
    """Goes on only if the key has that index still; 0: is not there."""
    verb: dict[str, Any] = {"Verb": "check-index", "Index": index} if index else {"Verb": "check-not-exists"}
    return {"KV": {"Key": key, **verb}}


def _host(node: str) -> HostId | None:
    try:
        return HostId(node.removeprefix(_NODE)) if node.startswith(_NODE) else None
    except ValueError:
        return None  # somebody else's of a like name
