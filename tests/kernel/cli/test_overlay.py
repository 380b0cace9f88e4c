"""Overlays made by hand: what is made, what is refused, what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from myoverlay.errors import KernelRefused
from myoverlay.kernel import netns
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Vxlan
from tests.kernel.cli.conftest import Hand, answers, link_names, links_of
from tests.kernel.conftest import bridge, library, soon, vxlan

ROOT = Path(__file__).parents[3]


def test_the_defaults_are_the_tutorials(hand: Hand) -> None:
    """Without options it is overlay-ns, br0 192.168.0.1/24, vxlan1, VNI 42, port 4789, and all four switches on."""
    hand("overlay", "create")
    (found,) = hand.json("overlay", "ls")
    assert (found["name"], found["vni"], found["port"], found["device"]) == ("overlay-ns", 42, 4789, "vxlan1")
    assert found["flags"] == ["proxy", "learning", "l2miss", "l3miss"]
    assert (found["bridge"]["name"], found["bridge"]["address"], found["local"]) == ("br0", "192.168.0.1/24", None)
    assert found["mtu"] == 1450
    with hand.namespace() as ns, library(ns) as ipr:
        (message,) = ipr.link("get", ifname="vxlan1")
        data = dict(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")["attrs"])
        assert [data[f"IFLA_VXLAN_{flag}"] for flag in ("LEARNING", "PROXY", "L2MISS", "L3MISS")] == [1, 1, 1, 1]
        assert "IFLA_VXLAN_LOCAL" not in data


@pytest.mark.parametrize(
    ("option", "left"),
    [
        ("--no-miss", ["proxy", "learning"]),
        ("--no-learning", ["proxy", "l2miss", "l3miss"]),
        ("--no-proxy", ["learning", "l2miss", "l3miss"]),
        ("--no-l2miss", ["proxy", "learning", "l3miss"]),
        ("--no-l3miss", ["proxy", "learning", "l2miss"]),
    ],
)
def test_each_switch_can_be_off(hand: Hand, option: str, left: list[str]) -> None:
    """The device has the switches that were not turned off, and the same words again find it as asked for."""
    hand("overlay", "create", option)
    assert hand.json("overlay", "show")["flags"] == left
    assert "was there as asked for" in hand("overlay", "create", option)


def test_local_and_mtu(hand: Hand, host: Namespace) -> None:
    """`--local` takes an interface or address of this host; the MTU is the underlay's less 50, or what was said."""
    with library(host) as ipr:
        ipr.link("add", ifname="eth0", kind="veth", peer={"ifname": "far"}, mtu=1400)
        (index,) = ipr.link_lookup(ifname="eth0")
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address="192.0.2.7", prefixlen=24)
    hand("overlay", "create", "--local", "eth0")
    found = hand.json("overlay", "show")
    assert (found["local"], found["mtu"]) == ("192.0.2.7", 1350)
    hand("overlay", "create", "--replace", "--mtu", "1300")
    found = hand.json("overlay", "show")
    assert (found["local"], found["mtu"]) == (None, 1300)
    assert "is no interface with an address" in hand("overlay", "create", "x", "--local", "192.0.2.8", code=1)


def test_again_changes_nothing_and_another_needs_replace(hand: Hand) -> None:
    """The same words keep the very device; other words are refused naming what is there, until `--replace`."""

    def index() -> int:
        with hand.namespace() as ns, library(ns) as ipr:
            return int(ipr.link_lookup(ifname="vxlan1")[0])

    hand("overlay", "create")
    before = hand.namespace()
    with before:
        born = index()
        assert "was there" in hand("overlay", "create")
        assert index() == born
        assert "VNI 42, port 4789" in hand("overlay", "create", "--vni", "43", code=1)
        hand("overlay", "create", "--vni", "43", "--replace")
        assert hand.json("overlay", "show")["vni"] == 43
        assert link_names(before) == set()


def test_what_somebody_spoilt_is_mended(hand: Hand) -> None:
    """The same words set up again a device that was down, without making it anew."""
    hand("overlay", "create")
    with hand.namespace() as ns, library(ns) as ipr:
        (index,) = ipr.link_lookup(ifname="vxlan1")
        ipr.link("set", index=index, state="down")
    assert hand.json("overlay", "show")["faults"] == ["vxlan1: down"]
    hand("overlay", "create")
    found = hand.json("overlay", "show")
    assert found["faults"] == []


