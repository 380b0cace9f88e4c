"""Addresses that running calls of this host are about to take, so that no two of them try the same one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from myoverlay.values import Address, Subnet


class Claiming:
    """`_lock` guards `_taking`; it is held for moments, never across a call to the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taking: set[tuple[Subnet, Address]] = set()

    @contextmanager
    def alone(self, subnet: Subnet, address: Address) -> Iterator[bool]:
        """True where no other call of this host is about to take the address; then nobody else will meanwhile."""
        one = (subnet, address)
        with self._lock:
            alone = one not in self._taking
            if alone:
                self._taking.add(one)
        try:
            yield alone
        finally:
            if alone:
                with self._lock:
                    self._taking.discard(one)

    def of(self, subnet: Subnet) -> set[Address]:
        """The addresses of a pool that are about to be taken."""
        with self._lock:
            return {address for other, address in self._taking if other == subnet}
