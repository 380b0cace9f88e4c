"""Whether a host can carry an overlay: its own device, one that could be made, and who is in the way of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from myoverlay.host.carrying import Carrying, Standing
from myoverlay.networks import Carry
from myoverlay.values import Address, OverlayName, Vxlan

VTEP = Address("192.0.2.1")
HOLDER = (False, "device vx9 in the host's namespace")


class Host:
    """A host on the overlay `web`, VNI 7. `faults`: of its VXLAN device, None where it has none."""

    def __init__(self) -> None:
        self.faults: set[str] | None = set()
        self.held: dict[tuple[int, int], tuple[bool, str]] = {}
        self.tried: list[tuple[int, int]] = []
        definition = SimpleNamespace(vni=7, port=4789)
        self.local: Any = SimpleNamespace(
            network=SimpleNamespace(overlay="web", definition=definition, vtep=VTEP), inside=lambda work, _: work(None)
        )

    def named(self, overlay: str) -> Any:
        return self.local if overlay == "web" else None

    def observe(self, ns: None, *, deadline: float) -> tuple[Any, ...]:
        value = Vxlan(name="vxlan1", bridge="br0", mtu=1450, vni=7, port=4789, local=VTEP)
        return (SimpleNamespace(value=value, faults=self.faults),) if self.faults is not None else ()

    def taken(self, vni: int, port: int, local: Address, deadline: float) -> tuple[bool, str] | None:
        self.tried.append((vni, port))
        return self.held.get((vni, port))

    @property
    def carrying(self) -> Carrying:
        own: Any = self
        return Carrying(own, own, own)

    def cannot(self, overlay: str, vni: int) -> Any:
        return self.carrying.cannot(Carry(overlay=OverlayName(overlay), vni=vni, port=4789), VTEP, time.monotonic() + 9)


def test_a_device_that_is_there_is_not_tried() -> None:
    """Nothing is made or asked where the overlay has its own device, by whoever asks."""
    host = Host()
    assert host.carrying.device(host.local, time.monotonic() + 9) == Standing(True)
    assert host.cannot("web", 7) is None
    assert host.tried == []


def test_who_is_in_the_way_of_a_device_that_is_gone() -> None:
    """A member names the holder; where nobody is, the device is missing, which is its own finding."""
    host = Host()
    host.faults = None
    assert host.carrying.device(host.local, time.monotonic() + 9) == Standing(False)
    assert host.cannot("web", 7) is None
    host.held[7, 4789] = HOLDER
    said = host.cannot("web", 7)
    assert (said.holder, said.is_port, said.member) == (HOLDER[1], False, True)


def test_a_device_that_cannot_be_set_up_has_not_got_its_port() -> None:
    """It is there and down: whoever has the port is named, found by a VNI that nobody uses."""
    host = Host()
    host.faults = {"down"}
    host.carrying.device(host.local, time.monotonic() + 9)
    ((vni, port),) = host.tried
    assert (vni != 7, port) == (True, 4789)
    host.held[vni, 4789] = (True, "a program that has bound it")
    assert host.carrying.device(host.local, time.monotonic() + 9) == Standing(
        False, "a program that has bound it", True
    )


def test_who_is_not_on_the_overlay_tries() -> None:
    """Whether it could come to it is the kernel's own answer; its own overlay with another VNI is no right."""
    host = Host()
    assert host.cannot("red", 9) is None
    host.held = {(9, 4789): HOLDER, (8, 4789): HOLDER}
    assert not host.cannot("red", 9).member
    assert not host.cannot("web", 8).member
    assert host.tried == [(9, 4789), (9, 4789), (8, 4789)]


def test_what_there_was_no_time_for_is_not_said_to_be_free() -> None:
    """It is told how many were looked at."""
    host = Host()
    asked = tuple(Carry(overlay=OverlayName(name), vni=9, port=4789) for name in ("red", "blue"))
    assert host.carrying.all_of(asked, VTEP, time.monotonic() + 9) == ((), 2)
    assert host.carrying.all_of(asked, VTEP, time.monotonic() - 1) == ((), 0)
