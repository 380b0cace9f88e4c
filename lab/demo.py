"""`make demo`: containers on two real engines talk over one overlay, with their records in a real Consul."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
import time
from collections.abc import Iterator

from lab import fetch, preflight
from lab.engine import EngineHost
from lab.errors import LabError
from lab.lab import HostSpec, Lab, names
from lab.plugin_process import PluginProcess

NAME = "demo"
OVERLAY = "10.5.0.0-24"
CREATE = "docker network create -d myoverlay --ipam-driver myoverlay --subnet 10.5.0.0/24 web"
RUN = "docker run -d --name {name} --network web lab/base"


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """One line of progress, with its time when it is done."""
    began = time.monotonic()
    if sys.stdout.isatty():
        print(f"  … {text}", end="\r", flush=True)
    yield
    print(f"  ✓ {text}  ({time.monotonic() - began:.1f} s)", flush=True)


def main(arguments: list[str]) -> int:
    """Run the demonstration; exit code 0 only if every container reached every other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the laboratory up to play with")
    keep: bool = parser.parse_args(arguments).keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _demonstrate(keep)
    except LabError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; nothing was left behind", file=sys.stderr)
        return 130


def _demonstrate(keep: bool) -> int:
    preflight.demand_to_fetch()
    print("What is needed (downloaded once, kept in .lab):")
    for name, version in fetch.fetch().items():
        print(f"    {name:28} {version}")
    missing = preflight.complaints()
    if missing:
        raise LabError(" ".join(missing))
    if NAME in names():
        raise LabError("a demonstration is up already: end it with `make lab-down`")
    began = time.monotonic()
    print("The laboratory:")
    lab = Lab(NAME, [HostSpec("h1", engine="old"), HostSpec("h2", engine="new")], consul=True)
    with step("two hosts with an engine each, and Consul"):
        lab.up()
    try:
        good = _show(lab)
    except BaseException:
        lab.down()
        raise
    if keep:
        _tell_how_to_play()
    else:
        with step("everything is taken down"):
            lab.down()
    print(f"{'All containers reach each other' if good else 'SOME CONTAINERS DO NOT REACH EACH OTHER'};", end=" ")
    print(f"{time.monotonic() - began:.1f} s without the downloads.")
    return 0 if good else 1


def _show(lab: Lab) -> bool:
    hosts = list(lab.hosts.values())
    with step("the plugin on both hosts"):
        for host in hosts:
            PluginProcess(host, {"CONSUL_HTTP_ADDR": lab.consul.url}).start()
    print("An overlay and four containers:")
    for host in hosts:
        with step(f"{host.name}: {CREATE}"):
            host.docker(*CREATE.split()[1:])
    containers = {f"{letter}{host.name[1]}": host for letter in "ab" for host in hosts}
    for name, host in containers.items():
        with step(f"{host.name}: {RUN.format(name=name)}"):
            host.docker(*RUN.format(name=name).split()[1:])
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    addresses = {name: host.docker("inspect", "-f", form, name) for name, host in containers.items()}
    table = _pings(containers, addresses)
    _draw(lab, containers, addresses)
    _records(lab)
    _print_table(table)
    return all(table.values())


def _pings(containers: dict[str, EngineHost], addresses: dict[str, str]) -> dict[tuple[str, str], float]:
    """The first ping of each pair, in ms; 0 where it was lost."""
    table = {}
    with step("the first ping of each pair"):
        for asker, host in containers.items():
            for name, address in addresses.items():
                if name != asker:
                    out = host.docker("exec", asker, "ping", "-c", "1", "-W", "2", address, check=False)
                    found = re.search(r"time=([0-9.]+) ms", out)
                    table[asker, name] = float(found.group(1)) if found else 0.0
    return table


def _draw(lab: Lab, containers: dict[str, EngineHost], addresses: dict[str, str]) -> None:
    """The two hosts, their containers and what is between them."""
    columns = []
    for host in lab.hosts.values():
        lines = [f"{host.name}: engine {host.engine_version}"]
        lines += [f"  {name}  {addresses[name]}" for name, where in containers.items() if where is host]
        lines += ["  │ veth", f"  br0 ─ vxlan1   namespace {OVERLAY}", f"  VTEP {host.address}"]
        columns.append(lines)
    print("\n  ┌" + "─" * 40 + "┐        ┌" + "─" * 40 + "┐")
    for left, right in zip(*columns, strict=True):
        middle = "══UDP═══" if "VTEP" in left else "        "
        print(f"  │ {left:38} │{middle}│ {right:38} │")
    print("  └" + "─" * 40 + "┘        └" + "─" * 40 + "┘")


def _records(lab: Lab) -> None:
    print(f"\n  Records in Consul ({lab.consul.url}):")
    for key, value in sorted(lab.consul.get(f"myoverlay/overlays/{OVERLAY}/records/").items()):
        print(f"    {key:62} {value.decode()}")
    others = [key for key in lab.consul.keys("myoverlay/") if "/records/" not in key and "/pools/" not in key]
    print("    and " + "\n        ".join(others))


def _print_table(table: dict[tuple[str, str], float]) -> None:
    names = sorted({name for pair in table for name in pair})
    print("\n  First ping, ms:   " + "".join(f"{name:>9}" for name in names))
    for asker in names:
        cells = ("      -" if asker == name else f"{table[asker, name] or 'LOST':>7}" for name in names)
        print(f"    from {asker:12} " + "".join(f"{cell:>9}" for cell in cells))
    print()


def _tell_how_to_play() -> None:
    python = "python3 -m lab"
    print(
        f"""
The laboratory stays up. For example:
    {python} docker h1 --name {NAME} -- ps
    {python} docker h1 --name {NAME} -- exec a1 ping -c 3 10.5.0.9
    {python} exec h1 --name {NAME} -- nsenter --net=/run/docker/plugins/myoverlay/netns/{OVERLAY} bridge fdb
    {python} docker h2 --name {NAME} -- run --rm --network web lab/base ip addr
It is ended by
    make lab-down
"""
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
