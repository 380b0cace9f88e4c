"""`myoverlay watch`: the kernel's questions as they come, and what becomes of each.

Hooked into the program by `cli.main`, which loads this module when the word `watch` is said: `watch_command` is a
finished click command, and all that is heavy is imported inside it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import time
from typing import TYPE_CHECKING

import click

from myoverlay.cli.words import DEFAULT_OVERLAY, Places, complete_network, complete_overlay, need_root
from myoverlay.errors import Late, Unknown

if TYPE_CHECKING:
    from myoverlay.cli.follow import Event, Json, NetworkFollower, Text
    from myoverlay.cli.within import Stop
    from myoverlay.kernel.monitor import Monitor
    from myoverlay.kernel.netns import Namespace

#: How long a miss is given until it is said that nothing came, seconds. An asker asks again after one.
PATIENCE = 0.5


@click.command("watch", short_help="The kernel's misses, the store's changes, Docker's calls, as they come.")
@click.argument("network", metavar="[NETWORK]", required=False, shell_complete=complete_network)
@click.option("--misses", is_flag=True, help="Of the running plugin: what the kernel asked, and what it answered.")
@click.option("--store", is_flag=True, help="Of the running plugin: what other hosts changed in the store.")
@click.option("--calls", is_flag=True, help="Of the running plugin: Docker's calls, with their answers.")
@click.option("--kernel", is_flag=True, help="Of the running plugin: rows and links lost or foreign, and repairs.")
@click.option(
    "--namespace",
    metavar="NAME|PATH|current",
    default=DEFAULT_OVERLAY,
    show_default=True,
    shell_complete=complete_overlay,
    help="Where to listen.",
)
@click.option("--device", metavar="DEV", help="This device's messages alone; without it every device's.")
@click.option("--link", is_flag=True, help="Follow links too, as `ip monitor link` does.")
@click.option("--route", is_flag=True, help="Follow routes too, of both families.")
@click.option("--neigh", is_flag=True, help="Follow rows of neighbour and forwarding tables too.")
@click.option(
    "--app-solicit", metavar="DEV", help="Have the kernel ask by netlink for DEV's neighbours too; put back at the end."
)
@click.option("--raw", is_flag=True, help="Show each message's bytes: nlmsghdr, ndmsg and rtattr, named.")
@click.option("--json", "as_json", is_flag=True, help="Print an object a line, for machines.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N misses and followed messages.")
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    help="End after S seconds; with --count: fail.",
)
@click.pass_context
def watch_command(
    ctx: click.Context,
    network: str | None,
    misses: bool,
    store: bool,
    calls: bool,
    kernel: bool,
    namespace: str,
    device: str | None,
    link: bool,
    route: bool,
    neigh: bool,
    app_solicit: str | None,
    raw: bool,
    as_json: bool,
    count: int | None,
    timeout: float | None,
) -> None:
    """Show the kernel's L2 and L3 misses as they come, and what becomes of each.

    An L3 miss asks whose MAC an address is, an L2 miss behind which VTEP a MAC is. Whoever writes the row answers it.

    With NETWORK, or one of --misses, --store, --calls and --kernel, the running plugin is asked what it notes: all of
    that network, or what is named. NETWORK is a Docker network of the plugin, or an overlay's name.

    \b
    Examples:
      myoverlay watch
      myoverlay watch web
      myoverlay watch --calls --json
      myoverlay watch --neigh --count 2 --timeout 10 --json
      myoverlay watch --raw --app-solicit eth0 --namespace /proc/1234/ns/net
    """
    from myoverlay.cli.follow import Json, NetworkFollower, Text
    from myoverlay.cli.within import asking_userland, open_namespace, until_told
    from myoverlay.kernel.monitor import Monitor

    told = (("miss", misses), ("store", store), ("call", calls), ("kernel", kernel))
    kinds = [kind for kind, wanted in told if wanted]
    if network is not None or kinds:
        if device or link or route or neigh or app_solicit or raw or _was_given(ctx, "namespace"):
            raise click.UsageError("what the plugin notes has no device, namespace or bytes: leave those options out")
        _follow_plugin(ctx, network, kinds or [kind for kind, _ in told], as_json, count, timeout)
        return
    need_root()
    groups = {name for name, wanted in (("link", link), ("route", route), ("neigh", neigh)) if wanted}
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(open_namespace(namespace, Places.of(ctx)))
        names = Names(ns)
        only = names.index(device, namespace) if device else None
        stop = stack.enter_context(until_told())
        monitor = stack.enter_context(Monitor(ns, {"neigh", *groups}))
        if app_solicit:
            stack.enter_context(asking_userland(ns, app_solicit))
        follower = NetworkFollower(frozenset(groups), PATIENCE, raw, lambda index: only in (None, index), count)
        writer: Json | Text = Json(names) if as_json else Text(names, _coloured())
        click.echo(f"listening in {namespace}; Ctrl-C ends", err=True)
        watch(monitor, follower, writer, stop, count, timeout)


def _was_given(ctx: click.Context, name: str) -> bool:
    from click.core import ParameterSource

    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _follow_plugin(
    ctx: click.Context, network: str | None, kinds: list[str], as_json: bool, count: int | None, timeout: float | None
) -> None:
    from myoverlay.cli.ask import ask
    from myoverlay.cli.recorded import follow
    from myoverlay.cli.within import until_told
    from myoverlay.cli.within_network import overlay_of

    overlay = overlay_of(network, Places.of(ctx)) if network is not None else ""
    with until_told() as stop:
        follow(kinds, overlay, as_json, stop, count, timeout, ask)


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Names:
    """What interfaces are called, by index. One that is not known is looked up: it may be new."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns
        self._names = self._read()

    def _read(self) -> dict[int, str]:
        import socket

        return dict(self._ns.call(socket.if_nameindex))

    def __call__(self, index: int) -> str:
        if index and index not in self._names:
            self._names = {**self._names, **self._read()}
        return self._names.get(index, f"#{index}" if index else "")

    def index(self, name: str, where: str) -> int:
        """Raises Unknown, naming what there is."""
        for index, other in self._names.items():
            if other == name:
                return index
        raise Unknown(f"there is no device {name} in {where}; there are {', '.join(sorted(self._names.values()))}")


def watch(
    monitor: Monitor,
    follower: NetworkFollower,
    writer: Json | Text,
    stop: Stop,
    count: int | None,
    timeout: float | None,
) -> None:
    """Print until told to stop, or until `count` came and their outcomes are known, or the time is over.

    Raises Late where it is over before `count` came.
    """
    start = time.monotonic()
    clock = time.time() - start  # of one clock, which nobody sets while we measure
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        selector.register(monitor, selectors.EVENT_READ)
        while not stop.wanted and not (follower.full and not follower.waiting):
            left = start + timeout - time.monotonic() if timeout is not None else 3600.0
            if left <= 0:
                break
            selector.select(min(left, PATIENCE / 10) if follower.waiting else left)
            for piece in _heard(monitor):
                _print(writer, follower.hear(piece, clock + time.monotonic()))
            _print(writer, follower.due(clock + time.monotonic()))
    if count is not None and not follower.full and not stop.wanted:
        raise Late(f"{follower.count} of {count} came within {timeout:g} s")


def _heard(monitor: Monitor) -> list[bytes]:
    from myoverlay.kernel.listener import Overrun

    try:
        return monitor.read()
    except Overrun:
        click.echo("myoverlay: more came than could be heard: some messages are lost", err=True)
        return []


def _print(writer: Json | Text, events: list[Event]) -> None:
    for event in events:
        for line in writer.lines(event):
            click.echo(line)
