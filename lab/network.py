"""The underlay: one switch (a bridge in a namespace of its own) and a cable to every host.

No interface ever appears in the machine's own network namespace, so that several laboratories may use the same
addresses and nothing of the machine's routing changes.
"""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass

from lab.errors import CommandFailed
from lab.host import Host

GATEWAY, REGISTRY, STORE = 1, 253, 254
"""Last parts of the addresses that every underlay gives away first; hosts start at 11."""
FIRST_HOST = 11


@dataclass(frozen=True)
class Underlay:
    """Addresses and MTU of the cables."""

    subnet: str = "172.30.0.0/24"
    mtu: int = 1500

    def address(self, number: int) -> str:
        """An address of the underlay by its number."""
        return str(ipaddress.ip_network(self.subnet)[number])

    def with_length(self, number: int) -> str:
        """The same with the prefix length, as an interface wants it."""
        return f"{self.address(number)}/{ipaddress.ip_network(self.subnet).prefixlen}"

    def address6(self, number: int) -> str:
        """The IPv6 address beside it."""
        return f"fd30::{number}"


class Switch:
    """The bridge all hosts hang on."""

    BRIDGE = "sw"

    def __init__(self, host: Host, underlay: Underlay) -> None:
        self.host = host
        self.underlay = underlay

    def build(self) -> None:
        """Make the bridge and give it the address that is every host's default route."""
        self._batch(
            f"link add {self.BRIDGE} type bridge forward_delay 0 mcast_snooping 0",
            f"link set {self.BRIDGE} mtu {self.underlay.mtu} up",
            f"address add {self.underlay.with_length(GATEWAY)} dev {self.BRIDGE}",
            f"address add {self.underlay.address6(GATEWAY)}/64 dev {self.BRIDGE} nodad",
        )

    def plug(self, host: Host, number: int) -> None:
        """Lay a cable from the switch to a host's `eth0`, with the underlay's address and default route."""
        self._batch(
            f"link add {host.name} mtu {self.underlay.mtu} type veth"
            f" peer name eth0 mtu {self.underlay.mtu} netns {host.pid}",
            f"link set {host.name} master {self.BRIDGE} up",
        )
        batch(
            host,
            "link set lo up",
            f"address add {self.underlay.with_length(number)} dev eth0",
            f"address add {self.underlay.address6(number)}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {self.underlay.address(GATEWAY)}",
        )

    def unplug(self, name: str) -> None:
        """Take the cable away for good (a host that goes off takes its own away, a little later)."""
        subprocess_ip(self.host, ["link", "delete", name], check=False)

    def cut(self, name: str) -> None:
        """Pull a host's plug at the switch's end; the host still sees its interface, as behind a real switch."""
        self._batch(f"link set {name} nomaster")

    def heal(self, name: str) -> None:
        """Put the plug in again."""
        self._batch(f"link set {name} master {self.BRIDGE}")

    def cut_between(self, one: str, other: str) -> None:
        """Let no frame pass between two hosts, in either direction; all others still reach both."""
        table = "add table bridge cut; add chain bridge cut pass { type filter hook forward priority 0; };"
        for left, right in ((one, other), (other, one)):
            table += f'add rule bridge cut pass iifname "{left}" oifname "{right}" drop;'
        self.host.run(["nft", table])

    def heal_between(self) -> None:
        """Undo every `cut_between`."""
        self.host.run(["nft", "add table bridge cut; delete table bridge cut"])

    def _batch(self, *lines: str) -> None:
        batch(self.host, *lines)


def batch(host: Host, *lines: str) -> None:
    """Several `ip` commands as one process in a host's network namespace, pids counted as on the machine."""
    subprocess_ip(host, ["-batch", "-"], "\n".join(lines) + "\n")


def subprocess_ip(host: Host, arguments: list[str], text: str = "", check: bool = True) -> None:
    """`ip` in a host's network namespace and the machine's other namespaces, so that `netns PID` means ours."""
    argv = ["ip", *arguments]
    process = host.spawn_in(("net",), argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(text, timeout=30)
    if process.returncode and check:
        raise CommandFailed(host.name, [*argv, text.strip()], process.returncode, out, err)
