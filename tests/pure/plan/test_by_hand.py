"""Cables laid by hand: how they are named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan import shape
from myoverlay.values import Address, Mac


@given(st.integers(0, (1 << 40) - 1), st.integers(0, (1 << 40) - 1))
def test_a_port_is_named_after_its_mac(first: int, second: int) -> None:
    """Two cables of an overlay share a name exactly if they share a MAC; the name fits and is no endpoint's."""
    macs = [Mac.unpack(b"\x02" + number.to_bytes(5, "big")) for number in (first, second)]
    one, other = (shape.cable("br0", "eth0", Address("192.168.0.3"), mac, 1450) for mac in macs)
    assert (one.port == other.port) == (first == second)
    assert len(one.port) <= 15
    assert not one.port.startswith("p")


def test_a_tap_is_called_as_was_said() -> None:
    """A VM asks for its tap by name, and there is no other end that we could name."""
    tap = shape.tap("br0", "vm1", Address("192.168.0.3"), Mac.of(Address("192.168.0.3")), 1450)
    assert (tap.port, tap.link, shape.name_of(tap)) == ("vm1", None, "vm1")


def test_a_bridges_mac_is_no_containers() -> None:
    """It follows from the address alone, so that hosts that share the address share it."""
    assert shape.mac_for(Address("192.168.0.1")) == "02:6f:c0:a8:00:01"
