"""This host's overlays as Docker makes and removes their networks, with no kernel under them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.pure.host.test_audit import Holder, Kernelless
from tests.pure.kit import Host, soon


def test_with_a_network_the_addresses_of_its_endpoints_go(
    host: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker forgot the endpoint, and takes the network for it: who asks for its address in the next one gets it,
    though nothing was settled in between.
    """
    monkeypatch.setattr(Kernelless, "nothing", lambda *_: None, raising=False)
    ann = Holder(host("ann"), "192.0.2.1")
    on = ann.join()
    other = ann.join("10.6.0.0/24", "second", 6)
    address, kept = ann.container(on), ann.container(other)
    ann.host.pools.release(on.pool or "")
    ann.overlays.delete(on.network, soon())
    assert [(lease.address, lease.use) for lease in ann.host.leases.of(other.subnet)] == [(kept, "endpoint")]
    again = ann.join()
    assert ann.container(again, str(address)) == address
