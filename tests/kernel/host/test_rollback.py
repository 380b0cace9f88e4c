"""Calls that fail half-way, come twice, or come in an order Docker should not use."""

from __future__ import annotations

import secrets
import time

import pytest

from myoverlay.errors import Late
from myoverlay.values import Address
from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import ip, link_names, until


def test_an_endpoint_that_fails_half_way_leaves_nothing(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """The interface's name is taken on the host: Join says so, and after Docker's DeleteEndpoint there is no journal
    entry, no port and no record; the next try works.
    """
    here, there = two
    network, endpoint = here.networks[0], secrets.token_hex(32)
    address = here.request_address(network)
    ip(here.ns, f"link add mo{endpoint[:12]} type bridge")
    here.create_endpoint(network, endpoint, address)
    for _ in range(2):
        with pytest.raises(Refusal, match="a link of that name") as said:
            here.join(network, endpoint)
        assert said.value.status == 500
    here.call("NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=endpoint)
    assert here.ports() == set()
    assert not here.daemon.journal.endpoints.all()
    until(lambda: not hosts.keys("/records/"))
    assert f"mo{endpoint[:12]}" in link_names(here.ns)  # it is not ours
    ip(here.ns, f"link del mo{endpoint[:12]}")
    mac = here.create_endpoint(network, endpoint, address)
    made = here.give_interface(network, endpoint, address, mac, here.join(network, endpoint))
    far = there.run()
    until(lambda: there.knows(made) and here.knows(far))
    assert made.ping(far.address) != [None]


def test_an_endpoint_that_came_too_late_leaves_nothing(two: tuple[Host, Host]) -> None:
    """A deadline may pass while the kernel works: what is made all the same is taken away again."""
    here, _ = two
    local, late = here.local(), 0
    for number in range(40):
        endpoint, address = secrets.token_hex(32), Address(f"10.5.0.{number + 100}")
        local.add_endpoint(endpoint, address, None, 1, time.monotonic() + 5)
        try:
            local.join(endpoint, time.monotonic() + number / 10_000)
        except Late:
            late += 1
        local.delete_endpoint(endpoint, time.monotonic() + 5)
    assert late
    assert not here.daemon.journal.endpoints.all()
    until(lambda: not here.ports() and not [name for name in link_names(here.ns) if name.startswith("mo")])


def test_a_network_that_fails_leaves_nothing(hosts: Hosts) -> None:
    """The namespace cannot be pinned: no key of the overlay stays, and the pool is given back."""
    host = hosts.host()
    place = host.run_folder / "netns" / "demo"
    place.mkdir(parents=True)
    with pytest.raises(Refusal, match="is in the way"):
        host.create_network(overlay="demo")
    place.rmdir()
    until(lambda: not hosts.keys("myoverlay/", without=["/alive/"]))
    assert not host.daemon.journal.networks.all()
    assert not host.daemon.journal.leaving.all()
    host.create_network(overlay="demo")
    assert host.run()


def test_calls_that_come_twice_have_the_same_answer(two: tuple[Host, Host]) -> None:
    """CreateEndpoint and Join repeated give the same interface; a different address under the same id is refused."""
    here, there = two
    network, endpoint = here.networks[0], secrets.token_hex(32)
    address = here.request_address(network)
    assert here.create_endpoint(network, endpoint, address) == here.create_endpoint(network, endpoint, address)
    assert here.join(network, endpoint) == here.join(network, endpoint)
    with pytest.raises(Refusal, match=f"endpoint {endpoint[:12]} exists with {address}"):
        here.create_endpoint(network, endpoint, here.request_address(network))
    assert len(here.ports()) == 1
    container = here.give_interface(network, endpoint, address, here.daemon.journal.endpoints.all()[0].mac, _link(here))
    until(lambda: there.rows() == set() or there.knows(container))


def _link(host: Host) -> str:
    return host.daemon.journal.endpoints.all()[0].link


def test_deletes_succeed_twice_and_for_strangers(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Docker forgets what it deleted whatever the answer is, so deleting the unknown is success."""
    here, _ = two
    network, container = here.networks[0], here.run()
    of = {"NetworkID": network.id, "EndpointID": container.endpoint}
    for _ in range(2):
        here.call("NetworkDriver.Leave", **of)
    for _ in range(2):
        here.call("NetworkDriver.DeleteEndpoint", **of)
    for _ in range(2):
        here.release_address(network, container.address)
    for _ in range(2):
        here.call("IpamDriver.ReleaseAddress", PoolID=network.pool, Address=network.gateway)
        here.call("IpamDriver.ReleasePool", PoolID=network.pool)
        here.call("NetworkDriver.DeleteNetwork", NetworkID=network.id)
    for _ in range(2):
        here.call("NetworkDriver.Leave", **of)
        here.call("NetworkDriver.DeleteEndpoint", **of)
    here.call("IpamDriver.ReleasePool", PoolID="10.99.0.0-24")
    here.call("IpamDriver.ReleaseAddress", PoolID="10.99.0.0-24", Address="10.99.0.2")
    assert here.pins() == []
    until(lambda: here.daemon.records.me not in (hosts.definition() or {"holders": ()})["holders"])


def test_an_endpoint_that_never_joined_is_deleted(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Leave without Join, then DeleteEndpoint: the veth and the record go, on both sides."""
    here, there = two
    network, endpoint = here.networks[0], secrets.token_hex(32)
    there.run()
    address = here.request_address(network)
    here.create_endpoint(network, endpoint, address)
    until(lambda: len(there.rows()) == 2)
    here.call("NetworkDriver.Leave", NetworkID=network.id, EndpointID=endpoint)
    here.call("NetworkDriver.DeleteEndpoint", NetworkID=network.id, EndpointID=endpoint)
    here.release_address(network, address)
    until(lambda: not here.ports() and not there.rows())
    assert not [name for name in link_names(here.ns) if name.startswith("mo")]
    until(lambda: address not in hosts.leases())


def test_an_endpoint_is_deleted_without_leave(two: tuple[Host, Host]) -> None:
    """The interface is taken out of the container that still has it."""
    here, there = two
    container = here.run()
    there.run()
    until(lambda: there.knows(container))
    here.forget(container)
    until(lambda: not here.ports() and not there.rows())
    assert "eth0" not in link_names(container.ns)


def test_a_join_after_leave_gives_the_interface_anew(two: tuple[Host, Host]) -> None:
    """`docker network disconnect` that failed later, then a restart of the container: Leave, then Join again."""
    here, there = two
    network, container, far = here.networks[0], here.run(), there.run()
    here.call("NetworkDriver.Leave", NetworkID=network.id, EndpointID=container.endpoint)
    container.die()
    here.containers.remove(container)
    link = here.join(network, container.endpoint)
    until(lambda: there.knows(container))
    again = here.give_interface(network, container.endpoint, container.address, container.mac, link)
    until(lambda: here.knows(far))
    assert None not in again.ping(far.address) + far.ping(again.address)


def test_a_network_is_deleted_with_its_containers(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Docker may delete a network whose endpoints it forgot: cables, rows and records go with it."""
    here, there = two
    container, far = here.run(), there.run()
    until(lambda: there.knows(container))
    here.delete_network()
    assert here.pins() == []
    assert not here.daemon.journal.endpoints.all()
    until(lambda: not set(container.rows) & there.rows())
    until(lambda: not hosts.keys(f"/arp/{container.address}") and container.address not in hosts.leases())
    assert there.ports() == {f"p{far.endpoint[:12]}"}
    here.create_network()
    again = here.run(container.address)
    until(lambda: there.knows(again))


def test_unknown_things_are_refused_in_words(two: tuple[Host, Host]) -> None:
    """Endpoints of networks nobody created here, and joins of endpoints nobody made."""
    here, _ = two
    network = here.networks[0]
    with pytest.raises(Refusal, match="is not one of this host") as said:
        here.call("NetworkDriver.Join", NetworkID="f" * 64, EndpointID="e" * 64, SandboxKey="/x", Options={})
    assert said.value.status == 404
    with pytest.raises(Refusal, match="does not exist on overlay"):
        here.join(network, "e" * 64)
    with pytest.raises(Refusal, match="is no host address of"):
        here.request_address(network, "10.9.9.9")
    with pytest.raises(Refusal, match="is the gateway of"):
        here.request_address(network, "10.5.0.1")
    with pytest.raises(Refusal, match="unknown option 'vnii'"):
        here.create_network("10.7.0.0/24", vnii=3)
