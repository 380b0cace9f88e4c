"""`myoverlay gc` and `myoverlay counters`: what nobody asks for any more, and what the plugin has counted."""

from __future__ import annotations

from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import Sentence, json_option, print_json, print_table, say, warn


@click.command("gc")
@click.option("--yes", is_flag=True, help="Take away also what is too much to be believed, or in use.")
@click.option("--dry-run", is_flag=True, help="Only show what waits for --yes.")
@json_option
@click.pass_context
def gc_command(ctx: click.Context, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Show and collect what nobody asks for any more: links, namespaces, endpoints, leases and keys of this host.

    The plugin does it by itself, sooner or later; this does it now. More than 50 of a kind, more than half of an
    overlay's, or what containers still use, is refused (exit code 1) until a person has looked and said --yes.

    \b
    Examples:
      myoverlay gc --dry-run
      myoverlay gc
      myoverlay gc --yes
    """
    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run contradict each other")
    answer = ask("Control.Gc", yes=yes, collect=not dry_run)
    held = [] if yes else _rows(answer["held"], "held")
    if as_json:
        print_json(answer)
    else:
        _show([*_rows(answer["collected"], "collected"), *held])
        if yes:
            _tell_late(answer)
        for sentence in answer["unsure"]:
            warn(sentence)
    if held and not dry_run:
        what = "it is" if len(held) == 1 else f"{len(held)} things are"
        raise Sentence(
            f"{what} held: too much to be believed, or still used by containers. Look, then say `myoverlay gc --yes`"
        )
    if answer["unsure"]:
        ctx.exit(1)


def _rows(listed: list[dict[str, Any]], became: str) -> list[tuple[str, str, str, str]]:
    return [(one["kind"], one["overlay"], name, became) for one in listed for name in one["names"]]


def _show(rows: list[tuple[str, str, str, str]]) -> None:
    if rows:
        print_table(("KIND", "OVERLAY", "NAME", "STATE"), rows)
    else:
        say("there is nothing that nobody asks for")


def _tell_late(answer: dict[str, Any]) -> None:
    """What was let go and has not gone yet: a round of its owner comes later."""
    gone = {(kind, overlay, name) for kind, overlay, name, _ in _rows(answer["collected"], "")}
    late = [row for row in _rows(answer["held"], "") if row[:3] not in gone]
    if late:
        say(f"{len(late)} more are let go, and are removed when it is their turn, within 5 min")


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
