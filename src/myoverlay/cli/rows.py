"""`myoverlay arp` and `fdb`: single rows of an overlay's VXLAN device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from myoverlay.cli.words import ADDRESS, MAC, json_option, overlay_option, print_json, print_table, say

if TYPE_CHECKING:
    from myoverlay.values import Fdb, Neigh


@click.group()
def arp() -> None:
    """Rows that say which MAC an address has.

    The VXLAN device of an overlay answers ARP with them (`proxy`), in place of hosts that ARP does not reach.

    \b
    Example:
      myoverlay arp add 192.168.0.3
      myoverlay fdb add 02:42:c0:a8:00:03 192.0.2.2
    """


@click.group()
def fdb() -> None:
    """Rows that say behind which VTEP a MAC is.

    The VXLAN device of an overlay sends frames by them.

    \b
    Example:
      myoverlay arp add 192.168.0.3
      myoverlay fdb add 02:42:c0:a8:00:03 192.0.2.2
    """


@arp.command("add")
@click.argument("address", type=ADDRESS)
@click.argument("mac", type=MAC, required=False)
@overlay_option
@click.pass_context
def arp_add(ctx: click.Context, address: Any, mac: Any, overlay: str) -> None:
    """Write the row of ADDRESS, whatever it was. MAC is 02:42 and the address's last four bytes, if left out.

    \b
    Example, and what it does:
      myoverlay arp add 192.168.0.3 02:42:c0:a8:00:03
      ip -n overlay-ns neigh replace 192.168.0.3 lladdr 02:42:c0:a8:00:03 dev vxlan1 nud permanent
    """
    from myoverlay.values import Mac, Neigh

    row = Neigh(address=address, mac=mac or Mac.of(address))
    _write(ctx, overlay, row)
    say(f"overlay {overlay}: {row}")


@fdb.command("add")
@click.argument("mac", type=MAC)
@click.argument("vtep", type=ADDRESS)
@overlay_option
@click.pass_context
def fdb_add(ctx: click.Context, mac: Any, vtep: Any, overlay: str) -> None:
    """Write the row of MAC, whatever it was: frames for it go to VTEP.

    \b
    Example, and what it does:
      myoverlay fdb add 02:42:c0:a8:00:03 192.0.2.2
      bridge -n overlay-ns fdb replace 02:42:c0:a8:00:03 dev vxlan1 dst 192.0.2.2 self permanent
    """
    from myoverlay.values import Fdb

    row = Fdb(mac=mac, vtep=vtep)
    _write(ctx, overlay, row)
    say(f"overlay {overlay}: {row}")


@arp.command("del")
@click.argument("address", type=ADDRESS)
@overlay_option
@click.pass_context
def arp_del(ctx: click.Context, address: Any, overlay: str) -> None:
    """Remove the row of ADDRESS, in whatever state it is. One that is not there is no failure.

    \b
    Example:
      myoverlay arp del 192.168.0.3
    """
    _remove(ctx, overlay, "arp", address)


@fdb.command("del")
@click.argument("mac", type=MAC)
@overlay_option
@click.pass_context
def fdb_del(ctx: click.Context, mac: Any, overlay: str) -> None:
    """Remove the row of MAC, written or learned. One that is not there is no failure.

    \b
    Example:
      myoverlay fdb del 02:42:c0:a8:00:03
    """
    _remove(ctx, overlay, "fdb", mac)


@arp.command("ls")
@overlay_option
@json_option
@click.pass_context
def arp_ls(ctx: click.Context, overlay: str, as_json: bool) -> None:
    """The rows there are, the plugin's overlays included.

    \b
    Example:
      myoverlay arp ls --overlay 10.5.0.0-24
    """
    _print(ctx, overlay, "arp", ("ADDRESS", "MAC", "STATE"), as_json)


@fdb.command("ls")
@overlay_option
@json_option
@click.pass_context
def fdb_ls(ctx: click.Context, overlay: str, as_json: bool) -> None:
    """The rows there are, learned ones too, the plugin's overlays included.

    \b
    Example:
      myoverlay fdb ls --json
    """
    _print(ctx, overlay, "fdb", ("MAC", "VTEP", "STATE"), as_json)


def _write(ctx: click.Context, overlay: str, row: Neigh | Fdb) -> None:
    from myoverlay.cli.overlay import by_hand

    with by_hand(ctx) as hand, hand.tables(overlay, write=True) as (tables, _):
        _raise_first(tables.set([row]))


def _remove(ctx: click.Context, overlay: str, table: str, key: str) -> None:
    from myoverlay.cli.overlay import by_hand
    from myoverlay.values import Address, Fdb, Mac, Neigh

    with by_hand(ctx) as hand, hand.tables(overlay, write=True) as (tables, _):
        there = [row for row in tables.everything() if (row.table, row.key) == (table, key)]
        rows: list[Neigh | Fdb] = []
        for row in there:
            if table == "arp":
                # The kernel removes a neighbour by its address alone; one that is incomplete has no MAC.
                rows.append(Neigh(address=Address(key), mac=Mac(row.to) if row.to else Mac.of(Address(key))))
            elif row.to:
                rows.append(Fdb(mac=Mac(key), vtep=Address(row.to)))
        _raise_first(tables.drop(rows))
    say(f"overlay {overlay}: {key} is removed" if rows else f"overlay {overlay}: {key} was not there")


def _raise_first(failures: Sequence[tuple[Any, Exception]]) -> None:
    for _, error in failures:
        raise error


def _print(ctx: click.Context, overlay: str, table: str, head: tuple[str, ...], as_json: bool) -> None:
    from myoverlay.cli.overlay import by_hand

    with by_hand(ctx) as hand, hand.tables(overlay, write=False) as (tables, _):
        rows = sorted((row for row in tables.everything() if row.table == table), key=lambda row: (row.key, row.to))
    if as_json:
        names = [name.lower() for name in head]
        print_json([dict(zip(names, (row.key, row.to or None, row.state), strict=True)) for row in rows])
        return
    print_table(head, [(row.key, row.to, row.state) for row in rows])
