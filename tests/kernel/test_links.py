"""Links: made, corrected, made anew, observed; and what packets do on them."""

from __future__ import annotations

import errno
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.errors import KernelRefused, Late, Refused
from myoverlay.kernel import linkforms, netns
from myoverlay.kernel.channel import Channel
from myoverlay.kernel.frames import Announcer
from myoverlay.kernel.linkforms import Observed
from myoverlay.kernel.links import Links
from myoverlay.kernel.neigh import MissSocket
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Fdb, Mac, Subnet, Veth

from .conftest import Container, Host, bridge, library, open_fds, soon, until, veth, vxlan
from .given import macs

MAC = Mac("02:42:0a:05:00:63")


def build(links: Links, overlay: Namespace, *numbers: int) -> None:
    for thing in (bridge(), vxlan(), *map(veth, numbers)):
        assert links.ensure(overlay, thing, deadline=soon()) == ()


def seen(links: Links, ns: Namespace) -> dict[str, Observed]:
    return {one.name: one for one in links.observe(ns, deadline=soon())}


def link(ns: Namespace, name: str) -> Any:
    """What pyroute2 says of a link, the oracle here."""
    with library(ns) as ipr:
        (message,) = ipr.link("get", ifname=name)
        return message


def names(ns: Namespace) -> set[str]:
    with library(ns) as ipr:
        return {one.get_attr("IFLA_IFNAME") for one in ipr.get_links()} - {"lo"}


def udp_ports(ns: Namespace) -> set[int]:
    """The local ports of the namespace's UDP sockets, the kernel's own among them."""
    text = ns.call(lambda: Path("/proc/thread-self/net/udp").read_text())
    return {int(line.split()[1].partition(":")[2], 16) for line in text.splitlines()[1:]}


# Making.


def test_what_is_made_is_observed_as_it_was_asked_for(links: Links, overlay: Namespace) -> None:
    """Bridge, tunnel and cables come back equal and faultless, again after a second time, which recreates nothing."""
    build(links, overlay, 2, 3)
    wanted = dict.fromkeys((bridge(), vxlan(), veth(2), veth(3)), ())
    first = links.observe(overlay, deadline=soon())
    assert {one.value: one.faults for one in first} == wanted
    indexes = {name: links.ifindex(overlay, name, deadline=soon()) for name in names(overlay)}
    build(links, overlay, 2, 3)
    assert links.observe(overlay, deadline=soon()) == first
    assert {name: links.ifindex(overlay, name, deadline=soon()) for name in names(overlay)} == indexes


