"""`myoverlay names`: who is called what, and who answers."""

from __future__ import annotations

from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, say


@click.command("names")
@json_option
def names_command(as_json: bool) -> None:
    """The names that this host knows, on all hosts of its overlays, and whether they are answered.

    \b
    Examples:
      myoverlay names
      myoverlay names --json
    """
    answer = ask("Control.Names")
    if as_json:
        print_json(answer)
        return
    rows = [(one["overlay"], one["address"], one["host"], ", ".join(one["names"])) for one in answer["names"]]
    print_table(("OVERLAY", "ADDRESS", "HOST", "NAMES"), rows)
    for sentence in _sentences(answer["resolver"], answer["docker"], answer["catalogue"]):
        say(sentence)


def _sentences(
    resolver: dict[str, Any] | None, docker: dict[str, Any] | None, catalogue: dict[str, Any] | None
) -> list[str]:
    answered = ["names are not answered: MYOVERLAY_NAMES is off"] if resolver is None else _answered(resolver)
    return [*answered, *(_heard(docker) if resolver is not None else []), *_registered(catalogue)]


def _answered(resolver: dict[str, Any]) -> list[str]:
    count = len(resolver["overlays"])
    places = [f"{count} overlay{'' if count == 1 else 's'}", *(["the host itself"] if resolver["host"] else [])]
    state = "names are answered" if resolver["process"] else "names are not answered just now"
    said = [f"{state} at {resolver['address']} in {' and on '.join(places)}"]
    return [*said, *resolver["troubles"]]


def _heard(docker: dict[str, Any] | None) -> list[str]:
    if docker is None:
        return ["Docker is not heard (MYOVERLAY_DOCKER_SOCKET): no aliases, and no names at all before Engine 29"]
    heard = f"Docker is heard at {docker['socket']}"
    return [heard if docker["followed"] else f"Docker is not heard: {docker['trouble']}"]


def _registered(catalogue: dict[str, Any] | None) -> list[str]:
    if catalogue is None:
        return []
    if catalogue["trouble"]:
        return [f"Consul's catalogue is not as it should be: {catalogue['trouble']}"]
    count = catalogue["registered"]
    said = [f"{count} name{'' if count == 1 else 's'} of this host in Consul's catalogue"]
    return said + [f"not in Consul's catalogue: {one}" for one in catalogue["refused"]]
