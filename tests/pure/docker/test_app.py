"""HTTP from end to end, with drivers over small fakes: every answer is JSON of the shape that Docker reads."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import flask.testing
import pytest
import werkzeug.test

from myoverlay.docker.app import CONTENT_TYPE, DEADLINE, MAX_BODY, create_app, methods
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.errors import Clash, KernelRefused, Late, Refused, Unavailable, Unknown
from myoverlay.host.called import Called
from myoverlay.tally import Tally
from myoverlay.values import Address, Mac, OverlayName, Subnet
from tests.pure.kit import DEMO, SUBNET, endpoint

POOL = {"AddressSpace": "myoverlay", "Pool": "10.5.0.0/24", "Gateway": "10.5.0.1/24"}


class FakeOverlays:
    """Notes what the driver asks for; `failure` is raised by whatever is asked next."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.failure: Exception | None = None
        self.local = FakeLocal(self)
        self.sure = False

    def note(self, what: str, *details: Any) -> None:
        self.asked.append((what, details))
        if self.failure is not None:
            raise self.failure

    def create(self, request: Any, deadline: float) -> None:
        self.note("create", request, deadline)

    def delete(self, network: str, deadline: float) -> None:
        self.note("delete", network)

    def check_allowed(self) -> None:
        self.note("check_allowed")

    def on_use(self, local: Any) -> None:
        self.note("on_use", local)

    def of(self, network: str) -> FakeLocal:
        if network != "n1":
            raise Unknown(f"network {network} is not one of this host")
        return self.local

    def find(self, network: str) -> FakeLocal | None:
        return self.local if network == "n1" else None

    def is_sure(self, local: FakeLocal, address: Address) -> bool:
        return self.sure


class FakeLocal:
    def __init__(self, overlays: FakeOverlays) -> None:
        self.overlays = overlays
        self.network = SimpleNamespace(overlay=DEMO, pool="p1")
        self.resolver: Address | None = None
        self.gateway: Address | None = None
        self.listed = threading.Event()
        self.listed.set()

    def add_endpoint(
        self, name: str, address: Address, mac: Mac | None, now: int, deadline: float, names: tuple[str, ...]
    ) -> Any:
        self.overlays.note("add", name, address, mac)
        self.names = names
        return endpoint(address, mac=mac or Mac.of(address))

    def endpoint(self, name: str) -> Any:
        if name != "e1":
            raise Unknown(f"endpoint {name} does not exist")
        return endpoint("10.5.0.3")

    def join(self, name: str, deadline: float, sandbox: str) -> Any:
        self.overlays.note("join", name)
        return endpoint("10.5.0.3", sandbox=sandbox, route=31)

    def leave(self, name: str, deadline: float) -> None:
        self.overlays.note("leave", name)

    def delete_endpoint(self, name: str, deadline: float) -> Any:
        self.overlays.note("delete_endpoint", name)
        return endpoint("10.5.0.3") if name == "e1" else None


