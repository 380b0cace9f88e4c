"""A network as people say it, by Docker's name or id or by its overlay's name, and its overlay namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myoverlay.errors import Refused, Unavailable, Unknown

if TYPE_CHECKING:
    from myoverlay.cli.words import Places
    from myoverlay.kernel.netns import Namespace


def overlay_of(network: str, places: Places) -> str:
    """The overlay that is meant: one whose namespace is here, else what the plugin, else what Docker calls so.

    A namespace that is pinned under the name needs nobody's answer: the plugin may be what is broken. Raises Unknown,
    naming what there is, and Unavailable where nobody could be asked.
    """
    from myoverlay.kernel import netns

    if "/" not in network and network and netns.is_pinned(places.plugin / network):
        return network
    known = _known()
    for one in known:
        if one["overlay"] == network or (len(network) >= 6 and one["network"].startswith(network)):
            return str(one["overlay"])
    docker = _docker_id(network)
    for one in known:
        if docker and one["network"] == docker:
            return str(one["overlay"])
    there = ", ".join(sorted(one["overlay"] for one in known))
    has = f"its overlays are {there}" if there else "it has none"
    raise Unknown(f"{network} is no network of the plugin on this host: {has}")


def open_overlay(network: str, places: Places) -> tuple[str, Namespace]:
    """The overlay's name and its namespace, opened. Raises as `overlay_of`, and Unknown where it is not there."""
    from myoverlay.kernel import netns

    overlay = overlay_of(network, places)
    path = places.plugin / overlay
    if not netns.is_pinned(path):
        raise Unknown(f"overlay {overlay} has no namespace at {path} now: is the plugin another's (MYOVERLAY_RUN)?")
    return overlay, netns.open_path(path)


def _known() -> list[dict[str, Any]]:
    from myoverlay.cli.ask import ask

    return list(ask("Control.Overlays")["overlays"])


def _docker_id(name: str) -> str:
    """Docker's id of a network by its name; "" where Docker has none, or cannot be asked."""
    import os

    import docker
    from docker.errors import DockerException, NotFound
    from requests.exceptions import RequestException

    from myoverlay.cli.containers import PATIENCE

    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        client = docker.from_env(timeout=PATIENCE)
        try:
            return str(client.api.inspect_network(name)["Id"])
        finally:
            client.close()
    except NotFound:
        return ""
    except (DockerException, RequestException, OSError):
        raise Unavailable(
            f"{name} is no overlay of this host, and whether it is a network of Docker's cannot be told:"
            f" Docker at {where} does not answer; the overlay's name will do (`myoverlay names` shows them)"
        ) from None


def port_of(container: str, overlay: str) -> str:
    """The bridge's port of a container of this host, by its name, address or endpoint id. Raises Unknown, Refused."""
    one = next((one for one in _known() if one["overlay"] == overlay), None)
    endpoints = one["endpoints"] if one is not None else []
    found = [
        end
        for end in endpoints
        if container in (end["address"], *end["names"]) or (len(container) >= 6 and end["id"].startswith(container))
    ]
    if len(found) > 1:
        raise Refused(f"{container} is the name of {len(found)} containers there: give an address")
    if not found:
        there = ", ".join(end["names"][0] if end["names"] else end["address"] for end in endpoints[:8]) or "none"
        raise Unknown(f"{container} is no container of this host on {overlay}: its containers there are {there}")
    return str(found[0]["port"])
