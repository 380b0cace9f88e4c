"""`myoverlay status`: this host at a glance, and each of the others in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from myoverlay.cli.ask import ask
from myoverlay.cli.words import json_option, print_json, print_table, printable, say

#: The exit code where something needs a person: neither "done" nor "could not be asked".
NEEDS_A_PERSON = 3
#: Kinds of misses in the order they are shown; those that are a fault come first.
_MISSES = ("late", "found", "pull", "asked", "unknown", "limited", "local")


@click.command("status")
@json_option
@click.pass_context
def status_command(ctx: click.Context, as_json: bool) -> None:
    """This host: store, overlays, repairs, misses, names; and one line for each other host that shares an overlay.

    STATE is alive; pending (its session is gone, the heartbeat has not decided); cut off (from the store: its kernel
    answers, so rows, names and addresses stay); or dead. MTU says whether packets of the underlay's size come back.

    What needs a person stands at the end, each with what helps, and the exit code is 3 then. It is 0 where nothing
    does, and 1 where the plugin could not be asked.

    \b
    Examples:
      myoverlay status
      myoverlay status --json | jq '.peers[] | select(.state != "alive")'
    """
    answer = ask("Control.Status")
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if answer["concerns"]:
        ctx.exit(NEEDS_A_PERSON)


def _print(answer: dict[str, Any]) -> None:
    for title, text in _facts(answer):
        say(f"{title:<9} {printable(text)}")
    if answer["overlays"]:
        say("")
        print_table(
            ("OVERLAY", "VNI", "PORT", "MTU", "SUBNET", "VTEP", "HERE", "ELSEWHERE", "STATE"),
            [_overlay(one) for one in answer["overlays"]],
        )
    if answer["peers"]:
        say("")
        rows = [_peer(one, answer["heartbeat_mtu"]) for one in answer["peers"]]
        print_table(("HOST", "VTEP", "STATE", "FOR", "MTU", "LATENCY", "VERSION", "WHY"), rows)
    if answer["concerns"]:
        say("")
        for one in answer["concerns"]:
            say(printable(f"! {one['what']}: {one['remedy']}"))


def _facts(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from myoverlay.plan.concerns import ago, span

    yield "host", f"{answer['name']} ({answer['id'][:12]}), version {answer['version']}, up {span(answer['started'])}"
    yield "store", _store(answer, ago, span)
    yield "names", _names(answer["names"])
    counters = answer["counters"]
    repairs = counters.get("repairs", {})
    compared = ago(answer["compared"])
    yield "repairs", f"{_listed(repairs)}; the kernel was compared {compared}, and {answer['drift']} put right then"
    misses = counters.get("misses", {})
    yield "misses", ", ".join(f"{kind} {misses.get(kind, 0)}" for kind in _MISSES)
    held = answer["held"]
    yield "held", _listed({f"{one['kind']} {one['overlay']}".strip(): one["count"] for one in held})
    yield "metrics", answer["metrics_at"] or "on the plugin's own socket alone (MYOVERLAY_METRICS)"


def _store(answer: dict[str, Any], ago: Any, span: Any) -> str:
    store = answer["store"]
    if store["answers"] is None:
        return f"{store['where']}: not asked yet"
    if not store["answers"]:
        untold = f" ({store['untold']} addresses are still to be told)" if store["untold"] else ""
        return f"{store['where']}: no answer for {span(store['since'])}{untold}: {store['failure']}"
    session = "session held" if answer["session"] else "NO SESSION"
    lost = "; it lost something lately: addresses come from the reserve" if store["in_doubt"] else ""
    failed = f"; it failed {ago(store['failed'])}" if store["failed"] is not None else ""
    count = store["untold"]
    untold = f"; it is still to be told of {count} address{'' if count == 1 else 'es'}" if count else ""
    return f"{store['where']}: answers for {span(store['since'])}, {session}{lost}{untold}{failed}"


def _names(names: dict[str, Any]) -> str:
    resolver, docker = names["resolver"], names["docker"]
    if resolver is None:
        return "not answered (MYOVERLAY_NAMES is off)"
    count = len(resolver["overlays"])
    places = f"{count} overlay{'' if count == 1 else 's'}{' and on the host itself' if resolver['host'] else ''}"
    answered = f"answered at {resolver['address']} in {places}" if resolver["process"] else "not answered just now"
    if docker is None:
        return f"{answered}; without Docker's socket only container names work, from Engine 29 on"
    heard = "Docker is heard" if docker["followed"] else f"Docker is not heard: {docker['trouble']}"
    return f"{answered}; {heard}"


def _listed(counts: dict[str, int]) -> str:
    """The sum, and what it is made of."""
    if not counts:
        return "none"
    parts = ", ".join(f"{name} {count}" if name else str(count) for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({parts})"


def _overlay(one: dict[str, Any]) -> Sequence[object]:
    state = "up" if one["built"] else "NOT BUILT"
    if one["heard"] is not None and not one["complete"]:
        state += ", not all peers known yet"
    if not one["eager"]:
        state += ", pulled by misses"
    elsewhere = f"{one['peers']} on {one['hosts']} host{'' if one['hosts'] == 1 else 's'}"
    return (
        one["overlay"], one["vni"], one["port"], one["mtu"], one["subnet"], one["vtep"], one["endpoints"], elsewhere,
        state,
    )  # fmt: skip


def _peer(one: dict[str, Any], mtu: int) -> Sequence[object]:
    from myoverlay.plan.concerns import span

    carried = {True: mtu, False: f"<{mtu}", None: None}[one["carries"]]
    latency = f"{one['rtt'] * 1000:.1f} ms" if one["rtt"] is not None else None
    name = one["name"] or one["id"][:12]
    return name, one["vtep"], one["state"], span(one["since"]), carried, latency, one["version"], one["why"]