class FakePublisher:
    """Notes what it is told; `clash` is what a wait ends with."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.clash: Clash | None = None

    def offer(self, overlay: OverlayName) -> int:
        self.said.append("offer")
        return 1

    def wait(self, overlay: OverlayName, ticket: int, address: Address, patience: float) -> None:
        self.said.append(f"wait {address}")
        if self.clash is not None:
            raise self.clash

    def pardon(self, overlay: OverlayName, address: Address) -> None:
        self.said.append(f"pardon {address}")


class FakePools:
    def __init__(self, asked: list[tuple[Any, ...]]) -> None:
        self.asked = asked

    def request(self, asked: Subnet | None, within: Subnet | None, overlay: Any, deadline: float) -> Any:
        self.asked.append(("pool", asked, within, overlay))
        return SimpleNamespace(pool="p1", subnet=asked or SUBNET)

    def release(self, pool: str) -> None:
        self.asked.append(("release_pool", pool))

    def gateway(self, pool: str, asked: Address | None, deadline: float) -> tuple[Address, Subnet]:
        self.asked.append(("gateway", pool, asked))
        return asked or Address("10.5.0.1"), SUBNET


class FakeLeases:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def claim(self, pool: str, asked: Address | None, deadline: float) -> tuple[Address, Subnet]:
        self.asked.append(("claim", pool, asked))
        return asked or Address("10.5.0.7"), SUBNET

    def release(self, pool: str, address: Address) -> None:
        self.asked.append(("release", pool, address))


class Docker:
    """The application, the fakes below it, and Docker's way to call."""

    def __init__(self, egress: str = "docker") -> None:
        self.overlays, self.publisher, self.leases, self.tally = (
            FakeOverlays(),
            FakePublisher(),
            FakeLeases(),
            Tally(),
        )
        called = Called(self.overlays, self.publisher.offer)  # type: ignore[arg-type]
        self.network = NetworkDriver(self.overlays, self.publisher, called, egress=egress)  # type: ignore[arg-type]
        self.ipam = IpamDriver(FakePools(self.leases.asked), self.leases, called)  # type: ignore[arg-type]
        self.client: flask.testing.FlaskClient = create_app(self.network, self.ipam, self.tally).test_client()

    def raw(self, method: str, body: bytes) -> werkzeug.test.TestResponse:
        return self.client.post(f"/{method}", data=body)

    def call(self, method: str, **body: Any) -> Any:
        answer = self.raw(method, json.dumps(body).encode())
        assert answer.status_code == 200, answer.text
        return answer.json

    def refusal(self, method: str, status: int = 400, **body: Any) -> str:
        return refusal(self.raw(method, json.dumps(body).encode()), status)

    def create(self, **changes: Any) -> Any:
        return self.call("NetworkDriver.CreateNetwork", **({"NetworkID": "n1", "IPv4Data": [POOL]} | changes))

    def created(self) -> Any:
        """What the last CreateNetwork asked of the overlays."""
        what, (request, _) = self.overlays.asked[-1]
        assert what == "create"
        return request


def refusal(answer: werkzeug.test.TestResponse, status: int) -> str:
    """The sentence of an answer that says no, which must have Docker's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    assert answer.headers["Connection"] == "close"
    body = json.loads(answer.text)
    assert set(body) == {"Err", "Error"}
    assert body["Err"] == body["Error"] != ""
    return str(body["Err"])


@pytest.fixture
def docker() -> Docker:
    return Docker()


WITH_BODY = [name for name, (kind, _) in methods(Docker().network, Docker().ipam).items() if kind is not None]
WITHOUT = [name for name, (kind, _) in methods(Docker().network, Docker().ipam).items() if kind is None]


# -- HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WITH_BODY)
def test_an_empty_body_is_400_for_every_method(docker: Docker, method: str) -> None:
    """A retry that lost its body is refused under both keys, and nothing below is asked."""
    assert "no body" in refusal(docker.raw(method, b""), 400)
    assert docker.overlays.asked == docker.leases.asked == []
    assert docker.tally.get("docker_calls", f"{method} 400") == 1


@pytest.mark.parametrize("method", WITHOUT)
def test_what_has_no_body_needs_none(docker: Docker, method: str) -> None:
    """Activation and capabilities come without a body, or with null."""
    for body in (b"", b"null", b"{}"):
        assert docker.raw(method, body).status_code == 200
    assert docker.tally.get("docker_calls", f"{method} ok") == 3


def test_the_plugin_says_what_it_is(docker: Docker) -> None:
    """Both drivers, local scope, no MAC needed before an address."""
    assert docker.call("Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert docker.call("NetworkDriver.GetCapabilities") == {"Scope": "local", "ConnectivityScope": "global"}
    assert docker.call("IpamDriver.GetCapabilities") == {"RequiresMACAddress": False, "RequiresRequestReplay": False}
    spaces = docker.call("IpamDriver.GetDefaultAddressSpaces")
    assert set(spaces) == {"LocalDefaultAddressSpace", "GlobalDefaultAddressSpace"}


@pytest.mark.parametrize("body", [b"{", b"null", b"[1]", b"\xff", b'{"NetworkID": 3}', b"[" * 100_000])
def test_broken_json_is_refused(docker: Docker, body: bytes) -> None:
    """What cannot be understood is 400 and JSON, never HTML."""
    assert "not understood" in refusal(docker.raw("NetworkDriver.DeleteNetwork", body), 400)
    assert docker.overlays.asked == []


def test_unknown_fields_are_ignored(docker: Docker) -> None:
    """A newer engine's additions change nothing."""
    assert docker.create(Since29={"deep": [1]}, IPv4Data=[POOL | {"Since29": 1}]) == {}