def test_two_on_one_machine(hand: Hand) -> None:
    """Another name with the same VNI is refused naming the holder and leaves nothing; another VNI serves."""
    hand("overlay", "create")
    said = hand("overlay", "create", "blue", code=1)
    assert f"VNI 42 on UDP port 4789 is taken on this host by device vxlan1 in namespace {hand.places.named}" in said
    assert not (hand.places.named / "blue").exists()
    hand("overlay", "create", "blue", "--vni", "43")
    hand("overlay", "create", "red", "--port", "4790")
    # A replacement that cannot be made is refused before what it would replace is gone.
    assert "device vxlan1 in namespace" in hand("overlay", "create", "blue", "--replace", code=1)
    assert {one["name"] for one in hand.json("overlay", "ls")} == {"overlay-ns", "blue", "red"}


def test_the_plugins_vni_is_named_too(hand: Hand, links: Links) -> None:
    """A clash with an overlay of the plugin names its namespace, and its name is not given a second time."""
    with netns.create(hand.places.plugin / "web") as ns:
        links.ensure(ns, bridge(), deadline=soon())
        links.ensure(ns, vxlan(vni=42, port=4789), deadline=soon())
    assert str(hand.places.plugin / "web") in hand("overlay", "create", code=1)
    assert "of the plugin" in hand("overlay", "create", "web", code=1)
    (found,) = hand.json("overlay", "ls")
    assert (found["name"], found["owner"]) == ("web", "plugin")


def test_what_the_plugin_owns_is_left_to_it(hand: Hand, links: Links, containers: Callable[[str], str]) -> None:
    """Nothing of a plugin's overlay is changed by hand, also under another name; looking is allowed."""
    with netns.create(hand.places.plugin / "web") as ns:
        links.ensure(ns, bridge(), deadline=soon())
        links.ensure(ns, vxlan(), deadline=soon())
    netns.share(hand.places.named)
    alias = hand.places.named / "alias"
    alias.touch()
    subprocess.run(["mount", "--bind", hand.places.plugin / "web", alias], check=True)
    for name in ("web", "alias"):
        for words in (
            ("attach", containers(f"c-{name}"), "10.5.0.7", "--overlay", name),
            ("detach", "host", "--overlay", name),
            ("overlay", "delete", name),
            ("arp", "add", "10.5.0.7", "--overlay", name),
            ("fdb", "del", "02:42:0a:05:00:07", "--overlay", name),
        ):
            assert "docker network connect" in hand(*words, code=1)
        assert hand.json("arp", "ls", "--overlay", name) == []
        assert hand.json("overlay", "show", name)["owner"] == "plugin"
    assert len(hand.json("overlay", "ls")) == 1


