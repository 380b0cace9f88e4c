"""The model's kernel keeps the contract of the real one, and tells whatever goes from its tables."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from myoverlay.values import Address
from tests.pure.model.kernel import FakeFenceTable, FakeGround, FakeLinks, FakePins, Kernel, free
from tests.pure.model.kernel_contract import CABLE, FDB, NEIGH, FenceContract, KernelContract, soon


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(Address("192.0.2.1"))


@pytest.fixture
def links(kernel: Kernel) -> FakeLinks:
    return FakeLinks(kernel)


@pytest.fixture
def pins(kernel: Kernel) -> FakePins:
    return FakePins(kernel)


@pytest.fixture
def open_ground(kernel: Kernel) -> Any:
    return partial(FakeGround, kernel, free)


class TestContract(KernelContract):
    """The contract on the model's kernel."""

    def test_whatever_goes_is_told(self, kernel: Kernel, links: Any, pins: Any, open_ground: Any) -> None:
        """Rows that are taken out, written over or lost with their device are told, and no others."""
        told: list[Any] = []
        kernel.on_rows = lambda _space, gone, _why: told.extend(gone)
        space = self.build(links, pins)
        ground = self.ground(links, space, open_ground)
        ground.tables.set([FDB, NEIGH])
        assert told == []
        ground.tables.unset([NEIGH])
        assert told == [NEIGH]
        pins.delete("demo")
        assert told == [NEIGH, FDB]

    def test_a_container_takes_its_end_and_its_cable(self, kernel: Kernel, links: Any, pins: Any) -> None:
        """An end is taken once; when its container ends the cable is gone."""
        space = self.build(links, pins)
        assert kernel.take(CABLE.link or "")
        assert not kernel.take(CABLE.link or "")
        kernel.kill_cable(CABLE.port)
        assert links.ifindex(space, CABLE.port, deadline=soon()) is None

    def test_the_power_takes_all(self, kernel: Kernel, links: Any, pins: Any) -> None:
        """Without power nothing stays."""
        self.build(links, pins)
        kernel.power_off()
        assert pins.names() == set()
        assert CABLE.link not in links.names()


class TestFence(FenceContract):
    """The contract of the guard's table on the model's kernel."""

    @pytest.fixture
    def fences(self, kernel: Kernel) -> Any:
        return partial(FakeFenceTable, kernel)
