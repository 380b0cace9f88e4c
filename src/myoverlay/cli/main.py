"""`myoverlay`: the words. Each command lies in a module of its own, which is loaded when the command is meant."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from myoverlay import __version__
from myoverlay.cli.words import Sentence
from myoverlay.errors import MyoverlayError

#: Where the commands are that have a module of their own.
LATE = {
    "overlay": "myoverlay.cli.overlay:overlay",
    "attach": "myoverlay.cli.attach:attach",
    "detach": "myoverlay.cli.attach:detach",
    "arp": "myoverlay.cli.rows:arp",
    "fdb": "myoverlay.cli.rows:fdb",
    "record": "myoverlay.cli.record:record",
    "watch": "myoverlay.cli.watch:watch_command",
    "arpd": "myoverlay.cli.arpd:arpd_command",
    "status": "myoverlay.cli.status:status_command",
    "host": "myoverlay.cli.host:host",
    "network": "myoverlay.cli.network:network",
    "names": "myoverlay.cli.names:names_command",
    "report": "myoverlay.cli.report:report_command",
    "gc": "myoverlay.cli.gc:gc_command",
    "counters": "myoverlay.cli.gc:counters_command",
    "trace": "myoverlay.cli.trace:trace_command",
    "capture": "myoverlay.cli.capture:capture_command",
    "exec": "myoverlay.cli.execute:exec_command",
    "doctor": "myoverlay.cli.doctor:doctor_command",
}
_SHELLS = ("bash", "zsh", "fish")


class Root(click.Group):
    """The program: finds commands late, and turns a refusal into one sentence and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LATE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LATE:
            return super().get_command(ctx, cmd_name)
        module, _, name = LATE[cmd_name].partition(":")
        found = getattr(import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MyoverlayError as error:
            raise Sentence(str(error)) from error


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="myoverlay")
def cli() -> None:
    """One network for the containers of many plain Docker hosts.

    \b
    Exit codes: 0 done (also when it was so already), 1 refused or failed, in one sentence, 2 bad usage; `status` ends
    with 3 where something needs a person.
    Example:
      myoverlay overlay create && myoverlay attach web 192.168.0.10
    """


@cli.command()
def serve() -> None:
    """Run the plugin.

    It answers Docker on the sockets of MYOVERLAY_SOCKETS.

    \b
    Example:
      CONSUL_HTTP_ADDR=192.0.2.100:8500 myoverlay serve
    """
    from myoverlay.cli import serve as server

    server.run(os.environ)


@cli.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what teaches a shell to complete our words.

    \b
    Examples:
      eval "$(myoverlay completion bash)"
      myoverlay completion fish > ~/.config/fish/completions/myoverlay.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "myoverlay", "_MYOVERLAY_COMPLETE").source())


def main() -> None:
    """The program: exit code 0, 1 for a refusal in one sentence, 2 for words that are no command."""
    sys.exit(cli(prog_name="myoverlay"))
