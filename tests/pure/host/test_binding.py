"""Who may come out of which port, on a kernel of paper: bound before the cable, freed by name, put right."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

import pytest

from myoverlay.errors import KernelRefused, Refused
from myoverlay.host.binding import Binding
from myoverlay.plan.guard import bound
from myoverlay.tally import Tally
from tests.pure.kit import endpoint, network
from tests.pure.model.kernel import FakeBoundTable, FakeNamespace, Space

ONE, TWO = endpoint("10.5.0.2"), endpoint("10.5.0.3")
NET = network()


class Site:
    """An overlay's namespace, and what is bound in it."""

    def __init__(self, mode: str = "on", free: tuple[str, ...] = (), make: Any = FakeBoundTable) -> None:
        self.space, self.tally = Space(NET.overlay), Tally()
        self.binding = Binding(mode, free, self.tally, make)
        self.table = self.binding.open(FakeNamespace(self.space), NET, [ONE], strict=True)  # type: ignore[arg-type]

    @property
    def repairs(self) -> int:
        return self.tally.get("repairs", "binding")


def test_endpoints_are_bound_as_they_come_and_go() -> None:
    """Those that are there at once, a new one before its cable, one that went no more from the next round on."""
    site = Site()
    assert site.space.bound == bound([ONE])
    site.binding.add(site.table, NET.overlay, TWO, lambda: [ONE, TWO])
    assert site.space.bound == bound([ONE, TWO])
    site.binding.gone(NET.overlay)
    assert not site.binding.is_as_left(site.table, NET.overlay)
    site.binding.check(site.table, NET.overlay, [TWO])
    assert site.space.bound == bound([TWO])
    assert site.repairs == 0


@pytest.mark.parametrize("free", [("*",), ("db", NET.overlay)])
def test_a_freed_overlay_binds_nobody(free: tuple[str, ...]) -> None:
    """Where the setting names the overlay, or all, what bound its containers goes, and nothing comes in its place."""
    site = Site(free=free)
    assert site.table is None
    assert site.space.bound is None
    site.binding.add(site.table, NET.overlay, TWO, list)
    site.binding.check(site.table, NET.overlay, [TWO])
    assert site.binding.is_as_left(site.table, NET.overlay)
    assert site.space.bound is None
    assert Site(mode="off").table is None


def test_what_somebody_changed_is_put_right() -> None:
    """A table that is gone, or lacks an endpoint, is laid anew and counted; also when the next endpoint finds it so."""
    site, told = Site(), list[tuple[str, str]]()
    site.binding.on_repair = lambda overlay, reason, _: told.append((overlay, reason))
    site.space.bound = None
    site.binding.add(site.table, NET.overlay, TWO, lambda: [ONE, TWO])
    assert site.space.bound == bound([ONE, TWO])
    site.space.bound = bound([ONE])
    site.binding.check(site.table, NET.overlay, [ONE, TWO])
    assert site.space.bound == bound([ONE, TWO])
    assert site.repairs == 2
    assert told == [(NET.overlay, "binding")] * 2


class Unable(FakeBoundTable):
    """A kernel without nf_tables for bridges."""

    def lay(self, value: Any) -> None:
        raise KernelRefused("making table myoverlay", errno.EOPNOTSUPP, "Operation not supported")


def test_a_kernel_that_cannot() -> None:
    """`on` refuses a new overlay in one sentence; `warn` makes it."""
    with pytest.raises(Refused, match=r"cannot be bound to their addresses .*not supported.*MYOVERLAY_GUARD=warn"):
        Site(make=partial(Unable))
    site = Site(mode="warn", make=partial(Unable))
    site.binding.check(site.table, NET.overlay, [ONE])
    assert site.space.bound is None
    assert "Operation not supported" in site.binding.trouble[NET.overlay]
    site.binding.forget(NET.overlay)
    assert not site.binding.trouble
