"""Hosts on paper: each with its journal, all on one store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import HostId, Subnet
from tests.pure.kit import Clock, Host


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticks() -> Clock:
    """The store's clock, in seconds: sessions end by it."""
    return Clock(1000.0)


@pytest.fixture
def store(tmp_path: Path, ticks: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db", now=ticks)
    yield store
    store.close()


@pytest.fixture
def host(tmp_path: Path, store: SqliteStore, clock: Clock) -> Iterator[Callable[..., Host]]:
    """Makes hosts that share the store, the clock and each other's names."""
    names: dict[HostId, str] = {}
    made: list[Host] = []

    def make(name: str, *routes: str, base: str = "10.128.0.0/9") -> Host:
        made.append(Host(name, tmp_path / name, store, clock, names, Subnet(base), routes))
        return made[-1]

    yield make
    for one in made:
        one.close()
