"""The real kernel keeps the contract that the model's was written after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from myoverlay.host.ground import Ground
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from tests.kernel.host.tools import ip
from tests.pure.model.kernel_contract import FenceContract, KernelContract


@pytest.fixture
def pins(tmp_path: Path, links: Links) -> Iterator[Pins]:
    """Gone before the machine is."""
    pins = Pins(tmp_path / "pins")
    yield pins
    for name in pins.names():
        pins.delete(name)


@pytest.fixture
def open_ground() -> Any:
    return Ground


class TestContract(KernelContract):
    """The contract on the real kernel."""


class TestFence(FenceContract):
    """The contract of the guard's table on the real kernel."""

    @pytest.fixture
    def fences(self, spaces: Callable[[str], Namespace]) -> Any:
        home = spaces("home")
        ip(home, "link add eth0 type bridge", "link add a-name-of-15-by type bridge")
        return lambda: FenceTable(lambda: home)
