"""What the commands share: forms of arguments, tables, one sentence for each refusal. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from myoverlay.errors import Refused

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from myoverlay.store.consul import ConsulStore


@dataclass(frozen=True)
class Places:
    """Where namespaces are pinned: those people name (as `ip netns` does), and the plugin's own, which are no-one's."""

    named: Path = Path("/run/netns")
    plugin: Path = Path("/run/docker/plugins/myoverlay/netns")

    @classmethod
    def of(cls, ctx: click.Context) -> Places:
        """Those of this program's run; tests have others."""
        found = ctx.find_object(cls)
        if found is not None:
            return found
        run = os.environ.get("MYOVERLAY_RUN", "").strip()
        return cls(plugin=Path(run) / "netns") if run else cls()


class Sentence(click.ClickException):
    """A refusal: exit code 1, one sentence on standard error."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"myoverlay: {self.message}", err=file is None, file=file)


class Form(click.ParamType[Any]):
    """An argument that is one of the forms of `values`: what is malformed is bad usage, exit code 2."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from myoverlay import values

        try:
            return getattr(values, self._kind)(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Place(click.ParamType[Any]):
    """ADDRESS or ADDRESS/LEN, as a pair whose second is None where no length was given."""

    name = "address[/len]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from myoverlay.values import Address

        if isinstance(value, tuple):
            return value
        text, slash, length = str(value).partition("/")
        try:
            address = Address(text)
            if not slash:
                return address, None
            if not length.isascii() or not length.isdecimal() or int(length) > 8 * len(address.packed):
                raise ValueError(f"/{length} is no prefix length of {address}")
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return address, int(length)


class Checked(click.ParamType[Any]):
    """A number that one of the checks of `values` lets pass."""

    def __init__(self, name: str, check: str) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from myoverlay import values

        try:
            return getattr(values, self._check)(int(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS, MAC, PLACE = Form("address", "Address"), Form("mac", "Mac"), Place()
VNI, PORT, MTU = Checked("vni", "check_vni"), Checked("port", "check_port"), Checked("mtu", "check_mtu")
DEFAULT_OVERLAY = "overlay-ns"


def complete_overlay(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The namespaces that people named."""
    from click.shell_completion import CompletionItem

    try:
        names = sorted(os.listdir(Places.of(ctx).named))
    except OSError:
        names = []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_network(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The overlays of this host whose namespace is pinned; names of the plugin's own uses begin otherwise."""
    from click.shell_completion import CompletionItem

    try:
        names = sorted(os.listdir(Places.of(ctx).plugin))
    except OSError:
        names = []
    return [CompletionItem(name) for name in names if name[0].isalnum() and name.startswith(incomplete)]


def overlay_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--overlay",
        metavar="NAME",
        default=DEFAULT_OVERLAY,
        show_default=True,
        shell_complete=complete_overlay,
        help="The overlay's namespace, as `ip netns` names it.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(command)


def consul_option(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "Consul, as host:port or a URL. [default: CONSUL_HTTP_ADDR; its siblings for token and TLS hold too]"
    return click.option("--consul", metavar="URL", default="", help=text)(command)


def records_option(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "Where the records lie in Consul: the keys are PLACE/arp/<ip> and PLACE/fib/<mac>."
    option = click.option("--records", metavar="PLACE", default="demo-1", show_default=True, help=text)
    return option(command)


def need_root() -> None:
    """Raises Refused: the kernel would say "Operation not permitted" about something nobody asked for."""
    if os.geteuid() != 0:
        raise Refused("only root may work on links and network namespaces: put sudo before the command")


def consul_store(url: str) -> ConsulStore:
    """The Consul that was meant. Raises Refused where none was."""
    from myoverlay.settings import load
    from myoverlay.store.consul import ConsulStore

    settings = load(os.environ)
    if not (url or settings.consul):
        raise Refused("which Consul? Give --consul http://HOST:8500 or set CONSUL_HTTP_ADDR")
    files = (settings.token_file, settings.cacert, settings.client_cert, settings.client_key)
    token_file, ca, cert, key = (Path(text) if text else None for text in files)
    token, name = settings.token or None, settings.server_name or None
    return ConsulStore(
        url or settings.consul, token=token, token_file=token_file, ca=ca, cert=cert, key=key, server_name=name
    )


def say(text: str) -> None:
    click.echo(text)


def warn(text: str) -> None:
    click.echo(f"myoverlay: {text}", err=True)


def print_json(value: Any) -> None:
    """Values and tuples become what JSON has."""
    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; nothing for what is None.

    On a terminal what is too wide is folded within its column, and states have colours; elsewhere a row is a line,
    however long, so that `grep` and `awk` read it.
    """
    cells = [[str(cell) for cell in head]]
    cells += [["-" if cell is None or cell == "" else printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_folded(cells)
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


#: What a cell begins with that is coloured on a terminal.
_COLOURS = {
    "alive": "green",
    "up": "green",
    "pending": "yellow",
    "cut off": "yellow",
    "dead": "red",
    "NOT BUILT": "red",
}


def _print_folded(cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # 90 ms, which neither --help nor a pipe needs
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in cells[0]:
        table.add_column(Text(name), overflow="fold")
    for row in cells[1:]:
        table.add_row(*(Text(cell, _colour(cell)) for cell in row))
    Console(highlight=False).print(table)


def _colour(cell: str) -> str:
    return next((colour for word, colour in _COLOURS.items() if cell == word or cell.startswith(f"{word} ")), "")


def printable(text: str) -> str:
    """The text without what would steer a terminal: names and sentences may come from a store that anybody writes."""
    return "".join(char if char.isprintable() else "?" for char in text)
