"""What an engine says of itself: its version and its networks, asked once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from myoverlay.engine.client import knock
from myoverlay.errors import Unavailable
from myoverlay.networks import plain
from myoverlay.values import Subnet

#: Seconds that Docker may take.
PATIENCE = 3.0


class EngineNetwork(NamedTuple):
    """A network as Docker lists it, with those of its subnets that have a form we know."""

    id: str
    name: str
    driver: str
    subnets: tuple[Subnet, ...]


class About:
    """One engine, by its socket. For any thread; every method raises Unavailable."""

    def __init__(self, path: str) -> None:
        self.path = path

    def version(self) -> str:
        with self._asking("its version") as client:
            return plain(str(client.version().get("Version", "")))

    def networks(self) -> tuple[EngineNetwork, ...]:
        """All networks of this host."""
        with self._asking("its networks") as client:
            return tuple(map(_network, client.networks()))

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        import docker
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            knock(self.path)
            client = docker.APIClient(base_url=f"unix://{self.path}", version="auto", timeout=PATIENCE)
            try:
                yield client
            finally:
                client.close()
        except (DockerException, RequestException, OSError, AttributeError, TypeError) as error:
            raise Unavailable(f"Docker at {self.path} does not tell {what}: {plain(str(error))}") from error


def _network(listed: dict[str, Any]) -> EngineNetwork:
    subnets = []
    for config in (listed.get("IPAM") or {}).get("Config") or ():
        try:
            subnets.append(Subnet(str(config.get("Subnet", ""))))
        except ValueError:
            continue  # none, or in a form that this is not
    name, driver = plain(str(listed.get("Name", ""))), plain(str(listed.get("Driver", "")))
    return EngineNetwork(str(listed.get("Id", "")), name, driver, tuple(subnets))
