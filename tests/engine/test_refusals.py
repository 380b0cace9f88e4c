"""What a person reads when a network cannot be created: one sentence, with what is allowed."""

from __future__ import annotations

import pytest

from tests.engine.conftest import BOTH, DRIVER, Cluster, Nets, refused

CASES = [
    (("-o", "color=red", "--subnet", "10.6.0.0/24"), "unknown option 'color': valid are overlay, vni, mtu, port"),
    (("-o", "vni=x", "--subnet", "10.6.0.0/24"), "option vni: 'x' is no whole number"),
    (("-o", "mtu=9000", "--subnet", "10.6.0.0/24"), "carries only 1450"),
    (("-o", "outsiders=yes", "--subnet", "10.6.0.0/24"), "'yes' is neither on nor off"),
    (("-o", "vtep=10.99.99.99", "--subnet", "10.6.0.0/24"), "10.99.99.99"),
    (("--ipv6", "--subnet", "10.6.0.0/24", "--subnet", "fd00:6::/64"), "overlays are IPv4 only so far"),
    (("--subnet", "10.6.0.0/24", "--subnet", "10.6.1.0/24"), "one subnet so far"),
    (("--subnet", "10.6.0.0/31"), "cannot be a pool: /8 to /30 can"),
    (("--ipam-opt", "pool=x"), "unknown --ipam-opt 'pool': valid is overlay"),
    ((), "-o overlay=NAME or --subnet is required"),
]


@pytest.mark.parametrize(("arguments", "sentence"), CASES, ids=[case[1][:30] for case in CASES])
@pytest.mark.parametrize("age", [0, 1])
def test_refused_in_one_sentence(cluster: Cluster, age: int, arguments: tuple[str, ...], sentence: str) -> None:
    """Each bad option is refused naming what is allowed, and leaves nothing in the store."""
    host = cluster.engines[age]
    before = _ours(cluster)
    assert sentence in refused(host, "network", "create", *BOTH, *arguments, "bad")
    assert _ours(cluster) == before


def _ours(cluster: Cluster) -> set[str]:
    kept = ("myoverlay/overlays/", "myoverlay/vni/")
    return {key for key in cluster.consul.get("myoverlay/") if key.startswith(kept)}


def test_default_ipam_needs_a_name(cluster: Cluster) -> None:
    """Docker's own IPAM gives the same subnet everywhere, so strangers would be joined without a name."""
    for host in cluster.engines:
        assert "-o overlay=NAME is required" in refused(host, "network", "create", *DRIVER, "bad")


def test_contradictions_show_both_values(cluster: Cluster, nets: Nets) -> None:
    """A host that asks for something else than is defined reads both values."""
    h1, h2 = cluster.engines
    nets.create(h1, "web", *BOTH, "--subnet", "10.6.2.0/24", "-o", "overlay=six", "-o", "mtu=1400")
    create = ("network", "create", *BOTH)
    other = refused(h2, *create, "--subnet", "10.6.2.0/24", "-o", "overlay=six", "-o", "mtu=1300", "web")
    assert "overlay six is defined with mtu 1400, this host asks for 1300" in other
    other = refused(h2, *create, "--subnet", "10.6.3.0/24", "-o", "overlay=six", "web")
    assert "defined with subnet 10.6.2.0/24, this host asks for 10.6.3.0/24" in other
    other = refused(h2, *create, "--subnet", "10.6.2.0/25", "-o", "overlay=seven", "web")
    assert "pool 10.6.2.0/25 overlaps 10.6.2.0/24 of overlay six" in other
    other = refused(h2, *create, "--subnet", "10.6.2.0/24", "-o", "overlay=seven", "web")
    assert "pool 10.6.2.0/24 belongs to overlay six" in other
    other = refused(h1, *create, "--ipam-opt", "overlay=six", "web2")
    assert "has already joined" in other or "is joined already by network" in other
    nets.create(h2, "web", *BOTH, "--ipam-opt", "overlay=six")
    assert "10.6.2.0/24" in h2.docker("network", "inspect", "web")


def test_pools_are_chosen_apart(cluster: Cluster, nets: Nets) -> None:
    """Without a subnet each overlay gets one of its own."""
    for name in ("auto1", "auto2"):
        nets.create(cluster.h1, name, *BOTH, "-o", f"overlay={name}")
    nets.create(cluster.h2, "auto1", *BOTH, "--ipam-opt", "overlay=auto1")
    subnets = [
        host.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name)
        for host, name in ((cluster.h1, "auto1"), (cluster.h1, "auto2"), (cluster.h2, "auto1"))
    ]
    assert subnets[0] == subnets[2] != subnets[1]
