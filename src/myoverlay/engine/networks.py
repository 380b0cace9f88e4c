"""Docker's networks on this host, through the docker SDK, which is loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from myoverlay.engine.client import knock
from myoverlay.errors import Refused, Unavailable
from myoverlay.networks import NetworkPlan, check_id, plain
from myoverlay.plan.following import LABEL, LABEL_PLAN, Found
from myoverlay.values import decoder, encode

#: Seconds for a question, and for what makes Docker call us back up to three times, each within 8 s.
ASK, ACT = 10.0, 30.0
_read_plan = decoder(NetworkPlan)


def _client(path: str) -> Any:
    import docker

    return docker.APIClient(base_url=f"unix://{path}", version="auto", timeout=ASK)


class EngineNetworks:
    """For one thread. Every method raises Unavailable where Docker does not answer, Refused where it says no."""

    def __init__(self, path: str, driver: str, connect: Callable[[str], Any] = _client) -> None:
        """`path`: of Docker's socket; `driver`: the name that Docker knows this plugin by."""
        self._path = path
        self._driver = driver
        self._connect = connect
        self._open: Any = None

    def list(self) -> tuple[Found, ...]:
        """All networks of this host."""
        with self._asking("listing the networks", ASK) as client:
            listed = client.networks()
        return tuple(map(_found, listed))

    def make(self, plan: NetworkPlan) -> None:
        """Make the network of a plan."""
        pool: dict[str, Any] = {"Subnet": plan.subnet}
        pool |= {"IPRange": plan.ip_range} if plan.ip_range is not None else {}
        pool |= {"Gateway": plan.gateway} if plan.gateway is not None else {}
        pool |= {"AuxiliaryAddresses": plan.aux} if plan.aux else {}
        ipam = {"Driver": self._driver, "Options": {"overlay": plan.overlay}, "Config": [pool]}
        labels = {**plan.labels, LABEL: plan.id, LABEL_PLAN: encode(plan).decode()}
        with self._asking(f"making network {plan.name}", ACT) as client:
            client.create_network(
                str(plan.name),
                driver=self._driver,
                options={**plan.options, "overlay": plan.overlay},
                ipam=ipam,
                check_duplicate=True,
                internal=plan.internal,
                labels=labels,
            )

    def remove(self, network: Found, forced: bool) -> None:
        """Remove a network; `forced`: its containers are taken off it first. One that is gone is removed."""
        with self._asking(f"removing network {network.name}", ACT) as client:
            if forced:
                for container in _containers(client, network.id):
                    _gone_is_fine(partial(client.disconnect_container_from_network, container, network.id, force=True))
            _gone_is_fine(partial(client.remove_network, network.id))

    def close(self) -> None:
        client, self._open = self._open, None
        if client is not None:
            client.close()

    @contextmanager
    def _asking(self, what: str, timeout: float) -> Iterator[Any]:
        import docker.errors
        import requests

        try:
            knock(self._path)
            if self._open is None:
                self._open = self._connect(self._path)
            self._open.timeout = timeout
            yield self._open
        except docker.errors.APIError as error:
            said = plain(str(error.explanation or error))
            if error.response is not None and error.status_code == 503:
                raise Unavailable(f"{what}: Docker is not ready: {said}") from error
            raise Refused(f"{what}: Docker says: {said}") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            self.close()  # whatever is still under way there answers nobody
            raise Unavailable(f"{what}: Docker does not answer on {self._path}: {plain(str(error))}") from error


def _containers(client: Any, network: str) -> list[str]:
    return [str(name) for name in client.inspect_network(network).get("Containers") or {}]


def _gone_is_fine(act: Callable[[], None]) -> None:
    import docker.errors

    try:
        act()
    except docker.errors.NotFound:
        return


def _found(listed: Mapping[str, Any]) -> Found:
    """A network as Docker lists it. A label that is none of ours makes it somebody else's."""
    labels = listed.get("Labels") or {}
    name, plan, told = str(listed.get("Name", "")), None, None
    try:
        plan = check_id(str(labels[LABEL]))
        told = _read_plan(str(labels[LABEL_PLAN]).encode())
    except (KeyError, ValueError):
        pass
    if told is not None and (told.id != plan or told.name != name):
        told = None
    return Found(id=str(listed.get("Id", "")), name=name, driver=str(listed.get("Driver", "")), plan=plan, told=told)
