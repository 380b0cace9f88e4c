"""What the running plugin has noted, as it comes: Docker's calls, changes of the store, misses, the kernel's events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from myoverlay.errors import Late

if TYPE_CHECKING:
    from myoverlay.cli.within import Stop

#: Seconds that the plugin may keep us waiting for something to come.
WAIT = 2.0
#: Seconds between two questions where the plugin has more readers than may wait in it.
PAUSE = 0.25


def follow(
    kinds: Collection[str],
    overlay: str,
    as_json: bool,
    stop: Stop,
    count: int | None,
    timeout: float | None,
    ask: Callable[..., dict[str, Any]],
) -> None:
    """Print notes until told to stop, `count` came, or the time is over. Raises Late where it is over before."""
    begun, printed = time.monotonic(), 0
    answer = ask("Control.Watch", kinds=list(kinds), overlay=overlay)
    # Not before: who reads it may make happen what is to be told.
    click.echo(f"following the plugin{f' on {overlay}' if overlay else ''}; Ctrl-C ends", err=True)
    while not stop.wanted and printed != count:
        left = begun + timeout - time.monotonic() if timeout is not None else WAIT
        if left <= 0:
            break
        asked = time.monotonic()
        answer = ask(
            "Control.Watch",
            after=answer["last"],
            run=answer["run"],
            kinds=list(kinds),
            overlay=overlay,
            wait=min(left, WAIT),
        )
        for line in _lines(answer, as_json, None if count is None else count - printed):
            click.echo(line)
        printed += len(answer["notes"]) if count is None else min(len(answer["notes"]), count - printed)
        if not answer["notes"] and time.monotonic() - asked < PAUSE:
            _until(stop, min(left, PAUSE))
    if count is not None and printed < count and not stop.wanted:
        raise Late(f"{printed} of {count} came within {timeout:g} s")


def _until(stop: Stop, seconds: float) -> None:
    import select

    select.select([stop], [], [], seconds)


def _lines(answer: Mapping[str, Any], as_json: bool, most: int | None) -> Iterator[str]:
    if answer["again"]:
        click.echo("myoverlay: the plugin was started anew: what it had noted before is gone", err=True)
    if answer["dropped"]:
        click.echo(f"myoverlay: {answer['dropped']} notes came faster than they were read, and are lost", err=True)
    for note in answer["notes"][:most]:
        yield json.dumps(note) if as_json else f"{_clock(note['at'])}  {as_text(note)}"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03}"


def as_text(note: Mapping[str, Any]) -> str:
    """A note in a line, for people."""
    kind, overlay = note.get("kind"), f"{note.get('overlay') or '-'}:"
    if kind == "call":
        about = [f"{key} {note[key]}" for key in ("network", "endpoint", "pool", "address") if note.get(key)]
        said = f": {note['said']}" if note.get("said") else ""
        words = " ".join([str(note.get("method")), *about])
        return f"call   {overlay} {words}, {note.get('status')} in {note.get('ms')} ms{said}"
    if kind == "miss":
        return f"miss   {overlay} L{note.get('layer')} {note.get('address') or note.get('mac')}, {note.get('outcome')}"
    if kind == "kernel":
        reason = f" ({note['reason']})" if note.get("reason") else ""
        return f"kernel {overlay} {note.get('event')}{reason}: {note.get('thing')}"
    about = [str(note[key]) for key in ("address", "mac", "vtep") if note.get(key)]
    if "containers" in note:
        about.append(f"with {note['containers']} containers")
    return f"store  {overlay} {note.get('change')} {' '.join(about)}".rstrip() + f", host {note.get('host')}"
