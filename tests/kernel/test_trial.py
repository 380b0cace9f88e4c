"""Whether a VXLAN device could be made: what the kernel says, and that nothing is left of having asked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from myoverlay.kernel import netns
from myoverlay.kernel.linkforms import Tunnel
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.trial import Trial
from myoverlay.values import Address, Mac
from tests.kernel.conftest import library, soon

PORT, VNI = 4795, 4242
LOCAL = Address("192.0.2.1")


class Scene:
    """A host with an address, and a directory where somebody pins namespaces."""

    def __init__(self, home: Namespace, links: Links, folder: Path) -> None:
        self.home, self.links = home, links
        self.pins = Pins(folder)
        self.trial = Trial(links, (folder,))
        with library(home) as ipr:
            ipr.link("add", ifname="eth0", kind="bridge")
            (index,) = ipr.link_lookup(ifname="eth0")
            ipr.link("set", index=index, state="up")
            ipr.addr("add", index=index, address=LOCAL, prefixlen=24)

    def taken(self, vni: int = VNI, port: int = PORT) -> tuple[bool, str] | None:
        return self.trial.taken(vni, port, LOCAL, soon())

    def device(self, ns: Namespace, name: str = "theirs", vni: int = VNI) -> None:
        form = Tunnel(name=name, mac=Mac("02:00:00:00:00:07"), vni=vni, port=PORT, local=LOCAL, mtu=1400)
        self.links.ensure(ns, form, deadline=soon())


@pytest.fixture
def scene(spaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[Scene]:
    home = spaces("home")
    with Links(home) as links:
        yield Scene(home, links, tmp_path / "pins")


def test_what_is_free_is_said_to_be_and_stays_so(scene: Scene) -> None:
    """Asked again and again nothing is in the way, and no device is left in the host's namespace."""
    before = scene.links.names()
    assert [scene.taken() for _ in range(5)] == [None] * 5
    assert scene.links.names() == before
    scene.device(scene.home)


@pytest.mark.parametrize("where", ["home", "pinned", "hidden"])
def test_a_vni_that_somebody_has_is_named(scene: Scene, where: str) -> None:
    """In the host's own namespace, in a pinned one, and in one that nobody can see."""
    place = scene.home if where == "home" else scene.pins.create("far") if where == "pinned" else netns.nameless()
    scene.device(place)
    said = scene.taken()
    assert said is not None
    is_port, who = said
    assert not is_port
    expected = {
        "home": "device theirs in the host's namespace",
        "pinned": f"device theirs in namespace {scene.pins.path('far')}",
        "hidden": "a device that cannot be seen",
    }
    assert who == expected[where]
    assert scene.taken(vni=VNI + 1) is None, "another VNI on the same port"
    scene.links.remove(place, "theirs", deadline=soon())
    assert scene.taken() is None
    if place is not scene.home:
        place.close()
    if where == "pinned":
        scene.pins.delete("far")


def test_a_port_that_a_program_has_bound_is_told_from_a_vni(scene: Scene) -> None:
    """Every VNI is in vain there; once the program has gone all is well."""
    with scene.home.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        scene.home.call(lambda: program.bind(("", PORT)))
        assert scene.taken() == (True, "a program that has bound it")
    assert scene.taken() is None
