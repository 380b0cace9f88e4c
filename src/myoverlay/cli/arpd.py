"""`myoverlay arpd`: the resolver daemon for an overlay that somebody made by hand.

Hooked into the program by `cli.main`, which loads this module when the word `arpd` is said: `arpd_command` is a
finished click command, and all that is heavy is imported inside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from myoverlay.cli.words import (
    DEFAULT_OVERLAY,
    Places,
    complete_overlay,
    consul_option,
    consul_store,
    need_root,
    records_option,
    warn,
)
from myoverlay.errors import Refused, Unknown

if TYPE_CHECKING:
    from myoverlay.cli.tunnel import Tunnel
    from myoverlay.kernel.netns import Namespace


@click.command("arpd", short_help="Resolve for an overlay made by hand, from records in Consul.")
@consul_option
@records_option
@click.option(
    "--namespace",
    metavar="NAME|PATH|current",
    default=DEFAULT_OVERLAY,
    show_default=True,
    shell_complete=complete_overlay,
    help="Where the VXLAN device is.",
)
@click.option("--device", metavar="DEV", default="vxlan1", show_default=True, help="The VXLAN device.")
@click.option("--bridge", metavar="DEV", default="", help="Its bridge. [default: the one it is a port of]")
@click.option(
    "--on-miss-only",
    is_flag=True,
    help="Never watch: one look-up for each miss, as in the tutorial; rows then stay.",
)
@click.option("--adopt", is_flag=True, help="Take the rows that are there for ours: those without a record go.")
@click.option("--once", is_flag=True, help="Write what the records say now, and end.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after N misses were looked up.")
@click.option("--quiet", is_flag=True, help="Tell nothing but what goes wrong.")
@click.pass_context
def arpd_command(
    ctx: click.Context,
    consul: str,
    records: str,
    namespace: str,
    device: str,
    bridge: str,
    on_miss_only: bool,
    adopt: bool,
    once: bool,
    count: int | None,
    quiet: bool,
) -> None:
    """Resolve for an overlay that was made by hand: records in Consul become rows of its VXLAN device.

    Rows are written before anybody asks and follow their records; what is unknown is looked up when the kernel misses
    it, and whoever asked is told by an ARP reply. When Consul is away, or this ends, rows stay as they are.

    \b
    Examples:
      myoverlay arpd --consul http://consul:8500 --records demo-1
      myoverlay arpd --consul consul:8500 --records demo-1 --namespace overlay-ns --on-miss-only
    """
    from myoverlay.cli.resolver import Resolver, follow_once
    from myoverlay.cli.resolving import Arpd
    from myoverlay.cli.within import open_namespace, until_told
    from myoverlay.plan.rows import Rows
    from myoverlay.store.index import Index

    if once and on_miss_only:
        raise click.UsageError("--once writes what the records say; --on-miss-only never reads them by itself")
    need_root()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_telling(quiet))
        store = stack.enter_context(contextlib.closing(consul_store(consul)))
        try:
            index = Index(store, records)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--records") from None
        ns = stack.enter_context(open_namespace(namespace, Places.of(ctx)))
        tunnel = stack.enter_context(contextlib.closing(_open(ns, namespace, device, bridge)))
        resolver = Resolver(tunnel, tunnel.rows() if adopt else Rows())
        if once:
            follow_once(resolver, index)
            return
        stop = stack.enter_context(until_told())
        how = "on miss only" if on_miss_only else "ahead of misses"
        click.echo(f"resolving for {device} in {namespace} from {records} at {store.address}, {how}", err=True)
        Arpd(tunnel, resolver, index, stop, on_miss_only, count).run(store.close)


@contextlib.contextmanager
def _telling(quiet: bool) -> Iterator[None]:
    """Have what is done, or only what goes wrong, told on standard error."""
    import logging

    handler, logger = logging.StreamHandler(), logging.getLogger("myoverlay")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = logger.level
    logger.setLevel("WARNING" if quiet else "INFO")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _open(ns: Namespace, where: str, device: str, bridge: str) -> Tunnel:
    """The tunnel of that name. Raises Unknown or Refused in one sentence that names what there is."""
    from myoverlay.cli.tunnel import Tunnel
    from myoverlay.cli.within import tunnel
    from myoverlay.kernel import observe
    from myoverlay.kernel.rtnetlink import Wire
    from myoverlay.values import Address

    with contextlib.closing(Wire(ns)) as wire:
        links = observe.links(wire)
    found = tunnel(links, device, where)
    master = next((link for link in links.values() if link.index == found.master), None)
    if bridge and bridge not in links:
        raise Unknown(f"there is no device {bridge} in {where}")
    if master is None or (bridge and master.name != bridge):
        port = f"a port of {master.name}" if master is not None else "no port of a bridge"
        raise Refused(f"{device} in {where} is {port}: put it in with `ip link set {device} master {bridge or 'br0'}`")
    lacks = [flag for flag in ("proxy", "l2miss", "l3miss") if not found.data.get(f"IFLA_VXLAN_{flag.upper()}")]
    if lacks:
        effect = "it answers no ARP" if "proxy" in lacks else "only rows that are written ahead will serve"
        warn(f"{device} in {where} was made without {', '.join(lacks)}: {effect}")
    locals_ = (found.data.get("IFLA_VXLAN_LOCAL"), found.data.get("IFLA_VXLAN_LOCAL6"))
    return Tunnel(ns, found, master, [Address(text) for text in locals_ if text])
