"""`myoverlay record`: an outsider's records in Consul."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from myoverlay.cli.words import (
    ADDRESS,
    MAC,
    consul_option,
    consul_store,
    json_option,
    print_json,
    print_table,
    records_option,
    say,
)

if TYPE_CHECKING:
    from myoverlay.store.outsiders import Outsider


@click.group()
def record() -> None:
    """Records of addresses in Consul, for all hosts.

    PLACE/arp/<ip> holds an address's MAC, PLACE/fib/<mac> its VTEP, both as plain text.

    \b
    Example:
      export CONSUL_HTTP_ADDR=http://192.0.2.100:8500
      myoverlay record add 192.168.0.3
    """


@contextmanager
def _outsider(url: str, place: str) -> Iterator[Outsider]:
    from myoverlay.errors import Refused
    from myoverlay.store.outsiders import Outsider

    with closing(consul_store(url)) as store:
        try:
            outsider = Outsider(store, place)
        except ValueError as error:
            raise Refused(str(error)) from None
        yield outsider


@record.command()
@click.argument("address", type=ADDRESS)
@click.argument("mac", type=MAC, required=False)
@click.option(
    "--vtep", metavar="VTEP", default="", help="Address or interface. [default: this host's, by its default route]"
)
@records_option
@consul_option
@click.option("--replace", is_flag=True, help="Write over what somebody else wrote (never over the plugin's).")
def add(address: Any, mac: Any, vtep: str, records: str, consul: str, replace: bool) -> None:
    """Write both records of ADDRESS in one transaction. MAC is 02:42 and the address's last four bytes, if left out.

    \b
    Example:
      myoverlay record add 192.168.0.3 --vtep 192.0.2.2 --records demo-1
      curl -X PUT -d 02:42:c0:a8:00:03 $CONSUL_HTTP_ADDR/v1/kv/demo-1/arp/192.168.0.3
      curl -X PUT -d 192.0.2.2 $CONSUL_HTTP_ADDR/v1/kv/demo-1/fib/02:42:c0:a8:00:03
    """
    from myoverlay.values import Mac

    mac = mac or Mac.of(address)
    there = _vtep(vtep)
    with _outsider(consul, records) as outsider:
        fresh = outsider.add(address, mac, there, replace=replace)
    say(f"{records}: {address} is at {mac} behind {there}" + ("" if fresh else ", as before"))


@record.command("del")
@click.argument("address", type=ADDRESS)
@records_option
@consul_option
def delete(address: Any, records: str, consul: str) -> None:
    """Remove both records of ADDRESS in one transaction. Those that are not there are no failure.

    \b
    Example:
      myoverlay record del 192.168.0.3
    """
    with _outsider(consul, records) as outsider:
        gone = outsider.remove(address)
    say(f"{records}: {address} is removed" if gone else f"{records}: {address} was not there")


@record.command("ls")
@records_option
@consul_option
@json_option
def list_all(records: str, consul: str, as_json: bool) -> None:
    """All records of a place, by whoever wrote them.

    \b
    Example:
      myoverlay record ls --records demo-1 --json
    """
    with _outsider(consul, records) as outsider:
        lines = outsider.lines()
    if as_json:
        print_json(lines)
        return
    rows = [(one.address, one.mac, one.vtep, "plugin" if one.plugin else "hand") for one in lines]
    print_table(("ADDRESS", "MAC", "VTEP", "BY"), rows)


def _vtep(text: str) -> Any:
    """An address is taken as it is, for records may speak for another host; else this host's is found out."""
    import time

    from myoverlay.kernel.links import Links
    from myoverlay.values import Address

    try:
        return Address(text)
    except ValueError:
        with Links() as links:
            return links.address_of(text, deadline=time.monotonic() + 3.0)[0]
