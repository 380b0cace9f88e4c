"""Faults to plant into the code, in memory: each must be found. (In the making.)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

BASE = 1
FAULTS: dict[str, str] = {}


@contextmanager
def planted(name: str) -> Iterator[None]:
    yield
