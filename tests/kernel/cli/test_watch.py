"""`myoverlay watch` as a process, on misses that real containers make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Fdb, Mac, Neigh
from tests.kernel.cli.conftest import Hand
from tests.kernel.conftest import Container, Host
from tests.kernel.host.tools import ip, run_in

UNKNOWN, MAC, VTEP = Address("10.5.0.9"), Mac("02:42:0a:05:00:09"), Address("192.0.2.2")
ROWS = (Fdb(mac=MAC, vtep=VTEP), Neigh(address=UNKNOWN, mac=MAC))
SOURCE = str(Path(__file__).parents[3] / "src")


class Watching:
    """A `watch` that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self.first = process.stderr.readline()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def object(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said last on standard error."""
        _, said = self.process.communicate(timeout=10)
        return self.process.returncode, said


@contextmanager
def watching(ns: Namespace, *words: str) -> Iterator[Watching]:
    argv = [sys.executable, "-m", "myoverlay", "watch", "--namespace", str(ns.path), *words]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            yield Watching(process)
        finally:
            process.kill()


def quiet(host: Host) -> Container:
    """A container that says nothing by itself: IPv6 would look for duplicates of its own address."""
    container = host.container(2)
    assert container.ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    return container


def speak(container: Container) -> None:
    """Send something to an address that nobody has."""
    with container.udp() as sock:
        sock.sendto(b"hello", (UNKNOWN, 5000))


def app_solicit(ns: Namespace, value: str | None = None) -> str:
    path = Path("/proc/sys/net/ipv4/neigh/eth0/app_solicit")
    if value is not None:
        ns.call(lambda: path.write_text(value))
    return ns.call(lambda: path.read_text()).strip()


def test_misses_and_what_became_of_them(two_hosts: tuple[Host, Host]) -> None:
    """An L3 miss that nobody answers, one that a row answers, and an L2 miss answered by its row."""
    host = two_hosts[0]
    container = quiet(host)
    with watching(host.overlay, "--count", "3") as watch:
        speak(container)
        assert watch.line().endswith(f"L3 miss {UNKNOWN} vxlan0")
        assert watch.line().endswith(f"  -> nothing for {UNKNOWN} within 500 ms")
        # The kernel asks again a second after its first ARP.
        assert watch.line().endswith(f"L3 miss {UNKNOWN} vxlan0")
        assert host.tables.set(ROWS[1:]) == []
        assert f"  -> row {UNKNOWN} lladdr {MAC} vxlan0 after " in watch.line()
        assert watch.line().endswith(f"L2 miss {MAC} vxlan0")
        assert host.tables.set(ROWS[:1]) == []
        assert f"  -> row {MAC} dst {VTEP} vxlan0 after " in watch.line()
        assert watch.end() == (0, "")


def test_bytes_are_what_another_decoder_reads(two_hosts: tuple[Host, Host]) -> None:
    """--raw --json: each field of nlmsghdr, ndmsg and rtattr is what pyroute2 makes of the same bytes."""
    host = two_hosts[0]
    container = quiet(host)
    with watching(host.overlay, "--raw", "--json", "--neigh", "--count", "2") as watch:
        speak(container)
        shown = watch.object()
        assert (shown["event"], shown["message"]) == ("bytes", "RTM_GETNEIGH")
        check(shown, "ndmsg", "ndm_", ndmsg)
        assert watch.object()["subject"] == UNKNOWN
        assert host.tables.set(ROWS[1:]) == []
        shown = watch.object()
        assert shown["message"] == "RTM_NEWNEIGH"
        check(shown, "ndmsg", "ndm_", ndmsg)
        assert watch.object()["row"] == f"{UNKNOWN} lladdr {MAC}"


def test_links_and_routes_are_followed(two_hosts: tuple[Host, Host]) -> None:
    """--link and --route: what is told is what pyroute2 reads from the same bytes, and names the link."""
    host = two_hosts[0]
    with watching(host.overlay, "--raw", "--json", "--link", "--count", "1") as watch:
        ip(host.overlay, "link set br0 mtu 1400")
        shown = watch.object()
        check(shown, "ifinfomsg", "ifi_", ifinfmsg)
        told = watch.object()
        assert told["text"].startswith("link br0 type bridge <")
        assert "mtu 1400" in told["text"]
    with watching(host.overlay, "--raw", "--json", "--route", "--count", "1") as watch:
        ip(host.overlay, "route add 10.77.0.0/16 via 10.5.0.9")
        shown = watch.object()
        check(shown, "rtmsg", "", rtmsg)
        told = watch.object()
        assert (told["text"], told["device"]) == ("route 10.77.0.0/16 via 10.5.0.9", "br0")


def check(shown: dict[str, Any], struct: str, prefix: str, kind: Any) -> None:
    """The fields shown are those that pyroute2 reads."""
    theirs = kind(bytes.fromhex(shown["bytes"]))
    theirs.decode()
    header = theirs["header"]
    assert shown["nlmsghdr"] == {
        "nlmsg_len": header["length"],
        "nlmsg_type": header["type"],
        "nlmsg_flags": header["flags"],
        "nlmsg_seq": header["sequence_number"],
        "nlmsg_pid": header["pid"],
    }
    # Their names differ in small things: ifi_family is `family`, ifi_type `ifi_type`, rtm_dst_len `dst_len`.
    for name, value in shown[struct].items():
        bare = name.removeprefix("rtm_").removeprefix(prefix)
        bare = {"protocol": "proto"}.get(bare, bare)
        assert theirs.get(bare, theirs.get(name)) == value, name
    names = [name for name, _ in theirs["attrs"]]
    assert [row["name"] for row in shown["rtattr"] if not row["name"].isdecimal()] == [
        name for name in names if name in {row["name"] for row in shown["rtattr"]}
    ]
    for row in shown["rtattr"]:
        if row["name"].startswith(("NDA_DST", "NDA_LLADDR", "RTA_", "IFLA_IFNAME", "IFLA_MTU", "IFLA_ADDRESS")):
            assert str(theirs.get_attr(row["name"])) == row["value"], row


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_app_solicit_is_put_back(two_hosts: tuple[Host, Host], number: signal.Signals) -> None:
    """The kernel asks for eth0's neighbours while it runs; after either signal the value is what it was before."""
    container = quiet(two_hosts[0])
    app_solicit(container.ns, "3" if number == signal.SIGINT else "0")
    before = app_solicit(container.ns)
    with watching(container.ns, "--app-solicit", "eth0") as watch:
        assert app_solicit(container.ns) == "1"
        speak(container)
        assert watch.line().endswith(f"L3 miss {UNKNOWN} eth0")
        watch.process.send_signal(number)
        assert watch.end()[0] == 0
    assert app_solicit(container.ns) == before


def test_too_few_in_time_is_a_failure(two_hosts: tuple[Host, Host]) -> None:
    """--count that is not reached within --timeout ends with exit code 1 and says how many came; without it with 0."""
    ns = two_hosts[0].overlay
    with watching(ns, "--count", "2", "--timeout", "0.2") as watch:
        assert watch.end() == (1, "myoverlay: 0 of 2 came within 0.2 s\n")
    with watching(ns, "--timeout", "0.2", "--device", "vxlan0") as watch:
        assert watch.end() == (0, "")


def test_another_devices_misses_are_passed_over(two_hosts: tuple[Host, Host]) -> None:
    """--device br0 hears nothing of the tunnel's misses."""
    host = two_hosts[0]
    container = quiet(host)
    with watching(host.overlay, "--device", "br0", "--count", "1", "--timeout", "1") as watch:
        speak(container)
        assert watch.end()[0] == 1


def test_refusals_are_one_sentence(hand: Hand, spaces: Callable[[str], Namespace]) -> None:
    """A namespace or device that is missing is named with those that are there, exit code 1."""
    assert "there is no namespace overlay-ns: none has a name here" in hand("watch", code=1)
    hand("overlay", "create")
    assert "there is no namespace other: there are overlay-ns" in hand("watch", "--namespace", "other", code=1)
    assert "there are br0, lo, vxlan1" in hand("watch", "--device", "eth7", code=1)
    assert "there is no device eth7" in hand("watch", "--app-solicit", "eth7", "--timeout", "0.1", code=1)
    hand("watch", "--timeout", "0", code=2)


def test_a_reader_that_goes_away_puts_it_back(two_hosts: tuple[Host, Host]) -> None:
    """`watch --app-solicit eth0 | head -1`: the broken pipe ends it, and the value is put back."""
    container = quiet(two_hosts[0])
    command = [sys.executable, "-m", "myoverlay", "watch", "--namespace", str(container.ns.path)]
    words = [*command, "--app-solicit", "eth0", "--neigh"]
    before = app_solicit(container.ns)
    with subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        watch = Watching(process)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        run_in(container.ns, "ip", "neigh", "replace", UNKNOWN, "lladdr", MAC, "dev", "eth0")
        assert "listening" in watch.first
        process.wait(10)
    assert app_solicit(container.ns) == before
