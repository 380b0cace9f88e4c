"""What is said of nft's rules is what the kernel does: the same VXLAN packet is sent past each of them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.path import rules
from myoverlay.plan.firewall import Gate, Packet, Ruleset
from tests.kernel.host.tools import ip, run_in, until

VNI, PORT = 0x700001, 4789
DATA = b"\x08\0\0\0" + (VNI << 8).to_bytes(4, "big") + b"hello"
OUT = [Gate(("ip", "inet"), "output"), Gate(("ip", "inet"), "postrouting"), Gate(("netdev",), "egress", "eth0")]
IN = [Gate(("netdev", "inet"), "ingress", "eth0"), Gate(("ip", "inet"), "prerouting"), Gate(("ip", "inet"), "input")]
FORM = """
table {family} t {{
  set s {{
    type ipv4_addr
    elements = {{ 192.0.2.1 }}
  }}
  chain x {{
    udp dport 4789 drop
  }}
  chain c {{
    type filter hook {hook} priority 0; policy {policy};
    {rule}
  }}
}}
"""
HOOKS = {"output": ("inet", "output"), "input": ("ip", "input"), "ingress": ("netdev", 'ingress device "eth0"')}
_numbers = itertools.count()
RULES = [
    ("udp dport 4789 drop", "accept"),
    ("udp dport { 53, 4000-5000 } drop", "accept"),
    ("udp dport != 4789 drop", "accept"),
    ("tcp dport 4789 drop", "accept"),
    ("th dport 4789 drop", "accept"),
    ("meta l4proto udp @th,96,24 0x700001 drop", "accept"),
    ("meta l4proto udp @th,96,24 0x700002 drop", "accept"),
    ("ip daddr 192.0.2.0/24 drop", "accept"),
    ("ip saddr @s drop", "accept"),
    ("ip daddr 10.0.0.0/8 drop", "accept"),
    ("ip saddr . udp dport { 192.0.2.1 . 4789 } drop", "accept"),
    ("udp dport vmap { 53 : accept, 4789 : drop }", "accept"),
    ("jump x", "accept"),
    ("ip protocol udp accept\nudp dport 4789 drop", "accept"),
    ("udp dport 53 accept", "drop"),
    ("udp dport 4789 accept", "drop"),
    ("meta nfproto ipv6 drop", "accept"),
    ("ip protocol 17 counter log drop", "accept"),
]


@pytest.fixture
def pair(spaces: Callable[[str], Namespace]) -> tuple[Namespace, Namespace]:
    one, two = spaces("one"), spaces("two")
    ip(
        one,
        f"link add eth0 type veth peer name eth0 netns {two.path}",
        "addr add 192.0.2.1/24 dev eth0",
        "link set eth0 up",
    )
    ip(two, "addr add 192.0.2.2/24 dev eth0", "link set eth0 up")
    return one, two


@contextlib.contextmanager
def listening(ns: Namespace) -> Iterator[socket.socket]:
    with ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("192.0.2.2", PORT))
        yield sock


def arrives(sender: Namespace, receiver: socket.socket, wait: float) -> bool:
    """Is a packet of its own kind received? Others may come late."""
    mine = DATA + next(_numbers).to_bytes(4, "big")
    with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(PermissionError):
        sock.sendto(mine, ("192.0.2.2", PORT))
    receiver.settimeout(wait)
    try:
        while receiver.recv(100) != mine:
            pass
    except TimeoutError:
        return False
    return True


def packet(hook: str) -> Packet:
    way = {"oifname": "eth0", "oif": "eth0", "iifname": ""}
    if hook != "output":
        way = {"iifname": "eth0", "iif": "eth0", "oifname": ""}
    return Packet(
        frozenset(("ip", "udp")),
        {("ip", "saddr"): "192.0.2.1", ("ip", "daddr"): "192.0.2.2", ("ip", "protocol"): "udp", ("udp", "dport"): PORT},
        {"l4proto": "udp", "protocol": "ip", "nfproto": "ipv4", **way},
        bytes(8) + DATA,
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_what_is_said_is_what_happens(pair: tuple[Namespace, Namespace], hook: str) -> None:
    """Each rule at each hook: the packet arrives exactly if nothing is said to drop it, and what is said is sure."""
    one, two = pair
    at, gates = (one, OUT) if hook == "output" else (two, IN)
    with listening(two) as receiver:
        until(lambda: arrives(one, receiver, 0.3))
        family, place = HOOKS[hook]
        for rule, policy in RULES:
            if "nfproto" in rule and family != "inet":
                continue  # which nft has for that family alone
            run_in(at, "nft", "-f", "-", text=FORM.format(family=family, hook=place, rule=rule, policy=policy))
            read = rules(at, 5)
            assert read.trouble == ""
            said = Ruleset.read(read.listed, read.devices).blocks(packet(hook), gates)
            assert said is None or said.sure, (rule, said)
            # A drop is waited for as long as the slowest arrival here took, many times over.
            assert arrives(one, receiver, 0.1 if said is not None else 2.0) == (said is None), (rule, policy, said)
            run_in(at, "nft", "flush", "ruleset")


def test_a_namespace_without_rules(spaces: Callable[[str], Namespace]) -> None:
    """Nothing is listed, and that is no trouble."""
    read = rules(spaces("empty"), 5)
    assert read.trouble == ""
    assert Ruleset.read(read.listed, read.devices).blocks(packet("output"), OUT) is None


def test_the_packet_is_one(pair: tuple[Namespace, Namespace]) -> None:
    """The packet of these tests has the VNI where the kernel's VXLAN device puts it."""
    assert struct.unpack_from("!I", DATA, 4)[0] >> 8 == VNI
