"""`myoverlay overlay`: overlays made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from myoverlay.cli.words import (
    DEFAULT_OVERLAY,
    MTU,
    PLACE,
    PORT,
    VNI,
    Places,
    complete_overlay,
    json_option,
    need_root,
    print_json,
    print_table,
    say,
    warn,
)

if TYPE_CHECKING:
    from myoverlay.cli.byhand import ByHand, Overlay


@contextmanager
def by_hand(ctx: click.Context) -> Iterator[ByHand]:
    """What works on overlays, on this thread's namespace as the host's."""
    need_root()
    from myoverlay.cli.byhand import ByHand
    from myoverlay.kernel.links import Links

    with Links() as links:
        yield ByHand(Places.of(ctx), links)


@click.group()
def overlay() -> None:
    """Overlays made by hand.

    Each is a named network namespace that holds a bridge and, as its port, a VXLAN device.

    \b
    Example, on each of two hosts:
      myoverlay overlay create
      myoverlay attach web 192.168.0.10
    """


name_argument = click.argument("name", default=DEFAULT_OVERLAY, shell_complete=complete_overlay)


@overlay.command()
@name_argument
@click.option("--address", type=PLACE, default="192.168.0.1/24", show_default=True, help="The bridge's address.")
@click.option("--bridge", metavar="IFNAME", default="br0", show_default=True, help="What the bridge is called.")
@click.option(
    "--device", metavar="IFNAME", default="vxlan1", show_default=True, help="What the VXLAN device is called."
)
@click.option("--vni", type=VNI, default=42, show_default=True, help="The number of the network inside VXLAN.")
@click.option("--port", type=PORT, default=4789, show_default=True, help="The UDP port of VXLAN.")
@click.option(
    "--local",
    metavar="VTEP",
    help="The underlay address (or interface) frames are sent from. [default: as each route says] Give it on a host"
    " with several addresses: with --learning, receivers drop frames from another address than their row says.",
)
@click.option("--mtu", type=MTU, help="[default: what the underlay carries less VXLAN's 50 bytes, 1450 if unknown]")
@click.option("--learning/--no-learning", default=True, show_default=True, help="Learn MACs from frames that arrive.")
@click.option("--proxy/--no-proxy", default=True, show_default=True, help="Answer ARP from the device's own table.")
@click.option("--l2miss/--no-l2miss", default=True, show_default=True, help="Ask when a MAC's VTEP is not known.")
@click.option("--l3miss/--no-l3miss", default=True, show_default=True, help="Ask when an address's MAC is not known.")
@click.option("--no-miss", is_flag=True, help="Ask nothing: --no-l2miss --no-l3miss.")
@click.option("--replace", is_flag=True, help="Remove what is there under that name first, with its cables.")
@click.pass_context
def create(ctx: click.Context, /, name: str, address: Any, no_miss: bool, replace: bool, **options: Any) -> None:
    """Make an overlay, all of it or nothing. One that is there as asked for stays as it is.

    NAME is that of the namespace [default: overlay-ns]; `ip netns exec NAME …` looks inside. Two on one machine need
    different names and VNIs.

    \b
    Examples:
      myoverlay overlay create
      myoverlay overlay create --no-miss --replace
      myoverlay overlay create blue --vni 43 --address 10.9.0.1/24 --local eth0
    """
    place, prefixlen = address
    if prefixlen is None:
        raise click.BadParameter(f"{place} needs a prefix length, as {place}/24", ctx, param_hint="--address")
    if no_miss:
        options |= {"l2miss": False, "l3miss": False}
    with by_hand(ctx) as hand:
        from myoverlay.cli.byhand import Spec

        spec = Spec(name=name, address=place, prefixlen=prefixlen, **options)
        outcome, unset = hand.create(spec, replace=replace)
    for sentence in unset:
        warn(sentence)
    what = {"there": "was there as asked for", "created": "is made", "replaced": "is made in place of another"}[outcome]
    say(f"overlay {name} {what}: VNI {spec.vni}, {spec.bridge} with {place}/{prefixlen}")


@overlay.command()
@name_argument
@click.pass_context
def delete(ctx: click.Context, name: str) -> None:
    """Remove an overlay with all its cables. One that is not there is no failure.

    NAME is that of the namespace [default: overlay-ns].

    \b
    Example:
      myoverlay overlay delete
    """
    with by_hand(ctx) as hand:
        gone = hand.delete(name)
    say(f"overlay {name} is removed" if gone else f"overlay {name} was not there")


@overlay.command("ls")
@json_option
@click.pass_context
def list_all(ctx: click.Context, as_json: bool) -> None:
    """All overlays of this host, also the plugin's.

    \b
    Example:
      myoverlay overlay ls --json
    """
    with by_hand(ctx) as hand:
        found = hand.all()
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    head = ("NAME", "OWNER", "VNI", "PORT", "ADDRESS", "MTU", "LOCAL", "FLAGS", "CABLES")
    print_table(head, [_row(one) for one in found])


@overlay.command()
@name_argument
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """One overlay: its links, its cables, its rows, and what is not in order.

    NAME is that of the namespace [default: overlay-ns].

    \b
    Example:
      myoverlay overlay show
    """
    with by_hand(ctx) as hand, hand.tables(name, write=False) as (tables, found):
        rows = tables.everything()
    if as_json:
        print_json(_as_json(found) | {"rows": [row._asdict() for row in rows]})
        return
    say(f"overlay {name}, made by {'hand' if found.owner == 'hand' else 'the plugin'}")
    for line in _lines(found):
        say(line)
    counts = {table: sum(row.table == table for row in rows) for table in ("arp", "fdb")}
    say(f"  {counts['arp']} ARP rows, {counts['fdb']} FDB rows (`myoverlay arp ls`, `myoverlay fdb ls`)")


def _lines(found: Overlay) -> Iterator[str]:
    """One for each link, then what is wrong."""
    vxlan, bridge = found.vxlan, found.bridge
    local = f"local {vxlan.local}" if vxlan.local else "local as routed"
    flags = " ".join(_flag_list(found)) or "no flags"
    yield f"  {bridge.name:<15} bridge, {_address(found) or 'no address'}, MAC {bridge.mac}, MTU {bridge.mtu}"
    yield f"  {vxlan.name:<15} VXLAN, VNI {vxlan.vni}, port {vxlan.port}, {local}, {flags}, MTU {vxlan.mtu}"
    for cable in found.cables:
        end = f"cable to {cable.link}" if cable.link else "tap"
        yield f"  {cable.port:<15} {end}, {cable.address or 'address unknown'}, MAC {cable.mac}"
    for other in found.others:
        yield f"  {other:<15} not ours"
    for fault in found.faults:
        yield f"  not in order: {fault}"


def _address(found: Overlay) -> str:
    return f"{found.bridge.address}/{found.bridge.prefixlen}" if found.bridge.address else ""


def _flag_list(found: Overlay) -> list[str]:
    from myoverlay.cli.byhand import flags

    return flags(found.vxlan)


def _row(found: Overlay) -> tuple[object, ...]:
    vxlan, flags = found.vxlan, ",".join(_flag_list(found))
    cables = len(found.cables)
    return (found.name, found.owner, vxlan.vni, vxlan.port, _address(found), vxlan.mtu, vxlan.local, flags, cables)


def _as_json(found: Overlay) -> dict[str, Any]:
    vxlan = found.vxlan
    return {
        "name": found.name,
        "owner": found.owner,
        "vni": vxlan.vni,
        "port": vxlan.port,
        "device": vxlan.name,
        "local": vxlan.local,
        "mtu": vxlan.mtu,
        "flags": _flag_list(found),
        "bridge": {"name": found.bridge.name, "mac": found.bridge.mac, "address": _address(found) or None},
        "cables": [
            {"port": one.port, "interface": one.link, "address": one.address, "mac": one.mac} for one in found.cables
        ],
        "others": found.others,
        "faults": found.faults,
    }