def test_the_library_sees_what_we_asked_for(links: Links, overlay: Namespace, host: Namespace) -> None:
    """pyroute2 finds each attribute that the data path hangs on."""
    build(links, overlay, 2)
    data = dict(link(overlay, "vxlan0").get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")["attrs"])
    assert (data["IFLA_VXLAN_ID"], data["IFLA_VXLAN_PORT"], data["IFLA_VXLAN_LOCAL"]) == (7001, 4790, "192.0.2.1")
    assert [data[f"IFLA_VXLAN_{flag}"] for flag in ("LEARNING", "PROXY", "L2MISS", "L3MISS")] == [0, 1, 1, 1]
    br = link(overlay, "br0")
    shape = dict(br.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")["attrs"])
    assert [shape[f"IFLA_BR_{key}"] for key in ("STP_STATE", "FORWARD_DELAY", "MCAST_SNOOPING")] == [0, 0, 0]
    assert (br.get_attr("IFLA_ADDRESS"), br.get_attr("IFLA_MTU")) == ("02:42:0a:05:00:01", 1450)
    for name, flood in (("vxlan0", 1), ("p2", 0)):
        message = link(overlay, name)
        assert (message["state"], message.get_attr("IFLA_MTU")) == ("up", 1450)
        port = dict(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")["attrs"])
        assert (port["IFLA_BRPORT_LEARNING"], port["IFLA_BRPORT_UNICAST_FLOOD"]) == (0, flood)
        assert (port["IFLA_BRPORT_MCAST_FLOOD"], port["IFLA_BRPORT_BCAST_FLOOD"]) == (1, 1)
        assert port["IFLA_BRPORT_NEIGH_SUPPRESS"] == 0
    far = link(host, "mo2")
    assert (far.get_attr("IFLA_ADDRESS"), far.get_attr("IFLA_MTU"), far["state"]) == (veth(2).mac, 1450, "down")


def test_our_decoder_agrees_with_the_library(links: Links, overlay: Namespace) -> None:
    """Every field of a Seen is what pyroute2 decodes, for each kind of link."""
    build(links, overlay, 2)
    until(lambda: not links.forwards(overlay, "p2", deadline=soon()))  # link watch sees that its far end is down
    with library(overlay) as ipr:
        for message in ipr.get_links():
            mine = linkforms.decode_link(_raw(overlay, message["index"]))
            assert mine is not None
            assert (mine.index, mine.name) == (message["index"], message.get_attr("IFLA_IFNAME"))
            assert (mine.mac, mine.mtu) == (message.get_attr("IFLA_ADDRESS"), message.get_attr("IFLA_MTU"))
            assert (mine.up, mine.master) == (bool(message["flags"] & 1), message.get_attr("IFLA_MASTER"))
            assert (mine.alias, mine.far) == (message.get_attr("IFLA_IFALIAS"), message.get_attr("IFLA_LINK"))
            assert mine.far_ns == message.get_attr("IFLA_LINK_NETNSID")
            six = message.get_nested("IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_CONF")
            assert mine.ipv6_off == bool(six["disable_ipv6"])
            info = message.get_attr("IFLA_LINKINFO")
            assert mine.kind == (info.get_attr("IFLA_INFO_KIND") if info else "")
            for ours, name in ((mine.data, "IFLA_INFO_DATA"), (mine.port, "IFLA_INFO_SLAVE_DATA")):
                theirs = info.get_attr(name) if info else None
                assert ours.items() <= dict(theirs["attrs"] if theirs else ()).items()
            assert bool(mine.data) == (mine.kind in ("bridge", "vxlan"))
            assert bool(mine.port) == (mine.name in ("vxlan0", "p2"))


def _raw(ns: Namespace, index: int) -> bytes:
    from myoverlay.kernel.rtnetlink import Request, Wire

    wire = Wire(ns)
    try:
        return wire.one(Request(18, 0, linkforms.IFINFO.pack(0, 0, index, 0, 0)), "reading").body
    finally:
        wire.close()


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(raw: bytes) -> None:
    """The link decoder gives a value or None for whatever comes."""
    linkforms.decode_link(raw)
    linkforms.decode_link(linkforms.IFINFO.pack(0, 1, 2, 3, 4) + raw)


@given(st.from_regex(r"mo[0-9a-f]{12}", fullmatch=True), macs)
def test_a_label_reads_back(name: str, mac: Mac) -> None:
    """What a port says about its far end is read as it was written, and nothing else is taken for it."""
    assert linkforms.read_label(linkforms.label(veth(2, link=name, mac=mac))) == (name, mac)
    for other in (None, "", name, f"myoverlay veth link={name} mac=ff:ff:ff:ff:ff:ff"):
        assert linkforms.read_label(other) is None


def test_the_tunnels_socket_lives_in_the_hosts_namespace(links: Links, overlay: Namespace, host: Namespace) -> None:
    """The device is in the overlay namespace only, and its UDP port is open in the host's only."""
    build(links, overlay)
    assert names(host) == set()
    assert 4790 in udp_ports(host)
    assert 4790 not in udp_ports(overlay)


def test_a_tunnel_over_ipv6(links: Links, overlay: Namespace) -> None:
    """A VTEP may have an IPv6 address, and is observed with it."""
    build(links, overlay)
    six = vxlan(name="vxlan6", vni=7002, local=Address("2001:db8::1"))
    links.ensure(overlay, six, deadline=soon())
    assert seen(links, overlay)["vxlan6"] == Observed(name="vxlan6", value=six)


def test_ipv6_is_off_unless_the_overlay_has_it(links: Links, overlay: Namespace) -> None:
    """On a bridge of IPv4 nothing speaks IPv6; with an IPv6 address bridge and tunnel do, ports never."""

    def off(name: str) -> str:
        return overlay.call(Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text).strip()

    build(links, overlay, 2)
    assert [off(name) for name in ("br0", "vxlan0", "p2")] == ["1", "1", "1"]
    filters = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if filters.exists():
        assert overlay.call(filters.read_text).strip() == "0"
    six = bridge(address=Address("fd00:5::1"), prefixlen=64)
    links.ensure(overlay, six, deadline=soon())
    assert seen(links, overlay)["vxlan0"].faults == ("IPv6 is not as on its bridge",)
    links.ensure(overlay, vxlan(), deadline=soon())
    links.ensure(overlay, veth(3), deadline=soon())
    assert seen(links, overlay)["vxlan0"].faults == ()
    assert [off(name) for name in ("br0", "vxlan0", "p2", "p3")] == ["0", "0", "1", "1"]
    assert seen(links, overlay)["br0"] == Observed(name="br0", value=six)


def test_what_could_not_be_set_is_said(links: Links, overlay: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sysctl that stays read-only is named in one sentence and the link is made; an absent one is no loss."""
    refuse = {"net/bridge/bridge-nf-call-iptables": errno.EROFS, "net/bridge/bridge-nf-call-arptables": errno.ENOENT}
    monkeypatch.setattr(Namespace, "sysctls", lambda *_: refuse)
    said = links.ensure(overlay, bridge(), deadline=soon())
    assert said == ("net/bridge/bridge-nf-call-iptables was not set: Read-only file system",)
    assert "br0" in names(overlay)


# Correcting.


def test_each_fault_is_observed_and_mended(links: Links, overlay: Namespace) -> None:
    """Whatever somebody changed by hand shows, either as another value or as a fault, and ensure puts it right."""
    build(links, overlay, 2)
    things = {"br0": bridge(), "vxlan0": vxlan(), "p2": veth(2)}
    good = seen(links, overlay)
    with library(overlay) as ipr:
        index = {name: ipr.link_lookup(ifname=name)[0] for name in things}

        def port(name: str, **flags: int) -> None:
            data = {"attrs": [(f"IFLA_BRPORT_{key}", value) for key, value in flags.items()]}
            info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]
            ipr.link("set", index=index[name], IFLA_LINKINFO={"attrs": info})

        def shape(**data: int) -> None:
            ipr.link("set", index=index["br0"], kind="bridge", **data)

        harm: list[tuple[str, Callable[[], object]]] = [
            ("br0", lambda: ipr.link("set", index=index["br0"], state="down")),
            ("br0", lambda: ipr.link("set", index=index["br0"], address="02:00:00:00:00:01")),
            ("br0", lambda: ipr.link("set", index=index["br0"], mtu=1400)),
            ("br0", lambda: shape(br_stp_state=1)),
            ("br0", lambda: shape(br_mcast_snooping=1)),
            ("br0", lambda: ipr.addr("del", index=index["br0"], address="10.5.0.1", prefixlen=24)),
            ("br0", lambda: ipr.addr("add", index=index["br0"], address="10.99.0.1", prefixlen=24)),
            ("vxlan0", lambda: ipr.link("set", index=index["vxlan0"], state="down")),
            ("vxlan0", lambda: ipr.link("set", index=index["vxlan0"], mtu=1400)),
            ("vxlan0", lambda: ipr.link("set", index=index["vxlan0"], master=0)),
            ("vxlan0", lambda: port("vxlan0", LEARNING=1)),
            ("vxlan0", lambda: port("vxlan0", UNICAST_FLOOD=0)),
            ("vxlan0", lambda: port("vxlan0", NEIGH_SUPPRESS=1)),
            ("p2", lambda: ipr.link("set", index=index["p2"], state="down")),
            ("p2", lambda: ipr.link("set", index=index["p2"], master=0)),
            ("p2", lambda: ipr.link("set", index=index["p2"], mtu=1400)),
            ("p2", lambda: port("p2", UNICAST_FLOOD=1)),
            ("p2", lambda: port("p2", MCAST_FLOOD=0)),
            ("p2", lambda: port("p2", BCAST_FLOOD=0)),
            ("p2", lambda: port("p2", LEARNING=1)),
            ("p2", lambda: ipr.link("set", index=index["p2"], IFLA_IFALIAS="")),
            ("p2", lambda: ipr.fdb("del", ifindex=index["p2"], lladdr=veth(2).mac, flags=0x04)),
            ("p2", lambda: ipr.fdb("add", ifindex=index["p2"], lladdr=MAC, flags=0x04, state=0x40)),
        ]
        for number, (name, spoil) in enumerate(harm):
            spoil()
            spoilt = seen(links, overlay)[name]
            assert spoilt.value != things[name] or spoilt.faults, (number, name)
            links.ensure(overlay, things[name], deadline=soon())
            assert seen(links, overlay) == good, (number, name)
            assert links.ifindex(overlay, name, deadline=soon()) == index[name], (number, name)


@pytest.mark.parametrize("change", [{"vni": 7002}, {"port": 4791}, {"local": Address("192.0.2.9")}])
def test_a_tunnel_that_cannot_be_changed_is_made_anew(links: Links, overlay: Namespace, change: dict[str, Any]) -> None:
    """Another VNI, port or local address gives another device of the same name, on the bridge again."""
    build(links, overlay)
    before = links.ifindex(overlay, "vxlan0", deadline=soon())
    links.ensure(overlay, vxlan(**change), deadline=soon())
    assert seen(links, overlay)["vxlan0"] == Observed(name="vxlan0", value=vxlan(**change))
    assert links.ifindex(overlay, "vxlan0", deadline=soon()) != before


def test_a_link_of_another_kind_gives_way(links: Links, overlay: Namespace) -> None:
    """What bears our name and is something else is a stranger when observed, and is replaced."""
    with library(overlay) as ipr:
        ipr.link("add", ifname="vxlan0", kind="veth", peer={"ifname": "x"})
    links.ensure(overlay, bridge(), deadline=soon())
    assert seen(links, overlay)["vxlan0"] == Observed(name="vxlan0", value=None)
    links.ensure(overlay, vxlan(), deadline=soon())
    assert seen(links, overlay)["vxlan0"].value == vxlan()


def test_a_cable_is_corrected_while_both_ends_are_here(links: Links, overlay: Namespace, host: Namespace) -> None:
    """Another MAC or MTU changes both ends, the label and the static row; nothing is made anew."""
    build(links, overlay, 2)
    before = links.ifindex(overlay, "p2", deadline=soon())
    other = veth(2, mac=MAC, mtu=1400)
    links.ensure(overlay, other, deadline=soon())
    assert seen(links, overlay)["p2"] == Observed(name="p2", value=other)
    assert links.ifindex(overlay, "p2", deadline=soon()) == before
    far = link(host, "mo2")
    assert (far.get_attr("IFLA_ADDRESS"), far.get_attr("IFLA_MTU")) == (MAC, 1400)


def test_a_cable_whose_end_moved_away_is_kept(two_hosts: tuple[Host, Host]) -> None:
    """Docker moves and renames the container's end: ensure keeps the cable and never touches that end."""
    here, _ = two_hosts
    container = here.container(2)
    before = here.links.ifindex(here.overlay, "p2", deadline=soon())
    here.links.ensure(here.overlay, veth(2), deadline=soon())
    assert here.links.ifindex(here.overlay, "p2", deadline=soon()) == before
    assert link(container.ns, "eth0")["state"] == "up"
    assert seen(here.links, here.overlay)["p2"] == Observed(name="p2", value=veth(2))


def test_a_taken_name_in_the_host_is_named(links: Links, overlay: Namespace, host: Namespace) -> None:
    """A stranger that bears the container end's name is left alone and told by name, with EEXIST."""
    build(links, overlay)
    with library(host) as ipr:
        ipr.link("add", ifname="mo2", kind="bridge")
    with pytest.raises(KernelRefused, match="creating mo2: the host's namespace has a link of that name") as told:
        links.ensure(overlay, veth(2), deadline=soon())
    assert told.value.code == errno.EEXIST
    assert "p2" not in names(overlay)
    assert link(host, "mo2").get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"


def test_a_missing_bridge_is_named(links: Links, overlay: Namespace) -> None:
    """A port cannot come before its bridge."""
    with pytest.raises(KernelRefused, match="looking for br0") as told:
        links.ensure(overlay, veth(2), deadline=soon())
    assert told.value.code == errno.ENODEV


# Removing.


def test_removing_takes_the_far_end_along(links: Links, overlay: Namespace, host: Namespace) -> None:
    """A cable goes with both ends, wherever the other is, and its absence is success."""
    build(links, overlay, 2)
    links.remove(overlay, "p2", deadline=soon())
    assert "p2" not in names(overlay)
    assert "mo2" not in names(host)
    links.remove(overlay, "p2", deadline=soon())


def test_removing_without_waiting(links: Links, overlay: Namespace) -> None:
    """It returns at once, comes before what is asked of its link later, and outlives the caller's namespace object."""
    build(links, overlay, 2, 3)
    with overlay.dup() as mine:
        began = time.perf_counter()
        links.remove(mine, "p2", deadline=soon(), wait=False)
        links.remove(mine, "p3", deadline=soon(), wait=False)
        assert time.perf_counter() - began < 0.01
    links.ensure(overlay, veth(2), deadline=soon())
    until(lambda: names(overlay) == {"br0", "vxlan0", "p2"})
    assert links.failed_removals == 0


def test_nobody_waits_behind_removals(links: Links, overlay: Namespace) -> None:
    """While twelve removals wait for one that goes on, a new cable is laid, and a link is looked at."""
    numbers = range(2, 14)
    build(links, overlay, *numbers)
    hold, held = threading.Event(), threading.Event()
    links._jobs.put_idle(lambda: (held.set(), hold.wait(10)), "held")  # type: ignore[arg-type, return-value]
    held.wait(5)
    for number in numbers:
        links.remove(overlay, f"p{number}", deadline=soon(), wait=False)
    links.ensure(overlay, veth(20), deadline=soon())
    assert names(overlay) == {"br0", "vxlan0", "p20", *(f"p{number}" for number in numbers)}
    hold.set()
    until(lambda: names(overlay) == {"br0", "vxlan0", "p20"})


def test_what_was_begun_is_waited_for_later(links: Links, overlay: Namespace) -> None:
    """Well, ill, and too late: whoever waits is told, as often as he asks."""
    build(links, overlay)
    well = links.begin(overlay, veth(2), deadline=soon())
    ill = links.begin(overlay, veth(3, bridge="br1"), deadline=soon())
    for _ in range(2):
        assert well.wait(soon()) == ()
        with pytest.raises(KernelRefused, match="br1"):
            ill.wait(soon())
    assert well.is_well()
    assert not ill.is_well()
    assert names(overlay) == {"br0", "vxlan0", "p2"}
    hold, held = threading.Event(), threading.Event()
    links._submit(lambda: (held.set(), hold.wait(10)))  # type: ignore[arg-type, return-value]
    held.wait(5)
    late = links.begin(overlay, veth(4), deadline=soon())
    assert not late.is_well()
    for patience in (0.02, 10):
        with pytest.raises(Late):
            late.wait(soon(patience))
    hold.set()
    assert links.ifindex(overlay, "p4", deadline=soon()) is None
    assert not late.is_well()


def test_an_index_is_told_without_netlink(links: Links, overlay: Namespace) -> None:
    """As netlink tells it; there is none of a name that no link has, or could have."""
    build(links, overlay, 2)
    with closing(Channel(overlay)) as channel:
        for name in ("br0", "vxlan0", "p2"):
            assert channel.index_of(name) == links.ifindex(overlay, name, deadline=soon())
        assert channel.index_of("p3") is None
        assert channel.index_of("p" * 16) is None
        with pytest.raises(KernelRefused, match="p3"):
            channel.need_index("p3")


def test_a_failed_removal_is_counted(links: Links, overlay: Namespace) -> None:
    """What the kernel refuses when nobody waits is logged and counted."""
    links.remove(overlay, "lo", deadline=soon(), wait=False)
    until(lambda: links.failed_removals == 1)


# The thread.


def test_late_work_that_has_not_begun_never_begins(links: Links, overlay: Namespace) -> None:
    """While the thread is busy a deadline passes: the caller gets Late, and the link is not made afterwards."""
    hold, held = threading.Event(), threading.Event()

    def busy() -> None:
        held.set()
        hold.wait(10)

    links._submit(busy)
    held.wait(5)
    with pytest.raises(Late):
        links.ensure(overlay, bridge(), deadline=soon(0.02))
    with pytest.raises(Late):
        links.ensure(overlay, bridge(), deadline=soon(-1))
    hold.set()
    assert links.observe(overlay, deadline=soon()) == ()


def test_many_threads_may_ask(links: Links, overlay: Namespace) -> None:
    """Eight threads make and remove cables at once; all succeed and the end is as each left it."""
    build(links, overlay)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(4):
                links.ensure(overlay, veth(number), deadline=soon(30))
                links.remove(overlay, f"p{number}", deadline=soon(30))
            links.ensure(overlay, veth(number), deadline=soon(30))
        except BaseException as error:  # noqa: BLE001 - asserted on below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert {one.value for one in links.observe(overlay, deadline=soon())} >= {veth(n) for n in range(10, 18)}


def test_links_must_be_started_and_can_be_stopped(host: Namespace, overlay: Namespace) -> None:
    """Before start nothing is queued; stop finishes what was asked, and may be repeated."""
    door = Links(host)
    with pytest.raises(RuntimeError, match="not started"):
        door.observe(overlay, deadline=soon())
    door.start()
    door.ensure(overlay, bridge(), deadline=soon())
    door.remove(overlay, "br0", deadline=soon(), wait=False)
    door.stop(10)
    door.stop(10)
    assert names(overlay) == set()
    with pytest.raises(RuntimeError, match="stopped"):
        door.remove(overlay, "br0", deadline=soon(), wait=False)


def test_two_hundred_cables_leave_nothing(links: Links, overlay: Namespace, host: Namespace) -> None:
    """200 cycles of making and removing leave no link and no fd."""
    build(links, overlay, 2)
    links.remove(overlay, "p2", deadline=soon())
    fds, before = open_fds(), names(overlay) | names(host)
    for _ in range(200):
        links.ensure(overlay, veth(2), deadline=soon())
        links.remove(overlay, "p2", deadline=soon(), wait=False)
    links.remove(overlay, "p2", deadline=soon(30))  # behind the last one: only what is asked of that link is
    assert len(links.observe(overlay, deadline=soon())) == 2
    until(lambda: open_fds() <= fds)  # a job's namespace is closed after its answer
    assert names(overlay) | names(host) == before


def test_a_hundred_overlays_leave_nothing(links: Links, host: Namespace, tmp_path: Path) -> None:
    """100 cycles of a whole overlay leave no fd and no link; the VNI is always free when the tunnel goes first."""

    def cycle() -> None:
        with netns.create(tmp_path / "cycle") as ns:
            links.ensure(ns, bridge(), deadline=soon())
            links.ensure(ns, vxlan(), deadline=soon())
            links.remove(ns, "vxlan0", deadline=soon())
        netns.delete(tmp_path / "cycle")

    cycle()
    began, fds = time.perf_counter(), open_fds()
    for _ in range(99):
        cycle()
    print(f"\nan overlay made and removed: {(time.perf_counter() - began) / 99 * 1000:.1f} ms")
    until(lambda: open_fds() <= fds)
    assert names(host) == set()


def test_a_namespace_that_goes_gives_its_vni_back(links: Links, tmp_path: Path) -> None:
    """Nothing of ours keeps a deleted namespace alive: its VNI is free as soon as the kernel has cleaned up."""
    with netns.create(tmp_path / "gone") as ns:
        build(links, ns, 2)
    netns.delete(tmp_path / "gone")
    with netns.create(tmp_path / "next") as ns:
        links.ensure(ns, bridge(), deadline=soon())

        def free() -> bool:
            try:
                links.ensure(ns, vxlan(), deadline=soon())
            except KernelRefused as said:
                if said.code != errno.EEXIST:
                    raise
                return False
            return True

        began = time.perf_counter()
        until(free)
        print(f"\na deleted namespace gave its VNI back after {1000 * (time.perf_counter() - began):.0f} ms")
        links.remove(ns, "vxlan0", deadline=soon())
    netns.delete(tmp_path / "next")


# Questions.


def test_the_holder_of_a_vni_is_named(links: Links, overlay: Namespace, spaces: Callable[[str], Namespace]) -> None:
    """A second device with VNI and port taken is refused with EEXIST, and the first is found where it is."""
    build(links, overlay)
    second = spaces("second")
    assert overlay.path is not None
    search = [overlay.path.parent, Path("/nowhere")]
    links.ensure(second, bridge(), deadline=soon())
    with pytest.raises(KernelRefused, match="creating the VXLAN device vxlan0, VNI 7001, port 4790") as told:
        links.ensure(second, vxlan(), deadline=soon())
    assert told.value.code == errno.EEXIST
    assert links.holder_of(7001, 4790, search=search, deadline=soon()) == f"device vxlan0 in namespace {overlay.path}"
    assert links.holder_of(7001, 4791, search=search, deadline=soon()) is None
    assert links.holder_of(7001, 4790, search=[], deadline=soon()) is None


def test_a_holder_in_the_host_itself_and_a_namesake_elsewhere(
    links: Links, host: Namespace, overlay: Namespace
) -> None:
    """A device of the host's own is named; one whose socket lives in its own namespace holds nothing of ours."""
    assert overlay.path is not None
    search = [overlay.path.parent]
    with library(overlay) as ipr:
        ipr.link("add", ifname="own", kind="vxlan", vxlan_id=7001, vxlan_port=4790)
    assert links.holder_of(7001, 4790, search=search, deadline=soon()) is None
    with library(host) as ipr:
        ipr.link("add", ifname="vxlan1", kind="vxlan", vxlan_id=7001, vxlan_port=4790)
    assert links.holder_of(7001, 4790, search=search, deadline=soon()) == "device vxlan1 in the host's namespace"


def test_routes_and_their_mtu(links: Links, host: Namespace) -> None:
    """Unicast destinations of the main table, and the smaller of a route's and its link's MTU."""
    assert links.routes(deadline=soon()) == ()
    with pytest.raises(KernelRefused, match=r"finding the route to 198\.51\.100\.1") as told:
        links.route_mtu(Address("198.51.100.1"), deadline=soon())
    assert told.value.code == errno.ENETUNREACH
    under(host)
    assert links.routes(deadline=soon()) == (
        Subnet("192.0.2.0/24"),
        Subnet("198.51.100.0/24"),
        Subnet("2001:db8:1::/64"),
        Subnet("203.0.113.0/24"),
    )
    mtus = {"192.0.2.99": 1500, "198.51.100.1": 1300, "203.0.113.1": 9000, "2001:db8:1::9": 1500, "8.8.8.8": 1500}
    assert {text: links.route_mtu(Address(text), deadline=soon()) for text in mtus} == mtus


def under(host: Namespace) -> None:
    """An underlay with two interfaces, a default route and routes of several kinds."""
    with library(host) as ipr:
        for name, mtu, address in (("u0", 1500, "192.0.2.1"), ("u1", 9000, "203.0.113.5")):
            ipr.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": f"{name}p", "mtu": mtu})
            for end in (name, f"{name}p"):
                ipr.link("set", index=ipr.link_lookup(ifname=end)[0], state="up")
            ipr.addr("add", index=ipr.link_lookup(ifname=name)[0], address=address, prefixlen=24)
        (u0,) = ipr.link_lookup(ifname="u0")
        ipr.addr("add", index=u0, address="2001:db8:1::1", prefixlen=64, IFA_FLAGS=2)
        ipr.addr("add", index=u0, address="192.0.2.200", prefixlen=24)
        ipr.route("add", dst="198.51.100.0/24", oif=u0, metrics={"mtu": 1300})
        ipr.route("add", dst="169.254.0.0/16", oif=u0)
        ipr.route("add", dst="233.0.0.0/8", oif=u0)
        ipr.route("add", dst="10.0.0.0/8", oif=u0, table=100)
        ipr.route("add", dst="10.0.0.0/8", type="blackhole")
        ipr.route("add", dst="default", gateway="192.0.2.254", oif=u0)


def test_the_underlays_address_is_found(links: Links, host: Namespace) -> None:
    """By interface, by address, and by the default route; what is not there is refused, naming what is."""
    ask = lambda text: links.address_of(text, deadline=soon())  # noqa: E731
    with pytest.raises(Refused, match="there is no global address"):
        ask("")
    under(host)
    assert ask("") == ("192.0.2.1", "u0", 1500)
    assert ask("u1") == ("203.0.113.5", "u1", 9000)
    assert ask("203.0.113.5") == ("203.0.113.5", "u1", 9000)
    assert ask("2001:db8:1::1") == ("2001:db8:1::1", "u0", 1500)
    assert ask("192.0.2.200") == ("192.0.2.200", "u0", 1500)
    for wrong in ("u9", "203.0.113.6", "u0p", "lo"):
        with pytest.raises(Refused, match=rf"'{wrong}' is no .* it has 192\.0\.2\.1 on u0, .*203\.0\.113\.5 on u1"):
            ask(wrong)
    with library(host) as ipr:
        ipr.route("del", dst="0.0.0.0/0")
    with pytest.raises(Refused, match=r"must be given: there is 192\.0\.2\.1 on u0, 203\.0\.113\.5 on u1"):
        ask("")
    with library(host) as ipr:
        ipr.link("del", ifname="u0")
    assert ask("") == ("203.0.113.5", "u1", 9000)


# Packets.


def exchange(a: Container, b: Container, text: bytes = b"hello") -> None:
    """A datagram there and one back."""
    with a.udp() as ask, b.udp() as hear:
        ask.sendto(text, (b.address, 5000))
        data, sender = hear.recvfrom(100)
        assert (data, sender[0]) == (text, a.address)
        hear.sendto(text, sender)
        assert ask.recv(100) == text


def test_containers_of_two_hosts_reach_each_other(two_hosts: tuple[Host, Host]) -> None:
    """The first packet arrives after the rows are set, without a single question to user space for them."""
    here, there = two_hosts
    a, b = here.container(2), there.container(3)
    here.knows((b, there))
    there.knows((a, here))
    with MissSocket(here.overlay) as misses:
        began = time.perf_counter()
        exchange(a, b)
        print(f"\nfirst round trip: {1000 * (time.perf_counter() - began):.2f} ms")
        assert [one for one in misses.read() if one.address == b.address or one.mac == b.mac] == []


def test_containers_and_bridge_of_one_host_reach_each_other(two_hosts: tuple[Host, Host]) -> None:
    """On one bridge no rows of the tunnel are needed, and the gateway answers too."""
    here, _ = two_hosts
    a, b = here.container(2), here.container(3)
    exchange(a, b)
    gateway = Container(here.overlay, Address("10.5.0.1"), MAC)
    exchange(a, gateway)


def test_a_third_container_sees_no_foreign_unicast(two_hosts: tuple[Host, Host]) -> None:
    """Neither local nor remote unicast between others reaches it, also with an ageing time long past."""
    here, there = two_hosts
    a, b, third, far = here.container(2), here.container(3), here.container(4), there.container(5)
    here.knows((far, there))
    there.knows((a, here))
    with library(here.overlay) as ipr:
        (index,) = ipr.link_lookup(ifname="br0")
        ipr.link("set", index=index, kind="bridge", br_ageing_time=1)
    with third.tap() as tap:
        for number in range(20):
            exchange(a, b, b"%d" % number)
            exchange(a, far, b"%d" % number)
        exchange(a, third, b"the end")
        assert [
            frame for frame in received(tap, b"the end") if not frame[0] & 1 and frame[:6] != third.mac.packed
        ] == []


def received(tap: socket.socket, last: bytes) -> list[bytes]:
    """What reached the interface until a frame that holds `last` (its own frames are heard too, and left out)."""
    frames: list[bytes] = []
    while not frames or last not in frames[-1]:
        frame, sender = tap.recvfrom(2000)
        if sender[2] != socket.PACKET_OUTGOING:
            frames.append(frame)
    return frames


def test_a_moved_address_is_followed(two_hosts: tuple[Host, Host]) -> None:
    """An address that moves to another host under another MAC is reached at once, warm ARP cache or not."""
    here, there = two_hosts
    a, old = here.container(2), there.container(3)
    here.knows((old, there))
    there.knows((a, here))
    exchange(a, old)
    there.links.remove(there.overlay, "p3", deadline=soon())
    new = there.container(33, str(old.address))
    with Announcer(here.overlay, "br0") as announcer:
        here.knows((new, there))
        here.tables.unset([Fdb(mac=old.mac, vtep=there.vtep)])
        announcer.announce(new.address, new.mac)
        exchange(a, new)


def test_the_first_datagram_to_a_removed_port_goes_nowhere(two_hosts: tuple[Host, Host]) -> None:
    """After a container's cable is gone its MAC is unknown here: the frame leads to an L2 miss, not to a neighbour."""
    here, _ = two_hosts
    a, b, third = here.container(2), here.container(3), here.container(4)
    exchange(a, b)
    here.links.remove(here.overlay, "p3", deadline=soon())
    with third.tap() as tap:
        with a.udp() as ask:
            ask.sendto(b"to nobody", (b.address, 5000))
        exchange(a, third, b"the end")
        assert [frame for frame in received(tap, b"the end") if b"to nobody" in frame] == []


def test_a_bridge_takes_1023_ports(links: Links, overlay: Namespace, host: Namespace) -> None:
    """1,022 cables beside the tunnel: the next is refused with EXFULL and leaves no end behind on either side."""
    build(links, overlay)
    began = time.perf_counter()
    for number in range(1022):
        links.ensure(overlay, crowd(number), deadline=soon())
    print(f"\n1,022 cables: {1000 * (time.perf_counter() - began):.0f} ms")
    with pytest.raises(KernelRefused) as told:
        links.ensure(overlay, crowd(1022), deadline=soon())
    assert told.value.code == errno.EXFULL
    assert not {"p1022", "mo1022"} & (names(overlay) | names(host))
    began = time.perf_counter()
    assert {one.value for one in links.observe(overlay, deadline=soon())} >= {crowd(n) for n in range(1022)}
    print(f"1,024 links observed in {1000 * (time.perf_counter() - began):.0f} ms")


def crowd(number: int) -> Veth:
    return veth(2, port=f"p{number}", link=f"mo{number}", mac=Mac.unpack(b"\x02\x42\x0c\0" + number.to_bytes(2, "big")))


# Figures.


def test_what_links_cost(links: Links, overlay: Namespace) -> None:
    """A cable within 5 ms where the machine is quiet; what is there already costs far less."""

    def timed(fn: Callable[[], object]) -> float:
        began = time.perf_counter()
        fn()
        return 1000 * (time.perf_counter() - began)

    figures: dict[str, list[float]] = {}
    for number in range(10):
        for name, thing in (("bridge", bridge()), ("vxlan", vxlan()), ("veth", veth(number + 10))):
            figures.setdefault(name, []).append(
                timed(lambda thing=thing: links.ensure(overlay, thing, deadline=soon()))
            )
            again = timed(lambda thing=thing: links.ensure(overlay, thing, deadline=soon()))
            figures.setdefault(f"{name} again", []).append(again)
        figures.setdefault("observe", []).append(timed(lambda: links.observe(overlay, deadline=soon())))
        if number < 9:
            figures.setdefault("remove veth", []).append(
                timed(lambda number=number: links.remove(overlay, f"p{number + 10}", deadline=soon()))
            )
            for name in ("vxlan0", "br0"):
                links.remove(overlay, name, deadline=soon())
    print()
    for name, values in figures.items():
        print(f"{name:14} median {statistics.median(values):6.2f}  best {min(values):6.2f} ms")
    assert min(figures["veth"]) < 20


def test_nothing_listens_in_the_hosts_namespace_after_all(links: Links, overlay: Namespace, host: Namespace) -> None:
    """With the last tunnel gone its UDP port is free again in the host's namespace."""
    build(links, overlay)
    links.remove(overlay, "vxlan0", deadline=soon())
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        until(lambda: 4790 not in udp_ports(host))
        sock.bind(("0.0.0.0", 4790))