@pytest.mark.parametrize("method", ["NetworkDriver.Rename", "VolumeDriver.Create", "x"])
def test_an_unknown_method_is_404_in_json(docker: Docker, method: str) -> None:
    """Methods of other drivers are answered in the shape that Docker reads."""
    assert method in refusal(docker.raw(method, b"{}"), 404)


def test_other_ways_to_call_are_json_too(docker: Docker) -> None:
    """A GET, the root and a deeper path get an error in Docker's shape."""
    refusal(docker.client.get("/Plugin.Activate"), 405)
    refusal(docker.client.post("/"), 404)
    refusal(docker.client.post("/a/b"), 404)


def test_a_body_that_is_too_large_is_413(docker: Docker) -> None:
    """Nobody fills the memory through the socket."""
    assert "413" in refusal(docker.raw("NetworkDriver.Join", b" " * (MAX_BODY + 1)), 413)
    assert "no body" in refusal(docker.raw("NetworkDriver.Join", b" " * MAX_BODY), 400)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no"), 400),
        (Unknown("no"), 404),
        (Clash("no"), 409),
        (Unavailable("no"), 503),
        (Late("no"), 504),
        (KernelRefused("make br0", 1, "no"), 500),
    ],
)
def test_each_fault_has_its_status(docker: Docker, error: Exception, status: int) -> None:
    """What was said no with decides the status; the sentence is passed on as it is."""
    docker.overlays.failure = error
    assert docker.refusal("NetworkDriver.DeleteNetwork", status, NetworkID="n1") == str(error)
    assert docker.tally.get("docker_calls", f"NetworkDriver.DeleteNetwork {status}") == 1


def test_a_bug_is_500_in_json(docker: Docker, caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody foresaw is logged with its traceback and answered in Docker's shape, not as HTML."""
    docker.overlays.failure = ZeroDivisionError("by zero")
    sentence = docker.refusal("NetworkDriver.DeleteNetwork", 500, NetworkID="n1")
    assert "ZeroDivisionError: by zero" in sentence
    assert "<" not in sentence
    assert any(entry.exc_info for entry in caplog.records)


def test_every_answer_closes_the_connection(docker: Docker) -> None:
    """A keep-alive that closes under a POST is what makes retries without a body."""
    for method, body in (("Plugin.Activate", b""), ("NetworkDriver.Join", b""), ("x", b"")):
        answer = docker.raw(method, body)
        assert answer.headers["Connection"] == "close"
        assert answer.headers["Content-Type"] == CONTENT_TYPE


def test_each_call_is_one_line_in_the_log(docker: Docker, caplog: pytest.LogCaptureFixture) -> None:
    """Method, network or endpoint, duration and outcome stand in one line, and apart for machines; no option does."""
    network, end = "n" * 64, "e" * 64
    with caplog.at_level(logging.INFO, "myoverlay.docker.app"):
        docker.create(Options={"com.docker.network.generic": {"overlay": "s3cret"}})
        docker.refusal("NetworkDriver.Join", 404, NetworkID=network, EndpointID=end)
        docker.call("IpamDriver.RequestAddress", PoolID="p1", Options={"x": "s3cret"})
    one, two, three = caplog.records
    assert re.fullmatch(r"NetworkDriver\.CreateNetwork network n1 \d+\.\d ms ok", one.getMessage())
    assert re.fullmatch(
        rf"NetworkDriver\.Join network {'n' * 12} endpoint {'e' * 12} \d+\.\d ms 404 network {network} is not one of"
        " this host",
        two.getMessage(),
    )
    assert re.fullmatch(r"IpamDriver\.RequestAddress pool p1 \d+\.\d ms ok 10\.5\.0\.7/24", three.getMessage())
    fields = two.fields  # type: ignore[attr-defined]
    assert fields.pop("ms") >= 0
    assert fields == {
        "method": "NetworkDriver.Join",
        "network": "n" * 12,
        "endpoint": "e" * 12,
        "status": 404,
        "outcome": f"404 network {network} is not one of this host",
    }
    assert "s3cret" not in caplog.text


def test_what_docker_sends_forges_no_line(docker: Docker, caplog: pytest.LogCaptureFixture) -> None:
    """An id with a newline, or of any length, stays out of the line or is cut."""
    with caplog.at_level(logging.INFO, "myoverlay.docker.app"):
        docker.refusal("NetworkDriver.Join", 400, NetworkID="n2\nNetworkDriver.Join ok", EndpointID="é" * 9)
        docker.call("IpamDriver.ReleasePool", PoolID="p" * 5000)
    one, two = caplog.records
    assert one.fields.keys() & {"network", "endpoint"} == set()  # type: ignore[attr-defined]
    assert two.fields["pool"] == "p" * 64  # type: ignore[attr-defined]


def test_each_call_is_timed(docker: Docker) -> None:
    """By its method, however it ended."""
    docker.create()
    docker.refusal("NetworkDriver.Join", 404, NetworkID="n2", EndpointID="e1")
    spreads = docker.tally.durations()
    assert {name for _, name in spreads} == {"NetworkDriver.CreateNetwork", "NetworkDriver.Join"}
    assert all(sum(spread.counts) == 1 for spread in spreads.values())


def test_pages_are_read_by_get() -> None:
    """What there is to be read has its own type; nothing else is answered to GET, and pages not to POST."""
    nobody: Any = SimpleNamespace()
    network, ipam = NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody)
    app = create_app(network, ipam, Tally(), pages={"metrics": lambda: ("text/plain; version=0.0.4", b"x 1\n")})
    client = app.test_client()
    answer = client.get("/metrics")
    assert (answer.status_code, answer.data) == (200, b"x 1\n")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
    assert answer.headers["Connection"] == "close"
    assert client.get("/Plugin.Activate").status_code == 405
    assert client.post("/metrics", data="{}").status_code == 404


