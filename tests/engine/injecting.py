"""A VXLAN datagram for a container, sent by somebody who should not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.engine import EngineHost
from lab.host import Host
from myoverlay.kernel import netns
from myoverlay.values import Address, Mac
from tests.attack.datagrams import Ear, frame, send, vxlan


def of_host(host: Host) -> Path:
    """The network namespace of a machine."""
    return Path(host.netns)


def of_container(host: EngineHost, name: str) -> Path:
    """The network namespace of a container."""
    return Path(f"/proc/{host.container_pid(name)}/ns/net")


def inject(victim: str, host: EngineHost, pin: str, sender: Path) -> str:
    """What became of a datagram that a process in namespace `sender` sends to the host, for its container `victim`.

    `pin`: where the namespace of the victim's overlay is pinned on the host. The container has that network alone.
    """
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}"
    address, mac = host.docker("inspect", "-f", form, victim).split()
    told: Any = json.loads(host.run(["nsenter", f"--net={pin}", "ip", "-d", "-j", "link", "show", "vxlan1"]))
    inner = frame(Mac(mac), address.rpartition(".")[0] + ".99", Address(address))
    data = vxlan(int(told[0]["linkinfo"]["info_data"]["id"]), inner)
    with netns.open_path(of_container(host, victim)) as ns, Ear(ns) as ear, netns.open_path(sender) as home:
        said = send(home, host.address, data)
        return "injected" if ear.hears(1.0) else said or "dropped"
