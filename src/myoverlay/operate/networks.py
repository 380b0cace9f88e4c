"""Networks that are defined once for all hosts, as a person asks for them: `myoverlay network …`."""

from __future__ import annotations

from typing import Any

import msgspec

from myoverlay.errors import Refused
from myoverlay.host.networks import ClusterNetworks, User
from myoverlay.networks import HeldNetwork, NetworkPlan
from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.plan.blueprint import Wish
from myoverlay.values import Address, HostId, OverlayName, Subnet


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """`network create`; texts as a person wrote them."""

    name: str
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux: dict[str, str] = {}
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    internal: bool = False
    force: bool = False

    def wish(self) -> Wish:
        """The words, each in its form. Raises Refused."""
        try:
            return Wish(
                name=OverlayName(self.name),
                subnet=Subnet(self.subnet) if self.subnet else None,
                ip_range=Subnet(self.ip_range) if self.ip_range else None,
                gateway=Address(self.gateway) if self.gateway else None,
                aux={name: Address(text) for name, text in self.aux.items()},
                options=self.options,
                labels=self.labels,
                internal=self.internal,
            )
        except ValueError as error:
            raise Refused(str(error)) from None


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A network by its name."""

    name: str
    force: bool = False

    def network(self) -> OverlayName:
        try:
            return OverlayName(self.name)
        except ValueError as error:
            raise Refused(str(error)) from None


class Networks:
    """Answers about them, and does what a person decides."""

    def __init__(self, networks: ClusterNetworks) -> None:
        self._networks = networks

    def methods(self) -> dict[str, Method]:
        return {
            "Control.NetworkCreate": (Create, self.create),
            "Control.Networks": (Nothing, self.list),
            "Control.NetworkInspect": (Named, self.inspect),
            "Control.NetworkRemove": (Named, self.remove),
        }

    def create(self, call: Create, deadline: float) -> Answer:
        """What was made, what speaks against it, and what became of it on each host so far."""
        made = self._networks.create(call.wish(), call.force, deadline)
        return {
            "network": _plan(made.plan),
            "warnings": list(made.warnings),
            "hosts": [_held(one) for one in made.held],
            "late": list(made.late),
        }

    def list(self, call: Nothing, deadline: float) -> Answer:
        """All of them, with what became of each on the hosts."""
        listed = self._networks.list(deadline)
        return {"networks": [{**_plan(plan), "hosts": [_held(one) for one in held]} for plan, held in listed]}

    def inspect(self, call: Named, deadline: float) -> Answer:
        """One of them: hosts with what became of it there, containers with names, address and host."""
        shown = self._networks.inspect(call.network(), deadline)
        return {
            **_plan(shown.plan),
            "hosts": _hosts(shown.held, shown.names, shown.present),
            "containers": _users(shown.users, shown.names),
        }

    def remove(self, call: Named, deadline: float) -> Answer:
        """What remains of it: hosts that still have it, containers that are still on its overlay."""
        gone = self._networks.remove(call.network(), call.force, deadline)
        remaining = [one for one in _hosts(gone.held, gone.names, gone.present) if one["state"] != "none"]
        return {"name": gone.plan.name, "hosts": remaining, "containers": _users(gone.users, gone.names)}


def _plan(plan: NetworkPlan) -> Answer:
    return {
        "name": plan.name,
        "id": plan.id,
        "subnet": plan.subnet,
        "ip_range": plan.ip_range,
        "gateway": plan.gateway,
        "aux": plan.aux,
        "overlay": plan.overlay,
        "options": plan.options,
        "labels": plan.labels,
        "internal": plan.internal,
        "made_on": plan.maker,
        "made_at": plan.made_at,
        "removing": plan.going,
    }


def _held(held: HeldNetwork) -> Answer:
    return {"id": held.host, "name": held.host_name or held.host.short, "state": held.became.value, "said": held.said}


def _hosts(held: tuple[HeldNetwork, ...], names: dict[HostId, str], present: frozenset[HostId]) -> list[Answer]:
    """Those that said something, and those that are there and did not (`none`)."""
    rows: list[dict[str, Any]] = [{**_held(one), "present": one.host in present} for one in held]
    silent = present - {one.host for one in held}
    rows += [{"id": h, "name": names.get(h) or h.short, "state": "none", "said": "", "present": True} for h in silent]
    return sorted(rows, key=lambda row: (row["name"], row["id"]))


def _users(users: tuple[User, ...], names: dict[HostId, str]) -> list[Answer]:
    return [
        {
            "names": list(one.names),
            "address": one.address,
            "mac": one.mac,
            "host": names.get(one.host) or one.host.short,
            "host_id": one.host,
        }
        for one in users
    ]