# -- networks ------------------------------------------------------------------------------------------------------


def test_create_network_passes_on_what_was_asked(docker: Docker) -> None:
    """Subnet, gateway, options and `--internal` reach the overlays as values, with a deadline of their own."""
    before = time.monotonic()
    options = {"com.docker.network.generic": {"overlay": "demo", "mtu": "1400"}, "com.docker.network.internal": True}
    assert docker.create(Options=options) == {}
    request, (_, (_, deadline)) = docker.created(), docker.overlays.asked[-1]
    assert (request.network, request.subnet, request.gateway) == ("n1", "10.5.0.0/24", "10.5.0.1")
    assert (request.options.overlay, request.options.mtu, request.internal) == ("demo", 1400, True)
    assert before + DEADLINE <= deadline <= time.monotonic() + DEADLINE


def test_create_network_without_a_gateway(docker: Docker) -> None:
    """A network may have none: `--internal` ones on newer engines."""
    docker.create(IPv4Data=[{"Pool": "10.5.0.0/24"}])
    assert docker.created().gateway is None
    assert docker.created().internal is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"IPv6Data": [{"Pool": "fd00::/64"}]}, "--ipv6"),
        ({"Options": {"com.docker.network.enable_ipv6": True}}, "--ipv6"),
        ({"Options": {"com.docker.network.enable_ipv4": False}}, "--ipv4=false"),
        ({"IPv4Data": []}, "--ipv4=false"),
        ({"IPv4Data": None}, "--ipv4=false"),
        ({"IPv4Data": [POOL, POOL | {"Pool": "10.6.0.0/24"}]}, "one subnet so far, 2 are asked for"),
        ({"IPv4Data": [{"Pool": "0.0.0.0/0"}]}, "/8 to /30"),
        ({"IPv4Data": [{"Pool": "10.5.0.0/31"}]}, "/8 to /30"),
        ({"IPv4Data": [{"Pool": "10.5.0.1/24"}]}, "10.5.0.1/24"),
        ({"IPv4Data": [POOL | {"Gateway": "x"}]}, "'x'"),
        ({"Options": {"com.docker.network.generic": {"nmae": "demo"}}}, "unknown option 'nmae'"),
        ({"Options": {"com.docker.network.generic": {"vni": "0"}}}, "option vni"),
    ],
)
def test_create_network_refuses(docker: Docker, changes: dict[str, Any], words: str) -> None:
    """What an overlay cannot be is refused before anything is asked below, with the word to change."""
    body = {"NetworkID": "n1", "IPv4Data": [POOL]} | changes
    assert words in docker.refusal("NetworkDriver.CreateNetwork", **body)
    assert docker.overlays.asked == []


