"""What Docker says as names, for engines of both ages; and a Docker that is slow, odd or away, on a real socket."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from myoverlay.engine.client import Engine, Event, Place, event_of, places_of
from myoverlay.engine.follower import Follower
from myoverlay.errors import Unavailable
from myoverlay.tally import Tally
from tests.pure.kit import until

NET, OTHER, BOX = "a" * 64, "b" * 64, "c" * 64


def inspected(**network: Any) -> dict[str, Any]:
    """`docker inspect`, as far as it matters."""
    one = {"NetworkID": NET, "EndpointID": "e" * 64, **network}
    return {
        "Id": BOX,
        "Name": "/shop-web-1",
        "Config": {"Labels": {"com.docker.compose.service": "web"}},
        "NetworkSettings": {"Networks": {"shop": one}},
    }


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"Aliases": ["www", "cccccccccccc"]}, ("shop-web-1", "web", "www", "cccccccccccc")),
        (
            {"Aliases": ["www"], "DNSNames": ["shop-web-1", "www", "cccccccccccc"]},
            ("shop-web-1", "web", "www", "shop-web-1", "www", "cccccccccccc"),
        ),
        ({"Aliases": None, "DNSNames": None}, ("shop-web-1", "web")),
        ({}, ("shop-web-1", "web")),
    ],
    ids=["20.10", "25 on", "null", "nothing"],
)
def test_an_endpoints_names(said: dict[str, Any], names: tuple[str, ...]) -> None:
    """The container's own name first, then its service, then aliases, as either engine tells them."""
    assert places_of(inspected(**said)) == (Place(NET, "e" * 64, names),)


def test_what_has_no_endpoint_has_no_names() -> None:
    """A container that does not run, or of which Docker says little."""
    assert places_of(inspected(EndpointID="")) == ()
    assert places_of({}) == ()
    assert places_of({"Config": None, "NetworkSettings": {"Networks": None}}) == ()
    assert places_of({"Name": "/x", "NetworkSettings": {"Networks": {"shop": None}}}) == ()


ON_NET = {"ID": NET, "Attributes": {"container": BOX}}


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        ({"Type": "network", "Action": "connect", "Actor": ON_NET}, Event(BOX, NET)),
        ({"Type": "network", "Action": "connect", "Actor": {"ID": NET}}, None),
        ({"Type": "network", "Action": "disconnect", "Actor": ON_NET}, None),
        ({"Type": "container", "Action": "start", "Actor": {"ID": BOX}}, Event(BOX)),
        ({"Type": "container", "Action": "rename", "Actor": {"ID": BOX}}, Event(BOX)),
        ({"Type": "container", "Action": "exec_start: sh", "Actor": {"ID": BOX}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_events_that_may_bring_names(raw: dict[str, Any], event: Event | None) -> None:
    """Connects, starts and renames; everything else is passed over."""
    assert event_of(raw) == event


class Docker:
    """An engine's socket that answers by `answers`, path by path; a list is a stream that stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {"/version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}}
        self.asked: list[str] = []
        self.over = threading.Event()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(8)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            while line := file.readline():
                path = line.split()[1].decode().partition("?")[0]
                path = path[path.index("/", 1) :] if path.startswith("/v1.") else path
                while file.readline().strip():
                    pass
                self.asked.append(path)
                if not self._answer(sock, self.answers.get(path)):
                    return

    def _answer(self, sock: socket.socket, body: Any) -> bool:
        if callable(body):
            body = body()
        if isinstance(body, list) and body[:1] == ["stream"]:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            for one in body[1:]:
                raw = json.dumps(one).encode() + b"\n"
                sock.sendall(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
            self.over.wait(20)
            return False
        status = "200 OK" if body is not None else "404 Not Found"
        raw = json.dumps(body if body is not None else {"message": "No such container"}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        sock.sendall(head.encode() + raw)
        return True

    def close(self) -> None:
        self.over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)
        self.path.unlink()


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    one = Docker(tmp_path / "docker.sock")
    yield one
    one.close()


class FakeCalled:
    """Two networks of ours; notes what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, tuple[str, ...]]] = []

    def networks(self) -> frozenset[str]:
        return frozenset((NET,))

    def say(self, network: str, endpoint: str, names: tuple[str, ...]) -> bool:
        self.said.append((network, endpoint, names))
        return True


