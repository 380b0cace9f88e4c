"""Every check of `doctor`: what it says to each kind of reading."""

from __future__ import annotations

import errno
import re
from typing import Any

import pytest

from myoverlay.plan import check_egress as egress
from myoverlay.plan import check_guard as guard
from myoverlay.plan import check_hosts as hosts
from myoverlay.plan import check_kernel as kernel
from myoverlay.plan import check_plugin as plugin
from myoverlay.plan import check_store as store
from myoverlay.plan import check_underlay as underlay
from myoverlay.plan.brake import Held
from myoverlay.plan.checkup import CHECKS
from myoverlay.plan.findings import Check, Finding, Level
from myoverlay.plan.measure import Reach
from myoverlay.values import Address, Subnet

OK, WARN, BAD, UNKNOWN = Level.OK, Level.WARN, Level.BAD, Level.UNKNOWN
NET = Subnet("10.5.0.0/24")
NEIGHBOURS = kernel.Neighbours((128, 512, 1024), 40)
GB = 1 << 30


def peers(reach: Reach, **more: Any) -> underlay.Peers:
    return underlay.Peers(4789, 1450, (underlay.PeerSeen("h2", "192.0.2.2", reach, **more),), "eth0")


def vni(**more: Any) -> underlay.Vnis:
    return underlay.Vnis((underlay.VniSeen(**{"overlay": "web", "vni": 7, "port": 4789, "there": True} | more),))


def clash(**more: Any) -> hosts.Others:
    said = {
        "host": "h2",
        "overlay": "web",
        "vni": 7,
        "port": 4789,
        "holder": "device vx9 in the host's namespace",
    } | more
    return hosts.Others(clashes=(hosts.Clash(**said),), looked=(("h2", 1),), asked=1)