# -- endpoints -----------------------------------------------------------------------------------------------------

E1 = {"NetworkID": "n1", "EndpointID": "e1"}


def test_an_endpoint_gets_a_mac_where_docker_has_none(docker: Docker) -> None:
    """The answer names the MAC that was made, and is empty where Docker chose: it refuses one that it set itself."""
    made = docker.call("NetworkDriver.CreateEndpoint", **E1, Interface={"Address": "10.5.0.3/24"})
    assert made == {"Interface": {"MacAddress": "02:42:0a:05:00:03"}}
    mac = "02:42:0a:05:00:99"
    given = docker.call("NetworkDriver.CreateEndpoint", **E1, Interface={"Address": "10.5.0.3/24", "MacAddress": mac})
    assert given == {}
    assert [details for what, details in docker.overlays.asked if what == "add"] == [
        ("e1", "10.5.0.3", None),
        ("e1", "10.5.0.3", mac),
    ]
    assert docker.publisher.said == ["offer", "offer"]


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        (None, "no IPv4 address"),
        ({}, "no IPv4 address"),
        ({"Address": "10.5.0.3/24", "AddressIPv6": "fd00::3/64"}, "--ip6"),
        ({"Address": "10.5.0/24"}, "10.5.0"),
        ({"Address": "10.5.0.3/24", "MacAddress": "ff:ff:ff:ff:ff:ff"}, "unicast"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(docker: Docker, interface: Any, words: str) -> None:
    """No address, an IPv6 address, or a MAC that no container may have."""
    assert words in docker.refusal("NetworkDriver.CreateEndpoint", **E1, Interface=interface)
    assert "add" not in [what for what, _ in docker.overlays.asked]


def test_a_barred_host_makes_no_endpoint(docker: Docker) -> None:
    """Why the host may not take part is what Docker shows."""
    docker.overlays.failure = Clash("host bob uses the VTEP as well")
    words = docker.refusal("NetworkDriver.CreateEndpoint", 409, **E1, Interface={"Address": "10.5.0.3/24"})
    assert words == "host bob uses the VTEP as well"


def test_join_hands_over_the_interface_and_no_gateway(docker: Docker) -> None:
    """The link and its prefix, after the record is offered and waited for; without a gateway Docker adds its bridge."""
    one = endpoint("10.5.0.3")
    assert docker.call("NetworkDriver.Join", **E1, SandboxKey="/x") == {
        "InterfaceName": {"SrcName": one.link, "DstPrefix": "eth"}
    }
    assert docker.publisher.said == ["offer", "wait 10.5.0.3"]


def test_a_container_is_told_the_gateway_unless_it_publishes_ports(docker: Docker) -> None:
    """Where the overlay leads out by itself; ports are published on the bridge that Docker adds without a gateway."""
    docker.overlays.local.gateway = Address("10.5.0.1")
    assert docker.call("NetworkDriver.Join", **E1, SandboxKey="/x", Options={})["Gateway"] == "10.5.0.1"
    nothing = {"com.docker.network.portmap": [], "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}]}
    assert docker.call("NetworkDriver.Join", **E1, SandboxKey="/x", Options=nothing)["Gateway"] == "10.5.0.1"
    ports = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostPort": 8080}]}
    assert "Gateway" not in docker.call("NetworkDriver.Join", **E1, SandboxKey="/x", Options=ports)


@pytest.mark.parametrize(("usual", "asked", "internal", "wanted"), [
    ("own", {}, False, True), ("own", {}, True, False), ("own", {"egress": "docker"}, False, False),
    ("docker", {}, False, False), ("docker", {"egress": "own"}, False, True),
])  # fmt: skip
def test_how_a_network_leads_out(usual: str, asked: dict[str, str], internal: bool, wanted: bool) -> None:
    """By what `-o egress=` says, else by the setting; an internal network leads nowhere."""
    docker = Docker(usual)
    given = {"com.docker.network.generic": asked, "com.docker.network.internal": internal}
    docker.create(Options=given)
    assert docker.created().egress is wanted


def test_an_internal_network_cannot_be_asked_to_lead_out(docker: Docker) -> None:
    """The sentence names both words."""
    given = {"com.docker.network.generic": {"egress": "own"}, "com.docker.network.internal": True}
    said = docker.refusal("NetworkDriver.CreateNetwork", NetworkID="n1", IPv4Data=[POOL], Options=given)
    assert "egress=own" in said
    assert "--internal" in said


def test_an_address_that_is_anothers_is_not_joined(docker: Docker) -> None:
    """A clash refuses the Join before the endpoint takes the address over here."""
    docker.publisher.clash = Clash("10.5.0.3 of overlay demo is in use on host bob")
    assert "host bob" in docker.refusal("NetworkDriver.Join", 409, **E1)
    assert [what for what, _ in docker.overlays.asked] == []


def test_nobody_waits_for_the_store_where_an_address_is_sure(docker: Docker) -> None:
    """Leased here, and nobody else has it: the record is offered, and Docker is answered."""
    docker.overlays.sure = True
    assert docker.call("NetworkDriver.Join", **E1, SandboxKey="/x")["InterfaceName"]
    assert docker.publisher.said == ["offer"]


def test_deleting_what_is_unknown_succeeds(docker: Docker) -> None:
    """Docker forgets what it deletes whatever the answer is."""
    for method in ("Leave", "DeleteEndpoint"):
        assert docker.call(f"NetworkDriver.{method}", NetworkID="n2", EndpointID="e1") == {}
        assert docker.call(f"NetworkDriver.{method}", NetworkID="n1", EndpointID="e2") == {}
    assert docker.call("NetworkDriver.DeleteNetwork", NetworkID="n2") == {}
    assert docker.publisher.said == []


def test_deleting_an_endpoint_tells_the_others(docker: Docker) -> None:
    """Its record is to be withdrawn, and Docker does not wait for that."""
    assert docker.call("NetworkDriver.DeleteEndpoint", **E1) == {}
    assert docker.publisher.said == ["pardon 10.5.0.3", "offer"]


def test_what_is_not_known_is_404(docker: Docker) -> None:
    """Joining an unknown network, or with an unknown endpoint, cannot succeed, and says so."""
    assert "n2" in docker.refusal("NetworkDriver.Join", 404, NetworkID="n2", EndpointID="e1")
    assert "e2" in docker.refusal("NetworkDriver.Join", 404, NetworkID="n1", EndpointID="e2")


def test_the_rest_of_the_contract_is_answered(docker: Docker) -> None:
    """Methods that need no work of ours are answered as Docker expects; Swarm's are refused with the way that works."""
    assert "--scope swarm" in docker.refusal("NetworkDriver.AllocateNetwork", NetworkID="n1")
    assert docker.call("NetworkDriver.FreeNetwork", NetworkID="n1") == {}
    assert docker.call("NetworkDriver.EndpointOperInfo", **E1) == {"Value": {}}
    assert docker.call("NetworkDriver.ProgramExternalConnectivity", **E1, Options={}) == {}
    assert docker.call("NetworkDriver.RevokeExternalConnectivity", **E1) == {}
    assert docker.call("NetworkDriver.DiscoverNew", DiscoveryType=1, DiscoveryData={"Self": True}) == {}
    assert docker.call("NetworkDriver.DiscoverDelete", DiscoveryType=1) == {}


# -- addresses -----------------------------------------------------------------------------------------------------


def test_pools_are_asked_for(docker: Docker) -> None:
    """Subnet, range and overlay reach the leases as values; what is left out stays open."""
    body = {"AddressSpace": "myoverlay", "Pool": "10.5.0.0/24", "SubPool": "10.5.0.128/25", "V6": False}
    answer = docker.call("IpamDriver.RequestPool", **body, Options={"overlay": "demo"})
    assert answer == {"PoolID": "p1", "Pool": "10.5.0.0/24"}
    docker.call("IpamDriver.RequestPool", AddressSpace="myoverlay", Pool="", SubPool="", Options=None)
    docker.call("IpamDriver.ReleasePool", PoolID="p1")
    assert docker.leases.asked == [
        ("pool", "10.5.0.0/24", "10.5.0.128/25", "demo"),
        ("pool", None, None, None),
        ("release_pool", "p1"),
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"V6": True}, "--ipv6"),
        ({"Pool": "fd00::/64"}, "not IPv4"),
        ({"Pool": "10.5.0.0/31"}, "/8 to /30"),
        ({"Pool": "10.0.0.0/7"}, "/8 to /30"),
        ({"Pool": "10.5.0.1/24"}, "host bits"),
        ({"Pool": "10.5.0.0/24", "SubPool": "x"}, "'x'"),
        ({"Options": {"overley": "demo"}}, "unknown --ipam-opt 'overley': valid is overlay"),
        ({"Options": {"overlay": "Demo"}}, "no overlay name"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(docker: Docker, body: dict[str, Any], words: str) -> None:
    """What no overlay could use is refused with the word to change, before anything is written."""
    assert words in docker.refusal("IpamDriver.RequestPool", **body)
    assert docker.leases.asked == []


def test_addresses_are_asked_for(docker: Docker) -> None:
    """A gateway and a container's address are told apart by Docker's option, and both come with their length."""
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    ask = "IpamDriver.RequestAddress"
    assert docker.call(ask, PoolID="p1", Address="10.5.0.9", Options=gateway) == {"Address": "10.5.0.9/24"}
    assert docker.call(ask, PoolID="p1", Address="", Options=gateway) == {"Address": "10.5.0.1/24"}
    assert docker.call(ask, PoolID="p1", Address="", Options=None) == {"Address": "10.5.0.7/24"}
    mac = {"com.docker.network.endpoint.macaddress": "02:42:0a:05:00:03"}
    assert docker.call(ask, PoolID="p1", Address="10.5.0.3", Options=mac) == {"Address": "10.5.0.3/24"}
    assert docker.call("IpamDriver.ReleaseAddress", PoolID="p1", Address="10.5.0.3") == {}
    assert docker.leases.asked == [
        ("gateway", "p1", "10.5.0.9"),
        ("gateway", "p1", None),
        ("claim", "p1", None),
        ("claim", "p1", "10.5.0.3"),
        ("release", "p1", "10.5.0.3"),
    ]
    assert "x" in docker.refusal(ask, PoolID="p1", Address="x")


def test_a_joining_container_gets_a_way_to_the_resolver() -> None:
    """Join answers the route of the length that the endpoint got, and none where names are not answered."""
    docker = Docker()
    body = {"NetworkID": "n1", "EndpointID": "e1", "SandboxKey": "/var/run/docker/netns/1"}
    assert "StaticRoutes" not in docker.call("NetworkDriver.Join", **body)
    docker.overlays.local.resolver = Address("169.254.77.53")
    answer = docker.call("NetworkDriver.Join", **body)
    assert answer["StaticRoutes"] == [{"Destination": "169.254.77.52/31", "RouteType": 1}]


def test_the_name_that_our_ipam_is_told_is_the_endpoints() -> None:
    """Engine 29 says a container's name with the request for its address; the endpoint with that address has it."""
    docker = Docker()
    docker.call("IpamDriver.RequestAddress", PoolID="p1", Options={"com.docker.network.endpoint.name": "Web-1"})
    interface = {"Address": "10.5.0.7/24"}
    docker.call("NetworkDriver.CreateEndpoint", NetworkID="n1", EndpointID="e1", Interface=interface)
    assert docker.overlays.local.names == ("web-1",)
    docker.call("NetworkDriver.CreateEndpoint", NetworkID="n1", EndpointID="e2", Interface=interface)
    assert docker.overlays.local.names == ()