def follower_of(docker: Docker) -> tuple[Follower, FakeCalled, Tally]:
    called, tally = FakeCalled(), Tally()
    return Follower(Engine(str(docker.path)), called, tally), called, tally  # type: ignore[arg-type]


def listed(name: str = "/shop-web-1") -> list[dict[str, Any]]:
    return [{"Id": BOX, "Names": [name], "NetworkSettings": {"Networks": {"shop": {"EndpointID": "e" * 64}}}}]


def test_a_follower_lists_then_follows_and_ends_at_once(docker: Docker) -> None:
    """What runs is known at first; an event brings names; it ends while Docker holds the stream open."""
    docker.answers["/containers/json"] = listed()
    docker.answers[f"/containers/{BOX}/json"] = inspected()
    start = {"Type": "container", "Action": "start", "Actor": {"ID": BOX}}
    stranger = {"Type": "network", "Action": "connect", "Actor": {"ID": OTHER, "Attributes": {"container": BOX}}}
    docker.answers["/events"] = ["stream", stranger, start]
    follower, called, tally = follower_of(docker)
    follower.start()
    until(lambda: len(called.said) == 2)
    assert called.said[0] == (NET, "e" * 64, ("shop-web-1", "web"))
    assert follower.state() == {"socket": str(docker.path), "followed": True, "trouble": ""}
    began = time.monotonic()
    follower.stop(5.0)
    assert time.monotonic() - began < 2.0
    assert not follower._thread.is_alive()
    assert tally.get("docker_events", "listed") == 1
    assert tally.get("bugs", "docker") == 0


@pytest.mark.parametrize("moment", ["/containers/json", "/events"])
def test_a_stop_before_events_come_ends_it_at_once(docker: Docker, moment: str) -> None:
    """While Docker lists its containers, or before its stream is there: nobody waits for a minute."""
    follower, _, tally = follower_of(docker)
    docker.answers |= {"/containers/json": [], "/events": ["stream"]}
    said = docker.answers[moment]

    def stopped_meanwhile() -> Any:
        follower.cancel()
        return said

    docker.answers[moment] = stopped_meanwhile
    follower.start()
    assert follower.stopping.wait(5.0)
    follower.join(5.0)
    assert not follower._thread.is_alive()
    follower.stop(1.0)
    assert tally.get("bugs", "docker") == 0


def test_a_second_listing_asks_only_for_what_is_new(docker: Docker) -> None:
    """Ten thousand containers are not inspected every minute; one that has another name or endpoint is."""
    docker.answers["/containers/json"] = listed()
    docker.answers[f"/containers/{BOX}/json"] = inspected()
    follower, called, _ = follower_of(docker)
    follower._list()
    follower._list()
    assert len(called.said) == 1
    docker.answers["/containers/json"] = listed("/renamed")
    follower._list()
    assert len(called.said) == 2
    follower.stop(1.0)


def test_a_container_that_is_gone_is_passed_over(docker: Docker) -> None:
    """It ended between the event and the question."""
    docker.answers["/containers/json"] = listed()
    follower, called, _ = follower_of(docker)
    follower._list()
    assert called.said == []
    follower.stop(1.0)


@pytest.mark.parametrize(
    "answer", [lambda: {"message": "x"}, lambda: 7, lambda: None], ids=["no list", "a number", "not found"]
)
def test_an_odd_engine_is_unavailable_and_no_bug(docker: Docker, answer: Callable[[], Any]) -> None:
    """What is no answer of Docker's is one sentence that names the socket."""
    docker.answers["/containers/json"] = answer
    engine = Engine(str(docker.path))
    with pytest.raises(Unavailable, match=r"docker\.sock"):
        engine.containers([NET])
    engine.close()


def test_without_an_engine_it_is_unavailable(tmp_path: Path) -> None:
    """No socket, or nobody behind it; no descriptor is left open, as each would be that the SDK cannot connect."""
    engine = Engine(str(tmp_path / "none.sock"))
    with pytest.raises(Unavailable, match=r"none\.sock does not tell which containers there are"):
        engine.containers([NET])
    engine.close()
    gc.collect()  # a warning of what was not closed, if there is one, comes here


def test_without_networks_of_ours_nothing_is_asked(docker: Docker) -> None:
    """A filter without a network would list all containers of the host."""
    assert Engine(str(docker.path)).containers(()) == {}
    assert docker.asked == []
