"""`myoverlay`: the words."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from myoverlay import __version__
from myoverlay.errors import MyoverlayError


@click.group()
@click.version_option(__version__, prog_name="myoverlay")
def cli() -> None:
    """One network for the containers of many plain Docker hosts."""


@cli.command()
def serve() -> None:
    """Run the plugin: answer Docker on the sockets of MYOVERLAY_SOCKETS."""
    from myoverlay.cli import serve as server

    server.run(os.environ)


@cli.group()
def host() -> None:
    """This host."""


@host.command("new-id")
def new_id() -> None:
    """Give this machine another host id: it was cloned from one that runs. The plugin must not be running."""
    from myoverlay.host.journal import Journal
    from myoverlay.settings import load

    journal = Journal(Path(load(os.environ).state))
    try:
        click.echo(journal.new_host_id())
    finally:
        journal.close()


def main() -> None:
    """The program: exit code 0, 1 for a refusal in one sentence, 2 for words that are no command."""
    try:
        cli()
    except MyoverlayError as error:
        click.echo(f"myoverlay: {error}", err=True)
        sys.exit(1)
