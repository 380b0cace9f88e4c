"""`myoverlay network …`: Docker networks that are defined once for all hosts."""

from __future__ import annotations

from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, say, warn


class Pair(click.ParamType[Any]):
    """NAME=VALUE."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, is_pair, text = str(value).partition("=")
        if not is_pair or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


@click.group("network")
def network() -> None:
    """Docker networks that are defined once, and made by every host that follows (MYOVERLAY_FOLLOW=on).

    \b
    Example:
      myoverlay network create web && docker run --network web IMAGE
    """


@network.command("create")
@click.argument("name")
@click.option(
    "--subnet", metavar="SUBNET", default="", help="Such as 10.5.0.0/24. [default: one that is free everywhere]"
)
@click.option("--ip-range", metavar="SUBNET", default="", help="Where in the subnet addresses are taken from.")
@click.option("--gateway", metavar="ADDRESS", default="", help="The gateway's address. [default: the first]")
@click.option("--aux-address", "aux", type=Pair(), multiple=True, help="An address that no container gets.")
@click.option("--internal", is_flag=True, help="No way out of the network.")
@click.option("-o", "--opt", "options", type=Pair(), multiple=True, help="As with `docker network create -o`.")
@click.option("--label", "labels", type=Pair(), multiple=True, help="A label of the Docker network.")
@click.option("--force", is_flag=True, help="Also where some host says that it will not work there.")
@json_option
def create(
    name: str,
    subnet: str,
    ip_range: str,
    gateway: str,
    aux: tuple[tuple[str, str], ...],
    internal: bool,
    options: tuple[tuple[str, str], ...],
    labels: tuple[tuple[str, str], ...],
    force: bool,
    as_json: bool,
) -> None:
    """Define the network NAME for all hosts.

    Before it all hosts are asked: does the subnet overlap a route, are VNI and UDP port free, do packets of full size
    come through VXLAN from host to host? What speaks against it is said in one sentence that names the host.

    \b
    Examples:
      myoverlay network create web
      myoverlay network create db --subnet 10.6.0.0/24 --internal -o mtu=1400 --label team=shop
    """
    answer = ask(
        "Control.NetworkCreate",
        name=name,
        subnet=subnet,
        ip_range=ip_range,
        gateway=gateway,
        aux=dict(aux),
        internal=internal,
        options=dict(options),
        labels=dict(labels),
        force=force,
    )
    if as_json:
        print_json(answer)
        return
    for sentence in answer["warnings"]:
        warn(sentence)
    made = answer["network"]
    say(f"network {made['name']} ({made['subnet']}) is defined{_had_by(answer['hosts'])}")
    for one in answer["hosts"]:
        if one["state"] != "held":
            warn(f"host {one['name']}: {one['said']}")
    if answer["late"]:
        warn(f"not yet made on {', '.join(answer['late'])}: `myoverlay network inspect {made['name']}` tells")


def _had_by(hosts: list[dict[str, Any]]) -> str:
    names = [one["name"] for one in hosts if one["state"] == "held"]
    return f"; {', '.join(names)} {'have' if len(names) > 1 else 'has'} it" if names else ""


@network.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """The networks that are defined for all hosts.

    HELD counts the hosts that have it, of those that said what became of it there.

    \b
    Example:
      myoverlay network ls
    """
    answer = ask("Control.Networks")
    if as_json:
        print_json(answer)
        return
    rows = []
    for one in answer["networks"]:
        held = sum(host["state"] == "held" for host in one["hosts"])
        rows.append((one["name"], one["subnet"], one["overlay"], f"{held}/{len(one['hosts'])}", _state(one)))
    print_table(("NAME", "SUBNET", "OVERLAY", "HELD", "STATE"), rows)


def _state(network: dict[str, Any]) -> str:
    if network["removing"]:
        return "being removed"
    return "" if all(one["state"] == "held" for one in network["hosts"]) else "not on all: see inspect"


@network.command("inspect")
@click.argument("name")
@json_option
def inspect(name: str, as_json: bool) -> None:
    """The network NAME: which hosts hold it, which containers are on it.

    STATE is held; conflict (Docker there has another network of that name, which is left alone); failed; remains (it
    could not be removed yet); or none (that host does not follow, or has not come to it).

    \b
    Examples:
      myoverlay network inspect web
      myoverlay network inspect web --json
    """
    answer = ask("Control.NetworkInspect", name=name)
    if as_json:
        print_json(answer)
        return
    options = " ".join(f"{key}={text}" for key, text in sorted(answer["options"].items()))
    say(f"{answer['name']}  subnet {answer['subnet']}  overlay {answer['overlay']}  {options}")
    if answer["removing"]:
        say("it is being removed")
    rows = [
        (one["name"], one["id"][:12], one["state"], "" if one["present"] else "away", one["said"])
        for one in answer["hosts"]
    ]
    print_table(("HOST", "ID", "STATE", "", "WHY"), rows)
    users = [(" ".join(one["names"]), one["address"], one["mac"], one["host"]) for one in answer["containers"]]
    print_table(("NAMES", "ADDRESS", "MAC", "HOST"), users)


@network.command("rm")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while containers are on it: they are taken off.")
@json_option
def rm(name: str, force: bool, as_json: bool) -> None:
    """Remove the network NAME from all hosts.

    Hosts that are away remove it when they are back.

    \b
    Examples:
      myoverlay network rm web
      myoverlay network rm web --force
    """
    answer = ask("Control.NetworkRemove", name=name, force=force)
    if as_json:
        print_json(answer)
        return
    for one in answer["hosts"]:
        why = one["said"] or ("not done yet" if one["present"] else "that host is away, and removes it when it is back")
        warn(f"still on host {one['name']}: {why}")
    for one in answer["containers"]:
        warn(f"still on its overlay: {' '.join([*one['names'][:1], one['address']])} on host {one['host']}")
    say(f"network {name} is {'being removed' if answer['hosts'] else 'removed'}")
