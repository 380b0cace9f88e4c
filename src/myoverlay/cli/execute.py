"""`myoverlay exec NETWORK -- CMD`: a command in the overlay namespace. It becomes this process: signals, exit code."""

from __future__ import annotations

import os

import click

from myoverlay.cli.words import Places, Sentence, complete_network, need_root


class NotFound(Sentence):
    """There is no such command; the exit code is a shell's."""

    exit_code = 127


class NotRun(Sentence):
    """The command is there and cannot be run."""

    exit_code = 126


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run a command in a network's overlay namespace.",
)
@click.argument("network", metavar="NETWORK", shell_complete=complete_network)
@click.argument("command", metavar="[--] CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_command(ctx: click.Context, network: str, command: tuple[str, ...]) -> None:
    """Run CMD in the overlay namespace of NETWORK, which is a Docker network of the plugin, or an overlay's name.

    Only the network is another: files, mounts and rights are those of here. Exit code and signals are the command's
    own (126: it cannot be run, 127: there is none of that name).

    \b
    Examples:
      myoverlay exec web -- ip -d link show vxlan1
      myoverlay exec 10.5.0.0-24 -- bridge fdb show dev vxlan1
    """
    from myoverlay.cli.within_network import open_overlay
    from myoverlay.kernel import netns

    command = command[1:] if command[0] == "--" else command  # which says where our own words end
    if not command:
        raise click.UsageError("which command? It comes behind `--`")
    need_root()
    _overlay, ns = open_overlay(network, Places.of(ctx))
    with ns:
        netns.become(ns)
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        raise NotFound(f"there is no command {command[0]}") from None
    except OSError as error:
        raise NotRun(f"{command[0]} cannot be run: {error.strerror}") from None
