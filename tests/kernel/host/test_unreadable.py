"""A key that is there and cannot be read is named at once; nobody tries until the deadline, and nothing else stops."""

from __future__ import annotations

import pytest

from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import until

BAD = '{"no": "such value"}'
SOON = 2000.0


def refusal(host: Host, key: str, **network: str) -> str:
    """What a person is told who creates a network while this key is bad."""
    host.hosts.put(key, BAD)
    host.took.clear()
    with pytest.raises(Refusal) as refused:
        host.create_network(**network)
    assert max(ms for _, ms in host.took) < SOON
    assert refused.value.status == 409
    host.hosts.drop(key)
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "network"),
    [
        ("myoverlay/overlays/web/definition", {"overlay": "web"}),
        ("myoverlay/overlays/web/definition", {"subnet": "", "ipam_overlay": "web"}),
        ("myoverlay/subnets/10.5.0.0-24", {}),
        ("myoverlay/pools/10.5.0.0-24/10.5.0.1", {"gateway": "10.5.0.1"}),
        ("myoverlay/vni/7340099", {"vni": "7340099"}),
    ],
)
def test_a_network_whose_key_cannot_be_read(hosts: Hosts, key: str, network: dict[str, str]) -> None:
    """`docker network create` is refused with the key's name; once it is deleted the network can be made."""
    host = hosts.host()
    until(host.daemon.liveness.announced.is_set)
    sentence = refusal(host, key, **network)
    assert key in sentence
    assert "cannot be read" in sentence
    host.create_network(**network)
    assert bugs(host) == {}


def test_an_address_whose_lease_cannot_be_read(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """`--ip` is refused with the key's name; any other address is given, and what is bad is passed over."""
    here, _ = two
    key = "myoverlay/pools/10.5.0.0-24/10.5.0.77"
    hosts.put(key, BAD)
    here.took.clear()
    with pytest.raises(Refusal, match=f"{key} in the store cannot be read"):
        here.run("10.5.0.77")
    assert max(ms for _, ms in here.took) < SOON
    assert len({here.run().address for _ in range(3)}) == 3
    hosts.drop(key)
    here.run("10.5.0.77")


def test_what_turns_bad_under_a_running_network_stops_nothing(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """With definition, pool, VNI and a lease overwritten containers start and talk, and the audit names the keys."""
    here, there = two
    old, far = here.run(), there.run()
    until(lambda: here.knows(far) and there.knows(old))
    vni = hosts.keys("/vni/")[0]
    for key in ("myoverlay/overlays/10.5.0.0-24/definition", "myoverlay/subnets/10.5.0.0-24", vni):
        hosts.put(key, BAD)
    hosts.put(f"myoverlay/pools/10.5.0.0-24/{old.address}", BAD)
    here.daemon.audit.want()
    until(lambda: here.count("contradictions") > 0, 10)
    new = here.run()
    until(lambda: there.knows(old, new))
    assert new.reaches(far) == set()
    here.remove(old)
    until(lambda: there.rows().isdisjoint(old.rows))
    assert bugs(here) == bugs(there) == {}


def bugs(host: Host) -> dict[str, int]:
    return {label: count for (name, label), count in host.daemon.tally.all().items() if name == "bugs"}
