"""`myoverlay gc` and `myoverlay counters`: what the plugin holds back for a person, and what it has counted."""

from __future__ import annotations

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, say


@click.command("gc")
@click.option("--yes", is_flag=True, help="Let it go: the plugin removes it within seconds.")
@json_option
def gc_command(yes: bool, as_json: bool) -> None:
    """What nobody asks for any more and the plugin yet keeps, because it is too much to be believed.

    The plugin removes small leftovers by itself. More than 50 links, namespaces, leases or keys, more than half of an
    overlay's, or what containers still use, waits here until a person has looked and said --yes.

    \b
    Examples:
      myoverlay gc
      myoverlay gc --yes
    """
    answer = ask("Control.Gc", yes=yes)
    if as_json:
        print_json(answer)
        return
    held = answer["held"]
    if not held:
        say("nothing waits for a word")
        return
    rows = [(one["kind"], one["overlay"], name) for one in held for name in one["names"]]
    print_table(("KIND", "OVERLAY", "NAME"), rows)
    if yes:
        say(f"{len(rows)} let go: they are removed within seconds")
    else:
        say(f"{len(rows)} wait: `myoverlay gc --yes` lets them go")


@click.command("counters")
@json_option
def counters_command(as_json: bool) -> None:
    """What the plugin has counted since it started: every outcome, faults beside their benign twins.

    \b
    Example:
      myoverlay counters --json
    """
    answer = ask("Control.Counters")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("COUNTER", "LABEL", "COUNT"),
        [(name, label, count) for name, labels in answer.items() for label, count in labels.items()],
    )