#: Check, reading, level, words that it must say, words of its remedy.
NO_NFT = "opening netlink in Namespace(7): Protocol not supported"
CASES: list[tuple[str, Any, Level, str, str]] = [
    ("plugin", plugin.Running(True), OK, "", ""),
    ("plugin", plugin.Running(False, "no plugin answers"), BAD, "no plugin answers", "`docker plugin enable NAME`"),
    ("plugin", plugin.Running(True, refuses="the journal is newer"), BAD, "the journal is newer", "do what the sentence"),
    ("sockets", plugin.Sockets("a", (plugin.SocketSeen("/x.sock", True, "a"),), {"mo": ("n",)}), OK, "1 socket", ""),
    ("sockets", plugin.Sockets("a", (plugin.SocketSeen("/x.sock", False),)), BAD, "/x.sock is not there", "enable NAME"),
    ("sockets", plugin.Sockets("a", (plugin.SocketSeen("/x.sock", True),)), BAD, "nobody answers", "`rm /x.sock`"),
    ("sockets", plugin.Sockets("a", (plugin.SocketSeen("/x.sock", True, "b"),)), BAD, "another plugin", "MYOVERLAY_SOCKETS"),
    ("sockets", plugin.Sockets("a", (), {"mo": ("n1",), "r/mo:1": ("n2",)}), WARN, "mo: n1; r/mo:1: n2", "`docker network rm n2`"),
    ("sockets", plugin.Sockets("a", (), {"mo": ("n1",), "r/mo:1": ("n2", "n3")}), WARN, "", "`docker network rm n1`"),
    ("settings", plugin.Environment(("MYOVERLAY_VTEP",), ("MYOVERLAY_VTEP",)), OK, "1 setting", ""),
    ("settings", plugin.Environment(("MYOVERLAY_VTPE",), ("MYOVERLAY_VTEP",)), BAD, "MYOVERLAY_VTPE", "say MYOVERLAY_VTEP"),
    ("settings", plugin.Environment(("MYOVERLAY_QQ",), ("MYOVERLAY_VTEP",)), BAD, "MYOVERLAY_QQ", "`unset MYOVERLAY_QQ`"),
    ("settings", plugin.Environment(("MYOVERLAY_LAB_HOME",), ("MYOVERLAY_NAMES",)), BAD, "LAB_HOME", "take MYOVERLAY_LAB_HOME out"),
    ("settings", plugin.Environment((), (), "MYOVERLAY_PORT: 'x' is no"), BAD, "MYOVERLAY_PORT", "put it right"),
    ("token-file", plugin.TokenFile(), OK, "no token file", ""),
    ("token-file", plugin.TokenFile("/t", 0o600), OK, "/t", ""),
    ("token-file", plugin.TokenFile("/t", 0o640), BAD, "mode 0640", "`chmod 600 /t`"),
    ("token-file", plugin.TokenFile("/t", error="it is empty"), BAD, "it is empty", "write the token"),
    ("journal", plugin.Disk("/s", GB, 2 * GB, 7), OK, "1024 of 2048 MiB", ""),
    ("journal", plugin.Disk("/s", 60 << 20, 100 << 20), OK, "60 of 100", ""),
    ("journal", plugin.Disk("/s", 60 << 20, 9 * GB), WARN, "60 of 9216", "df -h /s"),
    ("journal", plugin.Disk("/s", 7 << 20, 100 << 20), BAD, "7 of 100", "df -h /s"),
    ("journal", plugin.Disk("/s", GB, 2 * GB, 0), BAD, "no inode free", "make room"),
    ("journal", plugin.Disk("/s", GB, 2 * GB, read_only=True), BAD, "read-only", "remount,rw"),
    ("pins", plugin.Mount("/host/plugins/m", True, True), OK, "shared", ""),
    ("pins", plugin.Mount("/run/m", False, False), OK, "on the host", ""),
    ("pins", plugin.Mount("/host/plugins/m", True, False), BAD, "not on a shared mount", "`mount --make-rshared /run`"),
    ("engine", plugin.EngineSeen("20.10.24+dfsg1"), OK, "20.10.24", ""),
    ("engine", plugin.EngineSeen("28.5.2"), OK, "28.5.2", ""),
    ("engine", plugin.EngineSeen("19.03.15"), BAD, "19.03.15", "upgrade Docker to 20.10.0"),
    ("engine", plugin.EngineSeen("26.0.0"), WARN, "26.0.0", "upgrade Docker to 26.1.3"),
    ("engine", plugin.EngineSeen("26.1.3"), OK, "26.1.3", ""),
    ("engine", plugin.EngineSeen("29.0.2"), BAD, "29.0.2", "29.0.3"),
    ("engine", plugin.EngineSeen("29.6.1"), WARN, "29.6.1", "29.7.0"),
    ("engine", plugin.EngineSeen(why="no socket"), UNKNOWN, "no socket", "docker version"),
    ("engine", plugin.EngineSeen("dev"), UNKNOWN, "'dev'", "docker version"),
    ("names", plugin.Resolving(), OK, "not answered", ""),
    ("names", plugin.Resolving("169.254.77.53", ("9.9.9.9",), ("169.254.77.53", "9.9.9.9")), OK, "169.254.77.53", ""),
    ("names", plugin.Resolving("169.254.77.53", trouble="port 53 is taken"), BAD, "port 53", "do what"),
    ("names", plugin.Resolving("169.254.77.53", ("169.254.77.53",)), BAD, "resolv.conf", "`nameserver 169.254.77.53`"),
    ("names", plugin.Resolving("169.254.77.53", (), ("169.254.77.53",)), WARN, "alone", "second server"),
    ("store", store.StoreSeen(), OK, "embedded", ""),
    ("store", store.StoreSeen("http://c:8500", 0.004), OK, "4 ms", ""),
    ("store", store.StoreSeen("http://c:8500", 1.5), WARN, "1500 ms", "load"),
    ("store", store.StoreSeen("http://c:8500", error="c is away"), BAD, "c is away", "`curl -sf http://c:8500/v1/"),
    ("store-rights", store.Rights(embedded=True), OK, "no ACLs", ""),
    ("store-rights", store.Rights((store.Right("r"),)), OK, "all 1 rights", ""),
    ("store-rights", store.Rights(error="away"), UNKNOWN, "away", ""),
    (
        "store-rights",
        store.Rights((store.Right('a "x" { }', "write x"), store.Right("b"), store.Right("c", "open a session"))),
        BAD,
        "may not: write x, open a session",
        '`a "x" { } c`',
    ),
    ("store-clock", store.Clocks(), OK, "0 clocks", ""),
    ("store-clock", store.Clocks((store.Clock("Consul", 2.0),)), OK, "1 clock", ""),
    ("store-clock", store.Clocks((store.Clock("Consul", -2.5),)), WARN, "Consul is 2.5 s behind", "set-ntp"),
    ("store-clock", store.Clocks((store.Clock("Consul", 31.0),)), BAD, "31.0 s ahead", "set-ntp"),
    ("store-clock", store.Clocks(error="away"), UNKNOWN, "away", ""),
    ("peer-clocks", hosts.Others((store.Clock("h2", 0.0),), silent=("h3",)), OK, "h3 did not say", ""),
    ("peer-clocks", hosts.Others((store.Clock("h2", 3.0), store.Clock("h3", -90.0))), BAD, "h3 is 90.0 s behind, h2", ""),
    ("peer-clocks", hosts.Others(looked=(("h2", 0),)), OK, "h2 did not say", ""),
    ("peer-clocks", hosts.Others(error="away"), UNKNOWN, "away", ""),
    ("peer-vni", hosts.Others(looked=(("h2", 2), ("h3", 2)), asked=2), OK, "2 hosts can carry 2 overlays of this one", ""),
    ("peer-vni", hosts.Others(looked=(("h2", 1),), silent=("h3",), asked=2, more=4), OK, "(h2, h3 did not say)", ""),
    ("peer-vni", hosts.Others(asked=2, more=4), OK, "4 more were not asked about", ""),
    ("peer-vni", hosts.Others(error="away"), UNKNOWN, "away", ""),
    ("peer-vni", clash(), WARN, "on host h2 VNI 7 on UDP port 4789 of web is taken by device vx9 in the host's", "on h2: "),
    ("peer-vni", clash(member=True), BAD, "taken by device vx9", "`ip link del vx9`"),
    ("peer-vni", clash(holder="a program that has bound it", is_port=True), WARN, "h2 UDP port 4789 of", "`ss -lunp"),
    ("host-id", store.Identity(), OK, "", ""),
    ("host-id", store.Identity("host b lives under the same host id"), BAD, "same host id", "sentence"),
    ("host-id", store.Identity(announced=False), UNKNOWN, "not announced", "store"),
    ("stale-keys", store.Estates(), OK, "", ""),
    ("stale-keys", store.Estates((store.Gone("h3", "cut off"), store.Gone("h4", "pending"))), OK, "cut off: h3, h4", ""),
    ("stale-keys", store.Estates((store.Gone("h3", "dead"),)), BAD, "1 host that is not", "`myoverlay host forget h3`"),
    ("stale-keys", store.Estates((store.Gone("h3"), store.Gone("h4"))), BAD, "2 hosts that are", "forget h4`"),
    ("stale-keys", store.Estates(strays=("10.5.0.9",)), BAD, "10.5.0.9", "`myoverlay gc`"),
    ("stale-keys", store.Estates(loose=("10.5.0.9 (h2)",)), WARN, "10.5.0.9 (h2)", "on those hosts: `myoverlay gc`"),
    ("stale-keys", store.Estates(error="away"), UNKNOWN, "away", ""),
    ("vtep", underlay.Vteps("192.0.2.1", "eth0"), OK, "192.0.2.1 on eth0", ""),
    ("vtep", underlay.Vteps(error="it has none"), BAD, "it has none", "MYOVERLAY_VTEP"),
    (
        "vtep",
        underlay.Vteps("192.0.2.9", "eth0", seen=(underlay.VtepSeen("web", "192.0.2.1", False),)),
        BAD,
        "192.0.2.1 any more, the VTEP of web",
        "`ip addr add 192.0.2.1/24 dev eth0`",
    ),
    ("peer-port", peers(Reach.WHOLE), OK, "1 host answers", ""),
    ("peer-port", peers(Reach.NARROW), OK, "1 host answers", ""),
    ("peer-port", underlay.Peers(1, 1, more=968), OK, "968 more were not asked", ""),
    ("peer-port", peers(Reach.SILENT, pings=True), BAD, "though the host answers pings", "--dport 4789 -j ACCEPT`"),
    ("peer-port", peers(Reach.SILENT, pings=False), BAD, "answers no ping", "`ip route get 192.0.2.2`"),
    ("peer-port", peers(Reach.UNASKED), BAD, "could not even be sent", "`ip link set eth0 up`"),
    ("peer-port", underlay.Peers(1, 1, error="away"), UNKNOWN, "away", ""),
    ("peer-mtu", peers(Reach.WHOLE), OK, "packets of 1450 bytes", ""),
    ("peer-mtu", peers(Reach.SILENT), OK, "0 hosts", ""),
    ("peer-mtu", peers(Reach.NARROW), BAD, "1450 bytes do not come back from h2", "mtu 1500`"),
    ("peer-mtu", peers(Reach.NARROW, carried=1342), BAD, "up to 1342", "`-o mtu=1342`"),
    ("peer-mtu", underlay.Peers(1, 1, error="away"), UNKNOWN, "away", ""),
    ("offload", underlay.Offload("eth0", (underlay.OffloadSeen("h2", True, True),)), OK, "1 host", ""),
    ("offload", underlay.Offload("eth0"), OK, "0 hosts", ""),
    (
        "offload",
        underlay.Offload("eth0", (underlay.OffloadSeen("h2", False, True), underlay.OffloadSeen("h3", True, True))),
        BAD,
        "to h2 arrive only",
        "`ethtool -K eth0 tx-checksum-ip-generic off`",
    ),
    ("offload", underlay.Offload("eth0", (underlay.OffloadSeen("h2", False, False),)), UNKNOWN, "no host answered", ""),
    ("offload", underlay.Offload("eth0", (underlay.OffloadSeen("h2", True, False),)), BAD, "only where", "generic on`"),
    ("vni", vni(), OK, "1 VXLAN device", ""),
    ("vni", vni(there=False), BAD, "device of web is not there", "`myoverlay doctor --fix`"),
    (
        "vni",
        vni(there=False, holder="device vx in the host's namespace"),
        BAD,
        "VNI 7 on UDP port 4789 of web is taken by device vx",
        "`ip link del vx`",
    ),
    ("vni", vni(there=False, holder="device vx in namespace /run/netns/a"), BAD, "vx", "`nsenter --net=/run/netns/a ip l"),
    ("vni", vni(there=False, holder="a program that has bound it", is_port=True), BAD, "UDP port 4789 of web", "`ss -lunp"),
    ("vni", vni(stored="db"), BAD, "gives VNI 7 of overlay web to overlay db", "-o vni="),
    ("vni", underlay.Vnis((*vni().seen, *vni(overlay="db").seen)), BAD, "that of web, db", "-o vni="),
    ("vni", underlay.Vnis((*vni().seen, *vni(overlay="db", port=4790).seen)), OK, "2 VXLAN devices", ""),
    ("subnets", underlay.Subnets((("web", NET),), (underlay.Lead(Subnet("10.6.0.0/24"), "e"),)), OK, "1 subnet", ""),
    (
        "subnets",
        underlay.Subnets((("web", NET),), (underlay.Lead(Subnet("10.5.0.0/16"), "eth0"),)),
        WARN,
        "overlaps the route to 10.5.0.0/16 by eth0",
        "`ip route del 10.5.0.0/16 dev eth0`",
    ),
    ("subnets", underlay.Subnets((("web", NET),), needed=(("the DNS", Address("10.5.0.2")),)), BAD, "10.5.0.2", "--subnet"),
    ("subnets", underlay.Subnets((("web", NET),), docker=(("br", NET),)), BAD, "Docker's network br", "network rm br`"),
    ("firewall", underlay.Firewall(legacy=("nat", "filter")), OK, "iptables-legacy has tables (filter, nat), which are", ""),
    ("firewall", underlay.Firewall(), OK, "", ""),
    (
        "firewall",
        underlay.Firewall((underlay.Blocking("inet", "f", "in", 7, 4789),)),
        BAD,
        "drops UDP port 4789 by 1 rule: inet f in",
        "`nft delete rule inet f in handle 7`",
    ),
    ("firewall", underlay.Firewall(closed=(("ip", "filter", "FORWARD"),)), BAD, "ip filter FORWARD", "policy accept; }'`"),
    ("firewall", underlay.Firewall(inside=(("/p/web", "inet x y"),)), BAD, "/p/web", "--net=/p/web nft flush ruleset`"),
    ("firewall", underlay.Firewall(error="no netlink"), UNKNOWN, "no netlink", ""),
    ("guard", guard.Guarding("on", 3, 7), OK, "3 tunnels guarded, 7 VTEPs may send", ""),
    ("guard", guard.Guarding("on", 1, 1, repairs=2), OK, "1 VTEP may send; made anew 2 times", ""),
    ("guard", guard.Guarding("on", there=False), OK, "0 tunnels", ""),
    ("guard", guard.Guarding("on", 3, 7, there=False), BAD, "table inet myoverlay is gone", "`nft monitor`"),
    ("guard", guard.Guarding("on", 3, 7, there=False, repairs=9), BAD, "anew 9 times since", "flush ruleset"),
    ("guard", guard.Guarding("off", 0), WARN, "MYOVERLAY_GUARD is off", "`MYOVERLAY_GUARD=off`"),
    ("guard", guard.Guarding("on", trouble=NO_NFT, code=errno.EPROTONOSUPPORT), BAD, NO_NFT, "`modprobe nf_tables`"),
    ("guard", guard.Guarding("warn", trouble=NO_NFT, code=errno.EINVAL), WARN, NO_NFT, "`modprobe nf_tables`"),
    ("guard", guard.Guarding("on", trouble="no: Not permitted", code=errno.EPERM), BAD, "Not permitted", "CAP_NET_ADMIN"),
    ("guard", guard.Guarding("on", trouble="no: No space", code=errno.ENOSPC), BAD, "No space", "`dmesg`"),
    ("guard", guard.Guarding("on", 3, 7, unbound={"web": NO_NFT}), BAD, f"of web: {NO_NFT}", "BRIDGE"),
    ("egress", egress.Leading("docker0", 2), OK, "2 overlays lead out by docker0", ""),
    ("egress", egress.Leading("docker0"), OK, "no overlay here", ""),
    ("egress", egress.Leading("br1", 2, {"web": "no bridge"}), BAD, "web: no bridge", "`ip link set br1 up`"),
    ("bridge-netfilter", kernel.Filters(looked=2), OK, "2 overlay namespaces", ""),
    (
        "bridge-netfilter",
        kernel.Filters({"/p/web": ("net/bridge/bridge-nf-call-iptables",)}, 2),
        BAD,
        "bridge-nf-call-iptables on in 1 overlay namespace: /p/web",
        "`nsenter --net=/p/web sysctl -w net.bridge.bridge-nf-call-iptables=0`",
    ),
    ("neighbours", NEIGHBOURS, OK, "40 entries", ""),
    ("neighbours", kernel.Neighbours((128, 512, 1024), 930), BAD, "930 entries", "gc_thresh3=4096 "),
    ("neighbours", kernel.Neighbours((128, 512, 1024), 10_930, own=10_000), BAD, "930 entries beside 10000", "=4096 "),
    ("neighbours", kernel.Neighbours((128, 512, 1024), 10_040, own=10_000), OK, "40 entries beside 10000 permanent", ""),
    ("neighbours", kernel.Neighbours((512, 2048, 4096), 1, 3), OK, "1 entry", ""),
    ("neighbours", kernel.Neighbours((128, 512, 1024), 1, 3), WARN, "was full 3 times", "gc_thresh2=2048 "),
    ("neighbours", kernel.Neighbours((128, 512, 1024), 1, 0, 3000), WARN, "3000 others", "gc_thresh3=8192 "),
    ("neighbours", kernel.Neighbours((128, 2048, 1024), 1), BAD, "128, 2048, 1024", "gc_thresh1=512`"),
    ("kernel", kernel.KernelSeen("6.1.0-18-amd64", {"web": 4000}), OK, "6.1.0", ""),
    ("kernel", kernel.KernelSeen("6.1.0-18-amd64", {"web": 4001}), WARN, "4001 MACs on overlay web", "6.16"),
    ("kernel", kernel.KernelSeen("6.18.4", {"web": 40000}), OK, "6.18.4", ""),
    ("kernel", kernel.KernelSeen("5.2.1"), WARN, "5.2.1", "5.3"),
    ("kernel", kernel.KernelSeen("3.10.0-1160"), BAD, "3.10.0", "4.19"),
    ("kernel", kernel.KernelSeen("x"), UNKNOWN, "'x'", ""),
    ("leftovers", kernel.Left(), OK, "nothing waits", ""),
    ("leftovers", kernel.Left(nobodys=("old",)), OK, "being collected: old", ""),
    ("leftovers", kernel.Left(nobodys=("/p/old",), running=False), WARN, "/p/old", "`umount /p/old && rm /p/old`"),
    (
        "leftovers",
        kernel.Left((Held(kind="link", overlay="web", names=("a", "b"), of=3),)),
        BAD,
        "2 links of web nobody asks for: a, b",
        "`myoverlay gc --yes`",
    ),
]  # fmt: skip
BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize(
    ("name", "reading", "level", "saw", "remedy"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_each_reading_is_judged(name: str, reading: Any, level: Level, saw: str, remedy: str) -> None:
    """A reading has one level, what was seen stands in the finding, and what is not ok says what to do."""
    found = BY_NAME[name].judge(reading)
    assert isinstance(found, Finding)
    assert found.level is level
    assert saw in found.saw
    assert remedy in found.remedy
    assert bool(found.means and found.remedy) == (level in (WARN, BAD))
    assert "\n" not in found.saw + found.means + found.remedy
    assert found.remedy.count("`") % 2 == 0


def test_every_check_has_a_reading_of_each_level_that_it_knows() -> None:
    """No check is without a case that is ok and one that is bad."""
    for check in CHECKS:
        levels = {case[2] for case in CASES if case[0] == check.name}
        assert OK in levels, check.name
        assert BAD in levels, check.name


def test_the_table_is_whole() -> None:
    """Names are unique and as they are printed; every cell says something; only known proofs and remedies are there."""
    assert len(BY_NAME) == len(CHECKS)
    for check in CHECKS:
        assert isinstance(check, Check)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.name)
        assert check.meaning
        assert check.remedy
        assert check.proof in ("fault", "reading")
    assert {check.name for check in CHECKS if check.fixes} == {"vni", "bridge-netfilter", "leftovers", "stale-keys"}