def test_a_step_that_fails_leaves_nothing(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever link cannot be made: no namespace, no file, and the VNI is free at once."""
    ensure = Links.ensure

    def failing(self: Links, ns: Namespace, thing: object, **more: object) -> tuple[str, ...]:
        said = ensure(self, ns, thing, **more)  # type: ignore[arg-type]
        if isinstance(thing, Vxlan):
            raise KernelRefused("setting up", 1, "Operation not permitted")
        return said

    with monkeypatch.context() as patch:
        patch.setattr(Links, "ensure", failing)
        assert "Operation not permitted" in hand("overlay", "create", code=1)
        assert list(hand.places.named.iterdir()) == []
        # A namespace somebody made beforehand stays, as empty as it was.
        netns.create(hand.places.named / "mine").close()
        hand("overlay", "create", "mine", code=1)
        assert links_of(hand.places.named / "mine") == set()
    hand("overlay", "create")


def test_a_namespace_that_is_no_overlay_is_left_alone(hand: Hand) -> None:
    """Neither delete nor `--replace` removes a namespace that holds something else; an empty one is used."""
    netns.share(hand.places.named)
    with netns.create(hand.places.named / "vm") as ns:
        assert "left alone" in hand("overlay", "delete", "vm", code=1)
        with library(ns) as ipr:
            ipr.link("add", ifname="a", kind="veth", peer={"ifname": "b"})
        for words in (("overlay", "delete"), ("overlay", "create", "--replace")):
            assert "left alone" in hand(*words, "vm", code=1)
        assert "no overlay" in hand("overlay", "create", "vm", code=1)
        assert "is no overlay" in hand("overlay", "show", "vm", code=1)
        assert link_names(ns) == {"a", "b"}
    with netns.create(hand.places.named / "empty"):
        hand("overlay", "create", "empty")


def test_delete_takes_all_though_somebody_is_inside(hand: Hand, containers: Callable[[str], str]) -> None:
    """With the namespace held open, cables, device and VNI go all the same, and a second delete is no failure."""
    hand("overlay", "create")
    path = containers("c")
    hand("attach", path, "192.168.0.10")
    with hand.namespace() as held:
        assert "is removed" in hand("overlay", "delete")
        assert link_names(held) == set()
        assert links_of(Path(path)) == set()
        hand("overlay", "create", "other")
    assert "was not there" in hand("overlay", "delete")


def test_missing_names_are_told(hand: Hand, containers: Callable[[str], str]) -> None:
    """A namespace that is missing is named with what would make it."""
    for words in (("overlay", "show"), ("attach", containers("c"), "192.168.0.9"), ("arp", "ls"), ("fdb", "ls")):
        assert "there is no namespace overlay-ns" in hand(*words, code=1)
    assert hand.json("overlay", "ls") == []


def test_overlays_made_with_ip_are_overlays(hand: Hand, containers: Callable[[str], str]) -> None:
    """The tutorial's own steps make what we list, attach to, and detach from: also a cable that `ip` laid."""
    netns.create(hand.places.named / "overlay-ns").close()
    path, other = containers("c"), containers("d")
    script = """
        link add name br0 type bridge
        link set br0 up
        addr add 192.168.0.1/24 dev br0
        link add vxlan1 type vxlan id 42 proxy learning l2miss l3miss dstport 4789
        link set vxlan1 master br0
        link set vxlan1 up
        link add veth1 mtu 1450 type veth peer name eth0 mtu 1450
    """
    with hand.namespace() as ns:
        ns.call(lambda: subprocess.run(["ip", "-batch", "-"], input=script, text=True, check=True))
        ns.call(lambda: subprocess.run(["ip", "link", "set", "veth1", "master", "br0", "up"], check=True))
        with netns.open_path(Path(path)) as there, library(ns) as ipr:
            (index,) = ipr.link_lookup(ifname="eth0")
            ipr.link("set", index=index, net_ns_fd=there.fd)
        found = hand.json("overlay", "show")
        assert (found["vni"], found["others"]) == (42, ["veth1"])
        hand("attach", other, "192.168.0.10")
        with netns.open_path(Path(other)) as there:
            assert answers(there, "192.168.0.1") == 3
        hand("detach", path)
        assert links_of(Path(path)) == set()


def test_ip_netns_and_we_understand_each_other() -> None:
    """`ip netns exec` works on ours, `ip netns add` beside us leaves all removable, and ten rounds leave nothing."""
    script = """
        set -e
        mount -t tmpfs tmpfs /run
        my() { "$PYTHON" -m myoverlay "$@" >/dev/null; }
        # Not by their number: mounts that others have made go here too, when they remove what those stand on.
        mounts() { cut -d " " -f 5 /proc/self/mountinfo | sort; }
        my overlay create
        test "$(ip netns exec overlay-ns cat /sys/class/net/br0/address)" = 02:6f:c0:a8:00:01
        ip netns add vm
        my attach vm 192.168.0.10
        my overlay delete
        ip netns delete vm
        test -z "$(ls /run/netns)"
        mounts >/run/before
        for round in 1 2 3 4 5 6 7 8 9 10; do
            my overlay create
            my attach host 192.168.0.10
            my detach host
            my overlay delete
        done
        test -z "$(ls /run/netns)"
        test -z "$(mounts | comm -13 /run/before -)"
        test "$(ls /sys/class/net)" = lo -o "$(ip -br link | wc -l)" = 1
    """
    environ = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")}
    command = ["unshare", "--mount", "--net", "sh", "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
