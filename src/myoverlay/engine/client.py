"""The one door to the Docker SDK: what is asked of an engine, and every failure as Unavailable."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from myoverlay.errors import Unavailable

#: Seconds that Docker may take for one answer: it holds a container's lock while it starts. And to let somebody in.
PATIENCE, _KNOCK = 10, 2.0
_SERVICE = "com.docker.compose.service"


class Place(msgspec.Struct, frozen=True):
    """A container's endpoint on one network, and the names it has there, the container's own first."""

    network: str
    endpoint: str
    names: tuple[str, ...]


class Event(msgspec.Struct, frozen=True):
    """Something happened to a container, perhaps with a network."""

    container: str
    network: str = ""


class Engine:
    """One engine, by its socket. For one thread, but for `hang_up`. The SDK is loaded when it is first asked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._client: Any = None
        self._stream: Any = None
        self._over = False

    def containers(self, networks: Collection[str]) -> dict[str, str]:
        """Those that run on these networks, each with a text that differs when it is to be asked again.

        Raises Unavailable.
        """
        if not networks:
            return {}
        with self._asking("which containers there are"):
            listed = self._api().containers(filters={"network": sorted(networks)})
            if not isinstance(listed, list):
                raise Unavailable(f"Docker at {self.path} does not list its containers: it answers {listed!r:.80}")
            return {one["Id"]: _summary(one) for one in listed}

    def places(self, container: str) -> tuple[Place, ...]:
        """A container's endpoints; none where it is gone or does not run. Raises Unavailable."""
        from docker.errors import NotFound

        with self._asking(f"container {container[:12]}"):
            try:
                return places_of(self._api().inspect_container(container))
            except NotFound:
                return ()

    def events(self, since: float, until: float) -> Iterator[Event]:
        """What happens to containers, from a past moment on until a coming one (Unix seconds). Raises Unavailable."""
        if self._over:
            return
        with self._asking("events"):
            filters = {"type": ["container", "network"], "event": ["connect", "start", "rename"]}
            self._stream = self._api().events(since=int(since), until=int(until), filters=filters, decode=True)
            try:
                if self._over:  # whoever hung up meanwhile found nothing to end
                    self.hang_up()
                for raw in self._stream:
                    event = event_of(raw)
                    if event is not None:
                        yield event
            finally:
                self._stream = None

    def hang_up(self) -> None:
        """End the waiting for events, now and from now on. From any thread."""
        self._over = True
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError, AttributeError):  # it has just ended
                stream.close()

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _api(self) -> Any:
        if self._client is None:
            import docker

            self._client = docker.APIClient(base_url=f"unix://{self.path}", version="auto", timeout=PATIENCE)
        return self._client

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        from docker.errors import DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        try:
            knock(self.path)
            yield
        except (DockerException, RequestException, HTTPError, OSError) as error:
            self.close()
            raise Unavailable(f"Docker at {self.path} does not tell {what}: {error}") from error


def knock(path: str) -> None:
    """Is somebody there? Where nobody is, the SDK would leave a socket open at each try. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_KNOCK)
        door.connect(path)


def places_of(inspected: Mapping[str, Any]) -> tuple[Place, ...]:
    """What `docker inspect` says, as places. Aliases come as Engine 20.10 to 24 and as 25 on tell them."""
    labels = (inspected.get("Config") or {}).get("Labels") or {}
    first = [str(inspected.get("Name", "")).removeprefix("/"), labels.get(_SERVICE, "")]
    networks = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    return tuple(
        Place(
            network=str(one["NetworkID"]),
            endpoint=str(one["EndpointID"]),
            names=tuple(map(str, (*first, *(one.get("Aliases") or ()), *(one.get("DNSNames") or ())))),
        )
        for one in networks.values()
        if one and one.get("EndpointID") and one.get("NetworkID")
    )


def event_of(raw: Mapping[str, Any]) -> Event | None:
    """An event that may bring names; None for any other."""
    actor = raw.get("Actor") or {}
    if raw.get("Type") == "network" and raw.get("Action") == "connect":
        container = (actor.get("Attributes") or {}).get("container", "")
        return Event(container, actor.get("ID", "")) if container else None
    if raw.get("Type") == "container" and raw.get("Action") in ("start", "rename"):
        return Event(actor.get("ID", ""))
    return None


def _summary(listed: Mapping[str, Any]) -> str:
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    ends = sorted(str((one or {}).get("EndpointID")) for one in networks.values())
    return " ".join([*sorted(listed.get("Names") or ()), *ends])
