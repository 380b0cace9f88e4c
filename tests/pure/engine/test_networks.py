"""Docker's networks through the SDK, against an engine that is played over a real unix socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from myoverlay.engine.networks import EngineNetworks
from myoverlay.errors import Refused, Unavailable
from myoverlay.networks import NetworkPlan
from myoverlay.plan.following import LABEL, LABEL_PLAN
from myoverlay.values import Address, OverlayName, Subnet, encode

PLAN = NetworkPlan(
    name=OverlayName("web"),
    id="1" * 32,
    subnet=Subnet("10.5.0.0/24"),
    ip_range=Subnet("10.5.0.128/25"),
    gateway=Address("10.5.0.1"),
    aux={"dns": Address("10.5.0.2")},
    options={"vni": "7", "mtu": "1400"},
    labels={"team": "shop"},
    internal=True,
)


class Engine:
    """What it was asked, and what it answers: by method and path, a status and a body."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {
            ("GET", "/version"): (200, {"ApiVersion": "1.44"}),
            ("GET", "/networks"): (200, []),
            ("POST", "/networks/create"): (201, {"Id": "f" * 64, "Warning": ""}),
        }

    def posted(self, path: str) -> Any:
        return next(body for method, where, body in self.asked if method == "POST" and where == path)


def _handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            path = self.path.removeprefix("/v1.44").partition("?")[0]
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            engine.asked.append((self.command, path, body))
            status, said = engine.answers.get((self.command, path), (404, {"message": f"{path} not found"}))
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = _serve

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine()
    server = ThreadingUnixStreamServer(str(tmp_path / "docker.sock"), _handler(engine))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield engine
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[EngineNetworks]:
    networks = EngineNetworks(str(tmp_path / "docker.sock"), "myoverlay")
    yield networks
    networks.close()


def test_a_plan_becomes_what_docker_is_asked_for(engine: Engine, networks: EngineNetworks) -> None:
    """Everything of it, by both drivers, with the labels that make it ours."""
    networks.make(PLAN)
    body = engine.posted("/networks/create")
    labels = body.pop("Labels")
    assert body == {
        "Name": "web",
        "Driver": "myoverlay",
        "Options": {"vni": "7", "mtu": "1400", "overlay": "web"},
        "IPAM": {
            "Driver": "myoverlay",
            "Options": {"overlay": "web"},
            "Config": [
                {
                    "Subnet": "10.5.0.0/24",
                    "IPRange": "10.5.0.128/25",
                    "Gateway": "10.5.0.1",
                    "AuxiliaryAddresses": {"dns": "10.5.0.2"},
                }
            ],
        },
        "CheckDuplicate": True,
        "Internal": True,
    }
    assert labels == {"team": "shop", LABEL: "1" * 32, LABEL_PLAN: encode(PLAN).decode()}


def test_ours_are_known_by_their_label_alone(engine: Engine, networks: EngineNetworks) -> None:
    """One that looks like ours without it is somebody's; a label that is no id makes nothing ours."""
    ours = {LABEL: PLAN.id, LABEL_PLAN: encode(PLAN).decode()}
    listed = [
        {"Name": "web", "Id": "1" * 64, "Driver": "myoverlay", "Labels": ours},
        {"Name": "web", "Id": "2" * 64, "Driver": "myoverlay", "Labels": None},
        {"Name": "renamed", "Id": "3" * 64, "Driver": "myoverlay", "Labels": ours},
        {"Name": "x", "Id": "4" * 64, "Driver": "bridge", "Labels": {LABEL: "../../etc"}},
        {"Name": "y", "Id": "5" * 64, "Driver": "bridge", "Labels": {LABEL: PLAN.id, LABEL_PLAN: "{"}},
    ]
    engine.answers["GET", "/networks"] = (200, listed)
    found = networks.list()
    assert [one.plan for one in found] == [PLAN.id, None, PLAN.id, None, PLAN.id]
    assert [one.told for one in found] == [PLAN, None, None, None, None]


def test_a_forced_removal_takes_containers_off(engine: Engine, networks: EngineNetworks) -> None:
    """One that went meanwhile is no failure, nor is a network that is gone."""
    listed = [{"Name": "web", "Id": "1" * 64, "Driver": "myoverlay", "Labels": {LABEL: PLAN.id}}]
    path = f"/networks/{'1' * 64}"
    engine.answers["GET", "/networks"] = (200, listed)
    engine.answers["GET", path] = (200, {"Containers": {"a" * 64: {}, "b" * 64: {}}})
    engine.answers["DELETE", path] = (204, None)
    (found,) = networks.list()
    networks.remove(found, forced=True)
    assert [(m, p) for m, p, _ in engine.asked[2:]] == [
        ("GET", path),
        ("POST", f"{path}/disconnect"),
        ("POST", f"{path}/disconnect"),
        ("DELETE", path),
    ]
    assert engine.posted(f"{path}/disconnect") == {"Container": "a" * 64, "Force": True}
    engine.answers.pop(("DELETE", path))
    networks.remove(found, forced=False)


def test_what_docker_says_no_with_is_one_sentence(engine: Engine, networks: EngineNetworks) -> None:
    """Its own words, made plain; an engine that is not ready is not a refusal."""
    engine.answers["POST", "/networks/create"] = (500, {"message": "NetworkDriver.CreateNetwork: VNI 7\nis taken"})
    with pytest.raises(Refused) as caught:
        networks.make(PLAN)
    assert str(caught.value) == "making network web: Docker says: NetworkDriver.CreateNetwork: VNI 7 is taken"
    engine.answers["POST", "/networks/create"] = (503, {"message": "starting"})
    with pytest.raises(Unavailable, match="Docker is not ready: starting"):
        networks.make(PLAN)
    engine.answers["GET", "/networks"] = (200, [])
    assert networks.list() == ()


def test_an_engine_that_is_not_there(tmp_path: Path, networks: EngineNetworks) -> None:
    """One sentence with the socket; it is asked again with the next call."""
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"Docker does not answer on {tmp_path}/docker.sock"):
            networks.list()
