"""`myoverlay trace A B`: the path from one container to another, hop by hop, and the first that is wrong."""

from __future__ import annotations

from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import Sentence, json_option, print_json, print_table, say

#: How a hop's state is shown.
_SIGNS = {"right": "ok", "wrong": "WRONG", "unseen": "?"}


@click.command("trace", short_help="The path between two containers, and the first hop of it that is wrong.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--overlay", metavar="NAME", default="", help="The overlay, where A and B share several.")
@json_option
def trace_command(a: str, b: str, overlay: str, as_json: bool) -> None:
    """Walk the path from container A to container B, on this host and, through the store, on the others.

    A and B are names, addresses or endpoint ids, of containers of any host; whom this host does not know the others are
    asked for. Looked at are the container's route and neighbour,
    its cable, the bridge, the rows and the VXLAN device, the firewall rules, the underlay's route and what comes
    through it, and all of that in the other host, mirrored. Exit code 0: the path is whole, 1: it is not, or not all
    of it could be asked for.

    \b
    Examples:
      myoverlay trace web db
      myoverlay trace 10.5.0.2 10.5.0.3 --json
    """
    if not a.strip() or not b.strip():
        raise click.UsageError("an empty word is nobody: give names, addresses or endpoint ids")
    found = ask("Control.Trace", a=a, b=b, overlay=overlay)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found["whole"]:
        raise Sentence(_verdict(found))
    if not as_json:
        say(_verdict(found))


def _show(found: dict[str, Any]) -> None:
    say(f"{_end(found['source'])} → {_end(found['target'])}, overlay {found['overlay']}")
    rows = [(one["host"], one["hop"], _SIGNS.get(one["state"], one["state"]), one["saw"]) for one in found["steps"]]
    print_table(("HOST", "HOP", "", "SEEN"), rows)


def _end(end: dict[str, Any]) -> str:
    name = f"{end['names'][0]} " if end["names"] else ""
    return f"{name}{end['address']} on {end['host'] or 'an outsider'} ({end['vtep']})"


def _verdict(found: dict[str, Any]) -> str:
    first = found["first"]
    if first is not None:
        one = found["steps"][first]
        return (
            f"the first wrong hop is {one['hop']} on {one['host']}: there is {one['saw']};"
            f" there should be {one['wanted']}; what repairs it: {one['remedy']}"
        )
    if found["silent"]:
        why = f" ({found['trouble']})" if found["trouble"] else ""
        return f"nothing wrong is seen, but {', '.join(found['silent'])} did not say what is there{why}"
    unseen = sum(one["state"] == "unseen" for one in found["steps"])
    outside = f"; {', '.join(found['outsiders'])} is an outsider, whose host cannot be asked" * bool(found["outsiders"])
    return "the path is whole" + (f", as far as it is seen: {unseen} hops are not" if unseen else "") + outside
