"""What `doctor` reads of a real kernel: the packet filter's rules, pings, checksums through VXLAN."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from myoverlay.errors import Unknown
from myoverlay.kernel import ping, ruleset
from myoverlay.kernel.links import Links
from myoverlay.kernel.linkwork import BRIDGE_FILTERS
from myoverlay.kernel.neightable import neighbour_table
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import DEVICE, PIN, Prober
from myoverlay.kernel.ruleset import Dropping
from myoverlay.kernel.selftest import ETHTOOL_GTXCSUM, Offloading, _checksums, _ethtool
from myoverlay.values import Address, HostId
from tests.kernel.conftest import soon

PORT = 4789


def nft(ns: Namespace, text: str) -> None:
    text = text.replace("} }", "}\n}")  # nft wants a line's end, or a semicolon, behind a chain
    done = ns.call(lambda: subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False))
    assert done.returncode == 0, done.stderr


def test_the_neighbour_table_is_the_machine_s(host: Namespace) -> None:
    """Limits and entries are told in any namespace, and are those that /proc shows in the first one; a row more is one
    entry more."""
    before = neighbour_table(host)
    proc = Path("/proc/sys/net/ipv4/neigh/default")
    if proc.joinpath("gc_thresh1").exists():
        assert before.thresholds == tuple(int((proc / f"gc_thresh{n}").read_text()) for n in (1, 2, 3))
    assert 0 < before.thresholds[0] <= before.thresholds[2]
    # Not on `lo`: there all addresses are one entry (net/ipv4/arp.c).
    rows = "link add v0 type veth peer name v1\nlink set v0 up\n" + "".join(
        f"neigh add 192.0.2.{number} lladdr 02:00:00:00:00:01 dev v0 nud permanent\n" for number in range(100)
    )
    host.call(lambda: subprocess.run(["ip", "-b", "-"], input=rows, text=True, check=True))
    assert before.entries + 90 <= neighbour_table(host).entries


def test_a_namespace_without_rules_has_none(host: Namespace) -> None:
    """Nothing was ever written there: no chain, nothing that drops."""
    assert ruleset.read(host, {PORT}) == ruleset.Ruleset((), ())


def test_rules_are_read_as_nft_wrote_them(host: Namespace) -> None:
    """Which rules drop the port, with the handle that deletes them; policies and how many rules a chain has."""
    nft(host, """
        table inet guard {
            chain in { type filter hook input priority 0; policy accept;
                udp dport 4789 counter drop; udp dport 4790 drop; udp sport 4789 drop; tcp dport 4789 drop;
                udp dport 4789 accept; ip saddr 192.0.2.1 udp dport 4789 reject; }
            chain forward { type filter hook forward priority 0; policy drop; }
            chain other { udp dport 4789 drop; }
        }
        table ip nat { chain out { type nat hook postrouting priority 100; policy accept; masquerade; } }
    """)  # fmt: skip
    seen = ruleset.read(host, {PORT})
    chains = {(one.family, one.table, one.name): (one.hook, one.drops, one.rules) for one in seen.chains}
    assert chains == {
        ("inet", "guard", "in"): ("input", False, 6),
        ("inet", "guard", "forward"): ("forward", True, 0),
        ("inet", "guard", "other"): ("", False, 1),
        ("ip", "nat", "out"): ("postrouting", False, 1),
    }
    assert [(one.chain, one.port) for one in seen.dropping].count(("in", PORT)) == 3  # tcp's too: the port is named
    assert ("other", PORT) in [(one.chain, one.port) for one in seen.dropping]
    for one in seen.dropping:
        nft(host, f"delete rule {one.family} {one.table} {one.chain} handle {one.handle}")
    assert ruleset.read(host, {PORT}).dropping == ()
    assert {one.port for one in ruleset.read(host, {4790, PORT}).dropping} == {4790}
    assert all(isinstance(one, Dropping) for one in seen.dropping)


def test_sysctls_are_read_where_they_differ(overlay: Namespace) -> None:
    """Those that are there and not as wanted; a key that this kernel has not is passed over."""
    overlay.sysctls(dict.fromkeys(BRIDGE_FILTERS, "0"))
    assert overlay.read_sysctls((*BRIDGE_FILTERS, "net/none/such"), unless="0") == {}
    overlay.sysctls({"net/ipv4/ip_forward": "1"})
    assert overlay.read_sysctls(["net/ipv4/ip_forward"], unless="0") == {"net/ipv4/ip_forward": "1"}


class Asker:
    """A host on the underlay with its heartbeat device."""

    def __init__(
        self, number: int, spaces: Callable[[str], Namespace], folder: Path, stack: ExitStack, switch: Namespace
    ) -> None:
        self.me = HostId(f"{number:02x}" * 16)
        self.vtep = Address(f"192.0.2.{number}")
        self.ns = spaces(f"h{number}")
        lines = f"""
            link add p{number} type veth peer name eth0 netns {self.ns.path}
            link set p{number} master br0 up
        """
        _ip(switch, lines)
        _ip(self.ns, f"addr add {self.vtep}/24 dev eth0\nlink set eth0 up\nlink set lo up")
        self.links = stack.enter_context(Links(self.ns))
        self.pins = Pins(folder / f"pins{number}")
        self.prober = Prober(self.links, self.pins, self.me, PORT, lambda: (self.vtep,), home=self.ns)
        stack.callback(self._end)
        self.prober.ensure(soon())

    def _end(self) -> None:
        self.prober.close()
        self.prober.remove(soon())


def _ip(ns: Namespace, lines: str) -> None:
    done = ns.call(
        lambda: subprocess.run(["ip", "-batch", "-"], input=lines, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def three(spaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[list[Asker]]:
    """Three hosts whose heartbeat devices are there, on one switch."""
    switch = spaces("switch")
    _ip(switch, "link add br0 type bridge forward_delay 0\nlink set br0 up")
    with ExitStack() as stack:
        yield [Asker(number, spaces, tmp_path, stack, switch) for number in (1, 2, 3)]


def test_pings_tell_who_answers(three: list[Asker]) -> None:
    """Those that are there and let ICMP in; one that drops it, one that is not there, and what has no route do not."""
    nft(three[2].ns, "table ip f { chain in { type filter hook input priority 0; ip protocol icmp drop; } }")
    asked = [three[1].vtep, three[2].vtep, Address("192.0.2.9"), Address("203.0.113.1"), Address("fd00::1")]
    assert ping.answering(three[0].ns, asked, soon(1.5)) == {three[1].vtep}


def test_datagrams_arrive_with_checksums_made_by_either_side(three: list[Asker]) -> None:
    """With offload on and off, from each host to the two others; afterwards setting and neighbours are as before."""
    for one in three:
        others = {other.me: other.vtep for other in three if other is not one}
        arrived = Offloading(one.pins, one.me).run(others, soon(5))
        assert arrived == dict.fromkeys(others, (True, True))
        with one.pins.create(PIN) as ns:
            assert _checksums(ns)
            shown = ns.call(lambda: subprocess.run(["ip", "neigh"], capture_output=True, text=True, check=True)).stdout
        assert "PERMANENT" not in shown


SPOILER = "table ip f { chain in { type filter hook prerouting priority -300; udp length gt 1000 @th,448,16 set 9; } }"
SPOILER = (
    "table ip f { chain in { type filter hook prerouting priority -300; udp length gt 1000 @th,448,16 set 4660; } }"
)


def test_a_checksum_that_is_wrong_is_noticed(three: list[Asker]) -> None:
    """One that the sender made and something on the way spoils is dropped; one left to the device is none yet here.

    No device of this machine makes checksums, so what comes without one is trusted: there is no wire between.
    """
    one, other = three[0], three[1]
    nft(other.ns, SPOILER)
    assert Offloading(one.pins, one.me).run({other.me: other.vtep}, soon(6)) == {other.me: (True, False)}


def test_a_host_that_is_silent_is_so_with_either(three: list[Asker]) -> None:
    """Where nothing comes through, both are false; the device's setting is put back all the same."""
    nft(three[1].ns, f"table ip f {{ chain in {{ type filter hook input priority 0; udp dport {PORT} drop; }} }}")
    targets = {three[1].me: three[1].vtep, three[2].me: three[2].vtep}
    arrived = Offloading(three[0].pins, three[0].me).run(targets, soon(6))
    assert arrived == {three[1].me: (False, False), three[2].me: (True, True)}
    with three[0].pins.create(PIN) as ns:
        assert _ethtool(ns, ETHTOOL_GTXCSUM, 0) == 1


def test_without_a_heartbeat_nothing_is_tested(tmp_path: Path) -> None:
    """No device to ask with: that is said, and nothing is made."""
    pins = Pins(tmp_path / "none")
    with pytest.raises(Unknown, match=r"_probe cannot be opened"):
        Offloading(pins, HostId("a" * 32)).run({HostId("b" * 32): Address("192.0.2.2")}, soon(1))
    assert not pins.folder.exists()
    assert DEVICE == "probe"
