"""`myoverlay attach` and `detach`."""

from __future__ import annotations

from typing import Any

import click

from myoverlay.cli.words import MAC, PLACE, Places, overlay_option, say


@click.command()
@click.argument("target")
@click.argument("address", type=PLACE, metavar="ADDRESS[/LEN]")
@overlay_option
@click.option("--mac", type=MAC, help="[default: 02:42 and the address's last four bytes]")
@click.option(
    "--name", "link", metavar="IFNAME", help="The interface in the target. [default: eth0; for `host` overlay0]"
)
@click.pass_context
def attach(ctx: click.Context, target: str, address: Any, overlay: str, mac: Any, link: str | None) -> None:
    """Bring TARGET into an overlay made by hand, with ADDRESS. Again changes nothing; a failure leaves nothing.

    TARGET is `host`, a path of a namespace, a pid, a namespace as `ip netns` names it, else a running container's name
    or id. `pid:`, `netns:` and `container:` before it say which. `tap:NAME` makes a tap device for a VM, which finds it
    in the overlay's namespace and sets the address and MAC itself. The prefix length is the bridge's.

    \b
    Examples:
      docker run -d --name web --net=none nginx
      myoverlay attach web 192.168.0.10
      myoverlay attach host 192.168.0.2/24
      myoverlay attach tap:vm1 192.168.0.30
      ip netns exec overlay-ns qemu-system-x86_64 \\
        -netdev tap,id=n,ifname=vm1,script=no,downscript=no \\
        -device virtio-net,netdev=n,mac=02:42:c0:a8:00:1e …
    """
    from myoverlay.cli.overlay import by_hand

    with by_hand(ctx) as hand:
        from myoverlay.cli import byhand_cables as cables
        from myoverlay.cli.containers import pid_of

        place, prefixlen = address
        wish = cables.Wish(address=place, prefixlen=prefixlen, mac=mac, link=link)
        tap = cables.tap_name(target)
        if tap is not None:
            if link is not None:
                raise click.UsageError("--name is for cables: a tap is called as in tap:NAME", ctx)
            cable, length, fresh = cables.Cables(hand).attach_tap(overlay, tap, wish)
            hint = f"the VM takes {place}/{length}, MAC {cable.mac}, MTU {cable.mtu}"
            say(f"tap {tap} {'is' if fresh else 'was already'} a port of overlay {overlay}: {hint}")
            return
        with cables.target(target, Places.of(ctx), pid_of) as found:
            cable, length, fresh = cables.Cables(hand).attach(overlay, found, wish)
            words = "is attached" if fresh else "was attached already"
            say(f"{found.said} {words} to overlay {overlay}: {cable.link} with {place}/{length}, MAC {cable.mac}")


@click.command()
@click.argument("target")
@overlay_option
@click.option("--name", "link", metavar="IFNAME", help="That interface alone. [default: all into the overlay]")
@click.pass_context
def detach(ctx: click.Context, target: str, overlay: str, link: str | None) -> None:
    """Take TARGET out of an overlay made by hand. One that is not in it is no failure.

    \b
    Examples:
      myoverlay detach web
      myoverlay detach tap:vm1
    """
    from myoverlay.cli.overlay import by_hand

    with by_hand(ctx) as hand:
        from myoverlay.cli import byhand_cables as cables
        from myoverlay.cli.containers import Stopped, pid_of

        tap = cables.tap_name(target)
        if tap is not None:
            gone, said = cables.Cables(hand).detach_tap(overlay, tap), f"tap {tap}"
        else:
            try:
                with cables.target(target, Places.of(ctx), pid_of) as found:
                    gone, said = cables.Cables(hand).detach(overlay, found, link), found.said
            except Stopped:
                gone, said = [], f"{target} does not run, and"
    say(f"{said} is detached from overlay {overlay}" if gone else f"{said} was not attached to overlay {overlay}")
