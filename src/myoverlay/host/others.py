"""What has to be known of other hosts' addresses by whoever gives one out, before anybody can know it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from myoverlay.values import Address, HostId, Network


class Known(Protocol):
    """What is needed to know of other hosts' addresses (`elsewhere.Elsewhere`)."""

    def addresses(self, network: Network) -> Collection[Address]: ...
    def listed(self, network: Network) -> Collection[Address]: ...
    def has(self, network: Network, address: Address) -> bool: ...
    def held_back(self, network: Network) -> str | None: ...
    def remedy(self, host: HostId) -> str: ...


class Nothing:
    """Nobody else is known."""

    def addresses(self, _: Network) -> Collection[Address]:
        return ()

    def listed(self, _: Network) -> Collection[Address]:
        return ()

    def has(self, _: Network, __: Address) -> bool:
        return False

    def held_back(self, _: Network) -> str | None:
        return None

    def remedy(self, _: HostId) -> str:
        return ""
